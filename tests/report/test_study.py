"""What the page says of a study, whole or with pieces missing; numbers against SciPy."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from report.reading_page import Seen, seen
from report.sample_run import write_json
from report.sample_study import BASE, CLASSES, DIVERGED, GAINS, SEEDS, recall, sample_study
from torchstone.core.errors import UserError
from torchstone.report import study, write
from torchstone.report.bands import over_seeds
from torchstone.report.curves import Curve, read_log
from torchstone.report.forest import Measured, Unit, effects_forest, forest, kind_of, scale_ends, unit_of
from torchstone.report.per_class import differences, paired, welch
from torchstone.report.study_reading import read_study
from torchstone.report.tradeoff import beside_all, near, scatter

ALL = ["effects", "interactions", "also", "cost", "curves", "classes", "findings", "runs", "how", "baseline", "use"]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return sample_study(tmp_path / "studies" / "small")


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    write_json(path, document)


def shown(folder: Path) -> Seen:
    return seen(study.page(folder))


def in_points(gain: np.ndarray) -> str:
    """The effect as the page has to write it, from SciPy's interval."""
    low, high = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))
    return f"{100 * gain.mean():+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]".replace("-", "\u2212")


def test_a_whole_study_has_every_section_in_order(made: Path) -> None:
    assert write(made) == made / "report.html"
    page = seen((made / "report.html").read_text(encoding="utf-8"))
    assert page.ids() == ALL
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == [f"#{name}" for name in ALL]
    assert "Not everything could be read" not in page.text
    assert study.page(made) == study.page(made)


def test_the_answer_is_one_sentence_with_scipys_numbers(made: Path) -> None:
    text = shown(made).text
    ema = in_points(GAINS["averaging=ema"]).replace(" [", " points [")
    rate = in_points(GAINS["optimizer.lr=0.1"]).replace(" [", " points [")
    lost = f"{DIVERGED} hurts: diverged on 5 of 5 seeds (0 to 4)"
    assert f"averaging=ema helps: {ema} on 5 seeds; optimizer.lr=0.1 hurts: {rate} on 5 seeds; {lost}" in text
    assert "; 3 more variants below." in text
    assert "6 variants of digits-mini against the baseline by accuracy on the validation split, on 5 paired seeds." in text


@pytest.mark.parametrize("name", [name for name in GAINS if name != "note=b"])
def test_every_effect_stands_with_its_interval_and_n(made: Path, name: str) -> None:
    assert f"{in_points(GAINS[name])} n 5" in shown(made).text


def test_verdicts_are_words(made: Path) -> None:
    text = shown(made).text
    low, high = stats.t.interval(0.95, 4, GAINS["loss.smoothing=0.1"].mean(), stats.sem(GAINS["loss.smoothing=0.1"]))
    assert f"no effect larger than {100 * max(-low, high):.2f} points shown" in text
    assert "note=b 0.00 \u2013 n 5 inert: the very same numbers as the baseline" in text
    assert f"{DIVERGED} hurts diverged on 5 of 5 seeds (0 to 4) that is more often than the baseline with p 0.041 (Holm)" in text


def test_what_must_not_be_overlooked_is_said_at_the_top(made: Path) -> None:
    text = shown(made).text
    top = text[: text.index("How far each variant is")]
    assert top.count("diverged on 5 of 5 seeds (0 to 4)") == 2 and "at seeds" not in top
    assert "to the last bit: note=b." in top and "the baseline's last evaluation is not its best" in top


def test_all_numbers(made: Path) -> None:
    """n, mean and spread, both intervals, both p, and what could have been shown."""
    gain = GAINS["averaging=ema"]
    p = stats.ttest_1samp(gain, 0).pvalue
    row = shown(made).text.split("averaging=ema method.averaging=ema ")[1].split("loss.smoothing")[0]
    after = BASE + gain
    low, high = stats.t.interval(0.95, 4, after.mean(), stats.sem(after))
    spread = f"[{100 * low:.1f} %, {100 * high:.1f} %], s.d. {100 * after.std(ddof=1):.2f}"
    assert row.startswith(f"5 {100 * after.mean():.1f} % {spread} {in_points(gain)}")
    assert f"{p:.2g} Holm {4 * p:.2g} 0.31" in row
    assert len(re.findall(r"\[[^]]+\]", row)) == 3


