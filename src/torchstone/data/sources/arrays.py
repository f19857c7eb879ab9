"""Arrays: your data as NumPy arrays in one .npz file.

`x` and `y`, from which validation and test are held out; or `x_train`, `y_train` and any of `x_validation` / `y_validation`,
`x_test` / `y_test`, where what is missing is held out of the training samples.
Shapes: N samples, F features, C channels, H height, W width, K numbers to predict.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from torchstone.core.errors import UserError, clean
from torchstone.core.protocols import ImageShape, InputShape, Splits, VectorShape
from torchstone.core.tree import FilePath
from torchstone.data.facts import describe
from torchstone.data.sources.npz import read_arrays
from torchstone.data.splits import TensorSplit, hold_out

Layout = Literal["auto", "channels_first", "channels_last"]

SPLITS = ("train", "validation", "test")
NAMES = frozenset({"x", "y"} | {f"{axis}_{split}" for axis in "xy" for split in SPLITS})
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
        splits, rule = self._completed(path, splits, labels=bool(classes))
        return Splits(**splits, facts=describe(splits, _shape(splits["train"].inputs), classes, rule))

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

    def _completed(self, path: Path, splits: dict[str, TensorSplit], labels: bool) -> tuple[dict[str, TensorSplit], str]:
        """Three splits, the missing ones held out of the training samples, and the rule in words."""
        total = len(splits["train"])
        words = [f"{name} as in the file" for name in SPLITS[1:] if name in splits]
        for name in ("test", "validation"):
            if name in splits:
                continue
            train = splits["train"]
            held = max(1, round(getattr(self, name) * total))
            if held >= len(train):
                raise UserError(f"{path}: {total} rows to train on are too few to hold out {name}; add rows, or x_{name} and y_{name}")
            cut = hold_out(len(train), held, train.target.numpy() if labels else None)
            splits[name] = TensorSplit(train.inputs[cut.held], train.target[cut.held])
            splits["train"] = TensorSplit(train.inputs[cut.kept], train.target[cut.kept])
            how = "stratified by class" if cut.stratified else "at random"
            words.append(f"{name}: {held} of {total} training rows, {how}, the same for every seed")
        return {name: splits[name] for name in SPLITS}, "; ".join(words)


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


def _shape(inputs: torch.Tensor) -> InputShape:
    return VectorShape(inputs.shape[1]) if inputs.ndim == 2 else ImageShape(*inputs.shape[1:])


def _not_finite(x: np.ndarray) -> np.ndarray:
    return np.asarray(~np.isfinite(x).reshape(len(x), -1).all(axis=1))


def _refuse_rows(where: str, wrong: np.ndarray, what: str) -> None:
    if wrong.any():
        others = int(wrong.sum()) - 1
        more = f" ({others} more such rows)" if others else ""
        raise UserError(f"{where}, row {int(wrong.argmax())}: {what}{more}")
