"""From a resolved method to a training state at step 0."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from torchstone.core import ranks, tree
from torchstone.core.errors import UserError
from torchstone.core.protocols import Memory
from torchstone.nn.norm import synchronize
from torchstone.optim.flat import FlatParameters
from torchstone.train.guard import Guard
from torchstone.train.method import Method, averages
from torchstone.train.precision import LossScale
from torchstone.train.settings import Run
from torchstone.train.state import TrainState


def build_state(model: nn.Module, method: Method, run: Run, device: torch.device) -> TrainState:
    """Puts the model on the device, lays its parameters end to end and makes room for everything the method remembers."""
    for transform in method.model_transforms:
        model = transform(model)
    if ranks.world() > 1 and run.synchronize_batch_norm:
        model = synchronize(model)
    model = model.to(device).train()
    groups = None if method.groups is None else method.groups(model)
    parameters = FlatParameters(model, groups)
    twin = parameters.twin() if averages(method) else None
    return TrainState(
        model=model,
        parameters=parameters,
        forward=callable_model(model, run, device),
        device=device,
        optimizer=method.optimizer.init(parameters),
        average=twin,
        memory=seat_memory(model, method) | average_memory(parameters, method),
        scale=LossScale() if run.precision == "fp16" else None,
        guard=Guard(device),
    )


def callable_model(model: nn.Module, run: Run, device: torch.device):
    """The model as the step calls it: blocks recomputed, compiled, wrapped for several ranks, each where asked for."""
    if run.activation_checkpointing:
        recompute_blocks(model)
    forward = torch.compile(model) if run.compile else model
    if ranks.world() == 1:
        return forward
    return DistributedDataParallel(forward, device_ids=[device.index] if device.type == "cuda" else None, forward_sync_buffers=False)


def recompute_blocks(model: nn.Module) -> None:
    """Every module in a `blocks` list keeps its input alone and runs again in the backward pass, with the same random numbers.

    Raises UserError for a model that has no such list.
    """
    for block in blocks_of(model):
        block.forward = _recomputed(block)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model: what its `blocks` lists hold.

    Raises UserError where there is none.
    """
    lists = [blocks for name, blocks in model.named_modules() if name.split(".")[-1] == "blocks" and isinstance(blocks, nn.ModuleList)]
    if not lists:
        raise UserError(f"run.activation_checkpointing: {type(model).__name__} has no list of blocks to recompute; set it to false")
    return list(chain.from_iterable(lists))


def _recomputed(block: nn.Module):
    forward = block.forward

    def wrapped(*inputs, **options):
        if not torch.is_grad_enabled():
            return forward(*inputs, **options)
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(block)), **options)

    return wrapped


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second forward normalizes by the batch as the first did, and leaves the running statistics to the first."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm) and module.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None  # moved by a share of 0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def streams(method: Method) -> tuple[str, ...]:
    """A random stream for each batch transform, named by its kind, so that adding one does not change what the others draw."""
    seen: Counter[str] = Counter()
    names = []
    for transform in method.batch_transforms:
        kind = tree.kind_of(transform)
        names.append(f"batch/{kind}/{seen[kind]}")
        seen[kind] += 1
    return tuple(names)


def seat_memory(model: nn.Module, method: Method) -> dict[str, Memory]:
    """What every part with an `init` (but the optimizer, which has its own file) starts out remembering, by the seat's path."""
    parts = {"loss": method.loss, "gradient": method.gradient}
    for name in ("penalties", "gradient_transforms"):
        parts |= {f"{name}.{number}": part for number, part in enumerate(getattr(method, name))}
    return {path: part.init(model) for path, part in parts.items() if hasattr(part, "init")}


def average_memory(parameters: FlatParameters, method: Method) -> dict[str, Memory]:
    """What an averaging remembers beside the average."""
    return {"averaging": method.averaging.init(parameters)} if hasattr(method.averaging, "init") else {}  # type: ignore[union-attr]