def test_every_run_is_listed_with_its_seed(made: Path) -> None:
    text = shown(made).text
    assert "baseline " + " ".join(f"{seed} {100 * value:.1f} %" for seed, value in zip(SEEDS, BASE, strict=True)) in text
    assert f"{DIVERGED} " + " ".join(f"{seed} diverged" for seed in SEEDS) in text


def test_findings_are_gathered_by_check(made: Path) -> None:
    text = shown(made).text
    assert f"error rate too high in 5 of 35 runs: {DIVERGED} The loss left the finite numbers at step 2. method.optimizer.lr=0.003" in text
    assert "warning data bound in 35 of 35 runs: every variant" in text
    assert text.index("error rate too high") < text.index("warning data bound")


def test_interactions_have_their_n_and_interval(made: Path) -> None:
    assert "averaging \u00d7 smoothing ema \u00d7 0.1 5 +0.40 [\u22120.10, +0.90] 0.09 0.18" in shown(made).text


def test_what_does_not_decide_stands_with_its_intervals_and_no_verdict(made: Path) -> None:
    page = shown(made)
    text = page.text[page.text.index("Metrics that do not decide") : page.text.index("What each variant takes")]
    assert "training accuracy" in text and "differences in points" in text and "not corrected" in text
    low, mean, high = (f"{100 * (BASE.mean() + 0.05 + 0.0084 + off):.1f} %" for off in (-0.002, 0, 0.002))
    assert f"averaging=ema 5 {mean} [{low}, {high}] {in_points(GAINS['averaging=ema'])}" in text
    assert "helps" not in text and "hurts" not in text
    changed(made / "results.json", lambda document: document.pop("also"))
    assert "also" not in shown(made).ids()


def test_how_and_how_to_go_on(made: Path) -> None:
    page = shown(made)
    assert "one factor at a time from the baseline" in page.text and "seeds 0 to 4 (5)" in page.text
    assert "factor 1 method.averaging = none, ema" in page.text and "averaging=ema after 4" in page.text
    assert "optimizer adamw lr 0.003" in page.text
    commands = [word for word in page.words if word.startswith("torchstone ")]
    assert any(word.startswith("torchstone compare ") for word in commands)
    assert any(word == "torchstone train digits-mini method.averaging=ema" for word in commands)
    assert any(word.startswith("torchstone report ") for word in commands)


def test_less_may_be_better(made: Path) -> None:
    """Effects are in the metric's own unit: a loss that falls helps, and the better side is the left one."""

    def turned(document: dict[str, Any]) -> None:
        document.update(metric="loss", mode="min")
        for each in document["variants"][1:]:
            found = each["effect"]
            if found["mean"] is not None:
                found["mean"] = -found["mean"]
            for low, high in (("low", "high"), ("bootstrap_low", "bootstrap_high")):
                if found[low] is not None:
                    found[low], found[high] = -found[high], -found[low]

    changed(made / "results.json", turned)
    found = read_study(made)
    text = shown(made).text.replace("\u2212", "-")
    gain = -GAINS["averaging=ema"]
    low, high = stats.t.interval(0.95, 4, gain.mean(), stats.sem(gain))
    assert f"averaging=ema helps: {gain.mean():.4f} [{low:.4f}, {high:.4f}] on 5 seeds" in text
    assert "loss, smaller is better." in text and "points" not in text.split("Classes")[0]
    plot = effects_forest(found, unit_of(found))
    assert plot is not None and plot.rows[0].name == "averaging=ema" and (plot.left, plot.right) == ("better", "worse")
    # Cost against gain has the better above all the same.
    chart = scatter(found, unit_of(found))
    assert chart is not None and min(chart.marks, key=lambda mark: mark.y).name == "averaging=ema"


