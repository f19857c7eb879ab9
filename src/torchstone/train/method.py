"""The method: every seat of how a model learns, and the numbers that schedules write into it."""

import math
from dataclasses import dataclass, field
from typing import Any

from torchstone import data, losses, optim, slim
from torchstone.core import protocols, tree
from torchstone.core.errors import UserError
from torchstone.core.protocols import History


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """All the seats. An empty seat (none, or an empty list) is bit-identical to a part at its neutral value."""

    sampler: data.Sampler | protocols.Sampler = data.Uniform()
    """The order of the training samples."""
    sample_transforms: tuple[data.SampleTransform | protocols.SampleTransform, ...] = ()
    """What happens to one sample as it is read."""
    batch_transforms: tuple[data.BatchTransform | protocols.BatchTransform, ...] = ()
    """What happens to a whole batch, on the device."""
    model_transforms: tuple[slim.ModelTransform | protocols.ModelTransform, ...] = ()
    """What changes the model once before training, and a little before every step."""
    loss: losses.Loss | protocols.Loss | None = None
    """What is minimized; none: the task's default."""
    penalties: tuple[losses.Penalty | protocols.Penalty, ...] = ()
    """What is added to the loss, of the weights alone."""
    gradient: optim.Gradient | protocols.Gradient = optim.Backprop()
    """How the gradient is found."""
    gradient_transforms: tuple[optim.GradientTransform | protocols.GradientTransform, ...] = ()
    """What happens to the gradient before the update."""
    groups: optim.Groups | protocols.Groups | None = None
    """Which parameters have rates and decays of their own."""
    optimizer: optim.Optimizer | protocols.Optimizer = field(default_factory=optim.AdamW)
    """How the gradient becomes an update."""
    schedules: tuple[optim.Schedule | protocols.Schedule, ...] = ()
    """What number of the method follows which curve."""
    averaging: optim.Averaging | protocols.Averaging | None = None
    """A second model, an average over the steps, that is evaluated and shipped."""
    stop: optim.Stop | protocols.Stop | None = None
    """When to stop before the end."""

    @property
    def objective(self) -> protocols.Loss:
        """The loss of a resolved method: never none."""
        assert self.loss is not None, "resolve the method first"
        return self.loss

    def __post_init__(self) -> None:
        paths = [schedule.path for schedule in self.schedules]
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"Method.schedules: two schedules on {path}; a number follows one curve")


def scheduled(method: Method, step: int, total: int, history: History) -> tuple[Method, dict[str, Any]]:
    """The method with every scheduled number written in for this update, and those numbers by path (the rate always among them)."""
    numbers: dict[str, Any] = {}
    for schedule in method.schedules:
        value = tree.get(method, schedule.path) * schedule(step, total, history)
        method = tree.put(method, schedule.path, value)
        numbers[schedule.path] = value
    numbers.setdefault("optimizer.lr", method.optimizer.lr)
    return method, numbers


def couples(method: Method) -> bool:
    """Whether a term of the loss depends on the other samples of its batch."""
    return bool(getattr(method.loss, "couples", False))


def has_own_average(optimizer: Any) -> bool:
    """Whether it is a `protocols.OwnAverage`."""
    return hasattr(optimizer, "evaluation_weights")


def averages(method: Method) -> bool:
    """Whether a second model is evaluated and shipped: an averaging's, or the optimizer's own."""
    return method.averaging is not None or has_own_average(method.optimizer)


def mixed_rows(method: Method) -> int:
    """Consecutive rows that must stay in one micro-batch: the least common multiple of what the batch transforms mix."""
    return math.lcm(1, *(getattr(transform, "group", 1) for transform in method.batch_transforms))


def check(method: Method) -> None:
    """Refuses a resolved method whose parts do not fit each other.

    Raises UserError naming the setting.
    """
    if method.averaging is not None and has_own_average(method.optimizer):
        average, own = tree.kind_of(method.averaging), tree.kind_of(method.optimizer)
        raise UserError(f"method.averaging={average}: the optimizer {own} has evaluation weights of its own; set method.averaging=none")
    if has_own_average(method.optimizer) and any(schedule.path.startswith("optimizer.betas") for schedule in method.schedules):
        own = tree.kind_of(method.optimizer)
        raise UserError(f"method.schedules: {own} finds its average again with optimizer.betas, which must not move; schedule optimizer.lr")
    if getattr(method.optimizer, "searches", False):
        check_search(method)
    gated = any(isinstance(transform, slim.HardConcrete) for transform in method.model_transforms)
    if not gated and any(isinstance(penalty, losses.L0) for penalty in method.penalties):
        raise UserError("method.penalties: l0 counts the gates of method.model_transforms=[hard_concrete], and there are none")
    kinds = [tree.kind_of(transform) for transform in method.batch_transforms]
    for place, transform in enumerate(method.batch_transforms):
        if early := [kind for kind in kinds[:place] if kind in getattr(transform, "before", ())]:
            raise UserError(
                f"method.batch_transforms: {kinds[place]} comes after {early[0]}, which leaves it nothing to work on; put it before"
            )
    for schedule in method.schedules:
        place, _, name = schedule.path.rpartition(".")
        try:
            part = tree.get(method, place) if place else method
            value = tree.get(method, schedule.path)
        except ValueError:
            raise UserError(f"method.schedules: the method has no {schedule.path}") from None
        annotation = tree.fields_of(type(part))[name].annotation if tree.is_part(part) else None
        if annotation is not float:
            raise UserError(f"method.schedules: {schedule.path} is {value!r}, not a real number that a schedule can scale")


def check_search(method: Method) -> None:
    """Refuses what does not go with an optimizer that evaluates the batch several times a step.

    Raises UserError naming the setting.
    """
    own = tree.kind_of(method.optimizer)
    if not isinstance(method.gradient, optim.Backprop):
        raise UserError(f"method.gradient={tree.kind_of(method.gradient)}: {own} follows the loss itself; set method.gradient=backprop")
    if method.gradient_transforms:
        kinds = ", ".join(tree.kind_of(transform) for transform in method.gradient_transforms)
        raise UserError(f"method.gradient_transforms=[{kinds}]: {own} needs the true gradient; set method.gradient_transforms=none")
    if hasattr(method.loss, "init"):
        raise UserError(f"method.loss={tree.kind_of(method.loss)} changes while it is looked at; {own} needs a loss that stays the same")


def check_length(method: Method, total: int) -> None:
    """Refuses a schedule that does not fit in a run of `total` updates: a warm-up longer than it, a milestone after its end.

    Raises UserError naming the setting.
    """
    for number, schedule in enumerate(method.schedules):
        try:
            getattr(schedule, "fits", lambda total: None)(total)
        except ValueError as error:
            raise UserError(f"method.schedules.{number} ({tree.kind_of(schedule)} on {schedule.path}): {error}") from None
