"""Schedule-Free against its paper's three sequences in NumPy float64, where it sits in the step, and what may not be beside it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from laws import cases
from optim.two_layers import GROUPS, STEPS, WIDTHS, backward, gradient, must_agree, network, weights_of
from torchstone.core.errors import UserError
from torchstone.core.protocols import OwnAverage
from torchstone.optim import EMA, AdamW, FlatParameters, ScheduleFree
from torchstone.optim.schedules import Cosine
from torchstone.train.loop import Request, fit
from torchstone.train.method import averages, check

ADAMW = ScheduleFree(lr=0.03, betas=(0.8, 0.95), weight_decay=0.3)
SGD = ScheduleFree(form="sgd", lr=0.3, betas=(0.8, 0.95), weight_decay=0.1)
RATES = {"constant": lambda t: 1.0, "warm-up": lambda t: min(1.0, t / 6), "falling": lambda t: 1 / t, "first 0": lambda t: float(t > 2)}


def sequences(part, factor, groups=GROUPS):
    """(y, x, z) after each step, each kept for itself, as the paper has them."""
    y = weights_of(network())
    x, z, v = dict(y), dict(y), dict.fromkeys(y, 0.0)
    beta1, beta2 = part.betas
    highest = total = 0.0
    for t in range(1, STEPS + 1):
        grads = gradient(y, WIDTHS, t)
        highest = max(highest, part.lr * factor(t))
        total += highest**2
        c = highest**2 / total if total else 0.0
        for group in groups:
            for name in group.names:
                direction = grads[name]
                if part.form == "adamw":
                    v[name] = beta2 * v[name] + (1 - beta2) * direction**2
                    direction = direction / (np.sqrt(v[name] / (1 - beta2**t)) + part.eps)
                decay = part.weight_decay * group.decay_scale
                z[name] = z[name] - part.lr * factor(t) * group.lr_scale * (direction + decay * y[name])
                x[name] = (1 - c) * x[name] + c * z[name]
                y[name] = (1 - beta1) * z[name] + beta1 * x[name]
        yield dict(y), dict(x), dict(z)


def ours(part, factor, flag=None):
    flat = FlatParameters(network(), GROUPS)
    average = flat.twin()
    memory = part.init(flat)
    for t in range(1, STEPS + 1):
        flat.zero_grad()
        backward(flat.module, WIDTHS, t)
        replace(part, lr=part.lr * factor(t)).step(flat, memory, found_inf=flag)
        part.evaluation_weights(average, flat, memory)
        yield tuple({n: v.numpy().copy() for n, v in flat.named(each).items()} for each in (flat.data, average.data, memory["z"]))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("part", [ADAMW, SGD, replace(ADAMW, weight_decay=0.0)], ids=["adamw", "sgd", "no decay"])
def test_is_the_papers(part, rate):
    mine, theirs = (list(make(part, RATES[rate])) for make in (ours, sequences))
    for i in range(3):
        must_agree([each[i] for each in mine], [each[i] for each in theirs])


def test_at_a_constant_rate_x_is_the_mean_of_all_z():
    points = [z for _, _, z in sequences(SGD, RATES["constant"])]
    *_, (_, x, _) = ours(SGD, RATES["constant"])
    for name in x:
        np.testing.assert_allclose(x[name], np.mean([z[name] for z in points], axis=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("part", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_flags(part):
    """One that is down is none; one that is up changes nothing, a gradient that is not finite or not."""
    *_, without = ours(part, RATES["warm-up"])
    *_, down = ours(part, RATES["warm-up"], torch.zeros(()))
    must = [np.array_equal(a[name], b[name]) for a, b in zip(without, down, strict=True) for name in a]
    assert all(must)
    flat = FlatParameters(network(), GROUPS)
    memory = part.init(flat)
    before = [flat.data.clone(), *(tensor.clone() for tensor in memory.values())]
    flat.grad.fill_(float("inf"))
    part.step(flat, memory, found_inf=torch.ones(()))
    assert all(torch.equal(a, b) for a, b in zip([flat.data, *memory.values()], before, strict=True))


def test_buffers_of_the_average():
    flat = FlatParameters(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)))
    average, memory = flat.twin(), ADAMW.init(flat)
    for buffer in flat.module.buffers():
        buffer.fill_(7)
    ADAMW.evaluation_weights(average, flat, memory)
    assert all((buffer == 7).all() for buffer in average.module.buffers())


@pytest.mark.parametrize("steps", [3, 4])
def test_in_a_run(tmp_path, steps):
    """The state has a second model, which is evaluated and is x wherever a checkpoint is written, evaluated there (3) or not (4)."""
    method = replace(cases.NOISY, optimizer=replace(ADAMW, lr=0.01), averaging=None)
    assert averages(method) and not averages(replace(method, optimizer=AdamW()))
    job, state = cases.begin(cases.ready(method, cases.MLP, evaluate_every=3), tmp_path)
    request = Request()
    assert fit(job, state, [cases.StopAt(steps, request)], request) == "interrupted" and state.step == steps
    assert state.average is not None and state.evaluated is state.average.module
    z, y = state.optimizer["z"], state.parameters.data
    torch.testing.assert_close(state.average.data, (y - 0.2 * z) / 0.8, rtol=0, atol=1e-6)
    assert not torch.equal(state.average.data, y)
    assert len(state.history.evaluations) == 1


def test_its_betas_do_not_move():
    check(replace(cases.NOISY, optimizer=ADAMW, averaging=None, schedules=(Cosine(path="optimizer.lr"),)))
    with pytest.raises(UserError, match=r"schedule_free finds its average again with optimizer\.betas.*schedule optimizer\.lr"):
        check(replace(cases.NOISY, optimizer=ADAMW, averaging=None, schedules=(Cosine(path="optimizer.betas.0"),)))


def test_no_averaging_beside_it():
    assert isinstance(ADAMW, OwnAverage) and not isinstance(AdamW(), OwnAverage)
    check(replace(cases.NOISY, optimizer=ADAMW, averaging=None))
    with pytest.raises(UserError, match=r"method\.averaging=ema: the optimizer schedule_free has evaluation weights of its own.*=none"):
        check(replace(cases.NOISY, optimizer=ADAMW, averaging=EMA()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScheduleFree(betas=(0.0, 0.9)), r"ScheduleFree.betas.0 must be"),
        (lambda: ScheduleFree(eps=0.0), "ScheduleFree.eps must be"),
        (lambda: ScheduleFree(lr=-1.0), "ScheduleFree.lr must be"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
