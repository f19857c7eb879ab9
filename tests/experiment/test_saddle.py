"""`doctor --saddle` and its function: against the whole Hessian of a network written by hand, in float64, and what it refuses.

Shapes: N samples, D inputs, H hidden units, C classes, P parameters.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import torchstone
from cli.small import only_json, refused, snapshot
from torchstone.cli import main
from torchstone.core import tree
from torchstone.core.errors import UserError
from torchstone.experiment import Experiment, prepare, saddle_of_run
from torchstone.experiment.saddle import flat_problem
from torchstone.optim.gradient import Backprop
from torchstone.optim.second_order import Problem, saddle_of
from torchstone.ship.artifact import read_artifact, read_weights

HIDDEN = 4
PENALTY = 0.01
SMALL = ("model.hidden=[4]", "model.activation=tanh", "run.threads=1", "run.device=cpu", "run.trackers=[]")
LINEAR = ("model.hidden=[]", f"penalties=[{{kind=l2,strength={PENALTY}}}]", *SMALL[2:])
TO_THE_BOTTOM = ("optimizer=lbfgs", "schedules=[]", "gradient_transforms=[]", "groups=none", "run.batch_size=1257", "run.steps=120")


def digits(*edits: str) -> Experiment:
    return tree.edit(torchstone.recipes.digits_mini(), edits)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs: nowhere yet."""
    where = tmp_path_factory.mktemp("saddle") / "short"
    torchstone.train_experiment(digits(*SMALL, "run.epochs=2"), out=where)
    return where


def data_of(experiment: Experiment) -> tuple[Tensor, Tensor]:
    """The training split, normalized by its own mean and deviation: [N, D] in float64 (the run: in float32), and the classes."""
    images, target = experiment.data.open().train.fetch(np.arange(1257))
    images = images.double()
    normalized = (images - images.mean()) / images.std(correction=0)
    return normalized.flatten(1), target


def network(x_ND: Tensor, target_N: Tensor, sizes: list[tuple[int, ...]]) -> Callable[[Tensor], Tensor]:
    """Mean cross-entropy of tanh layers, as a function of the flat parameters (weight, bias, weight, bias …)."""

    def loss(flat_P: Tensor) -> Tensor:
        parts = [part.view(size) for part, size in zip(flat_P.split([math.prod(size) for size in sizes]), sizes, strict=True)]
        h = x_ND
        for i in range(0, len(parts), 2):
            h = F.linear(h, parts[i], parts[i + 1])
            h = h.tanh() if i + 2 < len(parts) else h
        return F.cross_entropy(h, target_N)

    return loss


def weights_of(run: Path) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in read_weights(run, read_artifact(run).weights)[0].items()}


def reference(run: Path) -> tuple[float, float, Tensor]:
    """(loss, gradient norm, all eigenvalues of the Hessian) of the stored weights."""
    x, target = data_of(digits())
    weights = weights_of(run)
    loss = network(x, target, [tuple(each.shape) for each in weights.values()])
    flat = torch.cat([each.flatten() for each in weights.values()])
    gradient, hessian = torch.func.grad(loss)(flat), torch.func.hessian(loss)(flat)
    return float(loss(flat)), float(gradient.norm()), torch.linalg.eigvalsh(hessian)


def test_a_run_is_seen_as_its_whole_hessian_says(short: Path) -> None:
    value, norm, eigenvalues = reference(short)
    found = saddle_of_run(short)
    assert found.value == pytest.approx(value, rel=1e-7) and found.gradient_norm == pytest.approx(norm, rel=1e-7)
    assert found.lowest == pytest.approx(float(eigenvalues[0]), rel=1e-5) and found.highest == pytest.approx(
        float(eigenvalues[-1]), rel=1e-7
    )
    assert found.verdict == "not stationary" and found.lowest < 0 < found.highest


@pytest.mark.parametrize(("loss", "verdict"), [("bce", "minimum"), ("cross_entropy", "undecided")])
def test_a_convex_run_at_its_bottom(loss: str, verdict: str, tmp_path: Path) -> None:
    """A linear model with a square penalty on its weights. The softmax does not see a shift of all biases, a sigmoid a class does."""
    torchstone.train_experiment(digits(*LINEAR, f"loss={loss}", *TO_THE_BOTTOM), out=tmp_path / "run")
    found = saddle_of_run(tmp_path / "run")
    x, target = data_of(digits())
    weight, bias = weights_of(tmp_path / "run").values()
    flat = torch.cat([weight.flatten(), bias.flatten()])

    def whole(flat_P: Tensor) -> Tensor:
        w, b = flat_P[: weight.numel()].view_as(weight), flat_P[weight.numel() :]
        logits = x @ w.T + b
        one_hot = F.one_hot(target, 10).double()
        bce = -(one_hot * F.logsigmoid(logits) + (1 - one_hot) * F.logsigmoid(-logits)).mean()
        return (bce if loss == "bce" else F.cross_entropy(logits, target)) + PENALTY / 2 * w.square().sum()

    eigenvalues = torch.linalg.eigvalsh(torch.func.hessian(whole)(flat))
    assert found.value == pytest.approx(float(whole(flat)), rel=1e-7)
    assert found.gradient_norm == pytest.approx(float(torch.func.grad(whole)(flat).norm()), abs=1e-7) and found.gradient_norm < 1e-4
    assert found.highest == pytest.approx(float(eigenvalues[-1]), rel=1e-6) and found.lowest == pytest.approx(
        float(eigenvalues[0]), abs=1e-6
    )
    assert found.verdict == verdict, found.because


