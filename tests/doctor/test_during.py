"""The judgment of a run from its files: the numbers against closed forms, SciPy and scikit-learn; what is missing is skipped and said."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from doctor.planted import BASE
from torchstone.cli.main import main
from torchstone.core.errors import UserError
from torchstone.data import Digits
from torchstone.doctor.during import curves, depth, judge
from torchstone.doctor.during.linear import linear_loss
from torchstone.doctor.during.watched import Watched, last_part, medians
from torchstone.doctor.finding import read_findings

EXPERIMENT = """
[model]
kind = "mlp"
hidden = [8]
activation = "relu"
norm = "none"
init = "none"
[method]
gradient_transforms = []
stop = "none"
[method.loss]
kind = "cross_entropy"
smoothing = 0.1
class_weights = []
[method.optimizer]
kind = "adamw"
lr = 0.003
weight_decay = 0.0
[run]
steps = "none"
epochs = 10
select = "last"
workers = 0
precision = "fp32"
"""


def look(step: int, **changes: Any) -> dict[str, Any]:
    layers = {"name": list("abcdef"), "gradient": [1.0] * 6, "weight": [1.0] * 6, "update": [1e-3] * 6}
    fields = {
        "loss": None,
        "norm": 0.5,
        "layers": layers,
        "outputs": {"name": list("abcdef"), "mean": [0.0] * 6, "std": [1.0] * 6},
        "activations": {"name": ["a"], "kind": ["relu"], "mean": [0.0], "std": [1.0], "off": [0.0]},
        "weight_norm": 10.0,
        "scale": None,
        "seconds": {"step": 0.02, "wait": 0.0, "idle": None},
    }
    return {"step": step, **fields, **changes}


def run_of(
    folder: Path,
    losses: list[float] | None = None,
    validation: list[float] | None = None,
    looks: list[dict[str, Any]] | None = None,
    **metrics: Any,
) -> Watched:
    """A run folder with these curves: a loss every tenth step, an evaluation every hundredth."""
    folder.mkdir(exist_ok=True)
    (folder / "experiment.toml").write_text(EXPERIMENT)
    (folder / "metrics.json").write_text(json.dumps({"status": "done", **metrics}))
    (folder / "artifact.json").write_text(json.dumps({"facts": {"class_counts": [10, 20, 70]}}))
    if losses is not None:
        lines = [json.dumps({"step": max(1, 10 * i), "loss": loss}) + "\n" for i, loss in enumerate(losses)]
        (folder / "log.jsonl").write_text("".join(lines))
    if validation is not None:
        (folder / "results.csv").write_text("step,loss\n" + "".join(f"{100 * (i + 1)},{loss}\n" for i, loss in enumerate(validation)))
    if looks is not None:
        (folder / "probes.jsonl").write_text("".join(json.dumps(each) + "\n" for each in looks))
    return Watched(folder)


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_the_constant_answer_is_scipys_entropy(tmp_path: Path) -> None:
    shares = 0.9 * np.array([0.1, 0.2, 0.7]) + 0.1 / 3
    assert curves.constant_loss(run_of(tmp_path)) == pytest.approx(scipy.stats.entropy(shares), rel=1e-12)


def test_a_uniform_answer_over_tokens_costs_log_v(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    run.facts.clear()
    run.facts["inputs"] = {"vocabulary": 256}
    assert curves.constant_loss(run) == pytest.approx(8 * math.log(2))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    assert main(["train", "digits-mini", *BASE, "model.hidden=[4]", "run.steps=6", "--out", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def test_the_linear_model_is_scikit_learns(trained: Path) -> None:
    """The same rows from scikit-learn's own copy of the data, scored by its log loss."""
    found = linear_loss(trained)
    splits = Digits().open()
    (x, y), (x_v, y_v) = (
        (i.flatten(1).numpy().astype(float), t.numpy()) for i, t in (s.fetch(np.arange(len(s))) for s in (splits.train, splits.validation))
    )
    assert len(load_digits().target) == len(y) + len(y_v) + len(splits.test)
    center, spread = x.mean(axis=0), x.std(axis=0)
    spread = spread + 1e-6 * (255 if x.max() > 1 else 1)  # the library standardizes pixels in 0..1
    model = LogisticRegression(max_iter=200).fit((x - center) / spread, y)
    expected = [log_loss(t, model.predict_proba((i - center) / spread)) for i, t in ((x, y), (x_v, y_v))]
    assert found == pytest.approx(expected, rel=1e-3)


