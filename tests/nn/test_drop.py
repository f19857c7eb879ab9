"""Drop path: its expectation and its identity cases. (Compilation: test_compile.)"""

import pytest
import torch

from torchstone.nn import DropPath, drop_path_shares


def test_drops_whole_samples_and_keeps_the_expectation():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    y = drop(torch.ones(40_000, 2, 3))
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert (y == y[:, :1, :1]).all()
    assert y.mean().item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("drop", [DropPath(0.0), DropPath(0.5).eval()])
def test_identity_draws_nothing(drop):
    x = torch.ones(3, 2)
    before = torch.get_rng_state()
    assert drop(x) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_enabled_at_rate_zero_changes_no_bit():
    drop = DropPath(0.0)
    drop.enabled = True
    x = torch.randn(5, 7)
    assert torch.equal(drop(x), x)


def test_rate_is_not_in_the_state_and_survives_an_empty_batch():
    drop = DropPath(0.5)
    assert drop.state_dict() == {}
    x = torch.zeros(0, 3, requires_grad=True)
    drop(x).sum().backward()
    assert drop(x.bfloat16()).dtype == torch.bfloat16


def test_shares_are_linear_in_depth():
    assert drop_path_shares(1) == [1.0]
    assert drop_path_shares(3) == [0.0, 0.5, 1.0]
    assert DropPath(0.4, 0.5).rate.item() == pytest.approx(0.2)
