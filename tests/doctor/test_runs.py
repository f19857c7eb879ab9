"""Judgments of healthy runs, of two runs, against a linear model, and of a run trained with the remedy.

The healthy runs raise no error; what they raise at "warning" is counted (`HEALTHY_WARNINGS`).
"""

from pathlib import Path

import pytest

from doctor.faults_during import DEEP
from doctor.planted import examined, require, train

HEALTHY_WARNINGS = 0
"""False alarms of the ten healthy runs below at severity "warning"."""


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
