"""A head of cosines: against torch's cosine_similarity, where it fits, and shipped with the run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchstone
from laws import cases
from torchstone import losses, optim, recipes
from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, TokenShape
from torchstone.models import FastConvNetConfig, GPTConfig, MLPConfig, build
from torchstone.nn.cosine import CosineLinear
from torchstone.slim import CosineHead


def test_outputs_are_cosines_to_the_weights_of_before() -> None:
    model = build(MLPConfig(hidden=(9,)), ImageShape(1, 4, 4), 5, 0)
    before = model.head.weight.detach().clone()  # type: ignore[union-attr]
    features: list[torch.Tensor] = []
    model = CosineHead()(model)
    model.head.register_forward_pre_hook(lambda module, given: features.append(given[0]))  # type: ignore[union-attr]
    outputs = model.eval()(torch.randn(6, 1, 4, 4))
    torch.testing.assert_close(outputs, F.cosine_similarity(features[0][:, None], before[None], dim=2))
    assert CosineHead()(model) is model and isinstance(model.head, CosineLinear)
    assert [name for name, _ in model.head.named_parameters()] == ["weight"]


def test_a_head_of_zeros_gets_directions() -> None:
    linear = nn.Linear(7, 4)
    nn.init.zeros_(linear.weight)
    weight = CosineLinear.like(linear).weight
    assert bool((weight.norm(dim=1) > 0).all()) and int(torch.linalg.matrix_rank(weight)) == 4


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="ends in a linear layer"):
        CosineHead()(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(UserError, match=r"head_scale=1"):
        CosineHead()(build(FastConvNetConfig(), ImageShape(3, 32, 32), 5, 0))
    with pytest.raises(UserError, match=r"model\.tie=false"):
        CosineHead()(build(GPTConfig(depth=1, dim=16, num_heads=2, tie=True), TokenShape(12, 6), 12, 0))


def test_arcface_learns_and_predicts_as_it_was_evaluated(tmp_path: Path) -> None:
    """The head is in the artifact: a predictor gives the cosines of the training's own model."""
    base = recipes.digits()
    method = replace(base.method, loss=losses.Arcface(scale=16.0), model_transforms=(CosineHead(),), optimizer=optim.AdamW(lr=0.003))
    experiment = replace(base, method=method, model=MLPConfig(hidden=(32,)))
    run = torchstone.train(experiment, "run.epochs=8", "run.batch_size=32", out=tmp_path / "run")
    assert run.metrics["final"]["accuracy"] > 0.8
    predictor = torchstone.load(str(tmp_path / "run"))
    assert isinstance(predictor.model.head, CosineLinear)
    scored = [batch.outputs for batch in predictor.scored(torch.rand(3, 1, 8, 8).numpy())]
    assert float(torch.cat(scored).abs().max()) <= 1 + 1e-6


def test_its_model_resumes_like_any_other(tmp_path: Path) -> None:
    state = cases.trained(replace(cases.PLAIN, loss=losses.LDAM(), model_transforms=(CosineHead(),)), tmp_path)
    assert isinstance(state.model.head, CosineLinear) and state.updates == 5
