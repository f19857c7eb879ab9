"""A sigmoid under squared error, backward by hand, and beside it the sigmoid under cross-entropy. Page: docs/derivations/sigmoid_mse.md.

Shapes: any, element by element.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)) without overflow on either side."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, small) / (1 + small)


def forward(z: Array, q: Array) -> Array:
    return (sigmoid(z) - q) ** 2


def backward(dloss: Array, z: Array, q: Array) -> Array:
    """2 (y - q) y (1 - y): it vanishes where the answer is certain, right or wrong."""
    y = sigmoid(z)
    return dloss * 2 * (y - q) * y * (1 - y)


def cross_entropy_backward(dloss: Array, z: Array, q: Array) -> Array:
    """y - q: the factor y (1 - y) cancels."""
    return dloss * (sigmoid(z) - q)