def test_what_was_named_to_matter_is_what_is_excluded(made: Path) -> None:
    changed(
        made / "results.json",
        lambda d: d.update(matters=0.005, note="They say it helps.", edits=["run.epochs=3"], ended="all runs are over"),
    )
    text = shown(made).text
    assert "no effect larger than 0.50 points shown" in text and "They say it helps." in text
    assert "in every variant run.epochs=3 ended all runs are over" in text


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    folder = sample_study(tmp_path / "one", seeds=1)
    text = shown(folder).text
    assert "One seed: without a second there is no interval, and verdicts are withheld." in text
    assert "averaging=ema +0.60 \u2013 n 1 verdict withheld" in text
    assert "on 1 paired seed." in text


@pytest.mark.parametrize(
    ("gone", "sections"),
    [
        ("costs.json", []),
        ("results.json", ["effects", "interactions", "also", "cost", "curves", "classes", "findings", "runs"]),
    ],
)
def test_what_is_missing_is_left_out(made: Path, gone: str, sections: list[str]) -> None:
    (made / gone).unlink()
    page = shown(made)
    assert page.ids() == [name for name in ALL if name not in sections]
    if gone == "results.json":
        assert "no results yet" in page.text and "digits-mini" in page.text
    else:
        assert "Cost against gain" not in page.text and "4,810" in page.text


def test_runs_that_are_gone_cost_their_curves(made: Path) -> None:
    for path in made.glob("*/seed-*/*"):
        path.unlink()
    assert shown(made).ids() == [name for name in ALL if name not in ("curves", "findings")]


def test_no_study_at_all(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="study folder"):
            study.page(folder)


def test_a_study_that_goes_on(made: Path) -> None:
    changed(made / "results.json", lambda d: d["variants"][1].update(runs=d["variants"][1]["runs"][:2]))
    assert "32 of 35 runs" in shown(made).text


# --- curves ----------------------------------------------------------------------------------------------------------


def test_bands_are_the_mean_and_the_range_over_seeds(made: Path) -> None:
    logs = [read_log(made / "averaging=ema" / f"seed-{seed}" / "log.jsonl") for seed in SEEDS]
    curve = over_seeds([log.evaluations["accuracy"] for log in logs])
    values = np.array([[point.mean for point in log.evaluations["accuracy"].points] for log in logs])
    assert [point.step for point in curve.points] == [20, 40, 60] and curve.each == 5
    assert [point.mean for point in curve.points] == pytest.approx(values.mean(axis=0))
    assert [(point.low, point.high) for point in curve.points] == list(zip(values.min(axis=0), values.max(axis=0), strict=True))


def test_only_shared_steps_are_averaged() -> None:
    long, short = Curve(), Curve()
    for step in (1, 2, 3):
        long.add(step, 1.0)
    for step in (1, 2):
        short.add(step, 3.0)
    assert [(point.step, point.mean) for point in over_seeds([long, short]).points] == [(1, 2.0), (2, 2.0)]
    assert over_seeds([]).points == []


def test_the_baseline_is_in_every_chart(made: Path) -> None:
    page = shown(made)
    titles = [word for word in page.words if word.endswith((": accuracy on the validation split", ": training loss"))]
    # Two charts of each of six variants, of which one never finished; the title stands over the chart and over its numbers.
    assert len(titles) == 2 * 2 * 5
    assert page.text.count("mean and range of 5 seeds") == len(titles) // 2
    assert len([1 for _, attributes in page.tags if attributes.get("class") == "line dash"]) == len(titles) // 2


# --- classes ---------------------------------------------------------------------------------------------------------