def test_ends_and_medians() -> None:
    assert depth.ends([5.0, 1.0, 2.0, 3.0, 4.0, 0.5]) == (5.0, 4.0)
    assert medians([(["a", "b"], [1.0, None]), (["a", "b"], [3.0, 4.0]), (["a"], [8.0])]) == {"a": 3.0, "b": 4.0}
    assert last_part([(step, 0.0) for step in range(0, 101, 10)]) == [(80, 0.0), (90, 0.0), (100, 0.0)]


# --- each check at its threshold -------------------------------------------------------------------------------------


def outcome(run: Watched, check: str) -> str:
    return {each.check: each.outcome for each in judge(run.folder).checks}[check]


def layers(gradients: list[float]) -> dict[str, Any]:
    return {"name": list("abcdef"), "gradient": gradients, "weight": [1.0] * 6, "update": [1e-3] * 6}


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        ("vanishing_gradient", look(1, layers=layers([2e-3] * 3 + [1.0] * 3)), look(1, layers=layers([5e-4] * 3 + [1.0] * 3))),
        ("exploding_gradient", look(1, layers=layers([900.0] * 3 + [1.0] * 3)), look(1, layers=layers([1100.0] * 3 + [1.0] * 3))),
        ("exploding_gradient", look(1, norm=99.0), look(1, norm=101.0)),
        (
            "dead_units",
            look(1, activations={"name": ["a"], "kind": ["relu"], "mean": [0.0], "std": [0.0], "off": [0.49]}),
            look(1, activations={"name": ["a"], "kind": ["relu"], "mean": [0.0], "std": [0.0], "off": [0.51]}),
        ),
        (
            "saturated_units",
            look(1, activations={"name": ["a"], "kind": ["tanh"], "mean": [0.0], "std": [0.0], "off": [0.49]}),
            look(1, activations={"name": ["a"], "kind": ["tanh"], "mean": [0.0], "std": [0.0], "off": [0.51]}),
        ),
        ("amp_scale", look(1, scale=2.0), look(1, scale=1.0)),
        (
            "data_bound",
            look(1, seconds={"step": 3.0, "wait": 0.99, "idle": None}),
            look(1, seconds={"step": 3.0, "wait": 1.01, "idle": None}),
        ),
        ("data_bound", look(1, seconds={"step": 3.0, "wait": 1.0, "idle": 0.9}), look(1, seconds={"step": 3.0, "wait": 0.0, "idle": 1.0})),
    ],
)
def test_a_check_turns_at_its_threshold(check: str, good: dict, bad: dict, tmp_path: Path) -> None:
    for name, each, expected in (("good", good, "passed"), ("bad", bad, "found")):
        run = run_of(tmp_path / name, looks=[{**each, "step": step} for step in (1, 2, 4, 8)])
        assert outcome(run, check) == expected


@pytest.mark.parametrize(("ratio", "expected"), [(9e-5, "found"), (1.1e-4, "passed"), (0.09, "passed"), (0.11, "found")])
def test_updates_too_small_and_too_large(ratio: float, expected: str, tmp_path: Path) -> None:
    each = {"name": ["a"], "gradient": [1.0], "weight": [1.0], "update": [ratio]}
    assert outcome(run_of(tmp_path, looks=[look(step, layers=each) for step in (1, 2, 4)]), "update_ratio") == expected


@pytest.mark.parametrize(("growth", "expected"), [(4.9, "passed"), (5.1, "found")])
def test_growing_weights(growth: float, expected: str, tmp_path: Path) -> None:
    assert outcome(run_of(tmp_path, looks=[look(1), look(9, weight_norm=10 * growth)]), "weight_growth") == expected


