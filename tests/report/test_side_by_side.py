"""Several runs on one page: what differs, what came out, whose line is whose."""

import json
from pathlib import Path

import pytest
from scipy.stats import binomtest

from report.reading_page import seen
from report.sample_run import EXPERIMENT, sample_run, scores, write_json
from report.sample_study import finding
from torchstone.core.errors import UserError
from torchstone.report import side_by_side
from torchstone.report.side_by_side import MOST_RUNS, best_of, differing, names_of


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two runs: the second without averaging, with another rate, a little worse."""
    runs = [sample_run(tmp_path / "runs" / name) for name in ("ema", "plain")]
    plain = EXPERIMENT.replace('[method.averaging]\nkind = "ema"\ndecay = 0.99\n', "").replace(
        'stop = "none"', 'stop = "none"\naveraging = "none"'
    )
    (runs[1] / "experiment.toml").write_text(plain.replace("lr = 0.02", "lr = 0.04").replace("alpha = 0.4", "alpha = 0.2"))
    document = json.loads((runs[1] / "metrics.json").read_text())
    document["final"] = {name: value for name, value in document["final"].items() if name not in ("confusion", "per_class")}
    document["final"].update(accuracy=0.9, loss=0.3)
    write_json(runs[1] / "metrics.json", document)
    return runs


def test_what_differs_is_named_and_nothing_else(pair: list[Path]) -> None:
    text = seen(side_by_side.page(pair)).text
    section = text[text.index("Every setting that is not the same") : text.index("The lines differ")]
    assert "3 settings" in section
    assert "method.batch_transforms.mixup.alpha 0.4 0.2" in section
    assert "method.averaging ema (decay 0.99) none" in section
    assert "method.optimizer.lr 0.02 0.04" in section
    assert "weight_decay" not in section and "seed" not in section.split("method")[0]


def test_results_stand_beside_each_other_with_their_intervals(pair: list[Path]) -> None:
    text = seen(side_by_side.page(pair)).text
    outputs, target = scores(2000, 10)
    right = int((outputs.argmax(axis=1) == target).sum())
    cells = []
    for count in (right, 1800):
        interval = binomtest(count, 2000).proportion_ci(method="wilson")
        cells.append(f"{count / 20:.1f} % [{100 * interval.low:.1f} %, {100 * interval.high:.1f} %] n 2,000")
    assert "accuracy " + " ".join(cells) in text
    assert f"ema {right / 20:.1f} %, plain 90.0 % (accuracy, test split); 3 settings differ." in text
    assert "loss 0.2317 0.3" in text


def test_curves_lie_over_each_other(pair: list[Path]) -> None:
    html = side_by_side.page(pair)
    page = seen(html)
    assert page.text.count("Training loss ema") >= 1 and "Accuracy on the validation split" in page.text
    assert html.count('<path class="line main"') == html.count('<path class="line quiet"') == html.count('<figure class="chart">')


def test_findings_of_each(pair: list[Path]) -> None:
    write_json(pair[1] / "findings.json", {"kind": "findings", "findings": [finding("slow", "warning", "It is slow.", [])]})
    assert "plain warning slow It is slow." in seen(side_by_side.page(pair)).text


def test_six_can_be_told_apart_and_a_seventh_is_refused(tmp_path: Path) -> None:
    runs = [sample_run(tmp_path / f"run-{i}", n=200) for i in range(MOST_RUNS + 1)]
    html = side_by_side.page(runs[:MOST_RUNS])
    for style in ("main", "quiet", "dash", "dots", "mixed", "long"):
        assert f'<path class="line {style}"' in html and (style == "quiet" or f".line.{style} {{" in html)
    assert "Nothing in their experiments but their names." in seen(html).text
    with pytest.raises(UserError, match="two to 6 can be drawn side by side"):
        side_by_side.page(runs)
    with pytest.raises(UserError, match="named twice"):
        side_by_side.page([runs[0], runs[0]])
    with pytest.raises(UserError, match="no such run folder"):
        side_by_side.page([runs[0], tmp_path / "none"])


def test_names_tell_apart() -> None:
    assert names_of([Path("/a/runs/x"), Path("/b/runs/x")]) == ["a", "b"]
    assert names_of([Path("/s/ema/seed-0"), Path("/s/base/seed-0")]) == ["ema", "base"]
    assert names_of([Path("/s/ema/seed-0"), Path("/s/base/seed-0"), Path("/s/base/seed-1")]) == ["ema/seed-0", "base/seed-0", "base/seed-1"]


def test_the_best_is_marked_only_where_it_is_known_what_is_better() -> None:
    assert best_of("accuracy", [0.5, 0.7, None]) == 1 and best_of("loss", [0.5, 0.7]) == 0
    assert best_of("accuracy", [0.5, 0.5]) is None and best_of("learned_words", [1.0, 2.0]) is None


def test_lists_of_parts_are_compared_by_kind() -> None:
    flip, mixup = {"kind": "flip", "p": 0.5}, {"kind": "mixup", "alpha": 0.2}
    lines = list(differing([{"t": [flip, mixup]}, {"t": [mixup | {"alpha": 0.4}]}]))
    assert [(line.name, line.cells) for line in lines] == [("t.flip", ("flip (p 0.5)", "\u2013")), ("t.mixup.alpha", ("0.2", "0.4"))]
    assert [line.name for line in differing([{"t": [flip, flip]}, {"t": [flip]}])] == ["t.flip 2"]
    assert list(differing([{"t": [flip]}, {"t": [flip]}])) == []
    assert [line.cells for line in differing([{"t": []}, {"t": "none"}])] == [("empty", "none")]
