"""Labeled samples from elsewhere, to measure a model on: their classes are matched to the model's.

Folders match by the names of their class folders; files of numbers (.npz, IDX) by the number of the class. Shapes: N samples.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from torchstone.core.errors import UserError, warn
from torchstone.core.protocols import ImageShape, Split, TokenShape
from torchstone.data.sources.folders import SPLIT_NAMES, Found, Listing, listed
from torchstone.data.sources.idx import ENDINGS, STEMS, read_idx
from torchstone.data.sources.npz import read_arrays
from torchstone.data.sources.text import covering_windows
from torchstone.data.splits import TensorSplit
from torchstone.ship.arrays import as_samples
from torchstone.ship.inputs import unreadable
from torchstone.ship.predictor import Predictor

OnUnknown = Literal["refuse", "skip"]
FORMS = "a folder of class folders with pictures, a .npz file with the arrays x and y, or a folder of IDX files is needed"
NAMED = 10
"""Classes that a message lists."""
MOST_SKIPPED = 0.01
"""Share of the pictures that may be skipped: a number measured on fewer is not the number of these data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labeled:
    """Samples with their targets, and what is worth saying of them."""

    split: Split
    part: str
    """Which samples of the place: "all samples", "test"."""
    class_counts: Mapping[str, int] = field(default_factory=dict)
    """Samples of each of the model's classes."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Class that the model does not know -> its samples."""


def open_labeled(path: Path, predictor: Predictor, *, on_unknown: OnUnknown = "refuse", skipped: list[str] | None = None) -> Labeled:
    """Everything measurable at `path`: of a folder with train and test the test, else every sample (of a text, every byte).

    on_unknown: whether a class that the model does not know is refused or left out. skipped: receives a line a picture that cannot be
    read (at most 1 % of them); None: UserError with all of them. Raises UserError for what does not fit the model.
    """
    shape = predictor.artifact.facts.inputs
    if isinstance(shape, TokenShape):
        return Labeled(split=text_split(path, shape.length), part="all bytes")
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; {FORMS}")
    if path.suffix.lower() == ".npz":
        return by_number(labeled_arrays(path, predictor), "all samples", predictor)
    images = idx_images(path)
    if images is not None:
        return by_number(idx_split(images, predictor), images.name, predictor)
    if path.is_dir() and isinstance(shape, ImageShape):
        return folder_split(path, predictor, on_unknown, skipped)
    raise UserError(f"{path}: {FORMS if isinstance(shape, ImageShape) else 'a .npz file with the arrays x and y is needed'}")


# --- by the number of the class --------------------------------------------------------------------------------------


def by_number(split: TensorSplit, part: str, predictor: Predictor) -> Labeled:
    classes = predictor.artifact.facts.classes
    counts = torch.bincount(split.target, minlength=len(classes)).tolist()
    return Labeled(split=split, part=part, class_counts=dict(zip(classes, counts, strict=True)))


def labeled_arrays(path: Path, predictor: Predictor) -> TensorSplit:
    """All samples of x and y, or of every x_… with its y_…, in that order."""
    endings = ("", "_train", "_validation", "_test")
    arrays, present = read_arrays(path, frozenset(f"{axis}{ending}" for axis in "xy" for ending in endings))
    pairs = [(f"x{ending}", f"y{ending}") for ending in endings if f"x{ending}" in arrays and f"y{ending}" in arrays]
    if not pairs:
        raise UserError(f"{path}: has no arrays x and y; found {', '.join(present[:20]) or 'nothing'}")
    inputs, targets = [], []
    for x_name, y_name in pairs:
        x = as_samples(arrays[x_name], predictor.artifact.facts.inputs, f"{path}, array {x_name}", any_size=predictor.resizes)
        y = arrays[y_name]
        if y.shape != (len(x),) or y.dtype.kind not in "iu":
            raise UserError(
                f"{path}, array {y_name}: {y.dtype} {list(y.shape)}; labels are whole numbers [{len(x)}], one for each row of {x_name}"
            )
        inputs.append(x)
        targets.append(_known_labels(y, f"{path}, array {y_name}", predictor))
    return TensorSplit(torch.cat(inputs), torch.cat(targets))


def idx_images(path: Path) -> Path | None:
    """The file of images meant by `path`: itself, or of a folder the test images, else the training images. None: no IDX."""
    if path.is_file():
        return path if ENDINGS["images"] in path.name else None
    stems = (*STEMS["test"], *STEMS["train"])
    names = (f"{stem}-images{mark}{ENDINGS['images']}{gz}" for stem in stems for mark in "-." for gz in ("", ".gz"))
    return next((path / name for name in names if (path / name).is_file()), None)


def idx_split(images: Path, predictor: Predictor) -> TensorSplit:
    """The images of a file with the labels in the file beside it."""
    name = images.name.removesuffix(".gz").replace("images", "labels").replace(ENDINGS["images"], ENDINGS["labels"])
    labels = next((images.with_name(each) for each in (name, f"{name}.gz") if images.with_name(each).is_file()), None)
    if labels is None:
        raise UserError(f"{images}: its labels, {name} or {name}.gz, are not beside it")
    x = as_samples(read_idx(images, "images"), predictor.artifact.facts.inputs, str(images), any_size=predictor.resizes)
    y = read_idx(labels, "labels")
    if len(x) != len(y):
        raise UserError(f"{labels}: holds {len(y)} labels for {len(x)} images of {images.name}; they must be as many")
    return TensorSplit(x, _known_labels(y, str(labels), predictor))


