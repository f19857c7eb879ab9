"""EMA against its closed form: parameters, batch-norm statistics, counters; a skipped update, and any number of micro-batches."""

import math

import pytest
import torch
from torch import nn

from torchstone.core.protocols import Progress
from torchstone.optim import EMA, LAWA, SWA, FlatParameters


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
        ema(average, flat, Progress(t))
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
        EMA.neutral(average, flat, Progress(t))
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
        EMA()(average, flat, Progress(t), skip=torch.zeros(()))
    before = {name: value.clone() for name, value in average.module.state_dict().items()}
    walk(flat, 4)
    assert flat.buffers is not None
    flat.buffers.add_(poison)  # what a forward that overflowed leaves in a batch norm
    EMA()(average, flat, Progress(4), skip=torch.ones(()))
    for name, value in average.module.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_flag_that_is_down_is_no_flag():
    flat = flat_net()
    with_flag, without = flat.twin(), flat.twin()
    for t in range(1, 4):
        walk(flat, t)
        EMA()(with_flag, flat, Progress(t), skip=torch.zeros(()))
        EMA()(without, flat, Progress(t))
    for a, b in zip(with_flag.module.state_dict().values(), without.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_it_reads_the_update_index_alone():
    """Case 12: the same updates give the same average, however many micro-batches an update has; a resumed one goes on."""
    flat = flat_net()
    average = flat.twin()
    for t in range(1, 6):
        walk(flat, t)
        EMA(decay=0.9)(average, flat, Progress(t))
    resumed = flat.twin()
    for t in range(1, 6):
        walk(flat, t)
        EMA(decay=0.9)(resumed, flat, Progress(t))
        if t == 3:
            state = resumed.module.state_dict()
            resumed = flat.twin()
            resumed.module.load_state_dict(state)
    assert torch.equal(average.data, resumed.data)


def test_decay_is_checked():
    for decay in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"EMA\.decay must be"):
            EMA(decay=decay)


# --- the decay of so many samples, and its warm-up ---------------------------------------------------------------------------------------


def recursion(decays: list[float], values: list[float]) -> float:
    """Adam's corrected average of the values, each with its own decay: m = d m + (1 - d) x, divided by 1 - prod d."""
    mean, product = 0.0, 1.0
    for decay, value in zip(decays, values, strict=True):
        mean, product = decay * mean + (1 - decay) * value, product * decay
    return mean / (1 - product)


@pytest.mark.parametrize(("decay", "warmup"), [(0.9, 9.0), (0.999, 9.0), (0.99, 0.5), (0.5, 40.0), (0.999, 1e-3)])
@pytest.mark.parametrize(("per_samples", "batch_size"), [(0, 64), (64, 16), (16, 64), (64, 64)])
def test_warmup_and_batch_size_are_the_recursion(decay, warmup, per_samples, batch_size):
    ema = EMA(decay=decay, warmup=warmup, per_samples=per_samples)
    effective = decay ** (batch_size / per_samples) if per_samples else decay
    values, mean = [math.sin(7 * t) for t in range(1, 200)], 0.0
    decays = [min(effective, (1 + j) / (1 + warmup + j)) for j in range(1, 200)]
    for t, value in enumerate(values, 1):
        mean += ema.weight(t, batch_size) * (value - mean)
        assert mean == pytest.approx(recursion(decays[:t], values[:t]), abs=1e-10)


def test_the_half_life_in_samples():
    """With decay 1/2 what lies `per_samples` samples back weighs half, at any batch size; k small updates forget as one large."""
    ema = EMA(decay=0.5, per_samples=1000)
    for batch_size in (10, 50, 1000):
        assert (1 - ema.weight(10**6, batch_size)) ** (1000 / batch_size) == pytest.approx(0.5, rel=1e-12)
    assert EMA(decay=0.99, per_samples=64).weight(500, 64) == pytest.approx(EMA(decay=0.99).weight(500), rel=1e-12)


