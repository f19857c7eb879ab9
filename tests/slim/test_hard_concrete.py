"""Hard concrete gates: their distribution against its closed form and a numerical integral, evaluation, training, prediction."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import torch
from scipy.special import expit, logit
from torch import nn

from laws import cases
from laws.cases import begin, ready
from torchstone import losses, optim
from torchstone.core.errors import UserError
from torchstone.nn.gate import HardConcreteGate
from torchstone.slim import HardConcrete
from torchstone.train.method import Method


def gate_of(log_alpha: float, channels: int = 200_000) -> HardConcreteGate:
    gate = HardConcreteGate(channels, 7, -1, open_=0.5).double()
    gate.log_alpha.data.fill_(log_alpha)
    return gate


@pytest.mark.parametrize("log_alpha", [-3.0, -0.5, 0.0, 2.0])
def test_the_draws_have_the_papers_distribution(log_alpha: float) -> None:
    gate = gate_of(log_alpha)
    torch.manual_seed(0)
    z = gate.sampled().detach().numpy()
    beta, low, high, n = 2 / 3, -0.1, 1.1, len(z)
    below = lambda s: expit(logit(s) * beta - log_alpha)  # the distribution function of s, eq. 10
    closed, full = below(-low / (high - low)), 1 - below((1 - low) / (high - low))
    four_errors = lambda p: 4 * np.sqrt(p * (1 - p) / n) + 1e-12
    assert (z == 0).mean() == pytest.approx(closed, abs=four_errors(closed))
    assert (z == 1).mean() == pytest.approx(full, abs=four_errors(full))
    assert gate.open_probability()[0].item() == pytest.approx(1 - closed, rel=1e-12)
    assert gate.expected_weights().item() == pytest.approx(7 * n * (1 - closed), rel=1e-12)
    # E z = integral over (0, 1) of P(z > t)
    mean = scipy.integrate.quad(lambda t: 1 - below((t - low) / (high - low)), 0, 1)[0]
    assert z.mean() == pytest.approx(mean, abs=4 * z.std() / np.sqrt(n))


def test_evaluation_draws_nothing_and_is_the_formula() -> None:
    gate = gate_of(0.0, 5).eval()
    gate.log_alpha.data = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0], dtype=torch.float64)
    before, x = torch.get_rng_state(), torch.ones(3, 5, dtype=torch.float64)
    expected = np.clip(expit(gate.log_alpha.detach().numpy()) * 1.2 - 0.1, 0, 1)
    np.testing.assert_allclose(gate(x).detach().numpy(), np.tile(expected, (3, 1)), rtol=1e-14)
    assert torch.equal(torch.get_rng_state(), before) and expected[0] == 0 and expected[-1] == 1


def test_where_gates_are() -> None:
    """On each input channel of all layers but the first and grouped ones; copies have their own; names of the weights stay."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(24, 3))
    names = set(net.state_dict())
    HardConcrete(open=0.9)(net)
    assert set(net.state_dict()) - names == {"2.gate.log_alpha", "4.gate.log_alpha"}
    assert (len(net[2].gate.log_alpha), net[2].gate.governed, len(net[4].gate.log_alpha), net[4].gate.governed) == (4, 54, 24, 3)
    assert float(net[2].gate.settled()[0]) == pytest.approx(0.9 * 1.2 - 0.1, rel=1e-6)
    x = torch.randn(2, 1, 8, 8)
    other = copy.deepcopy(net).eval()
    net.eval()
    open_ = net(x)
    other[2].gate.log_alpha.data.fill_(-20.0)
    assert torch.equal(net(x), open_) and not torch.equal(other(x), open_)
    closed = other[4].weight @ (other[4].gate.settled()[:, None] * other[2].bias.repeat_interleave(4)[:, None])
    torch.testing.assert_close(other(x)[0], closed[:, 0] + other[4].bias)


def test_the_step_closes_gates_that_cost_and_keeps_those_that_pay(tmp_path: Path) -> None:
    """A hidden unit's gate closes when the penalty is large, with no weights left that count; without it none does."""
    shares = []
    for strength in (0.0, 1.0):
        method = Method(
            loss=losses.CrossEntropy(),
            model_transforms=(HardConcrete(),),
            penalties=(losses.L0(strength=strength),),
            optimizer=optim.AdamW(lr=0.1, weight_decay=0.0),
        )
        job, state = begin(ready(method, cases.MLP, epochs=20), tmp_path)
        cases.advance(job, state, 60)
        z = torch.cat([module.settled() for module in state.model.modules() if isinstance(module, HardConcreteGate)])
        shares.append(float((z == 0).float().mean()))
    assert shares[0] < 0.5 < shares[1]


def test_errors() -> None:
    with pytest.raises(UserError, match="hard_concrete needs a second"):
        HardConcrete()(nn.Linear(3, 2))
    for field, value in (("open", 1.0), ("beta", 0.0), ("low", 0.0), ("high", 1.0)):
        with pytest.raises(ValueError, match=rf"HardConcrete\.{field} must be"):
            replace(HardConcrete(), **{field: value})
