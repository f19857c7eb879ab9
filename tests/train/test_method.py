"""The method's own rules: schedules and their paths, rows that are mixed."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from torchstone.core.errors import UserError
from torchstone.core.protocols import History
from torchstone.data import Flip, Mixup
from torchstone.losses import CrossEntropy
from torchstone.optim import EMA, SGD, AdamW, ClipByNorm, Cosine, OneCycle
from torchstone.train.method import Method, check, couples, mixed_rows, scheduled


@dataclass(frozen=True, kw_only=True, slots=True)
class Falling:
    path: str

    def __call__(self, step: int, total: int, history: History) -> float:
        return 1 - step / total


def test_two_schedules_on_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Method\.schedules: two schedules on optimizer\.lr"):
        Method(schedules=(Cosine(path="optimizer.lr"), OneCycle(path="optimizer.lr")))
    Method(schedules=(Cosine(path="optimizer.lr"), OneCycle(path="loss.smoothing")))


def test_scheduled_numbers_are_written_in_and_reported() -> None:
    method = Method(
        loss=CrossEntropy(smoothing=0.2),
        optimizer=SGD(lr=0.4),
        gradient_transforms=(ClipByNorm(max_norm=8.0),),
        schedules=(Falling(path="optimizer.lr"), Falling(path="loss.smoothing"), Falling(path="gradient_transforms.0.max_norm")),
    )
    now, numbers = scheduled(method, 5, 20, History())
    assert numbers == {"optimizer.lr": 0.4 * 0.75, "loss.smoothing": 0.2 * 0.75, "gradient_transforms.0.max_norm": 6.0}
    assert (now.optimizer.lr, now.loss.smoothing, now.gradient_transforms[0].max_norm) == tuple(numbers.values())
    assert method.optimizer.lr == 0.4
    assert replace(now, optimizer=method.optimizer, loss=method.loss, gradient_transforms=method.gradient_transforms) == method


def test_the_rate_is_always_reported() -> None:
    method = Method(optimizer=AdamW(lr=0.25))
    assert scheduled(method, 3, 9, History()) == (method, {"optimizer.lr": 0.25})


@pytest.mark.parametrize(
    "path, message",
    [
        ("optimizer.lrr", "the method has no optimizer.lrr"),
        ("averaging.decay", "the method has no averaging.decay"),
        ("optimizer", "not a real number"),
        ("optimizer.nesterov", "not a real number"),
        ("optimizer.__class__", "the method has no"),
    ],
)
def test_a_schedule_needs_a_number(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(Method(optimizer=SGD(), schedules=(Cosine(path=path),)))


def test_a_number_of_any_seat_can_be_scheduled() -> None:
    check(Method(averaging=EMA(), schedules=(Cosine(path="averaging.decay"),)))


def test_mixed_rows() -> None:
    assert mixed_rows(Method()) == 1
    assert mixed_rows(Method(batch_transforms=(Flip(), Mixup()))) == 2

    class ByThree(Mixup):
        group: ClassVar[int] = 3

    assert mixed_rows(Method(batch_transforms=(Mixup(), ByThree()))) == 6


def test_couples() -> None:
    class Contrastive(CrossEntropy):
        couples: ClassVar[bool] = True

    assert not couples(Method(loss=CrossEntropy())) and not couples(Method())
    assert couples(Method(loss=Contrastive()))
