"""Scaled dot-product attention, with a causal mask if wanted, backward by hand. Page: docs/derivations/attention.md.

Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, eq. 1. Shapes: N samples (and heads), T queries, S keys, D numbers each.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def probabilities(q: Array, k: Array, causal: bool) -> Array:
    """softmax(q k' / sqrt(D)) [N, T, S]; causal: a query sees the keys up to its own place."""
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.tri(*scores.shape[1:], dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def forward(q: Array, k: Array, v: Array, causal: bool = False) -> Array:
    return probabilities(q, k, causal) @ v


def backward(dy: Array, q: Array, k: Array, v: Array, causal: bool = False) -> tuple[Array, Array, Array]:
    """(dq, dk, dv). A masked score has probability 0, so its derivative is 0 without being masked again."""
    p = probabilities(q, k, causal)
    dp = dy @ v.transpose(0, 2, 1)
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) / np.sqrt(q.shape[-1])
    return ds @ k, ds.transpose(0, 2, 1) @ q, p.transpose(0, 2, 1) @ dy
