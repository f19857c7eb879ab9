"""Schedules against closed forms and torch's schedulers, over every step of runs of many lengths."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchstone.core.protocols import History
from torchstone.optim import OneCycle, WarmupCosine

H = History()


def of_torch(make, total: int, lr: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, rates = make(optimizer), []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(rates) < total else None
    return rates


@pytest.mark.parametrize("total", [10, 17, 100, 1000])
@pytest.mark.parametrize(("warmup", "start", "final"), [(0.3, 1 / 25, 4e-6), (0.25, 0.1, 0.01), (0.5, 1.0, 0.0)])
def test_one_cycle_is_torchs(total, warmup, start, final):
    part = OneCycle(warmup=warmup, start_factor=start, final_factor=final)
    divide = start / final if final else math.inf
    expected = of_torch(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 1.0, total_steps=total, pct_start=warmup, div_factor=1 / start, final_div_factor=divide, cycle_momentum=False
        ),
        total,
    )
    assert [part(s, total, H) for s in range(total)] == pytest.approx(expected, abs=1e-12)


def test_one_cycle_defaults_are_torchs():
    expected = of_torch(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, total_steps=50, cycle_momentum=False), 50)
    assert [OneCycle()(s, 50, H) for s in range(50)] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("total", [1, 2, 10, 100])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_without_warmup_is_torchs(total, final):
    expected = of_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, total, eta_min=final), total)
    assert [WarmupCosine(warmup=0.0, final=final)(s, total, H) for s in range(total)] == pytest.approx(expected, abs=1e-12)


def test_warmup_cosine_is_the_closed_form():
    part, total, warm = WarmupCosine(warmup=0.1, final=0.2), 50, 5
    for s in range(total):
        expected = (s + 1) / warm if s < warm else 0.2 + 0.8 * (1 + math.cos(math.pi * (s - warm) / (total - warm))) / 2
        assert part(s, total, H) == pytest.approx(expected, abs=1e-15)
    assert part(warm, total, H) == part(warm - 1, total, H) == 1.0
    assert 0.2 < part(total - 1, total, H) < 0.2 + 0.8 * (math.pi / 45) ** 2 / 4 + 1e-9
    assert part(total, total, H) == pytest.approx(0.2, abs=1e-15)


@given(
    total=st.integers(1, 400),
    warmup=st.floats(0, 0.999),
    final=st.floats(0, 1),
    start=st.floats(0, 1),
    kind=st.sampled_from([WarmupCosine, OneCycle]),
)
def test_factors_stay_between_their_ends_and_clamp(total, warmup, final, start, kind):
    part = kind(warmup=warmup, final=final) if kind is WarmupCosine else kind(warmup=warmup, start_factor=start, final_factor=final)
    for step in {0, total // 3, total // 2, total - 1, total, total + 7}:
        assert 0 <= part(step, total, H) <= 1 + 1e-12
    assert part(total + 7, total, H) == part(total, total, H) == pytest.approx(final, abs=1e-12)


@pytest.mark.parametrize("part", [WarmupCosine.neutral, OneCycle.neutral])
def test_neutral_is_exactly_one(part):
    assert {part(s, total, H) for total in (1, 2, 3, 50) for s in range(total + 2)} == {1.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WarmupCosine(warmup=1.0), r"WarmupCosine\.warmup must be"),
        (lambda: WarmupCosine(warmup=math.nan), r"WarmupCosine\.warmup must be"),
        (lambda: WarmupCosine(final=-0.1), r"WarmupCosine\.final must be"),
        (lambda: WarmupCosine(path=""), r"WarmupCosine\.path must be"),
        (lambda: OneCycle(start_factor=math.inf), r"OneCycle\.start_factor must be"),
        (lambda: OneCycle(final_factor=-1.0), r"OneCycle\.final_factor must be"),
        (lambda: OneCycle(path="optimizer..lr"), r"OneCycle\.path must be"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
