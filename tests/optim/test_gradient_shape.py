"""Centering and noise against NumPy; what they leave alone.

Shapes: N parameters' elements.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from laws import cases
from laws.cases import PLAIN, begin, ready
from torchstone.core import random
from torchstone.optim import Centralize, ClipByNorm, FlatParameters, GradientNoise


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
        self.body = nn.ModuleList([nn.Linear(5, 4), nn.Linear(5, 4)])
        self.embedding, self.head = nn.Embedding(6, 5), nn.Linear(4, 3)


def flat_net(dtype: torch.dtype = torch.float64) -> FlatParameters:
    torch.manual_seed(0)
    flat = FlatParameters(Net().to(dtype))
    for p in flat:
        p.grad.copy_(torch.randn_like(p))
    return flat


def gradients(flat: FlatParameters) -> dict[str, np.ndarray]:
    return {name: view.detach().numpy().copy() for name, view in flat.named(flat.grad).items()}


@pytest.mark.parametrize("convolutions_only", [False, True])
def test_centralize_is_the_papers(convolutions_only: bool) -> None:
    flat = flat_net()
    before = gradients(flat)
    Centralize(convolutions_only=convolutions_only)(flat, 1.0)
    for name, after in gradients(flat).items():
        expected = before[name]
        if expected.ndim >= (3 if convolutions_only else 2):
            expected = expected - expected.mean(axis=tuple(range(1, expected.ndim)), keepdims=True)
        np.testing.assert_allclose(after, expected, rtol=0, atol=1e-15, err_msg=name)
    flat.check()


def test_centered_weights_keep_their_sum(tmp_path: Path) -> None:
    """Section 4.2 of the paper: under SGD the mean of a unit's weights never moves."""
    method = replace(PLAIN, gradient_transforms=(Centralize(),))
    job, state = begin(ready(method, cases.MLP), tmp_path, torch.float32)
    before = {name: p.sum(dim=1).clone() for name, p in state.model.named_parameters() if p.ndim == 2}
    start = state.parameters.data.clone()
    cases.advance(job, state, 6)
    assert (state.parameters.data - start).abs().max() > 1e-2
    for name, p in state.model.named_parameters():
        if p.ndim == 2:
            torch.testing.assert_close(p.sum(dim=1), before[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("updates", [0, 1, 99])
def test_noise_has_its_variance(updates: int) -> None:
    torch.manual_seed(0)
    flat = FlatParameters(nn.Linear(400, 500).double())
    part = GradientNoise(eta=0.3, gamma=0.55)
    said = part(flat, 1.0, key=random.key(0, "x"), updates=updates)
    variance = 0.3 / (1 + updates) ** 0.55
    drawn = torch.cat([p.grad.flatten() for p in flat])
    assert said == {"noise": pytest.approx(math.sqrt(variance), rel=1e-14)}
    count = drawn.numel()
    assert float(drawn.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / count))  # four standard errors
    assert abs(float(drawn.mean())) < 4 * math.sqrt(variance / count)


def test_noise_is_of_its_key_and_leaves_padding() -> None:
    grads = []
    for key in (5, 5, 6):
        flat = flat_net()
        GradientNoise()(flat, 1.0, key=key, updates=3)
        inside = torch.zeros_like(flat.grad, dtype=torch.bool)
        for view in flat.named(inside).values():
            view.fill_(True)
        assert not flat.grad[~inside].any() and inside.sum() < len(inside)
        grads.append(flat.grad)
    assert torch.equal(grads[0], grads[1]) and not torch.equal(grads[0], grads[2])


def test_every_update_draws_anew_and_global_generators_stay(tmp_path: Path) -> None:
    """The step's own keys: two updates with the same weights get other noise; the same run again gets the same."""
    method = replace(cases.STILL, gradient_transforms=(GradientNoise(eta=1.0, gamma=0.0), GradientNoise(eta=1.0, gamma=0.0)))
    seen = []
    for _ in range(2):
        job, state = begin(ready(method, cases.MLP), tmp_path)
        clean_job, clean = begin(ready(cases.STILL, cases.MLP), tmp_path)
        noise = []
        for _ in range(3):
            cases.advance(job, state, 1)
            cases.advance(clean_job, clean, 1)
            noise.append(state.parameters.grad - clean.parameters.grad)
        seen.append(noise)
    for a, b in zip(*seen, strict=True):
        assert torch.equal(a, b)
    assert not torch.allclose(seen[0][0], seen[0][1], atol=0.1)
    assert float(torch.cat(seen[0]).square().sum()) == pytest.approx(2 * 3 * sum(p.numel() for p in state.parameters), rel=0.2)  # var 1 + 1


def test_a_transform_after_another_is_told_the_norm_of_what_it_gets(tmp_path: Path) -> None:
    method = replace(cases.STILL, gradient_transforms=(GradientNoise(eta=100.0), ClipByNorm(max_norm=0.5)))
    job, state = begin(ready(method, cases.MLP), tmp_path)
    (report,) = cases.advance(job, state, 1)
    assert float(state.parameters.norm()) == pytest.approx(0.5, rel=1e-5)
    assert report.norm < 50 < 0.5 / report.numbers["clip"]


def test_neutral_and_fields() -> None:
    flat = flat_net()
    before = flat.grad.clone()
    assert GradientNoise.neutral(flat, 1.0, key=1, updates=0) == {"noise": 0.0}
    assert torch.equal(flat.grad, before)
    for field in ("eta", "gamma"):
        with pytest.raises(ValueError, match=rf"GradientNoise\.{field} must be"):
            GradientNoise(**{field: -1.0})
