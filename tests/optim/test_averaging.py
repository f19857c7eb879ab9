"""EMA against its closed form: parameters, batch-norm statistics, counters; a skipped update, and any number of micro-batches."""

import math

import pytest
import torch
from torch import nn

from torchstone.optim import EMA, FlatParameters


def flat_net(dtype: torch.dtype = torch.float64, flat_buffers: bool = True) -> FlatParameters:
    torch.manual_seed(0)
    return FlatParameters(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(dtype), flat_buffers=flat_buffers)


def walk(flat: FlatParameters, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in flat:
        p.data.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    flat.module.train()(torch.randn(5, 3, generator=generator, dtype=torch.float64).to(flat.data.dtype))


@pytest.mark.parametrize("flat_buffers", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999, 1 - 1e-12])
def test_ema_is_the_closed_form(decay, flat_buffers):
    flat = flat_net(flat_buffers=flat_buffers)
    average, ema, seen = flat.twin(), EMA(decay=decay), []
    for t in range(1, 21):
        walk(flat, t)
        seen.append({name: value.clone() for name, value in flat.module.state_dict().items()})
        ema(average, flat, t)
        weights = torch.tensor([decay ** (t - i) for i in range(1, t + 1)], dtype=torch.float64)
        weights = weights / weights.sum()
        for name, value in average.module.state_dict().items():
            if value.is_floating_point():
                expected = sum(w * past[name] for w, past in zip(weights, seen, strict=True))
                torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
            else:
                assert value == t
    average.check()


def test_neutral_follows_bit_by_bit():
    flat = flat_net(torch.float32)
    average = flat.twin()
    for t in range(1, 5):
        walk(flat, t)
        EMA.neutral(average, flat, t)
        for a, b in zip(average.module.state_dict().values(), flat.module.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_the_first_update_is_a_copy_and_the_weight_falls_to_one_minus_decay():
    ema = EMA(decay=0.99)
    assert ema.weight(1) == 1.0 and ema.weight(2) == pytest.approx(1 / 1.99, abs=1e-15)
    assert ema.weight(10**7) == pytest.approx(0.01, abs=1e-15)
    assert all(ema.weight(t) > ema.weight(t + 1) for t in range(1, 1000))


@pytest.mark.parametrize("poison", [0.0, math.nan])
def test_skip_changes_nothing(poison):
    flat = flat_net()
    average = flat.twin()
    for t in range(1, 4):
        walk(flat, t)
        EMA()(average, flat, t, skip=torch.zeros(()))
    before = {name: value.clone() for name, value in average.module.state_dict().items()}
    walk(flat, 4)
    assert flat.buffers is not None
    flat.buffers.add_(poison)  # what a forward that overflowed leaves in a batch norm
    EMA()(average, flat, 4, skip=torch.ones(()))
    for name, value in average.module.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_flag_that_is_down_is_no_flag():
    flat = flat_net()
    with_flag, without = flat.twin(), flat.twin()
    for t in range(1, 4):
        walk(flat, t)
        EMA()(with_flag, flat, t, skip=torch.zeros(()))
        EMA()(without, flat, t)
    for a, b in zip(with_flag.module.state_dict().values(), without.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_it_reads_the_update_index_alone():
    """Case 12: the same updates give the same average, however many micro-batches an update has; a resumed one goes on."""
    flat = flat_net()
    average = flat.twin()
    for t in range(1, 6):
        walk(flat, t)
        EMA(decay=0.9)(average, flat, t)
    resumed = flat.twin()
    for t in range(1, 6):
        walk(flat, t)
        EMA(decay=0.9)(resumed, flat, t)
        if t == 3:
            state = resumed.module.state_dict()
            resumed = flat.twin()
            resumed.module.load_state_dict(state)
    assert torch.equal(average.data, resumed.data)


def test_decay_is_checked():
    for decay in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"EMA\.decay must be"):
            EMA(decay=decay)
