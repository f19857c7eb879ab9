"""ROC and precision-recall in the report: areas and lines against scikit-learn to 1e-12, the run's own metrics, and files of all kinds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from scipy.special import softmax
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from report.reading_page import seen
from report.sample_run import artifact, sample_run, write_json
from torchstone import report
from torchstone.metrics import AveragePrecision, RocAuc
from torchstone.ops.curves import found
from torchstone.report import ranking
from torchstone.report.ranking import POINTS, Ranking, pr_line, read_ranking, roc_line, thinned
from torchstone.report.reading import read_run


def kept(folder: Path, outputs: np.ndarray, target: np.ndarray) -> tuple[Ranking | None, str]:
    """What the report reads of a run with these predictions."""
    folder.mkdir(exist_ok=True)
    names = [f"class {i}" for i in range(outputs.shape[1] if outputs.ndim == 2 else 2)]
    write_json(folder / "artifact.json", artifact(names, len(target)))
    save_file({"index": np.arange(len(target)), "outputs": outputs, "target": target}, folder / "predictions.safetensors")
    return read_ranking(read_run(folder))


def made(n: int, classes: int, seed: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    target = draw.integers(0, classes, n)
    outputs = draw.normal(size=(n, classes))
    outputs[np.arange(n), target] += 1
    if ties:
        outputs = draw.integers(0, 3, size=(n, classes)).astype(float) + (np.arange(classes) == target[:, None])
    return outputs.astype(np.float32), target


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("chunk", [1 << 22, 50])
def test_areas_are_scikit_learns_and_the_runs_own(
    classes: int, ties: bool, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "CHUNK", chunk)
    outputs, target = made(400, classes, 10 * classes + ties, ties=ties)
    shown, problem = kept(tmp_path / "run", outputs, target)
    assert shown is not None and not problem
    probabilities = softmax(outputs.astype(np.float64), axis=1)
    labels = [1] if classes == 2 else range(classes)
    assert shown.classes == len(labels) == len(shown.rows) and shown.n == 400
    by_name = {row.name: row for row in shown.rows}
    for label in labels:
        row = by_name[f"class {label}"]
        assert row.n == (target == label).sum()
        assert row.auc == pytest.approx(roc_auc_score(target == label, probabilities[:, label]), abs=1e-12)
        assert row.ap == pytest.approx(average_precision_score(target == label, probabilities[:, label]), abs=1e-12)
    assert [row.ap for row in shown.rows] == sorted(row.ap for row in shown.rows)  # type: ignore[type-var]
    # What metrics.json says.
    sums = RocAuc().measure(torch.from_numpy(outputs), torch.from_numpy(target), torch.ones(400), torch.zeros(400))
    assert shown.auc == pytest.approx(RocAuc().result(sums)["roc_auc"], abs=1e-12)
    assert shown.ap == pytest.approx(AveragePrecision().result(sums)["average_precision"], abs=1e-12)


def test_the_lines_are_scikit_learns_and_hold_the_areas() -> None:
    outputs, target = made(120, 2, 3, ties=True)
    scores, positive = outputs[:, 1].astype(np.float64), target == 1
    curve = found(scores, positive)
    x, y = roc_line(curve)
    fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose((x, y), (fpr, tpr), atol=1e-15)
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    x, y = pr_line(curve)
    assert np.trapezoid(y, x) == pytest.approx(average_precision_score(positive, scores), abs=1e-12), "steps, no slopes"
    precision, recall, _ = precision_recall_curve(positive, scores)
    there = {(round(r, 12), round(p, 12)) for r, p in zip(recall, precision, strict=True)}
    assert {(round(r, 12), round(p, 12)) for r, p in zip(x[1::2], y[1::2], strict=True)} <= there and (x[0], x[-1]) == (0, 1)


def test_a_thinned_line_keeps_its_ends_and_nearly_its_area() -> None:
    outputs, target = made(5000, 2, 5, ties=False)
    line = roc_line(found(outputs[:, 1].astype(np.float64), target == 1))
    x, y = thinned(line)
    assert len(line[0]) > 1000 and len(x) <= POINTS and (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(y, x) == pytest.approx(np.trapezoid(line[1], line[0]), abs=2e-3)
    assert (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all()


def test_a_class_that_does_not_occur_has_no_area(tmp_path: Path) -> None:
    outputs, target = made(90, 4, 1, ties=False)
    target[target == 2] = 0
    shown, _ = kept(tmp_path / "run", outputs, target)
    assert shown is not None
    assert (shown.rows[-1].name, shown.rows[-1].n, shown.rows[-1].auc, shown.rows[-1].ap) == ("class 2", 0, None, None)
    others = [row.auc for row in shown.rows[:-1] if row.auc is not None]
    assert len(others) == 3 and shown.auc == pytest.approx(sum(others) / 3, abs=1e-15)
    only, problem = kept(tmp_path / "one", outputs, np.zeros(90, np.int64))
    assert only is None and not problem, "of one class alone there is nothing to rank"


def test_rows_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    outputs, target = made(60, 3, 2, ties=False)
    whole, _ = kept(tmp_path / "whole", outputs[5:], target[5:])
    outputs[:5] = np.nan
    shown, _ = kept(tmp_path / "run", outputs, target)
    assert shown is not None and whole is not None and shown.rows == whole.rows and shown.n == 55


def test_of_many_classes_the_worst_are_drawn_and_named(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(30)]
    run = sample_run(tmp_path / "run", n=3000, classes=names)
    shown, _ = read_ranking(read_run(run))
    assert shown is not None and len(shown.rows) == 20 and shown.left_out == 10
    for chart in shown.charts:
        assert chart.header[1:] == (*(row.name for row in shown.rows[:3]), "mean of 30")
    page = seen(report.page(run))
    assert "… and 10 classes better" in page.text and "mean of 30" in page.text


def test_two_classes_have_one_line(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", n=300, classes=["no", "yes"])
    page = seen(report.page(run))
    assert "ranking" in page.ids() and "Sorted by the probability of yes, do its samples come first?" in page.text
    shown, _ = read_ranking(read_run(run))
    assert shown is not None and [len(chart.header) for chart in shown.charts] == [2, 2]
    assert [line.style for line in shown.charts[0].lines] == ["main", "chance"]


@pytest.mark.parametrize("outputs", [np.zeros((3, 1), np.float32), np.zeros(3, np.float32), np.zeros((3, 2), np.int32)])
def test_other_tensors_are_refused_in_words_once(outputs: np.ndarray, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shown, problem = kept(run, outputs, np.zeros(3, np.int64))
    assert shown is None and "predictions.safetensors cannot be used" in problem
    assert seen(report.page(run)).text.count("predictions.safetensors cannot be used") == 1


def test_no_file_and_a_link(tmp_path: Path) -> None:
    write_json(tmp_path / "artifact.json", artifact(["a", "b"], 1))
    files = read_run(tmp_path)
    assert read_ranking(files) == (None, "")
    (tmp_path / "predictions.safetensors").symlink_to(tmp_path / "elsewhere")
    assert "not a plain file" in read_ranking(files)[1]
