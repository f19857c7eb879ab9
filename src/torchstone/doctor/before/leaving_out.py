"""Samples to train without: the list of them, and the edit that takes them out (`data=without`)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from torchstone.core import codec, tree
from torchstone.core.errors import UserError
from torchstone.data import Without
from torchstone.data.pictures import FetchedPictures, StoredPictures
from torchstone.data.sources.without import FILE, SPLITS, list_text, read_list
from torchstone.data.splits import TensorSplit
from torchstone.doctor.before.patient import Patient

HOW = "--out DIR writes the list of them and the edit that leaves them out"
"""Said where no list is wanted."""


def without(patient: Patient, split: str, rows: Mapping[int, str]) -> tuple[str, ...]:
    """Puts rows (and why) of a split on the examination's list; the edit that trains without all that are on it.

    None where no list is wanted, where the data cannot leave samples out, or where nothing would be left of a class.
    """
    if patient.out is None or not rows or split not in SPLITS:
        return ()
    given: Any = getattr(patient.prepared.splits, split)
    source = patient.asked.data.source if isinstance(patient.asked.data, Without) else patient.asked.data
    if not isinstance(given, TensorSplit | StoredPictures | FetchedPictures) or not nameable(source):
        return ()
    if split == "train" and patient.facts.classes and not spares(given, {*patient.listed["train"], *rows}, len(patient.facts.classes)):
        return ()
    for row, why in rows.items():
        known = patient.listed[split].get(row)
        patient.listed[split][row] = why if known is None or why in known.split(", ") else f"{known}, {why}"
    path = patient.out / FILE
    return ("data=without", f"data.leave_out={path}", *source_edits(source, "data.source"))


def spares(split: Any, rows: set[int], classes: int) -> bool:
    """Whether without these rows something is left of every class that is there."""
    before = np.bincount(split.target.numpy(), minlength=classes)
    return bool(((before - np.bincount(split.target.numpy()[sorted(rows)], minlength=classes) > 0) | (before == 0)).all())


def nameable(source: Any) -> bool:
    """Whether a source can stand in `data.source` by an edit."""
    try:
        codec.encode(Without(source=source))
    except UserError:
        return False
    return tree.kind_of(source) in tree.choices(tree.fields_of(Without)["source"].annotation)


def source_edits(source: Any, path: str) -> tuple[str, ...]:
    """The edits that put a source, and whatever of it is no default, in a place."""
    edits = [f"{path}={tree.kind_of(source)}"]
    for name, fact in tree.fields_of(type(source)).items():
        value = getattr(source, name)
        if value == fact.default:
            continue
        edits += source_edits(value, f"{path}.{name}") if tree.is_part(value) else [f"{path}.{name}={text(value)}"]
    return tuple(edits)


def text(value: Any) -> str:
    """A setting as an edit writes it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(list(value) if isinstance(value, tuple) else value)


def document(patient: Patient) -> str | None:
    """The list as its file holds it, in rows of the source: data that leave samples out already keep doing so."""
    if not any(patient.listed.values()):
        return None
    data = patient.asked.data
    if not isinstance(data, Without):
        return list_text(patient.facts.fingerprint, patient.listed)
    fingerprint, listed = read_list(Path(data.leave_out))
    joined = {}
    for name in SPLITS:
        count = len(getattr(patient.prepared.splits, name)) + len(listed[name])
        kept = np.setdiff1d(np.arange(count), np.array(sorted(listed[name]), dtype=np.int64))
        joined[name] = {**listed[name], **{int(kept[row]): why for row, why in patient.listed[name].items()}}
    return list_text(fingerprint, joined)
