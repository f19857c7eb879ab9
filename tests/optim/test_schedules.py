"""Schedules against closed forms and torch's schedulers, over every step of runs of many lengths."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from torchstone.core.errors import UserError
from torchstone.core.protocols import Evaluation, History
from torchstone.core.tree import choices, kind_of
from torchstone.optim import (
    WSD,
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    MultiStep,
    OneCycle,
    Plateau,
    Polynomial,
    Schedule,
    Step,
)

H = History()
ALL = list(choices(Schedule).values())
CURVES = [kind for kind in ALL if kind not in (OneCycle, InverseSqrt)]
"""Those that wait for the end of the warm-up."""


def of_torch(make, total: int, lr: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, rates = make(optimizer), []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(rates) < total else None
    return rates


def values(part, total: int, history: History = H) -> list[float]:
    return [part(s, total, history) for s in range(total)]


def near(expected: list[float]) -> Any:
    return pytest.approx(expected, abs=1e-12)


# --- torch's ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [10, 17, 100, 1000])
@pytest.mark.parametrize(("warmup", "start", "final"), [(0.3, 1 / 25, 4e-6), (0.25, 0.1, 0.01), (0.5, 1.0, 0.0)])
@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("three", [False, True])
def test_one_cycle_is_torchs(total, warmup, start, final, shape, three):
    if three and total * warmup * 2 - 2 >= total - 1:
        pytest.skip("torch divides by zero")
    part = OneCycle(warmup=warmup, warmup_start=start, final=final, shape=shape, warmup_shape=shape, three_phases=three)
    settings: dict[str, Any] = {
        "pct_start": warmup,
        "div_factor": 1 / start,
        "final_div_factor": start / final if final else math.inf,
        "anneal_strategy": {"cosine": "cos", "linear": "linear"}[shape],
        "three_phase": three,
    }
    expected = of_torch(lambda o: theirs.OneCycleLR(o, 1.0, total_steps=total, cycle_momentum=False, **settings), total)
    assert values(part, total) == near(expected)


def test_one_cycle_defaults_are_torchs():
    expected = of_torch(lambda o: theirs.OneCycleLR(o, 1.0, total_steps=50, cycle_momentum=False), 50)
    assert values(OneCycle(), 50) == near(expected)
    assert values(OneCycle(warmup=15), 50) == near(expected)


@pytest.mark.parametrize("total", [1, 2, 10, 100])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_torchs(total, final):
    expected = of_torch(lambda o: theirs.CosineAnnealingLR(o, total, eta_min=final), total)
    assert values(Cosine(final=final), total) == near(expected)


@pytest.mark.parametrize("total", [3, 7, 10, 90, 100, 1000])
def test_step_is_torchs(total):
    every = max(1, total // 5)
    assert values(Step(every=every, factor=0.3), total) == near(of_torch(lambda o: theirs.StepLR(o, every, 0.3), total))
    if total % 3 == 0:
        assert values(Step(), total) == near(of_torch(lambda o: theirs.StepLR(o, total // 3, 0.1), total))


@pytest.mark.parametrize("total", [4, 60, 100, 64_0])
def test_multi_step_is_torchs(total):
    expected = of_torch(lambda o: theirs.MultiStepLR(o, [total // 2, total * 3 // 4], 0.1), total)
    assert values(MultiStep(), total) == near(expected)
    assert values(MultiStep(milestones=(total // 2, total * 3 // 4)), total) == near(expected)


@pytest.mark.parametrize("total", [1, 10, 333])
def test_exponential_is_torchs(total):
    assert values(Exponential(final=0.05), total) == near(of_torch(lambda o: theirs.ExponentialLR(o, 0.05 ** (1 / total)), total))


@pytest.mark.parametrize("total", [1, 10, 333])
@pytest.mark.parametrize("power", [0.9, 1.0, 2.5])
def test_polynomial_is_torchs(total, power):
    expected = of_torch(lambda o: theirs.PolynomialLR(o, total, power), total)
    assert values(Polynomial(power=power), total) == pytest.approx(expected, abs=1e-10)
    assert values(Polynomial(power=power, final=0.2), total) == pytest.approx([0.2 + 0.8 * e for e in expected], abs=1e-10)


@pytest.mark.parametrize(("first", "growth"), [(10, 1), (7, 2), (5, 3), (1, 1)])
def test_cosine_restarts_is_torchs(first, growth):
    expected = of_torch(lambda o: theirs.CosineAnnealingWarmRestarts(o, first, growth, eta_min=0.05), 210)
    assert values(CosineRestarts(first=first, growth=growth, final=0.05), 210) == near(expected)


def test_cosine_restarts_end_with_the_run():
    for total in (7, 70, 700, 777):
        part = CosineRestarts()
        assert values(part, total) == near(of_torch(lambda o, t=total: theirs.CosineAnnealingWarmRestarts(o, t // 7, 2), total))


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(("up", "down"), [(5, None), (4, 9), (1, 1)])
def test_cyclic_is_torchs(mode, up, down):
    def make(optimizer):
        return theirs.CyclicLR(
            optimizer,
            0.25,
            1.0,
            step_size_up=up,
            step_size_down=down,
            mode=mode,
            gamma=0.99 if mode == "exp_range" else 1.0,
            cycle_momentum=False,
        )

    expected = of_torch(make, 120, lr=0.25)
    assert values(Cyclic(mode=mode, up=up, down=down, gamma=0.99), 120) == near(expected)
    if down is None:
        assert values(Cyclic(mode=mode, up=up / 120, gamma=0.99), 120) == near(expected)


@pytest.mark.parametrize("total", [10, 60])
def test_a_linear_warmup_is_torchs_sequence(total):
    """torch counts its rise from `warmup_start` at update 0; ours has it one update before."""
    warm, start = total // 5, 0.1

    def make(optimizer):
        rise = theirs.LinearLR(optimizer, start + (1 - start) / warm, total_iters=warm - 1)
        return theirs.SequentialLR(optimizer, [rise, theirs.PolynomialLR(optimizer, total - warm)], [warm])

    assert values(Polynomial(power=1.0, warmup=0.2, warmup_start=start), total) == near(of_torch(make, total))
    assert values(Polynomial(power=1.0, warmup=warm, warmup_start=start), total) == near(of_torch(make, total))


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["relative", "absolute"])
@pytest.mark.parametrize(("patience", "cooldown", "lowest"), [(2, 0, 0.0), (0, 3, 0.01), (10, 0, 0.0)])
def test_plateau_is_torchs(mode, threshold_mode, patience, cooldown, lowest):
    draw = torch.Generator().manual_seed(patience)
    metric = (torch.linspace(2.0, 1.0, 60) + 0.1 * torch.randn(60, generator=draw)).tolist()
    part = Plateau(
        mode=mode, threshold_mode=threshold_mode, patience=patience, cooldown=cooldown, lowest=lowest, factor=0.3, threshold=0.01
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = theirs.ReduceLROnPlateau(
        optimizer, mode, 0.3, patience, 0.01, {"relative": "rel", "absolute": "abs"}[threshold_mode], cooldown, lowest, eps=0
    )
    history = History()
    for number, value in enumerate(metric):
        history.evaluations.append(Evaluation(number, {"loss": value, "accuracy": 0.0}))
        scheduler.step(value)
        assert part(number, 60, history) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert part(59, 60, history) < 1.0 or patience == 10


def test_plateau_leaves_out_nan_and_names_the_metrics():
    history = History([Evaluation(n, {"loss": value}) for n, value in enumerate([1.0, math.nan, 1.0, math.nan, 1.0])])
    assert Plateau(patience=2)(5, 9, history) == 1.0 and Plateau(patience=1)(5, 9, history) == 0.1
    with pytest.raises(UserError, match="found 'f1', the evaluation has loss"):
        Plateau(metric="f1")(5, 9, history)


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_cosine_with_warmup_is_the_closed_form():
    part, total, warm = Cosine(warmup=0.1, final=0.2), 50, 5
    for s in range(total):
        expected = (s + 1) / warm if s < warm else 0.2 + 0.8 * (1 + math.cos(math.pi * (s - warm) / (total - warm))) / 2
        assert part(s, total, H) == pytest.approx(expected, abs=1e-15)
    assert part(warm, total, H) == part(warm - 1, total, H) == 1.0
    assert 0.2 < part(total - 1, total, H) < 0.2 + 0.8 * (math.pi / 45) ** 2 / 4 + 1e-9
    assert part(total, total, H) == pytest.approx(0.2, abs=1e-15)


@pytest.mark.parametrize("dim", [64, 512])
@pytest.mark.parametrize("warmup", [400, 0.04])
def test_inverse_sqrt_is_noams(dim, warmup):
    """Vaswani et al., eq. 3, at every step of 10,000, on the highest rate."""
    part, warm, top = InverseSqrt(warmup=warmup), 400, (dim * 400) ** -0.5
    paper = [dim**-0.5 * min(n**-0.5, n * warm**-1.5) for n in range(1, 10_001)]
    assert [top * value for value in values(part, 10_000)] == pytest.approx(paper, rel=1e-12)


@pytest.mark.parametrize("shape", ["linear", "cosine", "one_minus_sqrt", "exponential"])
def test_wsd_is_the_closed_form(shape):
    part, total = WSD(warmup=0.1, decay=0.2, final=0.05, shape=shape), 200
    for s in range(total):
        y = max(0, (s - 160) / 40)
        fall = {"linear": 1 - y, "cosine": (1 + math.cos(math.pi * y)) / 2, "one_minus_sqrt": 1 - math.sqrt(y)}.get(shape, 0)
        stable = 0.05**y if shape == "exponential" else 0.05 + 0.95 * fall
        assert part(s, total, H) == pytest.approx((s + 1) / 20 if s < 20 else stable, abs=1e-12)
    assert part(total, total, H) == pytest.approx(0.05)


def test_constant():
    assert values(Constant(factor=0.5, warmup=4), 8) == near([0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5, 0.5])


RISES = {
    "linear": lambda a, x: a + (1 - a) * x,
    "exponential": lambda a, x: a * (1 / a) ** x,
    "cosine": lambda a, x: a + (1 - a) * math.sin(math.pi * x / 2) ** 2,
}


@pytest.mark.parametrize("shape", RISES)
@pytest.mark.parametrize("kind", CURVES, ids=kind_of)
def test_any_warmup_goes_before_any_curve(kind, shape):
    """The rise ends where the curve begins, and the curve is the one of a shorter run."""
    total, warm = 130, 13
    part = kind(warmup=0.1, warmup_start=0.02, warmup_shape=shape)
    alone = kind() if "warmup" not in kind.__annotations__ else kind(warmup=0.0)
    first = alone(0, total - warm, H)
    expected = [first * RISES[shape](0.02, (s + 1) / warm) for s in range(warm)]
    assert values(part, total)[:warm] == near(expected)
    if kind not in (MultiStep, WSD):  # these measure their durations on the whole run
        assert values(part, total)[warm:] == near(values(alone, total - warm))


# --- all of them -----------------------------------------------------------------------------------------------------


@given(
    total=st.integers(1, 400),
    warmup=st.floats(0, 0.79) | st.integers(1, 50).map(float),
    final=st.floats(0, 1),
    kind=st.sampled_from(ALL),
)
def test_factors_stay_between_0_and_1_and_are_pure(total, warmup, final, kind):
    extra = {"final": final} if "final" in kind.__annotations__ and (kind is not Exponential or final > 0) else {}
    part = kind(warmup=warmup, **extra)
    for step in {0, total // 3, total // 2, total - 1, total, total + 7}:
        assert 0 <= part(step, total, H) <= 1 + 1e-12
        assert part(step, total, H) == part(step, total, History())
    assert part(total + 7, total, H) == part(total, total, H)
    if kind in (Cosine, Polynomial, OneCycle, WSD):
        assert part(total, total, H) == pytest.approx(extra["final"], abs=1e-12)


@pytest.mark.parametrize("part", [kind.neutral for kind in ALL if kind.neutral is not None], ids=kind_of)
def test_neutral_is_exactly_one(part):
    seen = History([Evaluation(n, {"loss": 1.0}) for n in range(30)])
    assert {part(s, total, seen) for total in (1, 2, 3, 50, 700) for s in range(total + 2)} == {1.0}


@pytest.mark.parametrize("kind", ALL, ids=kind_of)
def test_warmup_longer_than_the_run_is_refused(kind):
    with pytest.raises(ValueError, match="300"):
        kind(warmup=300.0).fits(200)
    kind(warmup=100.0).fits(200)
    kind().fits(1)


def test_other_durations_longer_than_the_run_are_refused():
    with pytest.raises(ValueError, match="milestone 90 is never met, the run has 60 updates"):
        MultiStep(milestones=(30, 90)).fits(60)
    with pytest.raises(ValueError, match="longer than the run of 60"):
        WSD(warmup=30.0, decay=40.0).fits(60)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(warmup=1.5), r"Cosine\.warmup must be a share"),
        (lambda: Cosine(warmup=-0.1), r"Cosine\.warmup must be"),
        (lambda: Cosine(warmup=math.nan), r"Cosine\.warmup must be"),
        (lambda: Cosine(final=-0.1), r"Cosine\.final must be"),
        (lambda: Cosine(path=""), r"Cosine\.path must be"),
        (lambda: Cosine(warmup_shape="exponential"), r"Cosine\.warmup_start must be above 0"),
        (lambda: OneCycle(warmup_start=math.inf), r"OneCycle\.warmup_start must be"),
        (lambda: OneCycle(final=-1.0), r"OneCycle\.final must be"),
        (lambda: OneCycle(path="optimizer..lr"), r"OneCycle\.path must be"),
        (lambda: OneCycle(three_phases=True, warmup=0.6), r"OneCycle\.warmup must be at most 0.5"),
        (lambda: Step(every=0), r"Step\.every must be"),
        (lambda: Step(factor=-1), r"Step\.factor must be"),
        (lambda: MultiStep(milestones=(0.5, 0.5)), r"MultiStep\.milestones must rise"),
        (lambda: MultiStep(milestones=(0.5, 30)), r"MultiStep\.milestones must rise, all shares or all updates"),
        (lambda: Exponential(final=0), r"Exponential\.final must be finite and > 0"),
        (lambda: Polynomial(power=0), r"Polynomial\.power must be"),
        (lambda: CosineRestarts(growth=0.5), r"CosineRestarts\.growth must be"),
        (lambda: Cyclic(gamma=1.1), r"Cyclic\.gamma must be"),
        (lambda: Plateau(factor=1.5), r"Plateau\.factor must be in \[0, 1\]"),
        (lambda: Plateau(patience=-1), r"Plateau\.patience must be >= 0"),
        (lambda: WSD(warmup=0.5, decay=0.6), r"WSD\.decay must leave room"),
        (lambda: WSD(shape="exponential"), r"WSD\.final must be above 0"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
