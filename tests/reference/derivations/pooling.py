"""Max and average pooling, windows that may overlap, backward by hand. Page: docs/derivations/pooling.md.

Shapes: N samples, C channels, H x W pixels, K x K the window.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def windows(shape: tuple[int, ...], kernel: int, stride: int) -> Iterator[tuple[int, int, slice, slice]]:
    """(i, j, rows, columns) of every output."""
    for i in range((shape[2] - kernel) // stride + 1):
        for j in range((shape[3] - kernel) // stride + 1):
            yield i, j, slice(i * stride, i * stride + kernel), slice(j * stride, j * stride + kernel)


def _empty(shape: tuple[int, ...], kernel: int, stride: int) -> Array:
    return np.zeros((*shape[:2], (shape[2] - kernel) // stride + 1, (shape[3] - kernel) // stride + 1))


def max_forward(x: Array, kernel: int, stride: int) -> Array:
    y = _empty(x.shape, kernel, stride)
    for i, j, rows, columns in windows(x.shape, kernel, stride):
        y[:, :, i, j] = x[:, :, rows, columns].max(axis=(2, 3))
    return y


def max_backward(dy: Array, x: Array, kernel: int, stride: int) -> Array:
    """All of dy goes to the first largest pixel of its window; windows that share it add up."""
    dx = np.zeros_like(x)
    samples, channels = np.indices(x.shape[:2])
    for i, j, rows, columns in windows(x.shape, kernel, stride):
        flat = x[:, :, rows, columns].reshape(*x.shape[:2], -1)
        down, right = np.divmod(flat.argmax(axis=2), kernel)
        np.add.at(dx, (samples, channels, i * stride + down, j * stride + right), dy[:, :, i, j])
    return dx


def average_forward(x: Array, kernel: int, stride: int) -> Array:
    y = _empty(x.shape, kernel, stride)
    for i, j, rows, columns in windows(x.shape, kernel, stride):
        y[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
    return y


def average_backward(dy: Array, x: Array, kernel: int, stride: int) -> Array:
    """Every pixel of a window gets an equal share."""
    dx = np.zeros_like(x)
    for i, j, rows, columns in windows(x.shape, kernel, stride):
        dx[:, :, rows, columns] += dy[:, :, i, j][:, :, None, None] / kernel**2
    return dx
