"""What the suite's type checker refuses and lets through: without it every annotation of the package would be a comment."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self

import jaxtyping
import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError
from torch import Tensor

import shape_check
from torchstone.core import random
from torchstone.losses import CrossEntropy

hooked: Any = partial(jaxtyping.jaxtyped, typechecker=shape_check.check)
"""As the import hook decorates functions and classes."""


@hooked
def joined(a: Float[Tensor, "N C"], b: Int[Tensor, " N"], width: int = 3) -> Float[Tensor, "N D"]:
    return a.repeat(1, width)


@hooked
def taken(rows: Float[Tensor, "N C"], keep: slice) -> Float[Tensor, "N C"]:
    return rows[keep]


@hooked
def doubled(x: int) -> int:
    return x * 2.0 if x > 100 else x * 2  # type: ignore[return-value]


@hooked
def filled(count: int, made: int) -> Float[Tensor, "{count}"]:
    return torch.zeros(made)


class Named(Protocol):
    name: str


class Holder:
    name = "held"


@hooked
def called(what: Named) -> str:
    return what.name


@hooked
def parts(x: Float[Tensor, " N"]) -> Iterator[Float[Tensor, ""]]:
    yield from x


@hooked
@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    rate: float = 0.5
    shape: tuple[int, ...] = ()
    table: Float[Tensor, "N N"] | None = None

    @hooked
    def twice(self: Self) -> Self:
        return type(self)(rate=2 * self.rate)

    @property
    @hooked
    def half(self) -> float:
        return "half" if self.rate > 100 else self.rate / 2  # type: ignore[return-value]


@hooked
def outer(rows: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """Calls another function whose N is another."""
    taken(rows[:1], slice(None))
    return rows


@hooked
def defines() -> Callable[[Any], int]:
    @hooked
    def inner(x: int) -> int:
        return x

    return inner


ROWS, NUMBERS = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)


def test_what_is_right_passes() -> None:
    assert joined(ROWS, NUMBERS, width=2).shape == (4, 4)
    assert taken(ROWS, slice(None)).shape == outer(ROWS).shape == (4, 2)
    assert doubled(2) == defines()(4) == 4 and doubled(x=1) == 2
    assert filled(3, 3).shape == (3,)
    assert called(Holder()) == "held"
    assert len(list(parts(torch.zeros(3)))) == 3
    assert Part(rate=1, table=torch.zeros(3, 3)).twice().half == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: joined(ROWS[0], NUMBERS),
        lambda: joined(ROWS.double().long(), NUMBERS),
        lambda: joined(ROWS, NUMBERS[:3]),
        lambda: joined(ROWS, NUMBERS, "3"),
        lambda: taken(ROWS, slice(2)),
        lambda: doubled("2"),
        lambda: doubled(101),
        lambda: filled(3, 4),
        lambda: called(3),
        lambda: next(parts(torch.zeros(3, 2))),
        lambda: Part(rate="fast"),
        lambda: Part(shape=("1",)),
        lambda: Part(shape=[1]),
        lambda: Part(table=torch.zeros(3, 2)),
        lambda: Part(rate=101.0).half,
        lambda: defines()("4"),
        lambda: random.uniform(torch.zeros(3), 2),
        lambda: CrossEntropy(smoothing="0.1"),
        lambda: CrossEntropy()(torch.zeros(3, 2), "target"),
    ],
    ids=[
        "one axis for two",
        "integers for reals",
        "one axis, two sizes",
        "text for a number",
        "a result of another size",
        "text for an integer",
        "a result of another type",
        "a size that an argument names",
        "no such attribute",
        "a generator's argument",
        "a field",
        "an item of a field",
        "a list for a tuple",
        "a table that is not square",
        "a property",
        "a function in a function",
        "the package: sizes by arguments",
        "the package: a field",
        "the package: a call",
    ],
)
def test_what_is_wrong_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(TypeCheckError):
        wrong()
