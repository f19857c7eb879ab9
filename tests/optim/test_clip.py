"""Clipping against torch's, and the bits it must not touch."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torchstone.optim import AdaptiveClip, ClipByNorm, ClipByValue, FlatParameters


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


# --- by value, and unit by unit ----------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Two equal matrices (one stack), a convolution, a depthwise one, an embedding, vectors, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList([nn.Linear(7, 5), nn.Linear(7, 5)])
        self.conv, self.depthwise, self.norm = nn.Conv2d(2, 3, 3), nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(3)
        self.embedding, self.head = nn.Embedding(6, 5), nn.Linear(4, 3)


def with_gradients(scale: float = 1.0) -> FlatParameters:
    torch.manual_seed(0)
    flat = FlatParameters(Net().double())
    for number, p in enumerate(flat):
        p.grad.copy_(torch.randn_like(p) * scale * 10.0 ** (number % 3 - 2))
    return flat


def numpy_gradients(flat: FlatParameters) -> dict[str, np.ndarray]:
    return {name: view.detach().numpy().copy() for name, view in flat.named(flat.grad).items()}


@pytest.mark.parametrize("max_value", [1e-3, 0.05, 1.0])
def test_values_are_torchs(max_value: float) -> None:
    flat, theirs = with_gradients(), with_gradients()
    norm = float(flat.norm())
    count = sum(int((p.grad.abs() > max_value).sum()) for p in theirs)
    said = ClipByValue(max_value=max_value)(flat, norm)
    nn.utils.clip_grad_value_(list(theirs), max_value)
    assert torch.equal(flat.grad, theirs.grad)
    assert said == {"clip": pytest.approx(count / sum(p.numel() for p in theirs), rel=1e-6)}
    assert ClipByValue(max_value=max_value)(flat, torch.tensor(norm))["clip"] == 0.0


@pytest.mark.parametrize("clipping", [1e-4, 0.01, 1.0])
def test_adaptive_is_the_papers(clipping: float) -> None:
    """Unit by unit in NumPy, as eq. 3 and the authors' code cut units: rows, filters, whole vectors; the head is spared."""
    flat, eps = with_gradients(), 1e-3
    flat.module.get_parameter("body.1.weight").data[2] = 0.0  # a unit at 0 counts with eps
    before, cut, units = numpy_gradients(flat), 0, 0
    said = AdaptiveClip(clipping=clipping, eps=eps)(flat, 1.0)
    for name, after in numpy_gradients(flat).items():
        grad, weight = before[name], flat.module.get_parameter(name).detach().numpy()
        if name.startswith("head."):
            assert np.array_equal(after, grad)
            continue
        axes = tuple(range(1, grad.ndim)) if grad.ndim > 1 else (0,)
        length = lambda x, axes=axes: np.sqrt((x**2).sum(axis=axes, keepdims=True))
        longest = clipping * np.maximum(length(weight), eps)
        clipped = np.where(length(grad) > longest, grad * longest / length(grad), grad)
        np.testing.assert_allclose(after, clipped, rtol=1e-13, atol=0, err_msg=name)
        cut, units = cut + int((length(grad) > longest).sum()), units + length(grad).size
    assert said == {"clip": pytest.approx(cut / units, rel=1e-6)} and 0 < cut


def test_a_gradient_of_zero_stays() -> None:
    flat = with_gradients(0.0)
    assert AdaptiveClip()(flat, 0.0) == {"clip": 0.0} and not flat.grad.any()


@pytest.mark.parametrize("part", [ClipByValue.neutral, AdaptiveClip.neutral], ids=["value", "adaptive"])
def test_infinity_lets_all_through(part: Any) -> None:
    flat = with_gradients()
    before = flat.grad.clone()
    assert part(flat, float(flat.norm())) == {"clip": 0.0} and torch.equal(flat.grad, before)


def test_their_fields_are_checked() -> None:
    for make, said in (
        (lambda: ClipByValue(max_value=0.0), r"ClipByValue\.max_value must be"),
        (lambda: AdaptiveClip(clipping=0.0), r"AdaptiveClip\.clipping must be"),
        (lambda: AdaptiveClip(eps=0.0), r"AdaptiveClip\.eps must be"),
    ):
        with pytest.raises(ValueError, match=said):
            make()
