"""Planted faults of the kind that shows during a run: each is a real short training with that fault, and the doctor must name it first or
second.

The healthy runs raise no error; what they raise at "warning" is counted (`HEALTHY_WARNINGS`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from doctor.planted import FewDigits, applies, examined, require, train

HEALTHY_WARNINGS = 0
"""False alarms of the ten healthy runs below at severity "warning"."""


class Broken(nn.Linear):
    """A layer that takes a logarithm of what may be negative, from one forward pass on."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        out = super().forward(x)
        return out.log() if self.calls > 20 else out


class Root(nn.Linear):
    """A layer whose value is finite and whose slope is not: the root of 0."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        out = super().forward(x)
        return out + (out * 0).sqrt() if self.calls > 20 else out


def replaced(kind: type[nn.Linear], at: int) -> Callable[[Any], None]:
    def mutate(model: Any) -> None:
        old = model.hidden[at]
        model.hidden[at] = kind(old.in_features, old.out_features)

    return mutate


def scaled(names: str, factor: float) -> Callable[[nn.Module], None]:
    def mutate(model: nn.Module) -> None:
        for name, p in model.named_parameters():
            if name.startswith(names) and p.ndim >= 2:
                p.mul_(factor)

    return mutate


def biased(value: float) -> Callable[[Any], None]:
    def mutate(model: Any) -> None:
        for layer in model.hidden:
            layer.bias.fill_(value)

    return mutate


def overflowing(model: Any) -> None:
    """Late layers so steep and the first so flat that the logits are ordinary and the first gradient is beyond fp16 at a scale of 1."""
    model.hidden[0].weight.mul_(1e-6)
    model.hidden[1].weight.mul_(1e2)
    model.head.weight.mul_(1e5).clamp_(-5e4, 5e4)


DEEP = "model.hidden=[" + ",".join(["32"] * 20) + "]"
FAULTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], dict[str, Any]]] = {
    "twenty sigmoid layers": (("vanishing_gradient",), (DEEP, "activation=sigmoid", "run.steps=40"), {}),
    "first weights ten times too large": (
        ("exploding_gradient",),
        ("model.hidden=[64,64,64,64,64,64,64,64]", "run.steps=30"),
        {"mutate": scaled("hidden", 10.0)},
    ),
    "rate a hundred times too high": (("oscillation", "loss_spikes"), ("optimizer.lr=0.3", "schedules=[]", "run.steps=60"), {}),
    "rate of SGD beyond the edge": (("oscillation",), ("optimizer=sgd", "optimizer.lr=4", "schedules=[]", "run.steps=60"), {}),
    "rate a million times too high": (("non_finite",), ("optimizer=sgd", "optimizer.lr=1e6", "run.steps=40"), {}),
    "updates as large as the weights": (
        ("update_ratio",),
        ("optimizer.lr=0.03", "schedules=[]", "run.steps=20"),
        {"mutate": scaled("", 1e-3)},
    ),
    "rate a thousand times too low": (("update_ratio",), ("optimizer.lr=1e-6", "run.steps=40"), {}),
    "biases that kill every rectifier": (
        ("dead_units",),
        ("model.hidden=[64,64]", "run.steps=40"),
        {"mutate": biased(-20.0)},
    ),
    "tanh with weights thirty times too large": (
        ("saturated_units",),
        ("activation=tanh", "run.steps=40", "model.hidden=[64,64]"),
        {"mutate": scaled("hidden", 30.0)},
    ),
    "a hundred samples, a fifth of them mislabeled": (
        ("overfit",),
        ("model.hidden=[256]", "run.steps=150", "run.batch_size=50", "run.evaluate_every=10", "schedules=[]"),
        {"data": FewDigits(train=100, wrong=0.2)},
    ),
    "labels drawn at random": (
        ("plateau", "underfit"),
        ("run.steps=80", "model.hidden=[8]"),
        {"data": FewDigits(wrong=1.0)},
    ),
    "too few steps": (("not_converged",), ("optimizer.lr=1e-3", "run.steps=60", "run.evaluate_every=6", "schedules=[]"), {}),
    "a logarithm in the middle": (("non_finite",), ("model.hidden=[16,16,16]", "run.steps=40"), {"mutate": replaced(Broken, 1)}),
    "a root of zero in the middle": (("non_finite",), ("model.hidden=[16,16,16]", "run.steps=40"), {"mutate": replaced(Root, 1)}),
    "a pixel that is no number": (("non_finite",), ("run.steps=40",), {"data": FewDigits(broken=float("nan"))}),
    "a slow disk": (("data_bound",), ("run.steps=40",), {"data": FewDigits(slow=0.02)}),
    "gradients beyond fp16": (
        ("amp_scale",),
        ("run.precision=fp16", "optimizer.lr=1e-12", "run.steps=40", "model.hidden=[16,16]", "run.batch_size=32"),
        {"mutate": overflowing},
    ),
    "weights that only grow": (("weight_growth",), ("run.steps=80", "optimizer.lr=0.01"), {"mutate": scaled("", 0.03)}),
    "one batch in a few is a hundred times too loud": (
        ("loss_spikes",),
        ("run.steps=80", "run.batch_size=24", "schedules=[]", "optimizer.lr=1e-3"),
        {"data": FewDigits(loud=100.0)},
    ),
}


ORIGINS = {
    "a logarithm in the middle": ("forward", "hidden.1"),
    "a root of zero in the middle": ("backward", "hidden.1"),
    "a pixel that is no number": ("input", "the batch"),
    "rate a million times too high": ("forward", "head"),
}
SLOW = {
    "rate of SGD beyond the edge",
    "updates as large as the weights",
    "labels drawn at random",
    "a root of zero in the middle",
    "weights that only grow",
    "too few steps",
    "one batch in a few is a hundred times too loud",
}
"""Faults whose check another one plants too, or that are long."""


@pytest.mark.parametrize("fault", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in FAULTS])
def test_a_planted_fault_is_named(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks, edits, planted = FAULTS[fault]
    models: list[Any] = []

    def mutate(model: nn.Module) -> None:
        planted.get("mutate", lambda model: None)(model)
        models.append(model)

    run = train(monkeypatch, tmp_path / "run", *edits, mutate=mutate, data=planted.get("data"))
    examination = examined(run)
    require(examination, *checks)
    if "data" not in planted:  # a source of the test's own is in no file
        applies(run, examination)
    if fault in ORIGINS:
        finding, (kind, module) = examination.findings[0], ORIGINS[fault]
        assert finding.check == "non_finite" and finding.evidence is not None
        seen = dict(finding.evidence["rows"])
        assert (seen["kind"], seen["module"]) == (kind, module), finding.summary
        assert module in finding.summary
    for module in models[0].modules():  # the probes and the search for the origin leave nothing behind
        assert not module._forward_hooks and not module._forward_pre_hooks


@pytest.mark.slow
def test_degradation_is_seen_in_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty plain layers end above two on the training loss; the deeper run is named whichever is asked about."""
    sizes = {"shallow": "model.hidden=[24,24]", "deep": "model.hidden=[" + ",".join(["24"] * 40) + "]"}
    runs = {name: train(monkeypatch, tmp_path / name, size, "run.steps=80") for name, size in sizes.items()}
    for name, other in (("shallow", "deep"), ("deep", "shallow")):
        examination = examined(runs[name], beside=[runs[other]])
        found = [finding for finding in examination.findings if finding.check == "degradation"]
        assert found and "41 layers" in found[0].summary and "3 layers" in found[0].summary
        assert found[0].remedy == ("model.hidden=[24, 24]",)
        if name == "deep":
            require(examination, "degradation")
    again = examined(runs["shallow"], beside=[runs["shallow"]])
    assert {check.check: check.outcome for check in again.checks}["degradation"] == "skipped"


