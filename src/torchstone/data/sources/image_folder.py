"""ImageFolder: your own pictures, a folder a class.

`train/<class>/*` with or without `val` (valid, validation, dev) and `test` (testing) beside it, where what is missing is held out of
the training pictures; or `<class>/*` alone. Files in folders below a class count. Everything is decoded once, to one size.
Shapes: M pictures that can be decoded, C channels, S x S pixels.
"""

import os
import re
import statistics
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from torchstone.core.errors import UserError, plural, warn
from torchstone.core.protocols import Facts, ImageShape, Splits
from torchstone.core.tree import FilePath
from torchstone.data.cache import pictures_of
from torchstone.data.decode import Header, read_fitted, read_header
from torchstone.data.pictures import Changed, Collection, Form, Pictures, described, shared_between, split_of
from torchstone.data.sources.folders import Found, Listing, listed
from torchstone.data.sources.holding_out import SPLITS, check_shares, completed, shown

SIDES = (40, 48, 56, 64, 96, 128, 160, 224)
"""What `cache_side = none` chooses from, where the pictures are larger than the first."""
SIDE_BY_COUNT = ((5_000, 96), (50_000, 128), (200_000, 160))
"""(pictures, side): with fewer pictures than that, no larger side: small sets are learned better, and soon, from small pictures."""
LOOKED_AT = 2_000
"""Headers, spread evenly, from which the side (and at first the channels) are chosen."""
NAMED = 10
"""Files that a message lists by name."""
MOST_SKIPPED = 0.01
"""Share of pictures that `on_bad = "skip"` may lose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFolder:
    """A folder of class folders with pictures: inputs [N, C, S, S] as bytes, classes in the order of their folders' names.

    PNG, JPEG, WebP, BMP, GIF (first frame), TIFF and PPM; upright as EXIF says, transparency over white. Raises UserError for what
    cannot be learned from: no or one class, a class that only validation or test has, files that are no pictures (all of them named).
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "there is no training without data"

    path: FilePath = ""
    """The folder."""
    cache_side: int | None = None
    """S, pixels of the decoded square; none: from the median shorter side and the number of pictures, said before training."""
    fit: Literal["crop", "stretch", "pad"] = "crop"
    """How a picture becomes a square: its middle, squeezed, or whole with gray borders."""
    channels: Literal["auto", "gray", "color"] = "auto"
    """auto: gray if every file stores gray levels, else color."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """What to do about files that are no whole pictures: refuse lists them all; skip leaves out up to 1 %, and counts them."""
    groups: str = ""
    """Which pictures belong together (a patient, a scene) and are never on both sides of a split: a regular expression that is found in
    every path below the folder, and whose first (...) is the group's name, as in "patient-([0-9]+)"; empty: each stands for itself."""
    validation: float = 0.15
    """Share of the training pictures held out for validation where no folder holds any."""
    test: float = 0.15
    """The same for the test."""
    cache: bool = True
    """Keep the decoded pictures on the disk; false: decode them whenever they are fetched (slow, but no space is needed)."""
    cache_dir: FilePath = ""
    """Where; empty: $TORCHSTONE_CACHE, else torchstone in $XDG_CACHE_HOME or ~/.cache."""

    def __post_init__(self) -> None:
        check_shares(self)
        if self.cache_side is not None and not 1 <= self.cache_side <= 4096:
            raise ValueError(f"ImageFolder.cache_side must be from 1 to 4096, or none, got {self.cache_side}")
        try:
            fits = not self.groups or re.compile(self.groups).groups >= 1
        except re.error:
            fits = False
        if not fits:
            raise ValueError(f"ImageFolder.groups must be a regular expression with one (...), got {self.groups!r}")

    def open(self) -> Splits:
        if not self.path:
            raise UserError("data.path must be given: a folder of class folders with pictures, as in data.path=pictures")
        root = Path(os.path.abspath(self.path))
        listing = listed(root)
        classes = _class_names(root, listing)
        files = [
            (split, label, file)
            for split in listing.splits
            for label, name in enumerate(classes)
            for file in listing.splits[split].get(name, ())
        ]
        labels = np.array([label for _, label, _ in files], dtype=np.int64)
        homes = np.array([split for split, _, _ in files])
        groups = self._group_numbers(root, [file.name for _, _, file in files])
        self._cut(root, listing, classes, labels, homes, groups)  # what cannot be split is refused before hours of decoding
        reader = _Reader(root, tuple(file for _, _, file in files))
        form, chosen = self._form(reader)
        pictures = pictures_of(reader.collection(), form, cache=self.cache, cache_dir=self.cache_dir)
        skipped = self._require_good(root, reader.files, pictures)

        labels, homes = (each[pictures.records["position"]] for each in (labels, homes))
        groups = None if groups is None else groups[pictures.records["position"]]
        rows, rule = self._cut(root, listing, classes, labels, homes, groups)
        notes = (("skipped pictures", skipped), ("pictures in two splits", self._warn_of_shared(reader.files, pictures, rows)))
        _warn_of_left_aside(root, listing)
        facts = described(pictures, rows, labels, classes, f"{rule}; {chosen}", tuple((name, count) for name, count in notes if count))
        splits = {name: split_of(reader.collection(), pictures, own, labels[own]) for name, own in rows.items()}
        known = None if groups is None else np.concatenate((groups[rows["train"]], groups[rows["validation"]]))
        return Splits(train=splits["train"], validation=splits["validation"], test=splits["test"], facts=facts, groups=known)

    def _group_numbers(self, root: Path, names: list[str]) -> np.ndarray | None:
        """Group of each file (int64 [M]) by its path. Raises UserError naming those that tell none."""
        if not self.groups:
            return None
        found = [re.search(self.groups, name) for name in names]
        if lost := [shown(name) for name, match in zip(names, found, strict=True) if match is None or not match[1]]:
            more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
            raise UserError(f"{root}: data.groups={self.groups} finds no group in {', '.join(lost[:NAMED])}{more}")
        return np.unique([match[1] for match in found if match is not None], return_inverse=True)[1].astype(np.int64)

    def _cut(
        self,
        root: Path,
        listing: Listing,
        classes: tuple[str, ...],
        labels: np.ndarray,
        homes: np.ndarray,
        groups: np.ndarray | None,
    ) -> tuple[dict[str, np.ndarray], str]:
        """Rows of the three splits, and the rule in words; `labels` (int [M]) and `homes` (the split it lies in, [M]) and
        `groups` ([M]) of each picture."""
        _require_training(root, classes, labels[homes == "train"])
        given = {split: np.flatnonzero(homes == split) for split in SPLITS if split in listing.splits}
        return completed(str(root), given, labels, classes, {"validation": self.validation, "test": self.test}, listing.folders, groups)

    def resolve(self, facts: Facts) -> Self:
        """The side and the channels that were chosen, written in: a resumed run decodes to the same."""
        if not isinstance(facts.inputs, ImageShape):
            return self
        return replace(self, cache_side=facts.inputs.height, channels="gray" if facts.inputs.channels == 1 else "color")

    def _form(self, reader: "_Reader") -> tuple[Form, str]:
        """The form of all pictures, and in words what it is and where it comes from."""
        side, channels = self.cache_side, {"gray": 1, "color": 3}.get(self.channels)
        why = ""
        if side is None or channels is None:
            headers = reader.headers(LOOKED_AT)
            if channels is None:
                channels = 1 if all(header.gray for header in headers) and all(header.gray for header in reader.headers(None)) else 3
            if side is None:
                # Where no header can be read, decoding will name the files; any side does until then.
                median = statistics.median_low([min(header.width, header.height) for header in headers] or [1])
                side = chosen_side(median, len(reader.files))
                files = plural(len(reader.files), "picture")
                why = f" (chosen: the median shorter side is {median}, of {files}, data.cache_side sets another)"
        verb = {"crop": "cropped", "stretch": "stretched", "pad": "padded"}[self.fit]
        return Form(channels, side, self.fit), f"pictures {verb} to {side}x{side} {'gray' if channels == 1 else 'color'}{why}"

    def _require_good(self, root: Path, files: tuple[Found, ...], pictures: Pictures) -> int:
        """How many are skipped. Raises UserError naming the bad pictures, where they are refused or too many."""
        bad = pictures.bad
        if not bad:
            return 0
        named = "; ".join(shown(problem.removeprefix(f"{root}/")) for _, problem in bad[:NAMED])
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        what = f"{len(bad)} of {len(files)} files are no whole pictures: {named}{more}"
        if self.on_bad == "refuse":
            raise UserError(f"{root}: {what}. Repair or remove them, or set data.on_bad=skip (up to 1 %)")
        if len(bad) > MOST_SKIPPED * len(files):
            raise UserError(f"{root}: {what}. That is more than 1 %, which is not skipped: repair or remove them")
        warn(f"{root}: {what}; skipped")
        return len(bad)

    def _warn_of_shared(self, files: tuple[Found, ...], pictures: Pictures, rows: Mapping[str, np.ndarray]) -> int:
        count, pair = shared_between(pictures, rows)
        if pair is not None:
            one, other = (shown(files[pictures.records["position"][row]].name) for row in pair)
            shared = "1 picture is" if count == 1 else f"{count} pictures are"
            warn(f"{shared} in more than one split, such as {one} and {other}: what is measured on them flatters the model")
        return count


