"""Law: a part at its neutral value trains the very same bits as its absence; a part without one says why."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from laws import cases
from laws.cases import METHOD_PARTS, PARTS, Part, differing, emptied, put_in, trained, weights
from torchstone import optim
from torchstone.losses import L2, KLDiv
from torchstone.optim import ClipByNorm

NEUTRAL = [part for part in METHOD_PARTS if getattr(part.cls, "neutral", None) is not None]


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_has_a_neutral_value_or_a_reason(part: Part) -> None:
    assert hasattr(part.cls, "neutral"), f"{part.cls.__name__} says nothing of its neutral value"
    if part.cls.neutral is None:
        assert isinstance(part.cls.neutral_reason, str) and part.cls.neutral_reason.strip()
    else:
        assert isinstance(part.cls.neutral, part.cls)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_can_be_made(part: Part, tmp_path: Path) -> None:
    """Where this fails, the part needs its row in `cases.NEEDS`."""
    assert isinstance(part.make(tmp_path), part.cls)


@pytest.mark.parametrize("microbatch_size", [None, 4])
@pytest.mark.parametrize("part", NEUTRAL, ids=str)
def test_neutral_is_absent(part: Part, microbatch_size: int | None, tmp_path: Path) -> None:
    """Five updates over the end of an epoch (its last window is short), dropout and batch norm on, a weight average beside."""
    model = cases.GPT if cases.WORLD.get(part.kind) == "tokens" else cases.CONV
    there = trained(put_in(cases.NOISY, part, part.cls.neutral), tmp_path, model, microbatch_size=microbatch_size)
    absent = trained(emptied(cases.beside(cases.NOISY, part), part.seat), tmp_path, model, microbatch_size=microbatch_size)
    assert differing(weights(there), weights(absent)) == []
    if there.average is not None and absent.average is not None:
        assert differing(there.tensors()["average"], absent.tensors()["average"]) == []


MOVES = [
    part for part in METHOD_PARTS if part.seat not in ("sampler", "averaging", "stop") and part.kind not in ("backprop", "cross_entropy")
]
STRONG = {
    "kl_div": KLDiv(unit="bits"),
    "clip_by_norm": ClipByNorm(max_norm=1e-3),
    "l2": L2(strength=1.0),
    "clip_by_value": optim.ClipByValue(max_value=1e-3),
    "patterns": optim.Patterns(rules=(optim.Rule(names="*.weight", lr_scale=0.5),)),
    # Of nine updates five are made: what moves later, or only after an evaluation, is given something to do before.
    "constant": optim.Constant(factor=0.5),
    "multi_step": optim.MultiStep(milestones=(2.0,)),
    "plateau": optim.Plateau(warmup=3.0),
    "wsd": optim.WSD(warmup=3.0),
}


@pytest.mark.parametrize("part", MOVES, ids=str)
def test_default_is_not_absent(part: Part, tmp_path: Path) -> None:
    """The other side: with its own settings a part does change the weights, so the law above can see it."""
    base = replace(cases.NOISY, optimizer=cases.PLAIN.optimizer) if part.kind == "adamw" else cases.NOISY
    there = trained(put_in(base, part, STRONG.get(part.kind) or part.make(tmp_path)), tmp_path)
    absent = trained(emptied(cases.beside(base, part), part.seat), tmp_path)
    assert differing(weights(there), weights(absent)) != []


def test_an_average_that_follows_is_the_model(tmp_path: Path) -> None:
    method = replace(cases.NOISY, averaging=type(cases.NOISY.averaging).neutral)
    state = trained(method, tmp_path)
    assert differing(state.tensors()["average"], weights(state)) == []


def test_a_change_of_one_bit_is_seen(tmp_path: Path) -> None:
    a, b = trained(cases.NOISY, tmp_path), trained(cases.NOISY, tmp_path)
    assert differing(weights(a), weights(b)) == []
    with torch.no_grad():
        b.model.head.bias[0] = torch.nextafter(b.model.head.bias[0], torch.tensor(9.0))
    assert differing(weights(a), weights(b)) == ["head.bias"]