def at_zero() -> tuple[Problem, Tensor]:
    """A network whose weights are 0 and whose last biases are the logarithms of the class shares: there the gradient vanishes."""
    prepared = prepare(digits(*SMALL))
    counts = torch.tensor(prepared.facts.class_counts, dtype=torch.float64)
    with torch.no_grad():
        for parameter in prepared.model.parameters():
            parameter.zero_()
    model = prepared.model.double()
    with torch.no_grad():
        list(model.parameters())[-1].copy_((counts / counts.sum()).log())
    return flat_problem(prepared, model)


def test_a_dead_network_is_a_saddle() -> None:
    """tanh(0) = 0: only the product of both layers' weights moves the loss, so one way down has one way up beside it."""
    problem, start = at_zero()
    found = saddle_of(problem, start, tolerance=1e-6)
    x, target = data_of(digits())
    loss = network(x, target, [(HIDDEN, 64), (HIDDEN,), (10, HIDDEN), (10,)])
    eigenvalues = torch.linalg.eigvalsh(torch.func.hessian(loss)(start))
    assert found.gradient_norm < 1e-12 and found.verdict == "saddle"
    assert (found.lowest, found.highest) == pytest.approx((float(eigenvalues[0]), float(eigenvalues[-1])), rel=1e-7)


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_command_prints_what_the_function_finds(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(short)
    assert main(["doctor", str(short), "--saddle", "--json"]) == 0
    found = only_json(capsys)
    assert found["verdict"] == "not stationary" and found["gradient_norm"] == pytest.approx(reference(short)[1], rel=1e-7)
    assert main(["doctor", str(short), "--saddle"]) == 0
    shown = capsys.readouterr().out
    assert f"gradient norm  {found['gradient_norm']:.3g}" in shown and "verdict        not stationary" in shown
    assert snapshot(short) == before, "it only looks"


def test_what_saddle_refuses(short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["doctor", str(tmp_path / "none"), "--saddle"], "no such run folder", capsys=capsys)
    refused(["doctor", "digits-mini", "--saddle"], "no such run folder", capsys=capsys)
    refused(["doctor", str(tmp_path), "--saddle"], "not a run folder", capsys=capsys)
    refused(["doctor", str(short), "--saddle", "--rate"], "leave out --rate", capsys=capsys)
    refused(["doctor", str(short), "--saddle", "loss=focal"], "leave out --rate and the edits", capsys=capsys)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("experiment.toml", "artifact.json", "environment.json"):
        (bare / name).write_bytes((short / name).read_bytes())
    refused(["doctor", str(bare), "--saddle"], "no checkpoint yet", capsys=capsys)


@dataclass(frozen=True, kw_only=True, slots=True)
class Twice:
    """Twice the cross-entropy: a loss of one's own."""

    couples: ClassVar[bool] = False

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return 2 * F.cross_entropy(logits, target, reduction="none")

    def weight(self, target: Tensor) -> Tensor:
        return torch.ones(len(target))


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnGradient(Backprop):
    """A gradient seat of one's own, which no loss reads."""


def test_a_loss_of_ones_own_needs_the_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = digits(*SMALL, "run.epochs=1")
    own = replace(plain, method=replace(plain.method, loss=Twice()))
    torchstone.train_experiment(own, out=tmp_path / "run")
    refused(
        ["doctor", str(tmp_path / "run"), "--saddle"], "method.loss is a class of your own", "saddle_of_run(run, experiment)", capsys=capsys
    )
    value, norm, eigenvalues = reference(tmp_path / "run")
    found = saddle_of_run(tmp_path / "run", own)
    assert (found.value, found.gradient_norm) == pytest.approx((2 * value, 2 * norm), rel=1e-7)
    assert found.highest == pytest.approx(2 * float(eigenvalues[-1]), rel=1e-6)


def test_another_seat_of_ones_own_is_left_out(tmp_path: Path) -> None:
    plain = digits(*SMALL, "run.epochs=1")
    torchstone.train_experiment(replace(plain, method=replace(plain.method, gradient=OwnGradient())), out=tmp_path / "run")
    assert "custom" in (tmp_path / "run" / "experiment.toml").read_text()
    assert saddle_of_run(tmp_path / "run").value == pytest.approx(reference(tmp_path / "run")[0], rel=1e-7)


def test_a_soup_of_runs_with_a_loss_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        plain = digits(*SMALL, "run.epochs=1", f"run.seed={seed}")
        torchstone.train_experiment(replace(plain, method=replace(plain.method, loss=Twice())), out=tmp_path / name)
    capsys.readouterr()
    assert main(["soup", str(tmp_path / "a"), str(tmp_path / "b"), "--by", "uniform", "--out", str(tmp_path / "s"), "--json"]) == 0
    shown = capsys.readouterr()
    assert "left out of the soup's experiment (method.loss); `loss` is the task's default one" in shown.err
    mean = (weights_of(tmp_path / "a")["head.weight"] + weights_of(tmp_path / "b")["head.weight"]) / 2
    torch.testing.assert_close(weights_of(tmp_path / "s")["head.weight"], mean, rtol=1e-6, atol=1e-8)
    assert json.loads(shown.out)["status"] == "done"


def test_several_models_have_no_one_place(short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "folds"
    assert main(["train", "digits-mini", *SMALL, "run.epochs=1", "--folds", "2", "--out", str(made)]) == 0
    with pytest.raises(UserError, match="several models answer together"):
        saddle_of_run(made)