def test_a_linear_model_is_beaten_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hidden units: better than a constant answer, worse than a linear model; the files alone do not show it."""
    run = train(monkeypatch, tmp_path / "run", "model.hidden=[2]", "run.steps=200")
    assert "underfit" not in {finding.check for finding in examined(run).findings}
    examination = examined(run, linear=True)
    require(examination, "underfit")
    assert "a linear model has" in examination.findings[0].summary + examination.findings[-1].summary


HEALTHY = {
    "an mlp": (),
    "tanh": ("activation=tanh",),
    "sgd": ("optimizer=sgd", "optimizer.lr=0.05"),
    "four layers with batch norm": ("model.hidden=[64,64,64,64]", "norm=batch"),
    "gelu and dropout": ("model.hidden=[64,64]", "activation=gelu", "model.dropout=0.1"),
    "muon": ("optimizer=muon",),
    "mixup": ("model.hidden=[128]", "batch_transforms+=mixup"),
    "ema": ("averaging=ema", "averaging.decay=0.95"),
    "a convolutional network": ("model=conv_net", "model.widths=[16,32]", "optimizer.lr=1e-2"),
    "accumulation": ("run.microbatch_size=32", "optimizer=lion", "optimizer.lr=1e-3"),
}


def healthy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> list[tuple[str, str, str]]:
    run = train(monkeypatch, tmp_path / name, "run.evaluate_every=20", "run.epochs=12", *HEALTHY[name])
    return [(finding.severity, finding.check, finding.summary) for finding in examined(run, linear=True).findings]


@pytest.mark.parametrize("name", ["an mlp"])
def test_healthy_runs_raise_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [found for found in healthy(monkeypatch, tmp_path, name) if found[0] != "note"] == []


@pytest.mark.slow
def test_ten_healthy_runs_raise_no_error_and_their_warnings_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(name, *each) for name in HEALTHY for each in healthy(monkeypatch, tmp_path, name)]
    assert len(HEALTHY) == 10
    assert [each for each in found if each[1] == "error"] == []
    assert len([each for each in found if each[1] == "warning"]) == HEALTHY_WARNINGS, found


@pytest.mark.slow
def test_the_remedy_mends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pasting the first finding's remedy takes the finding away."""
    edits = (DEEP, "activation=sigmoid", "run.steps=40")
    first = examined(train(monkeypatch, tmp_path / "ill", *edits)).findings[0]
    assert first.check == "vanishing_gradient"
    mended = examined(train(monkeypatch, tmp_path / "mended", *edits, *first.remedy))
    assert first.check not in {finding.check for finding in mended.findings}