def test_class_effects_are_scipys(made: Path) -> None:
    found = read_study(made)
    assert found.baseline is not None
    rows = differences(found.baseline, next(each for each in found.variants if each.name == "averaging=ema"), found)
    before, after = (np.array([recall(name, seed) for seed in SEEDS]) for name in ("baseline", "averaging=ema"))
    assert [row.name for row in rows] == CLASSES
    second = rows[1]
    test = stats.ttest_rel(after[:, 1], before[:, 1]).confidence_interval(0.95)
    assert (second.low, second.high) == pytest.approx((test.low, test.high))
    assert second.mean == pytest.approx((after - before)[:, 1].mean()) and second.n == 5 and second.kind == "helps"
    # The third class never changes: there is no spread, so no interval.
    assert (rows[2].mean, rows[2].low, rows[2].high) == (0.0, None, None)


def test_welchs_interval_is_scipys() -> None:
    draw = np.random.default_rng(3)
    after, before = draw.normal(0.9, 0.02, 6), draw.normal(0.85, 0.05, 4)
    expected = stats.ttest_ind(after, before, equal_var=False).confidence_interval(0.9)
    mean, low, high, n = welch(after.tolist(), before.tolist(), 0.9)
    assert (low, high) == pytest.approx((expected.low, expected.high)) and n == 4
    assert mean == pytest.approx(after.mean() - before.mean())
    assert welch([1.0], [0.5], 0.9) == (0.5, None, None, 1) and welch([], [1.0], 0.9)[0] is None


def test_one_difference_has_no_interval() -> None:
    assert paired([0.5], 0.95) == (0.5, None, None, 1) and paired([], 0.95) == (None, None, None, 0)
    assert paired([0.1, 0.1, 0.1], 0.95) == (pytest.approx(0.1), None, None, 3)


def test_pairs_go_by_the_studys_seed(made: Path) -> None:
    """Unpaired runs have seeds of their own: what is compared then are groups."""

    def moved(document: dict[str, Any]) -> None:
        document["paired"] = False
        for run in document["variants"][1]["runs"]:
            run.update(seed=run["seed"] + 5, pair=run["seed"])

    changed(made / "results.json", moved)
    found = read_study(made)
    assert found.baseline is not None
    row = differences(found.baseline, found.variants[0], found)[1]
    before, after = (np.array([recall(name, seed) for seed in SEEDS])[:, 1] for name in ("baseline", "averaging=ema"))
    expected = stats.ttest_ind(after, before, equal_var=False).confidence_interval(0.95)
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
    assert "unpaired: the variants' seeds are compared as groups" in shown(made).text


# --- the plots -------------------------------------------------------------------------------------------------------


def measured(mean: float, half: float = 0.001) -> Measured:
    return Measured(f"at {mean}", "undecided", "", mean, mean - half, mean + half, 5)


def test_marks_stand_where_their_numbers_are() -> None:
    plot = forest("", [measured(-0.01), measured(0.03)], Unit("accuracy", 1))
    low, high, cut = scale_ends([measured(-0.01), measured(0.03)])
    assert not cut and low < -0.011 and high > 0.031
    for row, mean in zip(plot.rows, (-0.01, 0.03), strict=True):
        assert row.strip is not None and row.strip.at == pytest.approx(100 * (mean - low) / (high - low))
        assert row.strip.low == pytest.approx(100 * (mean - 0.001 - low) / (high - low))
    assert plot.zero == pytest.approx(100 * -low / (high - low))
    assert [tick.text for tick in plot.ticks] == ["\u22121", "0", "+1", "+2", "+3"]


def test_one_that_would_press_the_others_together_is_an_arrow() -> None:
    plot = forest("", [measured(0.004), measured(0.002), measured(-0.8)], Unit("accuracy", 1))
    assert [row.strip.beyond for row in plot.rows if row.strip] == ["", "", "left"] and plot.cut
    assert plot.rows[2].change == "\u221280.0"
    alone = forest("", [measured(-0.8)], Unit("accuracy", 1))
    assert not alone.cut and alone.rows[0].strip is not None and not alone.rows[0].strip.beyond


def test_decimals_follow_the_intervals(made: Path) -> None:
    found = read_study(made)
    assert unit_of(found) == Unit("accuracy", 2)
    assert Unit("accuracy", 0).change(0.114) == "+11" and Unit("loss", 4).ends(-1.0, 0.25) == "[\u22121.0000,\u00a0+0.2500]"
    assert Unit("loss", 2).change(1e300) == "1e300" and Unit("loss", 2).change(None) == "\u2013"