def chosen_side(median: int, count: int) -> int:
    """Up to 40 pixels the pictures' own median shorter side; else the largest of `SIDES` that it reaches and their number is worth."""
    most = next((side for pictures, side in SIDE_BY_COUNT if count < pictures), SIDES[-1])
    if median <= SIDES[0]:
        return max(1, median)
    return max(side for side in SIDES if side <= min(median, most))


@dataclass(frozen=True, slots=True)
class _Reader:
    """The files of a folder, read one by one."""

    root: Path
    files: tuple[Found, ...]

    def collection(self) -> Collection:
        names = tuple(os.fsencode(file.name).decode(errors="replace") for file in self.files)
        return Collection(str(self.root), names, tuple(f"{file.size} {file.mtime_ns}" for file in self.files), self.read)

    def read(self, position: int, form: Form) -> UInt8[Tensor, "C S S"]:
        file = self.files[position]
        path = self.root / file.name
        try:
            return read_fitted(path, form.channels, form.side, form.side, form.fit)
        finally:
            self._require_unchanged(path, file)

    def _require_unchanged(self, path: Path, file: Found) -> None:
        if file.size < 0:
            return
        try:
            facts = os.stat(path)
        except OSError as error:
            raise Changed(
                f"{path}: was there when the folder was listed, and is gone ({error.strerror}); start again when the folder rests"
            ) from None
        if (facts.st_size, facts.st_mtime_ns) != (file.size, file.mtime_ns):
            raise Changed(f"{path}: changed while the folder was read; start again when the folder rests")

    def headers(self, most: int | None) -> list[Header]:
        """Of the readable ones among all files, or among `most` of them, spread evenly."""
        positions = range(len(self.files)) if most is None else np.unique(np.linspace(0, len(self.files) - 1, most).astype(int)).tolist()
        found = []
        for position in positions:
            with suppress(UserError):
                found.append(read_header(self.root / self.files[position].name))
        return found


