"""Softmax under squared error, backward by hand: the trap D3. Page: docs/derivations/softmax_mse.md.

Shapes: N samples, C classes; q any target, one-hot rows in the trap.
"""

import numpy as np
from numpy.typing import NDArray

from reference.derivations.softmax_cross_entropy import softmax

Array = NDArray[np.float64]


def forward(z: Array, q: Array) -> Array:
    """sum_c (y_c - q_c)^2 of each row [N]."""
    return ((softmax(z) - q) ** 2).sum(axis=1)


def backward(dloss: Array, z: Array, q: Array) -> Array:
    """dz_i = 2 y_i ((y_i - q_i) - sum_j y_j (y_j - q_j))."""
    y = softmax(z)
    error = y - q
    return dloss[:, None] * 2 * y * (error - (y * error).sum(axis=1, keepdims=True))


def at_the_true_class(y: Array, true: int) -> float:
    """The same at the one-hot class: -2 y_i (1 - y_i)^2 - 2 y_i sum over j != i of y_j^2."""
    others = np.delete(y, true)
    return float(-2 * y[true] * (1 - y[true]) ** 2 - 2 * y[true] * (others**2).sum())


def wrong_at_the_true_class(y: Array, true: int) -> float:
    """What is often written, with the sign of the second term turned and (1 - y_i) for its sum of squares: not the derivative."""
    return float(-2 * y[true] * (1 - y[true]) ** 2 + 2 * y[true] * (np.delete(y, true) ** 2).sum() * (1 - y[true]))
