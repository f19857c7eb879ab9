"""Lookahead: k steps forward, one step back.

Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019, https://arxiv.org/abs/1907.08610, algorithm 1.
Shapes: P scalars of all parameters.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.adam import Adam, Adamax, Nadam, Radam
from torchstone.optim.adamw import AdamW
from torchstone.optim.adaptive import Adadelta, Adagrad, Rmsprop
from torchstone.optim.checks import check_count, check_finite
from torchstone.optim.flat import FlatParameters
from torchstone.optim.layerwise import LAMB, LARS
from torchstone.optim.lion import Lion
from torchstone.optim.muon import Muon
from torchstone.optim.pieces import counter, number, pieces
from torchstone.optim.sgd import SGD
from torchstone.optim.shampoo import Shampoo
from torchstone.optim.soap import SOAP

Inner = SGD | Adagrad | Adadelta | Rmsprop | Adam | AdamW | Nadam | Radam | Adamax | LAMB | LARS | Lion | Muon | Shampoo | SOAP


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookahead:
    """Slow weights that go `alpha` of the way to where `inner` got in k steps, and the fast ones back to them.

    Every k updates: slow += alpha (w - slow), w = slow. Memory: the inner optimizer's, "slow" [P], "taken" 0-d (updates since then).
    Between two of these the weights that are evaluated are the fast ones; at them both are the same.
    """

    inner: Inner = AdamW(lr=3e-3)
    """The optimizer that takes the steps. Its memory goes on over the returns. The rate is ours: half of every step is taken back."""
    lr: float = 1.0
    """Factor on `inner.lr`: what a schedule on optimizer.lr moves. Schedule either."""
    k: int = 5
    """Steps forward."""
    alpha: float = 0.5
    """How far the slow weights follow; 1 is the inner optimizer alone."""

    neutral: ClassVar["Lookahead | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        check_finite("Lookahead.lr", self.lr)
        check_count("Lookahead.k", self.k)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"Lookahead.alpha must be in [0, 1], got {self.alpha}")

    def init(self, parameters: FlatParameters) -> Memory:
        own = {"slow": parameters.data.clone(), "taken": counter(parameters)}
        return own | {f"inner.{name}": tensor for name, tensor in self.inner.init(parameters).items()}

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        inner = {name.removeprefix("inner."): tensor for name, tensor in memory.items() if name.startswith("inner.")}
        replace(self.inner, lr=self.lr * self.inner.lr).step(parameters, inner, found_inf=found_inf)
        taken = memory["taken"].add_(1 if found_inf is None else 1 - found_inf)
        due = number(taken) == self.k
        if isinstance(due, Tensor):
            # A skipped step finds the count below k: it was 0 when the return before was made.
            for _, (data, _, slow) in pieces(parameters, memory["slow"]):
                slow.copy_(torch.where(due, slow.lerp(data, self.alpha), slow))
                data.copy_(torch.where(due, slow, data))
            taken.mul_(~due)
        elif due:
            for _, (data, _, slow) in pieces(parameters, memory["slow"]):
                data.copy_(slow.lerp_(data, self.alpha))
            taken.zero_()
