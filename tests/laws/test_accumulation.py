"""Law: micro-batches of unequal weight are the one large batch: same gradient, same logged loss, whatever the cut.

Over every loss and every model without batch norm, model noise off. The gradient is what a step of rate 0 leaves behind.
Shapes: N rows, C classes, T tokens.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import cases
from laws.cases import STILL, all_tensors, begin, parts_of, ready
from torchstone import losses
from torchstone.core.protocols import Batch, TokenShape
from torchstone.data.splits import TensorSplit
from torchstone.losses import L1, L2, MSE, CrossEntropy, Focal, Orthogonality
from torchstone.models import GPTConfig, LenetConfig, MLPConfig, VITConfig
from torchstone.optim import SAM, SGD
from torchstone.train.state import TrainState
from torchstone.train.step import train_step

ROWS = 24
CUTS = {1: (24,), 2: (5, 19), 3: (1, 16, 7), 4: (9, 2, 12, 1), 8: (1, 6, 2, 3, 1, 8, 1, 2)}
"""Rows of each micro-batch."""

SETTINGS: dict[str, tuple[Any, ...]] = {
    "cross_entropy": (CrossEntropy(), CrossEntropy(smoothing=0.1, class_weights=(0.3, 2.0, 1.0))),
    "focal": (Focal(), Focal(gamma=0.7, class_weights=(0.3, 2.0, 1.0))),
    "mse": (MSE(), MSE(on="probabilities")),
    "logit_adjustment": (losses.LogitAdjustment(priors=(0.2, 0.5, 0.3), smoothing=0.1),),
    "ldam": (losses.LDAM(margins=(0.5, 0.2, 0.3), scale=3.0),),
    "bce": (losses.BCE(smoothing=0.1, positive_weight=(0.5, 2.0, 1.0)),),
}
"""Loss kind -> what it is tried with; a loss without a row is tried with its defaults. Class weights are for three classes."""
LOSSES = [
    loss for part in cases.METHOD_PARTS if part.seat == "loss" and not part.cls.couples for loss in SETTINGS.get(part.kind) or (part.cls(),)
]
EVERYWHERE = {"cross_entropy", "focal", "mse"}
"""Losses tried with every model; the others with one of pictures and one of tokens."""

MODELS: dict[str, tuple[Any, ...]] = {
    "mlp": (MLPConfig(hidden=(9,)),),
    "lenet": (LenetConfig(),),
    "vit": (VITConfig(depth=2, dim=12, num_heads=2), VITConfig(depth=1, dim=12, num_heads=2, pool="mean")),
    "gpt": (
        GPTConfig(depth=1, dim=16, num_heads=2, tie=True),
        GPTConfig(depth=1, dim=16, num_heads=2, positions="learned", norm="rms", bias=True),
    ),
}
NORMED = {"conv_net", "resnet", "cifar_resnet", "fast_conv_net", "mobile_net_v2", "pretrained"}
"""Models with batch norm, or with the body of any: no claim is made for them (see regressions/test_divisor.py, case 14)."""


def tried(kind: str, model: Any, loss: Any) -> bool:
    """Whether the pair is one of those that are tried."""
    return cases.kind_of(loss) in EVERYWHERE or kind == "mlp" or (kind == "gpt" and not model.tie)


def fresh(method: Any, model: Any, folder: Path, dtype: torch.dtype) -> tuple[Any, TrainState]:
    return begin(ready(method, model, cases.TinyTokens(vocabulary=3) if isinstance(model, GPTConfig) else None), folder, dtype)


def whole_batch(job: Any, form: str, dtype: torch.dtype) -> Batch:
    """24 rows with a target of the form: "int", "probabilities", or "ignored" (some terms, and all of some micro-batch)."""
    draw = torch.Generator().manual_seed(3)
    shape = job.splits.facts.inputs
    if isinstance(shape, TokenShape):
        inputs = torch.randint(0, 3, (ROWS, shape.length), generator=draw)
        places: tuple[int, ...] = (ROWS, shape.length)
    else:
        inputs = torch.randn(ROWS, 1, 8, 8, generator=draw, dtype=torch.float64).to(dtype)
        places = (ROWS,)
    target = torch.randint(0, 3, places, generator=draw)
    if form == "probabilities":
        target = torch.rand(*places, 3, generator=draw, dtype=torch.float64).softmax(-1).to(dtype)
    if form == "ignored":
        target[torch.rand(places, generator=draw) < 0.3] = -100
        target[:1] = -100  # all of the first micro-batch of some cuts
    weight = torch.ones(ROWS)
    weight[[4, 20]] = 0.0  # rows that only pad
    return Batch(inputs, target, torch.arange(ROWS), weight)


def cut(batch: Batch, sizes: tuple[int, ...]) -> list[Batch]:
    parts = [tensor.split(list(sizes)) for tensor in (batch.inputs, batch.target, batch.index, batch.weight)]
    return [Batch(*each) for each in zip(*parts, strict=True)]


def gradient(method: Any, model: Any, form: str, k: int, folder: Path, dtype: torch.dtype) -> tuple[Tensor, float]:
    """(the step's gradient, its logged loss) with the rows cut into k micro-batches."""
    job, state = fresh(method, model, folder, dtype)
    report = train_step(state, cut(whole_batch(job, form, dtype), CUTS[k]), job.method, job.setting, 0)
    assert state.updates == 1
    return state.parameters.grad.clone(), report.loss


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_every_model_is_tried_or_has_batch_norm(tmp_path: Path) -> None:
    for part in parts_of("model"):
        assert (part.kind in MODELS) != (part.kind in NORMED), f"{part.kind} needs a row in MODELS, or in NORMED if it has batch norm"
    for kind in NORMED:
        assert cases.has_batch_norm(ready(STILL, cases.CONV).model), kind


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("form", ["int", "probabilities", "ignored"])
@pytest.mark.parametrize(
    "model, loss",
    [(model, loss) for kind, row in MODELS.items() for model in row for loss in LOSSES if tried(kind, model, loss)],
    ids=lambda m: f"{type(m).__name__}-{getattr(m, 'positions', '')}" if type(m).__name__.endswith("Config") else str(m),
)
def test_cut_is_whole(model: Any, loss: Any, form: str, dtype: torch.dtype, tmp_path: Path) -> None:
    method = replace(STILL, loss=loss, **cases.BESIDE.get(cases.kind_of(loss), {}))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    whole, loss_of_whole = gradient(method, model, form, 1, tmp_path, dtype)
    assert float(whole.norm()) > 1e-4
    for k in (2, 3, 4, 8):
        grad, value = gradient(method, model, form, k, tmp_path, dtype)
        assert error(grad, whole) < tolerance, k
        assert value == pytest.approx(loss_of_whole, rel=tolerance), k


PENALTIES = {"l0": None, "l1": L1(strength=0.1), "l2": L2(strength=0.3), "orthogonality": Orthogonality(strength=0.1)}
"""Strong enough to be seen. l0 reads gates, which draw anew in each micro-batch: see losses/test_penalties.py."""


@pytest.mark.parametrize("part", [part for part in parts_of("penalties") if PENALTIES.get(part.kind, part)], ids=str)
def test_penalty_is_added_once(part: cases.Part, tmp_path: Path) -> None:
    method = replace(STILL, penalties=(PENALTIES.get(part.kind) or part.make(tmp_path),))
    whole, loss = gradient(method, MLPConfig(hidden=(9,)), "ignored", 1, tmp_path, torch.float64)
    without, _ = gradient(STILL, MLPConfig(hidden=(9,)), "ignored", 1, tmp_path, torch.float64)
    assert error(without, whole) > 1e-3
    for k in (2, 3, 4, 8):
        grad, value = gradient(method, MLPConfig(hidden=(9,)), "ignored", k, tmp_path, torch.float64)
        assert error(grad, whole) < 1e-12
        assert value == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("part", parts_of("gradient"), ids=str)
def test_both_passes_see_all_micro_batches(part: cases.Part, tmp_path: Path) -> None:
    method = replace(STILL, gradient=SAM(rho=0.3) if part.kind == "sam" else part.make(tmp_path), penalties=(L2(strength=0.1),))
    for model in (MLPConfig(hidden=(9,)), MODELS["gpt"][0]):
        whole, loss = gradient(method, model, "ignored", 1, tmp_path, torch.float64)
        for k in (2, 3, 4, 8):
            grad, value = gradient(method, model, "ignored", k, tmp_path, torch.float64)
            assert error(grad, whole) < 1e-12
            assert value == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("model", [MLPConfig(hidden=(9,)), GPTConfig(depth=1, dim=16, num_heads=2)], ids=["mlp", "gpt"])
@pytest.mark.parametrize("microbatch_size", [1, 2, 3, 5])
def test_epochs_with_a_short_last_window(model: Any, microbatch_size: int, tmp_path: Path) -> None:
    """Through plan, loader and step: 22 rows in windows of 8, 8 and 6, two epochs, ragged targets where there are tokens."""
    method = replace(STILL, optimizer=SGD(lr=0.1))
    ends = []
    for size in (None, microbatch_size):
        job, state = begin(ready(method, model, epochs=2, microbatch_size=size), tmp_path, torch.float64)
        if not isinstance(model, GPTConfig):
            images = job.splits.train
            job = replace(job, splits=replace(job.splits, train=TensorSplit(images.inputs.double(), images.target)))
        cases.advance(job, state, job.total)
        assert (state.updates, job.total) == (6, 6)
        ends.append(all_tensors(state))
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, rtol=1e-11, atol=1e-13)


def test_a_mean_of_means_is_seen(tmp_path: Path) -> None:
    """The law fails for the classic mistake: each micro-batch divided by its own weight."""
    whole, _ = gradient(STILL, MLPConfig(hidden=(9,)), "ignored", 1, tmp_path, torch.float64)
    job, state = fresh(STILL, MLPConfig(hidden=(9,)), tmp_path, torch.float64)
    total = torch.zeros_like(whole)
    for batch in cut(whole_batch(job, "ignored", torch.float64), CUTS[4]):
        train_step(state, [batch], job.method, job.setting, 0)
        total += state.parameters.grad / 4
    assert error(total, whole) > 1e-2
