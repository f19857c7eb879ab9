"""Evaluation: every sample of a split scored once, in fixed batches, its sums added over batches and ranks and divided once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchstone import data
from torchstone.core import ranks
from torchstone.core.precision import autocast
from torchstone.core.protocols import BatchTransform, Loss, Memory, Metric, PyTree, RowMetric, SampleTransform, Split
from torchstone.data.pytree import map_leaves
from torchstone.data.ready import ready
from torchstone.data.steady import as_evaluated, steady
from torchstone.train.plan import evaluation_rows
from torchstone.train.step import term_weights


def evaluate(
    model: nn.Module,
    split: Split,
    *,
    loss: Loss,
    metrics: Sequence[Metric],
    device: torch.device,
    batch_size: int,
    precision: str = "fp32",
    memory_format: str = "contiguous",
    forward: Callable[[nn.Module, PyTree], PyTree] | None = None,
    sample_transforms: Sequence[SampleTransform] = (),
    batch_transforms: Sequence[BatchTransform] = (),
    workers: int = 0,
    keep: list[Any] | None = None,
    loss_memory: Memory | None = None,
) -> dict[str, Any]:
    """Name -> value over the whole split, equal on every rank. Only transforms with `train_only = False` are applied.

    Changes nothing: no gradient, no batch-norm statistics, no random number; module modes are put back one by one.
    `forward`: how outputs are made with the model, where that is not one call. `keep`, if given, receives (index, outputs, target) of
    this rank's batches, on the CPU. `loss_memory`: what the loss remembers, where it does.
    """
    sums = [Sums(metric) for metric in metrics]
    rows = evaluation_rows(len(split), batch_size, ranks.rank(), ranks.world())
    batches = data.load(
        split,
        rows,
        sample_transforms=steady(sample_transforms),
        key=0,
        workers=workers,
        device=device,
    )
    waiting: list[tuple[PyTree, PyTree, Tensor, Tensor]] = []

    def measure(some: list[tuple[PyTree, PyTree, Tensor, Tensor]]) -> None:
        if some:
            together = map_leaves(_end_to_end, *some)
            for total, metric in zip(sums, metrics, strict=True):
                total.add(metric.measure(*together))
            some.clear()

    scored: Callable[..., Tensor] = loss if loss_memory is None else partial(loss, memory=loss_memory)  # type: ignore[call-arg]
    with evaluating(model), torch.no_grad():
        for (batch,) in batches:
            batch = as_evaluated(batch, batch_transforms)
            with autocast(precision, device):
                inputs = ready(batch.inputs, memory_format)
                outputs = model(inputs) if forward is None else forward(model, inputs)
            terms = scored(outputs, batch.target)
            weight = term_weights(loss.weight(batch.target), batch.weight)
            waiting.append((outputs, batch.target, weight, terms))
            if sum(map(_size, waiting)) >= _MEASURED_TOGETHER:
                measure(waiting)
            if keep is not None:
                keep.append(tuple(map_leaves(lambda x: x.cpu(), tree) for tree in (batch.index, outputs, batch.target)))
        measure(waiting)
    result: dict[str, Any] = {}
    for total, metric in zip(sums, metrics, strict=True):
        result |= metric.result(over_ranks(total.merged(), total.rows, device))
    return result


_MEASURED_TOGETHER = 1 << 16
"""Numbers of outputs that are measured at once: a small batch costs a metric more calls than sums."""


def _size(scored: tuple[PyTree, PyTree, Tensor, Tensor]) -> int:
    """Numbers of a batch's outputs; what is more than a row of outputs a sample is measured batch by batch."""
    outputs, target, *_ = scored
    rows = isinstance(outputs, Tensor) and isinstance(target, Tensor) and outputs.ndim <= 2
    return outputs.numel() if rows else _MEASURED_TOGETHER


def _end_to_end(*parts: Tensor) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class Sums:
    """What a metric measured over the batches so far: sums, and rows of those it names in `rows`."""

    def __init__(self, metric: Metric) -> None:
        self.rows: tuple[str, ...] = metric.rows if isinstance(metric, RowMetric) else ()
        self._sums: dict[str, Tensor] = {}
        self._laid: dict[str, list[Tensor]] = {}

    def add(self, more: Mapping[str, Tensor]) -> None:
        """One more batch."""
        for name, value in more.items():
            if name in self.rows:
                self._laid.setdefault(name, []).append(value)
            else:
                self._sums[name] = self._sums[name] + value if name in self._sums else value

    def merged(self) -> dict[str, Tensor]:
        """Everything so far by name; rows are copied once, here."""
        return self._sums | {name: torch.cat(parts) for name, parts in self._laid.items()}


def over_ranks(total: dict[str, Tensor], rows: Sequence[str], device: torch.device) -> dict[str, Tensor]:
    """The sums of all ranks, and their `rows` end to end. A rank that had no batch takes part with zeros, and with no row."""
    if ranks.world() == 1:
        return total
    shapes = ranks.broadcast_object({name: [list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in total.items()})
    for name, (shape, dtype) in shapes.items():
        shape = [0, *shape[1:]] if name in rows else shape
        total.setdefault(name, torch.zeros(shape, dtype=getattr(torch, dtype), device=device))
    return {name: ranks.lay_end_to_end(total[name]) if name in rows else ranks.sum_(total[name]) for name in shapes}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
