"""An LSTM cell, backward by hand. Page: docs/derivations/lstm_cell.md.

Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al., 2000; gates in torch's order i, f, g, o.
Shapes: N samples, I inputs, H hidden.
"""

import numpy as np
from numpy.typing import NDArray

from reference.derivations.sigmoid_mse import sigmoid

Array = NDArray[np.float64]
Weights = tuple[Array, Array, Array, Array]
"""w_x [4 H, I], w_h [4 H, H], b_x and b_h [4 H]."""


def gates(x: Array, h: Array, weights: Weights) -> tuple[Array, Array, Array, Array]:
    w_x, w_h, b_x, b_h = weights
    i, f, g, o = np.split(x @ w_x.T + h @ w_h.T + b_x + b_h, 4, axis=1)
    return sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)


def forward(x: Array, h: Array, c: Array, weights: Weights) -> tuple[Array, Array]:
    """(h', c')."""
    i, f, g, o = gates(x, h, weights)
    new = f * c + i * g
    return o * np.tanh(new), new


def backward(
    dh_new: Array, dc_new: Array, x: Array, h: Array, c: Array, weights: Weights
) -> tuple[Array, Array, Array, tuple[Array, Array, Array, Array]]:
    """(dx, dh, dc, (dw_x, dw_h, db_x, db_h)). The cell meets two gradients: from later, and through h'."""
    w_x, w_h, _, _ = weights
    i, f, g, o = gates(x, h, weights)
    t = np.tanh(f * c + i * g)
    dcell = dc_new + dh_new * o * (1 - t**2)
    da = np.concatenate([dcell * g * i * (1 - i), dcell * c * f * (1 - f), dcell * i * (1 - g**2), dh_new * t * o * (1 - o)], axis=1)
    db = da.sum(axis=0)
    return da @ w_x, da @ w_h, dcell * f, (da.T @ x, da.T @ h, db, db)