def _known_labels(y: np.ndarray, where: str, predictor: Predictor) -> Tensor:
    """int64 [N]. Raises UserError naming the first that is no class of the model."""
    classes = len(predictor.artifact.facts.classes)
    wrong = np.asarray((y < 0) | (y >= classes))
    if wrong.any():
        raise UserError(f"{where}, row {int(wrong.argmax())}: is label {y[wrong][0]}; the model's classes are 0 to {classes - 1}")
    return torch.from_numpy(y.astype(np.int64))


# --- by the name of the class ----------------------------------------------------------------------------------------


def folder_split(path: Path, predictor: Predictor, on_unknown: OnUnknown, skipped: list[str] | None) -> Labeled:
    """The pictures of a folder of class folders, decoded when they are fetched."""
    classes = predictor.artifact.facts.classes
    root = _test_folder(path, classes)
    listing = listed(root)
    split = next(split for split in ("test", "validation", "train") if split in listing.splits)
    found = {_name(name): files for name, files in listing.splits[split].items()}
    left_out = {name: len(files) for name, files in found.items() if name not in map(_name, classes)}
    _settle_differences(path, classes, found, left_out, on_unknown)
    _say_ignored(root, listing)

    opener = predictor.opener(skipped)
    paths, labels, bad, odd = [], [], [], []
    for label, name in enumerate(classes):
        for file in found.get(_name(name), ()):
            try:
                width, height = opener.look_at(root / file.name)
            except UserError as error:
                bad.append(str(error))
                continue
            paths.append(root / file.name)
            labels.append(label)
            if opener.is_odd(width, height):
                odd.append(f"{file.name} is {width}x{height}")
    if skipped is not None:  # what a header does not tell, before the first number: a split must know how many it holds
        late = unreadable(opener.pictures(paths, torch.tensor(labels)), range(len(paths)))
        bad += late.values()
        paths, labels = ([each for row, each in enumerate(column) if row not in late] for column in (paths, labels))
    if bad:
        opener.set_aside(bad, len(bad) + len(paths))
        if len(bad) > MOST_SKIPPED * (len(bad) + len(paths)):
            raise UserError(f"{path}: {len(bad)} of {len(bad) + len(paths)} pictures cannot be read, more than 1 %; the first: {bad[0]}")
    opener.say_odd(odd)
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    return Labeled(
        split=opener.pictures(paths, torch.tensor(labels, dtype=torch.int64)),
        part=listing.folders.get(split, "") or ("all pictures" if root == path else root.name),
        class_counts=dict(zip(classes, counts, strict=True)),
        left_out=left_out,
    )


def _test_folder(path: Path, classes: Sequence[str]) -> Path:
    """The folder of the test, where `path` has one that is no class; else `path`."""
    for name in sorted(entry.name for entry in path.iterdir() if entry.is_dir()):
        is_class = _name(name) in map(_name, classes)
        if name.lower() in SPLIT_NAMES["test"] and not is_class and any(entry.is_dir() for entry in (path / name).iterdir()):
            return path / name
    return path


def _settle_differences(
    path: Path, classes: Sequence[str], found: Mapping[str, Sequence[Found]], left_out: Mapping[str, int], on_unknown: OnUnknown
) -> None:
    """Raises UserError for classes the model does not know (or says that they are left out), and warns of those that are missing."""
    if left_out:
        told = f"{path}: the model does not know {_listed([f'{name} ({_pictures(count)})' for name, count in left_out.items()])}"
        if len(left_out) == len(found):
            raise UserError(f"{told}, and there are no others; the model's classes are {_listed(classes)}")
        if on_unknown == "refuse":
            raise UserError(f"{told}; rename the folders to the model's classes ({_listed(classes)}), or leave them out: --on-unknown skip")
        warn(f"{told}; left out, so they are not in the numbers")
    missing = [name for name in classes if _name(name) not in found]
    if missing:
        warn(f"{path}: has no pictures of {_listed(missing)}; how the model does there is not measured")


def _say_ignored(root: Path, listing: Listing) -> None:
    others = sum(listing.ignored.values())
    parts = [
        f"pictures in no class folder: {listing.outside}" if listing.outside else "",
        f"files that are no pictures by their names: {others} ({', '.join(sorted(listing.ignored)[:NAMED])})" if others else "",
    ]
    if any(parts):
        warn(f"{root}: left aside are {'; '.join(filter(None, parts))}")


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"


def _name(name: str) -> str:
    """As names compare: an accent may be stored as its own character (macOS) or as part of its letter."""
    return unicodedata.normalize("NFC", name)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


# --- text ------------------------------------------------------------------------------------------------------------


def text_split(path: Path, context: int) -> Split:
    """Every byte of a text."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) < 2:
        raise UserError(f"{path}: holds {len(content)} bytes; at least 2 are needed to predict one")
    return covering_windows(torch.frombuffer(bytearray(content), dtype=torch.uint8), context)
