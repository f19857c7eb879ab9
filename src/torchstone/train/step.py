"""One training step: everything that changes training has its line here, in the order it happens."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from torchstone.core import random, ranks
from torchstone.core.precision import autocast
from torchstone.core.protocols import Batch, Progress, PyTree, StepReport
from torchstone.data.batch_transforms import in_turn
from torchstone.data.ready import ready
from torchstone.nn.norm import set_valid_rows
from torchstone.train import coupled
from torchstone.train.full_batch import StepProblem, descend, products
from torchstone.train.method import Method, scheduled
from torchstone.train.state import TrainState


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What every step needs and none changes."""

    seed: int
    noise: int
    """The key of the model's own random draws (dropout)."""
    total: int
    """Updates of the whole run: where schedules end."""
    epoch: int = 1
    """Updates of an epoch."""
    batch_size: int = 1
    gradient: int = 0
    """The key of what the gradient transforms draw."""
    streams: tuple[str, ...] = ()
    """The name of each batch transform's random stream."""
    precision: str = "fp32"
    memory_format: str = "contiguous"
    moving_groups: bool = False
    """The groups' rates move during the run (`protocols.MovingGroups`)."""
    group: int = 1
    """Rows of a share that only pads: one group, all of weight 0."""


def train_step(state: TrainState, microbatches: Sequence[Batch], method: Method, setting: Setting, epoch: int) -> StepReport:
    """One update from this rank's micro-batches. The report holds floats on the CPU, 0-d tensors on an accelerator."""
    started = perf_counter()
    method, numbers = scheduled(method, state.updates, setting.total, state.history)
    for transform in method.model_transforms:
        transform.apply(state.model, state.updates, setting.total)
    if setting.moving_groups:
        method.groups.update(state.parameters, state.updates, setting.total)  # type: ignore[union-attr]
    microbatches = transformed(microbatches, method, setting, epoch)
    whole = coupled.whole_batch(microbatches, method.objective)
    weights = [term_weights(coupled.weight(method.objective, batch.target, whole), batch.weight) for batch in microbatches]
    total = on_host(ranks.sum_(reduce(add, [weight.sum(dtype=torch.float64) for weight in weights])))
    shares = [weight.to(state.parameters.data.dtype) / at_least_tiny(total) for weight in weights]

    def look(number: int, batch: Batch, forward: Callable[[PyTree], PyTree]) -> Tensor:
        leave_out_padding(state, batch, setting)
        seed_model_noise(state.device, random.derived(setting.noise, state.step, number, ranks.rank()))
        with autocast(setting.precision, state.device):
            return coupled.terms(seat(state, "loss", method.objective), forward(batch.inputs), batch.target, whole)

    def closure() -> Tensor:
        state.parameters.zero_grad()
        parts = []
        for number, (batch, share) in enumerate(zip(microbatches, shares, strict=True)):
            with ranks_wait(state, until=number == len(shares) - 1):
                terms = look(number, batch, state.forward)
                share = share.to(terms.dtype)
                parts.append(torch.dot(terms.detach().flatten(), share.flatten()))
                backward(terms, state, share, copies=ranks.world())  # gradients are averaged over ranks; the divisor is global already
        loss = ranks.sum_(reduce(add, parts))
        for number, penalty in enumerate(method.penalties):
            term = seat(state, f"penalties.{number}", penalty)(state.model)
            backward(term, state, torch.ones_like(term))
            loss = loss + term.detach()
        return loss

    def curvature() -> Callable[[Tensor], Tensor]:
        def piece(number: int) -> Tensor:
            terms = look(number, microbatches[number], state.model)
            return torch.dot(terms.flatten(), shares[number].to(terms.dtype).flatten())

        def penalized(number: int) -> Tensor:  # the same on every rank, so each gives its part
            return seat(state, f"penalties.{number}", method.penalties[number])(state.model) / ranks.world()

        return products(
            state, [partial(piece, n) for n in range(len(shares))], [partial(penalized, n) for n in range(len(method.penalties))]
        )

    loss = seat(state, "gradient", method.gradient)(state.model, closure)
    loss, norm = on_host(loss), on_host(unscaled_norm(state))
    if not overflowed(state, loss, norm) and state.guard.may_update(state.step, loss, norm, total):
        for number, transform in enumerate(method.gradient_transforms):
            now = on_host(state.parameters.norm()) if number else norm
            drawn = drawn_from(transform, setting, number, state.updates)
            numbers.update(seat(state, f"gradient_transforms.{number}", transform)(state.parameters, now, **drawn))
        if getattr(method.optimizer, "searches", False):
            numbers.update(descend(method.optimizer, StepProblem(state, closure, curvature), loss))
        else:
            method.optimizer.step(state.parameters, state.optimizer, found_inf=state.guard.skip)  # type: ignore[union-attr]
        if hasattr(method.objective, "commit"):
            method.objective.commit(state.memory["loss"], skip=state.guard.skip)  # type: ignore[attr-defined]
        state.updates += 1
        if method.averaging is not None and state.average is not None:
            progress = Progress(state.updates, setting.total, setting.epoch, setting.batch_size)
            seat(state, "averaging", method.averaging)(state.average, state.parameters, progress, skip=state.guard.skip)
    elif state.guard.tripped_at is None:
        state.skipped.append(state.step)
    state.step += 1
    samples = sum(batch.index.shape[0] for batch in microbatches) * ranks.world()
    return StepReport(state.step, loss, norm, numbers, samples, perf_counter() - started)