FALLING = [2.3 * 0.93**i for i in range(60)]


def test_a_clean_curve_raises_nothing(tmp_path: Path) -> None:
    run = run_of(
        tmp_path, [*FALLING, *[FALLING[-1]] * 40], [2.0, 1.0, 0.5, 0.3, 0.25, 0.24, 0.24, 0.24, 0.24, 0.24], [look(s) for s in (1, 2, 4, 8)]
    )
    assert judge(run.folder).findings == ()


def test_overfit_says_from_which_step(tmp_path: Path) -> None:
    run = run_of(tmp_path, FALLING, [2.0, 1.0, 0.8, 0.85, 0.9, 1.0])
    finding = next(finding for finding in judge(run.folder).findings if finding.check == "overfit")
    assert finding.value == pytest.approx(0.9 / 0.8 - 1) and "since step 300" in finding.summary
    assert finding.remedy == ("run.select=best", "method.stop=patience")


def test_a_rising_validation_loss_without_a_falling_training_loss_is_no_overfitting(tmp_path: Path) -> None:
    assert outcome(run_of(tmp_path, [1.0 + 0.01 * i for i in range(60)], [0.8, 0.9, 1.0, 1.2, 1.3, 1.4]), "overfit") == "passed"


def test_one_spike_is_a_spike_and_no_oscillation(tmp_path: Path) -> None:
    losses = list(FALLING)
    losses[30] = 6.0
    found = {finding.check: finding for finding in judge(run_of(tmp_path, losses).folder).findings}
    assert "loss_spikes" in found and "oscillation" not in found and "at 300 by" in found["loss_spikes"].summary


def test_a_zigzag_is_an_oscillation(tmp_path: Path) -> None:
    assert outcome(run_of(tmp_path, [1.0 if i % 2 else 2.0 for i in range(60)]), "oscillation") == "found"


def test_a_flat_loss_is_a_plateau_and_a_low_one_is_not(tmp_path: Path) -> None:
    assert outcome(run_of(tmp_path / "high", [2.3, *[2.0] * 50]), "plateau") == "found"
    assert outcome(run_of(tmp_path / "low", [2.3, *[1.0] * 50]), "plateau") == "passed"


def test_a_loss_that_still_falls_asks_for_more_epochs(tmp_path: Path) -> None:
    found = {finding.check: finding for finding in judge(run_of(tmp_path, FALLING, [2.0 * 0.7**i for i in range(8)]).folder).findings}
    assert found["not_converged"].remedy == ("run.epochs=20",) and found["not_converged"].severity == "note"


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_run_without_probes_and_log_is_judged_as_far_as_it_goes(tmp_path: Path) -> None:
    examination = judge(run_of(tmp_path).folder)
    assert examination.findings == ()
    assert all(check.why for check in examination.checks if check.outcome == "skipped")
    assert any("train with run.trackers+=probes" in check.why for check in examination.checks)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run \(experiment.toml is missing\)"):
        judge(tmp_path)


# --- the command line ------------------------------------------------------------------------------------------------


def test_a_training_writes_its_findings(trained: Path) -> None:
    examination = read_findings(trained / "findings.json")
    assert {check.check for check in examination.checks} >= {"non_finite", "vanishing_gradient", "overfit", "underfit"}


def test_a_healthy_training_says_that_nothing_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits-mini", *BASE, "run.evaluate_every=20", "run.epochs=12", "--out", str(tmp_path / "run")]) == 0
    assert "doctor   nothing found" in capsys.readouterr().out


def test_a_diverged_training_ends_with_code_1_and_the_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edits = [*BASE, "optimizer=sgd", "optimizer.lr=1e6", "run.steps=40"]
    assert main(["train", "digits-mini", *edits, "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "diverged at step" in error
    examination = read_findings(tmp_path / "run" / "findings.json")
    finding = examination.findings[0]
    assert finding.check == "non_finite" and finding.summary in error and all(edit in error for edit in finding.remedy)
