"""A grid's means as panels, and both pictures of a study as SVG: what stands where."""

import itertools
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from tests.report.sample_study import sample_study

from torchstone.report import forest, levels, study_svg
from torchstone.report import study as study_page
from torchstone.report.study_reading import SeedRun, Study, Variant, read_study

FACTORS = {"method.optimizer.lr": ("0.1", "0.01", "1"), "model.norm": ("none", "batch"), "model.depth": ("2", "8")}


def grid(tmp_path: Path, factors: dict[str, tuple[str, ...]] = FACTORS) -> Study:
    """Every combination, its mean the number of its place, three seeds; the last one has lost a run."""
    study = read_study(sample_study(tmp_path / "study"))
    variants = []
    for number, combination in enumerate(itertools.product(*factors.values())):
        runs = tuple(SeedRun(seed, seed, None, "done", number / 100, ()) for seed in range(3))
        ends = (number / 100 - 0.005, number / 100 + 0.005)
        variants.append(
            replace(study.all[1], name=f"v{number}", levels=dict(zip(factors, combination, strict=True)), runs=runs, mean=number / 100, n=3)
        )
        variants[-1] = replace(variants[-1], ends=ends)
    last = variants[-1]
    variants[-1] = replace(last, runs=(*last.runs[:2], SeedRun(2, 2, None, "diverged", None, ())))
    return replace(study, design="grid", factors=tuple(factors.items()), baseline=variants[0], variants=tuple(variants[1:]))


def test_the_sweep_goes_across_in_its_order(tmp_path: Path) -> None:
    study = grid(tmp_path)
    first, second = levels.panels(study)
    assert (first.across, first.columns) == ("lr", ("0.01", "0.1", "1"))
    assert {first.title, second.title} in ({"depth = 2", "depth = 8"}, {"norm = none", "norm = batch"})
    for panel in (first, second):
        fixed = dict([panel.title.split(" = ")])
        for row in panel.rows:
            for column, place in zip(panel.columns, row.places, strict=True):
                wanted = {"lr": column, panel.down: row.name, **fixed}
                (found,) = [v for v in study.all if {path.rsplit(".", 1)[1]: level for path, level in v.levels.items()} == wanted]
                assert place is not None and place.mean == found.mean


def test_levels_that_are_tables_are_factors(tmp_path: Path) -> None:
    """Not every combination is there: what a panel has nothing of is no column of it."""
    tried = [("adam", "0.1", "0"), ("adam", "0.01", "0"), ("adam", "0.1", "2"), ("sgd", "0.1", "5"), ("sgd", "1", "5"), ("sgd", "1", "7")]
    levels_of = tuple(f"{{kind={kind},lr={lr},weight_decay={decay}}}" for kind, lr, decay in tried)
    study = replace(grid(tmp_path, {"method.optimizer": levels_of}), design="one")
    panels = {panel.title: panel for panel in levels.panels(study)}
    across = {panel.across for panel in panels.values()}
    assert set(panels) == {"kind = adam", "kind = sgd"} and len(across) == 1
    wanted = {"lr": (("0.01", "0.1"), ("0.1", "1")), "weight_decay": (("0", "2"), ("5", "7"))}[across.pop()]
    assert (panels["kind = adam"].columns, panels["kind = sgd"].columns) == wanted
    places = [place for panel in panels.values() for row in panel.rows for place in row.places if place]
    assert sorted(place.mean for place in places if place.mean is not None) == [number / 100 for number in range(len(tried))]


def test_a_lost_run_is_told(tmp_path: Path) -> None:
    panels = levels.panels(grid(tmp_path))
    places = [place for panel in panels for row in panel.rows for place in row.places if place]
    assert [(place.lost, place.runs) for place in places if place.lost] == [(1, 3)]
    pictures = [study_svg.panel_svg(panel, "accuracy", True) for panel in panels]
    assert sum("l8 8m0 -8l-8 8" in picture for picture in pictures) == 1


def test_no_panels_where_they_would_not_help(tmp_path: Path) -> None:
    study = grid(tmp_path)
    assert levels.panels(replace(study, design="one")) == ()
    (tmp_path / "one").mkdir()
    assert levels.panels(grid(tmp_path / "one", {"model.norm": ("none", "batch", "group")})) == ()
    many = {f"model.x{i}": ("a", "b") for i in range(5)}
    (tmp_path / "many").mkdir()
    assert levels.panels(grid(tmp_path / "many", many)) == ()


def test_shares_stay_between_0_and_1(tmp_path: Path) -> None:
    panels = levels.panels(grid(tmp_path))
    assert all(0 <= panel.low < panel.high <= 1 for panel in panels)
    assert len({(panel.low, panel.high) for panel in panels}) == 1


@pytest.mark.parametrize("line", [0, 1])
def test_higher_is_higher_on_the_picture(tmp_path: Path, line: int) -> None:
    panel = levels.panels(grid(tmp_path))[0]
    root = ET.fromstring(study_svg.panel_svg(panel, "accuracy", True))
    lines = [each for each in root.iter("{http://www.w3.org/2000/svg}path") if each.get("stroke-width") == "1.8"]
    points = [tuple(map(float, point.split())) for point in lines[line].attrib["d"][1:].split("L")]
    values = [place.mean for place in panel.rows[line].places if place and place.mean is not None]
    heights = [-y for _, y in points]
    order = sorted(range(len(values)), key=values.__getitem__)
    assert order == sorted(range(len(heights)), key=heights.__getitem__)


def test_the_forest_tells_what_the_pages_does(tmp_path: Path) -> None:
    study = read_study(sample_study(tmp_path / "study"))
    plot = forest.effects_forest(study, forest.unit_of(study))
    assert plot is not None
    text = study_svg.forest_svg(plot, "a < b")
    root = ET.fromstring(text)
    said = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]
    for row in plot.rows:
        assert any(row.name[:20] in each for each in said)
        assert not row.strip or any(row.change in each for each in said)
    assert root.findtext("{http://www.w3.org/2000/svg}title") == "a < b"
    assert study_svg.forest_svg(plot, "a < b") == text


def test_the_answer_of_a_grid_is_its_best(tmp_path: Path) -> None:
    study = grid(tmp_path)
    said = study_page.answer(study, forest.unit_of(study))
    assert said.startswith("v11 has the best mean, 11.0") and "where the baseline has 0" in said and "of 11 variants" in said
    best = replace(study, smaller=True)
    assert study_page.answer(best, forest.unit_of(best)).startswith("The baseline has the best mean")


def test_a_variant_without_a_value_is_no_point(tmp_path: Path) -> None:
    study = grid(tmp_path)
    bare: Variant = replace(study.variants[0], mean=None, ends=None, runs=(SeedRun(0, 0, None, "diverged", None, ()),))
    panels = levels.panels(replace(study, variants=(bare, *study.variants[1:])))
    assert sum(place.mean is None for panel in panels for row in panel.rows for place in row.places if place) == 1
    for panel in panels:
        ET.fromstring(study_svg.panel_svg(panel, "accuracy", True))
