"""Samples handed over as arrays: in the data's own form, checked, never unpickled.

Shapes: N samples, C channels, H x W pixels, F features, T tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchstone.core.errors import UserError, clean
from torchstone.core.protocols import ImageShape, InputShape, TokenShape
from torchstone.data.sources.npz import read_arrays

NAMES = ("x", "x_test")
"""Arrays of a .npz file that are taken as samples, the first that is there."""


def as_samples(values: Any, shape: InputShape, where: str = "inputs", *, any_size: bool = False) -> Tensor:
    """[N, ...] samples as the data give them: float32, uint8 images (scaled to [0, 1] when they are fetched), int64 tokens.

    values: an array, a tensor, or nested lists of numbers. Images [N, C, H, W], [N, H, W, C], [N, H, W] of one channel, or a single one;
    vectors [N, F] or [F]; tokens [N, T]. `any_size`: images of any height and width, a transform resizes them.
    Raises UserError naming `where` and what the model reads.
    """
    array = _numbers(values, where)
    if isinstance(shape, TokenShape):
        return _tokens(array, shape, where)
    wanted = [shape.channels, shape.height, shape.width] if isinstance(shape, ImageShape) else [shape.features]
    found = list(array.shape)
    if isinstance(shape, ImageShape):
        array = _images_first(array, shape, any_size)
    elif array.shape == (shape.features,):
        array = array[None]
    fits = list(array.shape[1:]) == wanted or (any_size and array.ndim == 4 and array.shape[1] == wanted[0])
    if not fits or len(array) == 0:
        raise UserError(f"{where}: has shape {found}; the model reads {_described(shape, any_size)}")
    if array.ndim == 4 and array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    wrong = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if wrong.any():
        raise UserError(f"{where}, row {int(wrong.argmax())}: holds a NaN or an infinite number")
    return torch.from_numpy(array)


def read_samples(path: Path, shape: InputShape, *, any_size: bool = False) -> Tensor:
    """The samples of a .npy file, or of `x` or `x_test` in a .npz file; errors as `as_samples`."""
    if path.suffix.lower() == ".npy":
        return as_samples(_read_npy(path), shape, str(path), any_size=any_size)
    arrays, present = read_arrays(path, frozenset(NAMES))
    for name in NAMES:
        if name in arrays:
            return as_samples(arrays[name], shape, f"{path}, array {name}", any_size=any_size)
    found = " ".join(clean(", ".join(present[:20])).split())
    raise UserError(f"{path}: has no array x or x_test; found {found or 'nothing'}")


def _read_npy(path: Path) -> np.ndarray:
    try:
        # Mapped, so that a header which promises more than the file holds is refused and not allocated.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged header may raise nearly anything
        cause = "Python objects are never read" if "object" in str(error).lower() else _first_line(error)
        raise UserError(f"{path}: no array of numbers ({cause}); write it with numpy.save") from None


def _numbers(values: Any, where: str) -> np.ndarray:
    if isinstance(values, Tensor):
        tensor = values.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if not isinstance(values, np.ndarray) and not isinstance(values, Sequence):
        raise UserError(f"{where}: samples are an array, a tensor or a list of file paths, got {type(values).__name__}")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise UserError(f"{where}: no array ({_first_line(error)})") from None
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where}: holds {array.dtype}; samples are numbers")
    return array


def _images_first(array: np.ndarray, shape: ImageShape, any_size: bool) -> np.ndarray:
    """The array as [N, C, H, W] where it can be read so, else unchanged."""
    size, channels = (shape.height, shape.width), shape.channels
    if array.ndim == 2 and channels == 1:
        return array[None, None]
    if array.ndim == 3 and array.shape == (channels, *size):
        return array[None]
    if array.ndim == 3 and channels == 1:
        return array[:, None]
    if array.ndim == 4 and array.shape[1] != channels and array.shape[3] == channels and (any_size or array.shape[1:3] == size):
        return array.transpose(0, 3, 1, 2)
    return array


def _tokens(array: np.ndarray, shape: TokenShape, where: str) -> Tensor:
    if array.ndim != 2 or array.dtype.kind not in "iu" or not 0 < array.shape[1] <= shape.length or len(array) == 0:
        raise UserError(f"{where}: has {array.dtype} {list(array.shape)}; the model reads whole numbers {_described(shape, False)}")
    wrong = ((array < 0) | (array >= shape.vocabulary)).any(axis=1)
    if wrong.any():
        raise UserError(f"{where}, row {int(wrong.argmax())}: holds a token outside 0 to {shape.vocabulary - 1}")
    return torch.from_numpy(array.astype(np.int64))


def _described(shape: InputShape, any_size: bool) -> str:
    """In words, what the model reads."""
    if isinstance(shape, TokenShape):
        return f"[N, 1 to {shape.length}]"
    if not isinstance(shape, ImageShape):
        return f"[N, {shape.features}]"
    pixels = "H, W" if any_size else f"{shape.height}, {shape.width}"
    return f"[N, {shape.channels}, {pixels}]" + (f" or [N, {pixels}]" if shape.channels == 1 else f" or [N, {pixels}, {shape.channels}]")


def _first_line(error: Exception) -> str:
    return (clean(str(error)).strip().splitlines() or [type(error).__name__])[0][:200]
