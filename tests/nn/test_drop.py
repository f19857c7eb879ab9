"""Drop path, drop block and word dropout: their expectations and identity cases. (Compilation: test_compile.)"""

import pytest
import torch

from torchstone.nn import DropBlock, DropPath, WordDropout, drop_path_shares


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


@pytest.mark.parametrize("size", [3, 7, 30])
def test_drop_block_keeps_every_samples_mean_and_drops_squares(size):
    torch.manual_seed(0)
    y = DropBlock(0.2, size)(torch.ones(50, 64, 14, 14))
    torch.testing.assert_close(y.mean(dim=(1, 2, 3)), torch.ones(50))
    assert (y == 0).float().mean().item() == pytest.approx(0.2, abs=0.04)
    if size == 3:  # every zero lies in a 3x3 square of zeros
        zero = (y == 0).float()
        inner = torch.nn.functional.avg_pool2d(zero, 3, stride=1) > 0.999
        covered = torch.nn.functional.max_pool2d(torch.nn.functional.pad(inner.float(), (2, 2, 2, 2)), 3, stride=1)
        assert torch.equal(covered, zero)


def test_drop_block_of_single_pixels_is_dropout_of_the_papers_gamma():
    torch.manual_seed(0)
    y = DropBlock(0.25, 1)(torch.ones(40, 16, 20, 20))
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_word_dropout_drops_whole_tokens_and_keeps_the_expectation():
    torch.manual_seed(0)
    y = WordDropout(0.25)(torch.ones(100, 200, 3))
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert (y == y[:, :, :1]).all()
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("layer", [DropBlock(0.0), DropBlock(0.5).eval(), WordDropout(0.0), WordDropout(0.5).eval()])
def test_off_they_draw_nothing(layer):
    x = torch.ones(2, 3, 4, 4) if isinstance(layer, DropBlock) else torch.ones(2, 3, 4)
    before = torch.get_rng_state()
    assert layer(x) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_drop_block_takes_an_empty_batch_and_one_row_after_the_other():
    x = torch.zeros(0, 3, 5, 5, requires_grad=True)
    DropBlock(0.5)(x).sum().backward()
    assert DropBlock(0.9, 9)(torch.ones(4, 2, 3, 5)).isfinite().all()
    assert DropBlock(0.5)(torch.ones(2, 3, 8, 8).bfloat16()).dtype == torch.bfloat16
