"""The loss scale against its closed form, and the contexts of the formats."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchstone.core.precision import autocast
from torchstone.train.precision import LossScale


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 9))
def test_the_scale_is_2_to_the_doublings_less_the_overflows(overflows: list[bool], patience: int) -> None:
    scale = LossScale(patience=patience)
    for overflow in overflows:
        scale.observe(overflow)
    words = "".join("x" if overflow else "." for overflow in overflows).split("x")
    assert scale.scale == 2.0 ** (16 - (len(words) - 1) + sum(len(good) // patience for good in words))
    assert scale.good == len(words[-1]) % patience


def test_the_usual_patience_is_torchs() -> None:
    ours, theirs = LossScale(), torch.amp.GradScaler("cpu")
    assert (ours.scale, ours.patience) == (theirs.get_scale(), theirs.get_growth_interval())
    assert (0.5, 2.0) == (theirs.get_backoff_factor(), theirs.get_growth_factor())


def test_it_is_exhausted_when_no_scale_is_small_enough() -> None:
    scale, seen = LossScale(), 0
    while not scale.exhausted:
        scale.observe(True)
        seen += 1
    assert seen == 31 and scale.scale == 2.0**-15


@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast(precision: str, dtype: torch.dtype) -> None:
    with autocast(precision, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert isinstance(autocast("fp32", torch.device("cpu")), nullcontext)
