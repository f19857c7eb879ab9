"""docs/studies is what docs/make_studies.py makes of studies/, and a study's results are of that study. Where this fails: run it."""

import json
import re
import runpy
import tomllib
from functools import cache
from pathlib import Path

import pytest

from torchstone.core import tree
from torchstone.experiment import Experiment
from torchstone.recipes import RECIPES
from torchstone.study import definition
from torchstone.study.factors import factors_of

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "studies"
NAMES = sorted(path.stem for path in STUDIES.glob("*.toml") if path.stem != "readings")


@cache
def made() -> dict[str, str]:
    return runpy.run_path(str(ROOT / "docs" / "make_studies.py"))["pages"]()


def test_the_pages_are_the_generators() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "studies").iterdir()}
    assert sorted(there) == sorted(made())
    assert [name for name, text in made().items() if there[name] != text] == [], "run python docs/make_studies.py"


def test_every_study_has_results_a_reading_and_a_page() -> None:
    assert sorted(tomllib.loads((STUDIES / "readings.toml").read_text())) == NAMES
    assert sorted(path.name.split(".")[0] for path in (STUDIES / "results").glob("*.costs.json")) == NAMES
    for name in NAMES:
        assert f"({name}.md)" in made()["README.md"]
        for file in re.findall(r"\]\(([\w.-]+\.(?:svg|md))\)", made()[f"{name}.md"]):
            assert file in made(), (name, file)


@pytest.mark.parametrize("name", NAMES)
def test_the_results_are_of_this_study(name: str) -> None:
    """What is written is a study that can be made, and what was found is of its claim, factors, seeds and metric."""
    written = definition.read_written(STUDIES / f"{name}.toml")
    found = json.loads((STUDIES / "results" / f"{name}.json").read_text())
    experiment: Experiment = tree.edit(RECIPES[written["recipe"]](), written.get("edits", []))
    design = written.get("design", "one")
    factors, _ = factors_of(experiment, written["vary"], last=design == "without", nested=design == "grid")
    assert [(factor.path, list(factor.values), factor.baseline) for factor in factors] == [
        (each["path"], each["values"], each["baseline"]) for each in found["factors"]
    ]
    assert found["recipe"] == written["recipe"]
    assert set(written.get("edits", [])) <= set(found["edits"])
    assert found["note"] == written["note"]
    assert tuple(found["seeds"]) == definition.seeds_of(written.get("seeds", 5))
    assert found["design"] == design
    assert found["metric"] == written.get("metric", experiment.task.selection[0])
    assert found["ended"] == "all runs are over"
    assert all(run["status"] in ("done", "stopped", "diverged") for variant in found["variants"] for run in variant["runs"])