def transformed(microbatches: Sequence[Batch], method: Method, setting: Setting, epoch: int) -> list[Batch]:
    """The micro-batches as the model reads them."""
    if method.batch_transforms:
        drawing = [
            (transform, random.key(setting.seed, stream, epoch))
            for stream, transform in zip(setting.streams, method.batch_transforms, strict=True)
        ]
        microbatches = [
            in_turn(batch, [(transform, random.sample_keys(key, batch.index)) for transform, key in drawing]) for batch in microbatches
        ]
    return [replace(batch, inputs=ready(batch.inputs, setting.memory_format)) for batch in microbatches]


def drawn_from(transform: Any, setting: Setting, number: int, updates: int) -> dict[str, int]:
    """What a gradient transform that draws is given beside the gradient (`protocols.DrawingTransform`); the same on every rank."""
    return {"key": random.derived(setting.gradient, number, updates), "updates": updates} if getattr(transform, "draws", False) else {}


def term_weights(weight: Tensor, rows: Tensor) -> Tensor:
    """The loss's weight of each term ([N] or [N, T ...]) times the row's own [N], 0 for padding."""
    return weight * (rows if weight.ndim == 1 else rows.reshape(rows.shape + (1,) * (weight.ndim - 1)))


def on_host(number: Tensor) -> float | Tensor:
    """On the CPU reading a number at once costs less than computing on with it; an accelerator is never waited for."""
    return number.item() if number.device.type == "cpu" else number


def at_least_tiny(total: float | Tensor) -> float | Tensor:
    """A divisor: where nothing counts, every weight is 0 and stays 0."""
    return total.clamp(min=torch.finfo(torch.float32).tiny) if isinstance(total, Tensor) else total or 1.0


def seat(state: TrainState, path: str, part: Any) -> Any:
    """The part, given its memory if it has any."""
    memory = state.memory.get(path)
    return part if memory is None else partial(part, memory=memory)


def seed_model_noise(device: torch.device, key: int) -> None:
    """Dropout and its kin draw from the device's default generator: the same numbers for the same step, micro-batch and rank."""
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(key)
    else:
        torch.default_generator.manual_seed(key)  # torch.manual_seed would walk every accelerator's queue: 50 us


def leave_out_padding(state: TrainState, batch: Batch, setting: Setting) -> None:
    """Under several ranks, rows that only pad a rank's share do not enter batch-norm statistics. A share is all padding or none."""
    if ranks.world() > 1:
        set_valid_rows(state.model, 0 if only_pads(batch, setting) else None)


def only_pads(batch: Batch, setting: Setting) -> bool:
    """Whether a rank's share has no row of its own."""
    return len(batch.index) <= setting.group and not batch.weight.any()


def ranks_wait(state: TrainState, *, until: bool):
    """Under several ranks gradients are exchanged once a step, with the last micro-batch."""
    return nullcontext() if until or not isinstance(state.forward, DistributedDataParallel) else state.forward.no_sync()


def backward(terms: Tensor, state: TrainState, share: Tensor, copies: int = 1) -> None:
    """Adds the gradient of sum(terms x share) to the buffers, times the loss scale and the ranks that will be averaged."""
    factor = copies * (state.scale.scale if state.scale else 1.0)
    terms.backward(share if factor == 1.0 else share * factor)


def unscaled_norm(state: TrainState) -> Tensor:
    """Takes the loss scale out of the gradient and returns its global norm."""
    if state.scale is not None:
        state.parameters.grad.mul_(1.0 / state.scale.scale)
    return state.parameters.norm()


def overflowed(state: TrainState, loss: float | Tensor, norm: float | Tensor) -> bool:
    """Whether fp16 gradients left their range (the loss itself being finite): that update is skipped and only the scale moves."""
    if state.scale is None:
        return False
    overflow = not bool(torch.isfinite(torch.as_tensor(norm))) and bool(torch.isfinite(torch.as_tensor(loss)))
    if not state.scale.exhausted:
        state.scale.observe(overflow)
        return overflow
    return False
