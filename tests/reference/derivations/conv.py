"""A convolution (in fact a correlation) with stride, padding and dilation, backward by hand. Page: docs/derivations/conv.md.

Shapes: N samples, C channels in, O out, H x W pixels, K x K the kernel.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def size_out(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def taps(shape: tuple[int, ...], w: Array, stride: int, padding: int, dilation: int) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
    """(row, column, the padded pixels that this tap of the kernel meets, one an output)."""
    rows = size_out(shape[2], w.shape[2], stride, padding, dilation)
    columns = size_out(shape[3], w.shape[3], stride, padding, dilation)
    for p in range(w.shape[2]):
        for q in range(w.shape[3]):
            top, left = p * dilation, q * dilation
            yield p, q, (slice(top, top + stride * (rows - 1) + 1, stride), slice(left, left + stride * (columns - 1) + 1, stride))


def padded(x: Array, padding: int) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))


def forward(x: Array, w: Array, b: Array, stride: int = 1, padding: int = 0, dilation: int = 1) -> Array:
    """x [N, C, H, W], w [O, C, K, K], b [O]."""
    wide = padded(x, padding)
    y = sum(
        np.einsum("nchw,oc->nohw", wide[:, :, rows, columns], w[:, :, p, q])
        for p, q, (rows, columns) in taps(x.shape, w, stride, padding, dilation)
    )
    return y + b[:, None, None]


def backward(dy: Array, x: Array, w: Array, stride: int = 1, padding: int = 0, dilation: int = 1) -> tuple[Array, Array, Array]:
    """(dx, dw, db): every tap gives back along the same pixels that it read."""
    wide = padded(x, padding)
    dwide, dw = np.zeros_like(wide), np.zeros_like(w)
    for p, q, (rows, columns) in taps(x.shape, w, stride, padding, dilation):
        dw[:, :, p, q] = np.einsum("nohw,nchw->oc", dy, wide[:, :, rows, columns])
        dwide[:, :, rows, columns] += np.einsum("nohw,oc->nchw", dy, w[:, :, p, q])
    height, width = x.shape[2:]
    return dwide[:, :, padding : padding + height, padding : padding + width], dw, dy.sum(axis=(0, 2, 3))
