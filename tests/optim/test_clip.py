"""Clipping against torch's, and the bits it must not touch."""

import math

import pytest
import torch
from torch import nn

from torchstone.optim import ClipByNorm, FlatParameters


def flat_with_gradient() -> FlatParameters:
    torch.manual_seed(0)
    flat = FlatParameters(nn.Linear(7, 5).double())
    for p in flat:
        p.grad.normal_()
    return flat


@pytest.mark.parametrize("as_tensor", [True, False])
@pytest.mark.parametrize("max_norm", [0.1, 1.0, 100.0])
def test_it_is_torchs(as_tensor, max_norm):
    flat, reference = flat_with_gradient(), flat_with_gradient()
    norm = flat.norm()
    found = ClipByNorm(max_norm=max_norm)(flat, norm if as_tensor else norm.item())
    nn.utils.clip_grad_norm_(list(reference), max_norm)
    torch.testing.assert_close(flat.grad, reference.grad, rtol=1e-5, atol=0)  # torch adds 1e-6 to the norm
    assert flat.norm() <= max_norm * (1 + 1e-12) or flat.norm() == norm
    assert float(found["clip"]) == pytest.approx(min(1.0, max_norm / norm.item()), abs=1e-12)


@pytest.mark.parametrize("as_tensor", [True, False])
def test_neutral_and_short_gradients_keep_their_bits(as_tensor):
    flat = flat_with_gradient()
    before, norm = flat.grad.clone(), flat.norm()
    for part in (ClipByNorm.neutral, ClipByNorm(max_norm=norm.item() * 1.01)):
        part(flat, norm if as_tensor else norm.item())
        assert torch.equal(flat.grad, before)


@pytest.mark.parametrize("as_tensor", [True, False])
def test_zero_stays_zero_and_nan_stays_for_the_guard(as_tensor):
    flat = flat_with_gradient()
    flat.zero_grad()
    ClipByNorm()(flat, torch.tensor(0.0, dtype=torch.float64) if as_tensor else 0.0)
    assert torch.equal(flat.grad, torch.zeros_like(flat.grad))
    for poison in (math.nan, math.inf):
        flat.grad[2] = poison
        ClipByNorm()(flat, flat.norm() if as_tensor else flat.norm().item())
        assert not flat.norm().isfinite()


def test_max_norm_is_checked():
    for max_norm in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"ClipByNorm\.max_norm must be"):
            ClipByNorm(max_norm=max_norm)
