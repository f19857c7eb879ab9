"""Penalties: one number a model, added to the loss once a step.

Weights are the trained parameters of two or more dimensions: no norms, no biases.
Hoerl & Kennard, "Ridge Regression", 1970. For SGD the L2 penalty is weight decay; for Adam it is not, because the gradient
of the penalty is rescaled as well (Loshchilov & Hutter, 2017, https://arxiv.org/abs/1711.05101).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchstone.nn.gate import HardConcreteGate


@dataclass(frozen=True, kw_only=True, slots=True)
class L2:
    """strength / 2 x the sum of squares of the trained weights (parameters of two or more dimensions: no norms, no biases)."""

    neutral: ClassVar["L2"]

    strength: float = 1e-4
    """The derivative with respect to a weight w is strength x w."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"L2.strength must be finite and >= 0, got {self.strength}")

    def __call__(self, model: nn.Module) -> Float[Tensor, ""]:
        return 0.5 * self.strength * total([p.square().sum() for p in weights(model)])


L2.neutral = L2(strength=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class L1:
    """strength x the sum of sizes of the trained weights: many of them end near 0.

    Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996. The subgradient at 0 is 0, so weights oscillate about 0 rather
    than reach it: prune what is small, or use `l0`.
    """

    neutral: ClassVar["L1"]

    strength: float = 1e-5
    """The derivative with respect to a weight w is strength x sign(w)."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"L1.strength must be finite and >= 0, got {self.strength}")

    def __call__(self, model: nn.Module) -> Float[Tensor, ""]:
        return self.strength * total([p.abs().sum() for p in weights(model)])


L1.neutral = L1(strength=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class L0:
    """strength x the expected number of weights that are not zero, over the gates of `model_transforms=[hard_concrete]`.

    sum over gates of (weights behind the gate) x P(gate > 0), P = sigmoid(log_alpha - beta log(-low / high)). Louizos et al., "Learning
    Sparse Neural Networks through L0 Regularization", 2018, https://arxiv.org/abs/1712.01312, eq. 12. Weights without a gate are left out:
    their number does not change. The paper's lambda over its number of training samples is `strength`.
    """

    neutral: ClassVar["L0"]

    strength: float = 1e-6
    """What an expected weight costs."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"L0.strength must be finite and >= 0, got {self.strength}")

    def __call__(self, model: nn.Module) -> Float[Tensor, ""]:
        return self.strength * total([module.expected_weights() for module in model.modules() if isinstance(module, HardConcreteGate)])


L0.neutral = L0(strength=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Orthogonality:
    """strength x the squared distance of every weight matrix from having orthonormal rows (or columns, if it has fewer of them).

    sum over W [m, n] (filters flattened) of |W W^T - I|_F^2 for m <= n, |W^T W - I|_F^2 else. Bansal et al., "Can We Gain More from
    Orthogonality Regularizations in Training Deep CNNs?", 2018, https://arxiv.org/abs/1810.09102, eq. 1 (soft orthogonality). Embeddings
    are no maps and are left out.
    """

    neutral: ClassVar["Orthogonality"]

    strength: float = 1e-4
    """The derivative with respect to W is 4 x strength x (W W^T - I) W."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"Orthogonality.strength must be finite and >= 0, got {self.strength}")

    def __call__(self, model: nn.Module) -> Float[Tensor, ""]:
        embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) for p in m.parameters(recurse=False)}
        return self.strength * total([away_from_orthonormal(p.flatten(1)) for p in weights(model) if id(p) not in embeddings])


Orthogonality.neutral = Orthogonality(strength=0.0)


def away_from_orthonormal(matrix: Float[Tensor, "m n"]) -> Float[Tensor, ""]:
    gram = matrix @ matrix.mT if matrix.shape[0] <= matrix.shape[1] else matrix.mT @ matrix
    return (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum()


def weights(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]


def total(terms: list[Tensor]) -> Float[Tensor, ""]:
    """Their sum; of none a zero that the step may ask for its gradient all the same."""
    return torch.stack(terms).sum() if terms else torch.zeros((), requires_grad=True)
