"""Hard concrete gates: random switches on the channels of a layer's input that gradients can close for good.

Louizos et al., "Learning Sparse Neural Networks through L0 Regularization", 2018, https://arxiv.org/abs/1712.01312, section 2.2; the
stretched and clipped binary concrete distribution of Maddison et al., 2017, https://arxiv.org/abs/1611.00712.
Shapes: N samples, C channels (one gate each).
"""

from math import log

import torch
from jaxtyping import Float
from torch import Tensor, nn


class HardConcreteGate(nn.Module):
    """Multiplies channel c of its input by z_c in [0, 1].

    In training s = sigmoid((log u - log(1 - u) + log_alpha) / beta) for a uniform u and z = clip(s (high - low) + low, 0, 1), one draw a
    forward, shared by its samples; in evaluation z = clip(sigmoid(log_alpha) (high - low) + low, 0, 1), which draws nothing. The draw comes
    from the default generator, which the step seeds.
    """

    def __init__(
        self, channels: int, governed: int, dim: int, *, open_: float, beta: float = 2 / 3, low: float = -0.1, high: float = 1.1
    ) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.full((channels,), log(open_ / (1 - open_))))
        self.governed = governed
        """Weights that one gate switches."""
        self.dim = dim
        """The dimension of the input that holds the channels."""
        self.beta, self.low, self.high = beta, low, high

    def forward(self, x: Float[Tensor, "N ..."]) -> Float[Tensor, "N ..."]:
        z = self.sampled() if self.training else self.settled()
        shape = [1] * x.ndim
        shape[self.dim] = -1
        return x * z.to(x.dtype).view(shape)

    def sampled(self) -> Float[Tensor, " C"]:
        """One draw of the gates."""
        u = torch.rand_like(self.log_alpha).clamp(1e-6, 1 - 1e-6)
        return self._stretched(torch.sigmoid((u.log() - (-u).log1p() + self.log_alpha) / self.beta))

    def settled(self) -> Float[Tensor, " C"]:
        """The gates of the trained model (eq. 13)."""
        return self._stretched(torch.sigmoid(self.log_alpha))

    def open_probability(self) -> Float[Tensor, " C"]:
        """P(z > 0) of each gate (eq. 12)."""
        return torch.sigmoid(self.log_alpha - self.beta * log(-self.low / self.high))

    def expected_weights(self) -> Float[Tensor, ""]:
        """The expected number of weights behind gates that are not closed."""
        return self.governed * self.open_probability().sum()

    def _stretched(self, s: Tensor) -> Tensor:
        return (s * (self.high - self.low) + self.low).clamp(0, 1)

    def extra_repr(self) -> str:
        return f"channels={len(self.log_alpha)}, governed={self.governed}"