def _class_names(root: Path, listing: Listing) -> tuple[str, ...]:
    """In the order of the names. Raises UserError where they cannot be learned: one class only, or one that training has not."""
    train = listing.splits["train"]
    for split in SPLITS[1:]:
        unknown = {name: len(found) for name, found in listing.splits.get(split, {}).items() if name not in train}
        if unknown:
            named = ", ".join(f"{shown(name)} ({plural(count, 'picture')})" for name, count in list(unknown.items())[:NAMED])
            more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
            raise UserError(
                f"{root}: {listing.folders[split]} has classes that {listing.folders['train']} has not: {named}{more}; "
                f"give {listing.folders['train']} pictures of them, or remove or rename the folders"
            )
    if len(train) < 2:
        only = shown(next(iter(train), "none"))
        raise UserError(f"{root}: holds one class only ({only}); a classifier needs two: a folder for each")
    return tuple(sorted(train))


def _require_training(root: Path, classes: tuple[str, ...], labels: np.ndarray) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    lost = [shown(name) for name, count in zip(classes, counts, strict=True) if count == 0]
    if lost:
        raise UserError(
            f"{root}: no picture to train on can be read of the classes {', '.join(lost[:NAMED])}; repair or remove their files"
        )


def _warn_of_left_aside(root: Path, listing: Listing) -> None:
    endings = sorted(listing.ignored.items(), key=lambda item: (-item[1], item[0]))[:NAMED]
    parts = [f"files that are no pictures: {', '.join(f'{ending} {count}' for ending, count in endings)}"] if endings else []
    for what, names in (("folders without pictures", listing.empty), ("folders beside the splits", listing.aside)):
        parts += [f"{what}: {', '.join(map(shown, names[:NAMED]))}"] if names else []
    if listing.outside:
        parts.append(f"pictures in no class folder: {listing.outside}")
    if parts:
        warn(f"{root}: left aside: {'; '.join(parts)}")
