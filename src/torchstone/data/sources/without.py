"""Without: another source less the samples of a list, as `torchstone doctor RECIPE --out DIR` writes one: copies, wrong labels, blanks.

The list is JSON that may be edited by hand. A row counts from 0 in its split, as the source has it:

    {"version": 1, "kind": "leave_out", "fingerprint": "…", "train": [{"row": 17, "why": "label_noise"}], "validation": []}

Shapes: N samples.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64

from torchstone.core import files, protocols
from torchstone.core.errors import UserError
from torchstone.core.json_text import from_json, to_json
from torchstone.core.protocols import Splits
from torchstone.core.tree import FilePath, kind_of
from torchstone.data.facts import of_part
from torchstone.data.pictures import FetchedPictures, StoredPictures
from torchstone.data.sources.arrays import Arrays
from torchstone.data.sources.digits import Digits
from torchstone.data.sources.idx import IDX
from torchstone.data.sources.image_folder import ImageFolder
from torchstone.data.sources.label_noise import LabelNoise
from torchstone.data.sources.subset import Subset
from torchstone.data.splits import TensorSplit

VERSION, KIND, FILE = 1, "leave_out", "leave_out.json"
SPLITS = ("train", "validation")
"""The test split is never cut: what is measured on it must not depend on who has looked at it."""

Why = Mapping[int, str]
"""Row -> why it is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Without:
    """`source` without the training and validation samples that a list names; the test split stays whole.

    Mean, deviation and class counts are of what is left. The list holds the fingerprint of the data that it was made for: UserError for
    other data, for rows that are not there, and where nothing would be left of a class.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "it stands around its source; with an empty list it is that source, bit for bit"

    source: Digits | Arrays | ImageFolder | IDX | LabelNoise | Subset | protocols.Source = Digits()
    """Where the samples come from."""
    leave_out: FilePath = ""
    """The list: a JSON file, as `torchstone doctor RECIPE --out DIR` leaves it in DIR."""

    @property
    def fit(self) -> str:
        """As the source's: how pictures of another size are brought to the model's."""
        return getattr(self.source, "fit", "stretch")

    def open(self) -> Splits:
        if not self.leave_out:
            raise UserError("data.leave_out must be given: the list that `torchstone doctor RECIPE --out DIR` leaves in DIR")
        fingerprint, listed = read_list(Path(self.leave_out))
        splits = self.source.open()
        if fingerprint != splits.facts.fingerprint:
            raise UserError(
                f"{self.leave_out}: made for other data (fingerprint {fingerprint[:12]}…) than data.source={kind_of(self.source)} has now "
                f"({splits.facts.fingerprint[:12]}…); let the doctor make a new list"
            )
        kept = {name: rows_kept(self.leave_out, name, len(getattr(splits, name)), listed[name]) for name in SPLITS}
        if not any(listed.values()):
            return splits
        train, validation = (taken(splits, name, kept[name]) for name in SPLITS)
        groups = None if splits.groups is None else splits.groups[np.concatenate((kept["train"], kept["validation"] + len(splits.train)))]
        out = " and ".join(f"{len(listed[name])} {name}" for name in SPLITS if listed[name])
        digest = hashlib.sha256(splits.facts.fingerprint.encode())
        for name in SPLITS:
            digest.update(f"\nwithout {name}\n".encode() + np.array(sorted(listed[name]), dtype="<i8").tobytes())
        sizes = {"train": len(train), "validation": len(validation)}
        facts = of_part(splits.facts, train, sizes, f"without {out} samples of a list", digest.hexdigest())
        for name, before, after in zip(facts.classes, splits.facts.class_counts, facts.class_counts, strict=False):
            if before and not after:
                raise UserError(f"{self.leave_out}: leaves out all {before} training samples of {name}")
        return replace(splits, train=train, validation=validation, facts=facts, groups=groups)


def taken(splits: Splits, name: str, rows: Int64[np.ndarray, " N"]) -> Any:
    """A split's samples at `rows`."""
    split: Any = getattr(splits, name)
    if not isinstance(split, TensorSplit | StoredPictures | FetchedPictures):
        raise UserError(f"data=without: only splits that are TensorSplit or pictures can leave samples out, got {type(split).__name__}")
    return split if len(rows) == len(split) else split.taken(rows)


def rows_kept(path: str, name: str, count: int, listed: Why) -> Int64[np.ndarray, " N"]:
    """Rows of a split of `count` samples that no list names. Raises UserError for rows beyond it, and where none is left."""
    beyond = [row for row in listed if row >= count]
    if beyond:
        raise UserError(f"{path}: {name} row {beyond[0]} is listed, and the split has {count} samples")
    if len(listed) == count:
        raise UserError(f"{path}: all {count} {name} samples are listed; nothing would be left")
    return np.setdiff1d(np.arange(count, dtype=np.int64), np.array(sorted(listed), dtype=np.int64))


# --- the list --------------------------------------------------------------------------------------------------------


def list_text(fingerprint: str, listed: Mapping[str, Why]) -> str:
    """The list as its file holds it: a line a row."""
    lines = [f'"version": {VERSION}', f'"kind": {to_json(KIND)}', f'"fingerprint": {to_json(fingerprint)}']
    for name in SPLITS:
        rows = ",".join(f"\n    {to_json({'row': row, 'why': why})}" for row, why in sorted(listed.get(name, {}).items()))
        lines.append(f'"{name}": [{rows}\n  ]' if rows else f'"{name}": []')
    return "{\n  " + ",\n  ".join(lines) + "\n}\n"


def read_list(path: Path) -> tuple[str, dict[str, Why]]:
    """(fingerprint of the data it was made for, rows by split). Raises UserError naming the file and what is wrong in it."""
    try:
        document = from_json(files.read_text(path), str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise UserError(f"{path}: no list of samples to leave out (torchstone doctor RECIPE --out DIR makes one)")
    if document.get("version") != VERSION:
        raise UserError(f"{path}: a list of version {document.get('version')}, this torchstone reads {VERSION}")
    listed: dict[str, Why] = {}
    for name in SPLITS:
        found: dict[int, str] = {}
        entries = document.get(name, [])
        for place, entry in enumerate(entries if isinstance(entries, list) else [None]):
            row = entry.get("row") if isinstance(entry, dict) else None
            if not isinstance(entry, dict) or not isinstance(row, int) or isinstance(row, bool) or row < 0:
                raise UserError(f'{path}: entry {place + 1} of {name} is not {{"row": 0, "why": "…"}} with a row from 0 on')
            found[row] = str(entry.get("why", ""))
        listed[name] = found
    return str(document.get("fingerprint", "")), listed