def test_the_step_tells_the_batch_size():
    flat = flat_net()
    one, other = flat.twin(), flat.twin()
    for t in range(1, 8):
        walk(flat, t)
        EMA(decay=0.9, per_samples=8)(one, flat, Progress(t, batch_size=4))
        EMA(decay=0.9**0.5)(other, flat, Progress(t))
    torch.testing.assert_close(one.data, other.data, rtol=0, atol=1e-14)


# --- SWA and LAWA ------------------------------------------------------------------------------------------------------------------------


def followed(part, total: int, epoch: int, memory: dict | None = None):
    """(after each update: the average's data), and the weights met."""
    flat = flat_net()
    average, seen, averages = flat.twin(), [], []
    extra = {} if memory is None else {"memory": part.init(flat)}
    for t in range(1, total + 1):
        walk(flat, t)
        seen.append(flat.data.clone())
        part(average, flat, Progress(t, total, epoch), **extra)
        averages.append(average.data.clone())
    for value in average.module.state_dict().values():
        if value.dtype == torch.int64:
            assert 0 < value <= total
    average.check()
    return averages, seen


def test_swa_is_torchs_average():
    averages, seen = followed(SWA(start=0.5), total=24, epoch=3)
    reference = torch.optim.swa_utils.AveragedModel(flat_net().module)
    for t in range(1, 25):
        if t < 15:
            assert torch.equal(averages[t - 1], seen[t - 1]), "until the first point, the model"
        elif t % 3:
            assert torch.equal(averages[t - 1], averages[t - 2])
        else:
            points = seen[14:t:3]
            torch.testing.assert_close(averages[t - 1], torch.stack(points).mean(dim=0), rtol=0, atol=1e-14)
    flat = flat_net()
    for t in range(15, 25, 3):
        flat.data.copy_(seen[t - 1])
        reference.update_parameters(flat.module)
    flat.data.copy_(averages[-1])
    for ours, theirs in zip(flat.module.parameters(), reference.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("start", "every", "first"), [(0.0, 5, 5), (0.75, 4, 16), (0.4, 1, 9), (1.0, 1, 21)])
def test_swa_begins_after_its_share(start, every, first):
    swa = SWA(start=start, every=every)
    counts = [swa.points(Progress(t, 20, 7)) for t in range(1, 21)]
    assert counts == [max(0, (t - first) // every + 1) if t >= first else 0 for t in range(1, 21)]


def test_lawa_is_the_mean_of_the_latest():
    averages, seen = followed(LAWA(count=3, every=2), total=15, epoch=100, memory={})
    for t in range(1, 16):
        expected = torch.stack(seen[1:t:2][-3:]).mean(dim=0) if t > 1 else seen[0]
        torch.testing.assert_close(averages[t - 1], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("part", [SWA(start=0.2, every=1), LAWA(count=2, every=1)], ids=["swa", "lawa"])
def test_skip_keeps_a_mean(part):
    flat = flat_net()
    average = flat.twin()
    memory = {"memory": part.init(flat)} if isinstance(part, LAWA) else {}
    for t in range(1, 5):
        walk(flat, t)
        part(average, flat, Progress(t, 5), skip=torch.zeros(()), **memory)
    kept = [t.clone() for t in (average.data, average.buffers, *memory.get("memory", {}).values())]
    flat.data.fill_(math.nan)
    part(average, flat, Progress(5, 5), skip=torch.ones(()), **memory)
    for a, b in zip(kept, (average.data, average.buffers, *memory.get("memory", {}).values()), strict=True):
        assert torch.equal(a, b)


def test_fields_are_checked():
    for make, said in (
        (lambda: SWA(start=1.1), r"SWA\.start must be"),
        (lambda: SWA(every=-1), r"SWA\.every must be"),
        (lambda: LAWA(count=0), r"LAWA\.count must be"),
        (lambda: LAWA(every=-1), r"LAWA\.every must be"),
        (lambda: EMA(per_samples=-1), r"EMA\.per_samples must be"),
        (lambda: EMA(warmup=math.inf), r"EMA\.warmup must be"),
    ):
        with pytest.raises(ValueError, match=said):
            make()
