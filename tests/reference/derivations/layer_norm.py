"""Layer normalization, backward by hand. Page: docs/derivations/layer_norm.md.

Ba, Kiros and Hinton, 2016, https://arxiv.org/abs/1607.06450. Shapes: N samples, F features.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def forward(x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> Array:
    """Each sample over its features; the variance divides by F."""
    return gamma * (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + eps) + beta


def backward(dy: Array, x: Array, gamma: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    """(dx, dgamma, dbeta): batch norm's formula with the axes exchanged, but gamma now varies inside the means."""
    deviation = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    z = (x - x.mean(axis=1, keepdims=True)) / deviation
    dz = dy * gamma
    dx = (dz - dz.mean(axis=1, keepdims=True) - z * (dz * z).mean(axis=1, keepdims=True)) / deviation
    return dx, (dy * z).sum(axis=0), dy.sum(axis=0)
