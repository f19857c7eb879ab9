"""A dense layer y = x W' + b, backward by hand. Page: docs/derivations/dense.md.

Shapes: N samples, I inputs, O outputs.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def forward(x: Array, w: Array, b: Array) -> Array:
    """x [N, I], w [O, I], b [O] -> [N, O]."""
    return x @ w.T + b


def backward(dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
    """(dx, dw, db) from dy [N, O]."""
    return dy @ w, dy.T @ x, dy.sum(axis=0)
