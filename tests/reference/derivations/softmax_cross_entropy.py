"""Softmax under cross-entropy, backward by hand. Page: docs/derivations/softmax_cross_entropy.md.

Shapes: N samples, C classes; q probabilities (or one-hot rows).
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(z: Array) -> Array:
    """Row by row, the largest taken off first so that nothing overflows."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def log_softmax(z: Array) -> Array:
    shifted = z - z.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def forward(z: Array, q: Array) -> Array:
    """-sum_c q_c log p_c of each row [N]."""
    return -(q * log_softmax(z)).sum(axis=1)


def backward(dloss: Array, z: Array, q: Array) -> Array:
    """dz = y sum(q) - q, which is y - q where q is a distribution."""
    return dloss[:, None] * (softmax(z) * q.sum(axis=1, keepdims=True) - q)


def jacobian(y: Array) -> Array:
    """dy_i / dz_j of one row's softmax y [C]: y_i (1 - y_i) on the diagonal, -y_i y_j beside it."""
    return np.diag(y) - np.outer(y, y)


def kl(p: Array, q: Array) -> float:
    """sum p log(p / q) in nats, a term with p = 0 being 0."""
    used = p > 0
    with np.errstate(divide="ignore"):
        return float((p[used] * (np.log(p[used]) - np.log(q[used]))).sum())


def js(p: Array, q: Array) -> float:
    """(KL(p|m) + KL(q|m)) / 2 with m their mean, in nats: at most ln 2."""
    m = (p + q) / 2
    return (kl(p, m) + kl(q, m)) / 2