def test_cost_against_gain(made: Path) -> None:
    found = read_study(made)
    chart = scatter(found, unit_of(found))
    assert chart is not None
    assert [mark.label for mark in chart.marks] == ["1", "2", "3", "4", "5"] and chart.left_out == 0
    # Costs rise by 10 % from variant to variant, gains are those of GAINS.
    xs = {mark.name: mark.x for mark in chart.marks}
    assert xs["averaging=ema"] - chart.zero_x == pytest.approx((xs["batch_size=32"] - chart.zero_x) / 4)
    by_gain = sorted(chart.marks, key=lambda mark: -mark.y)
    assert [mark.name for mark in by_gain] == sorted(xs, key=lambda name: GAINS[name].mean())
    assert all(mark.left <= mark.x <= mark.right and mark.high <= mark.y <= mark.low for mark in chart.marks)


def test_a_cost_or_gain_far_beyond_the_others_is_only_in_the_table(made: Path) -> None:
    changed(
        made / "costs.json", lambda d: d["variants"]["batch_size=32"]["seconds"]["difference"].update(mean=900.0, low=800.0, high=1000.0)
    )
    changed(made / "results.json", lambda d: d["variants"][3]["effect"].update(mean=-0.7, low=-0.8, high=-0.6))
    found = read_study(made)
    chart = scatter(found, unit_of(found))
    assert chart is not None and [mark.label for mark in chart.marks] == ["1", "2", "5"] and chart.left_out == 2
    text = shown(made).text
    assert "2 variants beyond the chart, in the table below" in text and "+15\u202fmin 0\u202fs".replace("\u202f", " ") in text


def test_labels_do_not_cover_each_other() -> None:
    places = [(50.0, 50.0), (51.0, 50.0), (50.0, 52.0), (80.0, 20.0)]
    beside = beside_all(places)
    assert not any(near(a, b) for i, a in enumerate(beside) for b in beside[:i])


def test_every_verdict_has_a_shape_of_its_own(made: Path) -> None:
    found = read_study(made)
    assert [kind_of(each) for each in found.variants] == ["helps", "none", "hurts", "undecided", "inert", "hurts"]
    html = study.page(made)
    for kind in ("helps", "hurts", "none", "undecided", "inert", "withheld"):
        assert f'class="sort {kind}"' in html and f".sort.{kind} {{" in html


def test_two_hundred_variants_stay_small(tmp_path: Path) -> None:
    folder = sample_study(tmp_path / "large")

    def multiplied(document: dict[str, Any]) -> None:
        base, one = document["variants"][0], document["variants"][1]
        document["variants"] = [base, *({**one, "name": f"variant-{i}"} for i in range(300))]

    changed(folder / "results.json", multiplied)
    html = study.page(folder)
    assert len(html) < 2_000_000 and len(read_study(folder).all) == 200
    seen(html)


def test_numbers_that_do_not_fit_are_not_believed(made: Path) -> None:
    def twist(document: dict[str, Any]) -> None:
        document["variants"][1]["effect"].update(low=0.5, high=0.6, p=3.0, bootstrap_low=1.0, bootstrap_high=-1.0)
        document["variants"][2]["effect"].update(mean=1e301)

    changed(made / "results.json", twist)
    found = read_study(made)
    first, second = found.variants[0].effect, found.variants[1].effect
    assert first is not None and first.t is not None and first.t.low is None and first.p is None and first.bootstrap is None
    assert second is not None and second.t is None
    seen(study.page(made))
    assert math.isfinite(first.t.mean)


def test_pages_of_studies_need_no_torch(made: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from torchstone import report
report.study.page(Path({str(made)!r}))
assert not {{"torch", "matplotlib", "scipy.stats"}} & sys.modules.keys()
"""
    source = Path(__file__).resolve().parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(source)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
