"""Second-order optimizers in the seat: the same iterates as `minimize` on the same function, however the batch is cut."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.func import functional_call

from laws import cases
from torchstone import optim
from torchstone.core import errors
from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch, Group
from torchstone.experiment import prepare
from torchstone.losses import L2, MSE, CrossEntropy
from torchstone.models import GPTConfig, MLPConfig
from torchstone.optim import BFGS, LBFGS, SAM, ClipByNorm, ClosedForm, ConjugateGradient, GradientDescent, Newton
from torchstone.optim.second_order import minimize, ridge
from torchstone.train.method import Method, check
from torchstone.train.state import TrainState
from torchstone.train.step import train_step

MLP = MLPConfig(hidden=(5,), activation="tanh")
OPTIMIZERS = [LBFGS(history=4), BFGS(), Newton(), Newton(solver="cg"), ConjugateGradient(), GradientDescent()]


def method(optimizer: Any, **seats: Any) -> Method:
    return Method(loss=CrossEntropy(), penalties=(L2(strength=0.01),), optimizer=optimizer, **seats)


def trained(method: Method, folder: Path, steps: int, cut: int = 22, model: Any = MLP, dtype: torch.dtype = torch.float64) -> TrainState:
    """The state after some updates on all 22 samples at once, in micro-batches of `cut`."""
    job, state = cases.begin(cases.ready(method, model, batch_size=22), folder, dtype)
    inputs, target = job.splits.train.fetch(np.arange(22))
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    rows = torch.arange(22)
    batches = [Batch(inputs[r], target[r], r, torch.ones(len(r))) for r in rows.split(cut)]
    for _ in range(steps):
        train_step(state, batches, job.method, job.setting, 0)
    return state


def as_function(state: TrainState, inputs: Tensor, target: Tensor) -> tuple[Any, Tensor]:
    """The same objective written out by hand, and where it starts."""
    named = dict(state.model.named_parameters())
    start = torch.cat([p.detach().clone().flatten() for p in named.values()])

    def function(x: Tensor) -> Tensor:
        parts = x.split([p.numel() for p in named.values()])
        tensors = {name: part.view_as(p) for (name, p), part in zip(named.items(), parts, strict=True)}
        squares = sum(w.square().sum() for name, w in tensors.items() if w.ndim > 1)
        return torch.nn.functional.cross_entropy(functional_call(state.model, tensors, (inputs,)), target) + 0.005 * squares

    return function, start


def flat(state: TrainState) -> Tensor:
    return torch.cat([p.detach().flatten() for p in state.model.parameters()])


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__ + getattr(o, "solver", ""))
def test_iterates_are_those_of_minimize(optimizer, tmp_path):
    job, fresh = cases.begin(cases.ready(method(optimizer), MLP, batch_size=22), tmp_path, torch.float64)
    inputs, target = job.splits.train.fetch(np.arange(22))
    function, start = as_function(fresh, inputs.double(), target)
    seen: list[Tensor] = []
    minimize(function, start, optimizer, most=3, tolerance=0.0, watch=lambda point: seen.append(point.x))
    torch.testing.assert_close(flat(trained(method(optimizer), tmp_path, 3)), seen[3], rtol=0, atol=1e-9)


@pytest.mark.parametrize("optimizer", [LBFGS(), Newton(solver="cg")], ids=["lbfgs", "newton_cg"])
def test_micro_batches_are_one_batch(optimizer, tmp_path):
    whole = flat(trained(method(optimizer), tmp_path, 3))
    for cut in (8, 21):
        torch.testing.assert_close(flat(trained(method(optimizer), tmp_path, 3, cut)), whole, rtol=0, atol=1e-9)


def test_float32_goes_the_same_way(tmp_path):
    whole, single = (trained(method(LBFGS()), tmp_path, 3, dtype=dtype) for dtype in (torch.float64, torch.float32))
    torch.testing.assert_close(flat(single).double(), flat(whole), rtol=0, atol=1e-3)


def test_closed_form_is_ridge_and_scikit_learns(tmp_path):
    """MSE divides by samples and outputs and the penalty is halved, so strength s is alpha = s N C / 2."""
    linear = Method(loss=MSE(), penalties=(L2(strength=0.1),), optimizer=ClosedForm())
    state = trained(linear, tmp_path, 1, model=MLPConfig(hidden=()))
    inputs, target = cases.TinyImages().open().train.fetch(np.arange(22))
    x, y = inputs.double().flatten(1), torch.nn.functional.one_hot(target, 3).double()
    weights, bias = ridge(x, y, 0.1 * 22 * 3 / 2)
    torch.testing.assert_close(state.model.head.weight.detach(), weights.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(state.model.head.bias.detach(), bias, rtol=0, atol=1e-10)
    np.testing.assert_allclose(weights.numpy().T, Ridge(alpha=3.3).fit(x, y).coef_, atol=1e-10)
    single = trained(linear, tmp_path, 1, model=MLPConfig(hidden=()), dtype=torch.float32)
    torch.testing.assert_close(flat(single).double(), flat(state), rtol=0, atol=1e-6)
    iterative = trained(replace(linear, optimizer=LBFGS()), tmp_path, 60, model=MLPConfig(hidden=()))
    torch.testing.assert_close(flat(iterative), flat(state), rtol=0, atol=1e-6)


def test_closed_form_of_what_is_not_quadratic(tmp_path):
    with pytest.raises(UserError, match="not quadratic"):
        trained(method(ClosedForm()), tmp_path, 1)


@pytest.mark.parametrize("optimizer", [LBFGS(), Newton(), BFGS()], ids=["lbfgs", "newton", "bfgs"])
def test_frozen_groups_stay(optimizer, tmp_path, monkeypatch):
    names = [name for name, _ in cases.ready(method(optimizer), MLP).model.named_parameters()]
    split = lambda self, model: [Group(tuple(names[:1]), lr_scale=0.0), Group(tuple(names[1:]))]
    monkeypatch.setattr(optim.NoDecay, "__call__", split)
    before = trained(method(optimizer, groups=optim.NoDecay()), tmp_path, 0)
    after = trained(method(optimizer, groups=optim.NoDecay()), tmp_path, 3)
    same = [torch.equal(a, b) for a, b in zip(before.model.parameters(), after.model.parameters(), strict=True)]
    assert same == [True] + [False] * (len(names) - 1)


def test_a_share_of_the_step(tmp_path):
    start, full, half, none = (
        flat(trained(method(LBFGS(lr=lr)), tmp_path, steps)) for lr, steps in ((1.0, 0), (1.0, 1), (0.5, 1), (0.0, 1))
    )
    torch.testing.assert_close(half, (start + full) / 2)
    assert torch.equal(none, start)


def test_statistics_move_with_the_first_look_alone(tmp_path):
    """Batch norm: the running statistics after a step are those of one forward at the starting weights."""
    model = replace(cases.CONV, dropout=0.0)
    searched, plain = (trained(method(optimizer), tmp_path, 1, model=model) for optimizer in (LBFGS(), optim.SGD(lr=0.0, momentum=0.0)))
    for (name, a), b in zip(searched.model.named_buffers(), plain.model.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert not torch.equal(flat(searched), flat(plain))


def test_attention_has_second_derivatives(tmp_path):
    job, state = cases.begin(cases.ready(method(Newton(solver="cg", cg_steps=3)), GPTConfig(depth=1, dim=8, num_heads=2)), tmp_path)
    before = flat(state)
    assert np.isfinite(float(cases.advance(job, state, 1)[0].loss)) and not torch.equal(flat(state), before)


@pytest.mark.parametrize(
    "seats, said",
    [({"gradient": SAM()}, "gradient=sam"), ({"gradient_transforms": (ClipByNorm(),)}, "gradient_transforms=none")],
)
def test_what_does_not_go_with_it_is_refused(seats, said):
    with pytest.raises(UserError, match=said):
        check(method(LBFGS(), **seats))


def test_small_batches_are_warned_of(capsys, monkeypatch):
    experiment = cases.ready(method(LBFGS()), MLP).experiment
    capsys.readouterr()
    monkeypatch.setattr(errors, "_warned", set())  # each warning is said once
    prepare(replace(experiment, run=replace(experiment.run, batch_size=22)))
    assert "optimizer=lbfgs on batches" not in capsys.readouterr().err
    prepare(experiment)
    assert "optimizer=lbfgs on batches of 8" in capsys.readouterr().err
    with pytest.raises(UserError, match="precision=fp16"):
        prepare(replace(experiment, run=replace(experiment.run, precision="fp16")))
