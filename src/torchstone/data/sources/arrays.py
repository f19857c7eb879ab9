"""Arrays: your data as NumPy arrays in one .npz file.

`x` and `y`, from which validation and test are held out; or `x_train`, `y_train` and any of `x_validation` / `y_validation`,
`x_test` / `y_test`, where what is missing is held out of the training samples. `groups` (or `groups_train`, ...) beside them says which
samples belong together: a patient, a scene, a user. Shapes: N samples, F features, C channels, H height, W width, K numbers to predict.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from torchstone.core.errors import UserError, clean, warn
from torchstone.core.protocols import ImageShape, InputShape, Splits, VectorShape
from torchstone.core.tree import FilePath
from torchstone.data.facts import describe
from torchstone.data.sources.npz import read_arrays
from torchstone.data.splits import HoldOut, TensorSplit, hold_out, hold_out_groups, hold_out_last

Layout = Literal["auto", "channels_first", "channels_last"]

SPLITS = ("train", "validation", "test")
NAMES = frozenset({"x", "y", "groups"} | {f"{axis}_{split}" for axis in ("x", "y", "groups") for split in SPLITS})
CHANNELS = (1, 3, 4)
"""Sizes that `layout = "auto"` takes for a dimension of channels."""
MOST_CLASSES = 1_000_000
"""A larger label is a mistake: the output layer would not fit either."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrays:
    """A .npz file of inputs `x` and targets `y`.

    Inputs: vectors [N, F], images [N, H, W], [N, C, H, W] or [N, H, W, C]; uint8 images stay bytes (0 to 255 for 0 to 1),
    all other numbers are kept.
    Targets: whole numbers [N] are classes 0, 1, ...; floats [N] or [N, K] are what a regression predicts.
    Groups: whole numbers or texts [N]; what is held out is then whole groups, so that none is on both sides.
    Raises UserError naming file, array and row for what cannot be learned from: NaN, labels out of range, lengths that differ,
    Python objects.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "there is no training without data"

    path: FilePath = ""
    """The .npz file."""
    classes: tuple[str, ...] = ()
    """Names of the classes 0, 1, ...; empty: the numbers up to the largest label."""
    layout: Layout = "auto"
    """Where images have their channels; auto: first if that dimension is 1, 3 or 4, else last if that one is, else first."""
    split: Literal["auto", "temporal"] = "auto"
    """What is held out where the file has no split of its own: auto: whole groups if it has groups, else the same share of every class,
    else drawn; temporal: the rows are in the order of time, the last ones test, those before them validate."""
    validation: float = 0.15
    """Share of the samples held out for validation where the file has none of its own."""
    test: float = 0.15
    """The same for the test."""

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"Arrays.{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.validation + self.test >= 1:
            raise ValueError(f"Arrays.validation and Arrays.test must leave something to train on, got {self.validation} and {self.test}")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"Arrays.classes must differ from each other, got {', '.join(self.classes)}")

    def open(self) -> Splits:
        if not self.path:
            raise UserError("data.path must be given: the .npz file, as in data.path=pictures.npz")
        path = Path(self.path)
        arrays, present = read_arrays(path, NAMES)
        grouped = {name: arrays.pop(name) for name in list(arrays) if name.startswith("groups")}
        named = _named(path, arrays, present)
        inputs = {name: self._inputs(f"{path}, array {x_name}", x) for name, (x_name, x, _, _) in named.items()}
        targets = {name: self._target(f"{path}, array {y_name}", y) for name, (_, _, y_name, y) in named.items()}
        for name, (x_name, x, y_name, y) in named.items():
            if len(x) != len(y):
                raise UserError(f"{path}: array {x_name} has {len(x)} rows, {y_name} has {len(y)}; they must be as many")
            if inputs[name].shape[1:] != inputs["train"].shape[1:]:
                raise UserError(f"{path}, array {x_name}: a row has shape {list(x.shape[1:])}, in {named['train'][0]} another")
            if targets[name].dtype != targets["train"].dtype or targets[name].shape[1:] != targets["train"].shape[1:]:
                raise UserError(f"{path}, array {y_name}: {y.dtype} {list(y.shape[1:])} does not fit {named['train'][2]}")
        splits = {name: TensorSplit(inputs[name], targets[name]) for name in named}
        classes = self._class_names(list(targets.values()))
        groups = _group_numbers(path, grouped, named)
        splits, groups, rule = self._completed(path, splits, groups, labels=bool(classes))
        known = np.concatenate((groups["train"], groups["validation"])) if groups else None
        facts = describe(splits, _shape(splits["train"].inputs), classes, rule)
        ordered = self.split == "temporal"
        return Splits(
            train=splits["train"], validation=splits["validation"], test=splits["test"], facts=facts, groups=known, ordered=ordered
        )

    def _inputs(self, where: str, x: np.ndarray) -> torch.Tensor:
        """float32, or uint8 images, channels first."""
        if x.dtype.kind not in "biuf":
            raise UserError(f"{where}: holds {x.dtype}; inputs are numbers")
        if x.ndim not in (2, 3, 4) or x.size == 0:
            raise UserError(
                f"{where}: has shape {list(x.shape)}; vectors are [N, F], images [N, H, W], [N, C, H, W] or [N, H, W, C], none empty"
            )
        if x.ndim == 3:
            x = x[:, None]
        elif x.ndim == 4 and self._channels_last(x.shape):
            x = x.transpose(0, 3, 1, 2)
        if x.ndim == 4 and x.dtype == np.uint8:
            return torch.from_numpy(np.ascontiguousarray(x))
        with np.errstate(over="ignore"):
            x = np.ascontiguousarray(x, dtype=np.float32)
        _refuse_rows(where, _not_finite(x), "holds a NaN or an infinite number; drop or repair the row")
        return torch.from_numpy(x)

    def _channels_last(self, shape: tuple[int, ...]) -> bool:
        if self.layout == "auto":
            return shape[1] not in CHANNELS and shape[3] in CHANNELS
        return self.layout == "channels_last"

    def _target(self, where: str, y: np.ndarray) -> torch.Tensor:
        """int64 labels [N], or float32 [N] or [N, K]."""
        if y.dtype.kind not in "biuf":
            raise UserError(f"{where}: holds {y.dtype}; targets are whole numbers (classes) or floats (regression)")
        if y.size == 0:
            raise UserError(f"{where}: has shape {list(y.shape)}: no rows")
        if y.dtype.kind == "f":
            if self.classes:
                raise UserError(f"{where}: holds {y.dtype}, but data.classes are given; store labels as whole numbers")
            if y.ndim > 2:
                raise UserError(f"{where}: has shape {list(y.shape)}; targets of a regression are [N] or [N, K]")
            with np.errstate(over="ignore"):
                y = np.ascontiguousarray(y, dtype=np.float32)
            _refuse_rows(where, _not_finite(y), "holds a NaN or an infinite number; drop or repair the row")
            return torch.from_numpy(y)
        if y.ndim != 1:
            raise UserError(f"{where}: has shape {list(y.shape)}; labels are [N]")
        most = len(self.classes) or MOST_CLASSES
        wrong = np.asarray((y < 0) | (y >= most))
        _refuse_rows(where, wrong, f"is label {y[wrong][0] if wrong.any() else ''}; labels are 0 to {most - 1}")
        return torch.from_numpy(y.astype(np.int64))

    def _class_names(self, targets: list[torch.Tensor]) -> tuple[str, ...]:
        if targets[0].is_floating_point():
            return ()
        return self.classes or tuple(str(label) for label in range(max(int(target.max()) for target in targets) + 1))

    def _completed(
        self, path: Path, splits: dict[str, TensorSplit], groups: dict[str, np.ndarray], labels: bool
    ) -> tuple[dict[str, TensorSplit], dict[str, np.ndarray], str]:
        """Three splits and their groups, the missing ones held out of the training samples, and the rule in words."""
        total = len(splits["train"])
        words = [f"{name} as in the file" for name in SPLITS[1:] if name in splits]
        for name in ("test", "validation"):
            if name in splits:
                continue
            train = splits["train"]
            held = max(1, round(getattr(self, name) * total))
            if held >= len(train):
                raise UserError(f"{path}: {total} rows to train on are too few to hold out {name}; add rows, or x_{name} and y_{name}")
            cut, how = self._cut(f"{path}, {name}", train.target.numpy(), held, labels, groups.get("train"))
            splits[name], splits["train"] = train.taken(cut.held), train.taken(cut.kept)
            if groups:
                groups[name], groups["train"] = groups["train"][cut.held], groups["train"][cut.kept]
            words.append(f"{name} is {len(cut.held)} of {total} rows, held out {how}, the same for every seed")
        return {name: splits[name] for name in SPLITS}, groups, "; ".join(words)

    def _cut(self, where: str, target: np.ndarray, held: int, labels: bool, groups: np.ndarray | None) -> tuple[HoldOut, str]:
        """The rows to hold out, and in words how they were chosen."""
        if self.split == "temporal":
            return hold_out_last(len(target), held), "as the last ones"
        if groups is not None:
            found = len(np.unique(groups))
            if found < 2:
                raise UserError(f"{where}: cannot be held out in whole groups, as only one is left; add groups, or arrays of its own")
            return hold_out_groups(groups, held, target if labels else None), f"in whole groups of {found}"
        cut = hold_out(len(target), held, target if labels else None)
        return cut, "stratified by class" if cut.stratified else "at random"


def _named(path: Path, arrays: dict[str, np.ndarray], present: tuple[str, ...]) -> dict[str, tuple[str, np.ndarray, str, np.ndarray]]:
    """Split -> (name of x, x, name of y, y); a plain x and y are "train"."""
    shown = " ".join(clean(", ".join(present[:20])).split()) or "nothing"
    plain = {"x", "y"} & set(arrays)
    if plain and len(arrays) > len(plain):
        raise UserError(f"{path}: holds x or y beside {', '.join(sorted(set(arrays) - plain))}; give x and y, or x_train, y_train, ...")
    endings = {"train": ""} if plain else {split: f"_{split}" for split in SPLITS}
    named = {}
    for split, ending in endings.items():
        x_name, y_name = f"x{ending}", f"y{ending}"
        if split != "train" and not {x_name, y_name} & set(arrays):
            continue
        for name in (x_name, y_name):
            if name not in arrays:
                wish = "x and y, or x_train and y_train" if not arrays else name
                raise UserError(f"{path}: has no array {wish}; found {shown}")
            if arrays[name].ndim == 0:
                raise UserError(f"{path}, array {name}: is a single number, not rows")
        named[split] = (x_name, arrays[x_name], y_name, arrays[y_name])
    return named


def _group_numbers(
    path: Path, arrays: dict[str, np.ndarray], named: dict[str, tuple[str, np.ndarray, str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Split -> group of each row, int64 [N], equal numbers for equal names; empty where the file says nothing of groups.

    Raises UserError naming the array that is missing, or is not one whole number or text a row.
    """
    if not arrays:
        return {}
    expected = {split: f"groups{x_name[1:]}" for split, (x_name, _, _, _) in named.items()}
    found = {}
    for split, name in expected.items():
        if name not in arrays:
            raise UserError(f"{path}: has {', '.join(sorted(arrays))}, but no {name}: give the groups of every split, or of none")
        found[split] = groups = arrays.pop(name)
        rows = len(named[split][1])
        if groups.dtype.kind not in "iuUS" or groups.shape != (rows,):
            raise UserError(f"{path}, array {name}: holds {groups.dtype} {list(groups.shape)}; groups are whole numbers or texts [{rows}]")
    if arrays:
        raise UserError(f"{path}: has {', '.join(sorted(arrays))} without the x and y of that split")
    if len({groups.dtype.kind in "iu" for groups in found.values()}) > 1:
        raise UserError(f"{path}: groups are whole numbers in one split and texts in another; give one kind")
    numbers = np.unique(np.concatenate(list(found.values())), return_inverse=True)[1].astype(np.int64)
    ends = np.cumsum([len(groups) for groups in found.values()])[:-1]
    split_numbers = dict(zip(found, np.split(numbers, ends), strict=True))
    if "test" in split_numbers and (shared := set(split_numbers["test"]) & set(split_numbers["train"])):
        warn(f"{path}: {len(shared)} groups are in train and in test: what is measured on the test flatters the model")
    return split_numbers


def _shape(inputs: torch.Tensor) -> InputShape:
    return VectorShape(inputs.shape[1]) if inputs.ndim == 2 else ImageShape(*inputs.shape[1:])


def _not_finite(x: np.ndarray) -> np.ndarray:
    return np.asarray(~np.isfinite(x).reshape(len(x), -1).all(axis=1))


def _refuse_rows(where: str, wrong: np.ndarray, what: str) -> None:
    if wrong.any():
        others = int(wrong.sum()) - 1
        more = f" ({others} more such rows)" if others else ""
        raise UserError(f"{where}, row {int(wrong.argmax())}: {what}{more}")
