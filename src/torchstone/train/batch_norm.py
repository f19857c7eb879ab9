"""Batch-norm statistics of averaged weights, computed anew on training batches: no training step ever ran those weights.

Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018, https://arxiv.org/abs/1803.05407, section 3.2.
Shapes: N valid rows of a micro-batch, C channels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from torchstone.core import ranks
from torchstone.core.protocols import Batch
from torchstone.nn.norm import set_valid_rows
from torchstone.nn.switchable import SwitchableNorm

BATCHES = 100
"""Training batches that the statistics come from, at most; never more than an epoch."""


def wanted(*parts: Any) -> bool:
    """Whether a part of the method asks for it by `recompute_batch_norm`."""
    return any(getattr(part, "recompute_batch_norm", False) for part in parts)


def recompute(
    model: nn.Module,
    trained: nn.Module,
    microbatches: Iterable[Sequence[Batch]],
    forward: Callable[[Any], Any],
    *,
    padding: Callable[[Batch], bool] = lambda batch: False,
) -> None:
    """Writes into every batch norm of `model` the mean and the unbiased variance (switchable norm: the biased one) of all that
    reaches it from these batches.

    The batches are pooled exactly, in float64, over ranks too: mean and variance are those of one large batch, each layer being fed by
    layers before it that normalize by their own micro-batch, as in training. Dropout and its kin are off, as in an evaluation. A batch norm
    that `trained` has frozen (in evaluation mode while it trains) keeps its statistics. Only the running statistics change; every module's
    mode and counter comes back. `forward` is the model as one call; `padding` tells a share without any valid row.
    """
    mode = dict(trained.named_modules())
    norms = [
        module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and (name not in mode or mode[name].training)
    ]
    if not norms:
        return
    pools = [Pool(norm) for norm in norms]
    hooks = [norm.register_forward_pre_hook(pool.observe) for norm, pool in zip(norms, pools, strict=True)]
    try:
        with by_batch(model, norms), torch.no_grad():
            for each in microbatches:
                for batch in each:
                    empty = padding(batch)
                    set_valid_rows(model, 0 if empty else None)
                    for pool in pools:
                        pool.closed = empty
                    forward(batch.inputs)
    finally:
        set_valid_rows(model, None)
        for hook in hooks:
            hook.remove()
    for pool in pools:
        pool.write()


class Pool:
    """Count, mean and sum of squared deviations of what reaches one layer, joined batch by batch.

    Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979, eq. 2.1.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        assert norm.running_mean is not None
        self.norm, self.closed = norm, False
        self.count = torch.zeros((), dtype=torch.float64, device=norm.running_mean.device)
        self.mean = torch.zeros_like(norm.running_mean, dtype=torch.float64)
        self.squares = torch.zeros_like(self.mean)

    def observe(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """As a forward pre-hook of the layer, which reads [N, C, ...]."""
        x: Float[Tensor, "N C ..."] = inputs[0]
        if self.closed or not len(x):
            return
        values = x.detach().double().transpose(0, 1).flatten(1)
        mean = values.mean(dim=1)
        self.join(torch.full_like(self.count, values.shape[1]), mean, (values - mean[:, None]).square().sum(dim=1))

    def join(self, count: Tensor, mean: Tensor, squares: Tensor) -> None:
        total = self.count + count
        share = count / total.clamp(min=1)
        away = mean - self.mean
        self.squares += squares + away.square() * self.count * share
        self.mean += away * share
        self.count = total

    def write(self) -> None:
        """Into the layer's running statistics, those of all ranks; a layer that nothing reached keeps its own."""
        everywhere = ranks.sum_(self.count.clone())
        mean = ranks.sum_(self.mean * self.count) / everywhere.clamp(min=1)
        squares = ranks.sum_(self.squares + (self.mean - mean).square() * self.count)
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        if everywhere > 0:
            self.norm.running_mean.copy_(mean)
            lost = 0 if isinstance(self.norm, SwitchableNorm) else 1  # its variances divide by the count
            self.norm.running_var.copy_(squares / (everywhere - lost).clamp(min=1))


@contextmanager
def by_batch(model: nn.Module, norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Inside, these layers normalize by the batch, everything else evaluates. Modes and counters are put back."""
    modes = [(module, module.training) for module in model.modules()]
    counters = [norm.num_batches_tracked for norm in norms]
    kept = [None if counter is None else counter.clone() for counter in counters]
    model.eval()
    for norm in norms:
        norm.train()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for counter, value in zip(counters, kept, strict=True):
            if counter is not None and value is not None:
                counter.copy_(value)
