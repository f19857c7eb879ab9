"""Batch normalization in training, backward by hand. Page: docs/derivations/batch_norm.md.

Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167, whose chain of six derivatives is here one line. Shapes: N samples, F features.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def forward(x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> Array:
    """Each feature over the batch; the variance divides by N."""
    return gamma * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps) + beta


def backward(dy: Array, x: Array, gamma: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    """(dx, dgamma, dbeta). What the gradient has in common over the batch, and what of it points along x, normalization takes away."""
    deviation = np.sqrt(x.var(axis=0) + eps)
    z = (x - x.mean(axis=0)) / deviation
    dz = dy * gamma
    dx = (dz - dz.mean(axis=0) - z * (dz * z).mean(axis=0)) / deviation
    return dx, (dy * z).sum(axis=0), dy.sum(axis=0)


def evaluation_backward(dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    """With running statistics, which are constants: a scaling, nothing more."""
    deviation = np.sqrt(variance + eps)
    return dy * gamma / deviation, (dy * (x - mean) / deviation).sum(axis=0), dy.sum(axis=0)
