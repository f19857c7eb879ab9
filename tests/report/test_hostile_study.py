"""Study folders that somebody else made: nothing of them runs, nothing outside is opened, nothing crashes."""

import json
import os
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from report.reading_page import seen
from report.sample_run import sample_run, write_json
from report.sample_study import costs, finding, results, sample_study
from report.test_hostile import SCRIPT, with_junk
from torchstone import report
from torchstone.report import study
from torchstone.report.study_reading import read_study, run_folder

DOCUMENTS = {
    "results.json": results(),
    "costs.json": costs(),
    "averaging=ema/seed-0/findings.json": {"kind": "findings", "findings": [finding("a", "error", "b", ["c=1"])], "checks": []},
    "averaging=ema/seed-1/log.jsonl": {"step": 20, "eval": {"accuracy": 0.5}},
}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return sample_study(tmp_path / "study")


def poisoned(value: Any) -> Any:
    """The same hostile text wherever a text can stand, keys too; what the page branches on is left."""
    match value:
        case dict():
            return {key: poisoned(inner) for key, inner in value.items()}
        case list():
            return [poisoned(inner) for inner in value]
        case str() if value not in ("study", "findings", "error", "done", "helps", "baseline") and "/seed-" not in value:
            return SCRIPT
        case _:
            return value


def test_every_text_is_escaped(made: Path) -> None:
    for name in ("results.json", "costs.json"):
        write_json(made / name, poisoned(json.loads((made / name).read_text())))
    for path in made.glob("*/seed-*/findings.json"):
        write_json(path, poisoned(json.loads(path.read_text())))
    text = json.dumps(SCRIPT)
    (made / "study.toml").write_text(f"[study]\nrecipe = {text}\n[experiment.data]\nkind = {text}\n{text} = {text}\n")
    html = study.page(made)
    seen(html)
    assert "<script" not in html and "{{7*7}}" in seen(html).text


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"a": 1, "a": 2}', b'{"kind": "folds"}'])
@pytest.mark.parametrize("name", ["results.json", "costs.json"])
def test_garbled_files_are_named(made: Path, name: str, content: bytes) -> None:
    (made / name).write_bytes(content)
    page = seen(study.page(made))
    assert name in page.text or (name == "costs.json" and b"kind" in content)


def test_a_garbled_plan_costs_its_sections(made: Path) -> None:
    (made / "study.toml").write_text("a = ")
    page = seen(study.page(made))
    assert "study.toml" in page.text and "baseline" not in page.ids() and "effects" in page.ids()


def test_links_and_pipes_are_not_followed(made: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "log.jsonl").write_text('{"step": 1, "eval": {"accuracy": 0.123456}}\n')
    (made / "costs.json").unlink()
    os.mkfifo(made / "costs.json")
    for log in (made / "averaging=ema").glob("*/log.jsonl"):
        log.unlink()
        log.symlink_to(secret / "log.jsonl")
    (made / "note=b").rename(tmp_path / "elsewhere")
    (made / "note=b").symlink_to(tmp_path / "elsewhere")
    text = seen(study.page(made)).text
    assert "costs.json" in text and "12.3" not in text and "note=b: accuracy" not in text


@pytest.mark.parametrize("name", ["../outside", "/etc", "a/../../b", "", "\0", "a/b/c/d/e", 3, None, "x" * 5000])
def test_runs_are_looked_for_inside_the_study_only(made: Path, name: Any) -> None:
    assert run_folder(made, name) is None
    document = results()
    document["variants"][1]["runs"][0]["run"] = name
    write_json(made / "results.json", document)
    seen(study.page(made))


def test_many_runs_and_classes_are_cut(made: Path) -> None:
    document = results()
    many = [{"seed": i, "run": "x", "status": "done", "value": 0.5, "per_class": {"recall": [0.5] * 150}} for i in range(3000)]
    document["variants"][1]["runs"] = many
    document["classes"] = [f"class {i}" for i in range(150)]
    write_json(made / "results.json", document)
    started = process_time()
    html = study.page(made)
    assert process_time() - started < 20 and len(html) < 3_000_000
    assert len(read_study(made).variants[0].runs) == 2000


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_study(tmp_path_factory.mktemp("fuzz") / "study")


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_one_wrong_value_anywhere_never_crashes(one: Path, data: st.DataObject) -> None:
    for name, document in DOCUMENTS.items():
        chosen = with_junk(document, data) if data.draw(st.booleans()) else document
        (one / name).write_text(json.dumps(chosen) + "\n", encoding="utf-8")
    seen(study.page(one))


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_one_wrong_value_in_the_findings_never_crashes_a_run(made_once: Path, data: st.DataObject) -> None:
    curve = {"kind": "curve", "x": "a", "y": "b", "lines": [{"name": "c", "x": [0, 1], "y": [1.0, 2.0]}]}
    table = {"kind": "table", "columns": ["a"], "rows": [[1]]}
    bars = {"kind": "bars", "labels": ["a"], "values": [1]}
    found = [finding("a", "error", "b", ["c=1"]) | {"evidence": each} for each in (curve, table, bars)]
    check = {"check": "a", "seconds": 0.1, "value": 1.0, "threshold": 2.0, "outcome": "passed", "why": "c"}
    document = with_junk({"kind": "findings", "findings": found, "checks": [check]}, data)
    (made_once / "findings.json").write_text(json.dumps(document) + "\n", encoding="utf-8")
    seen(report.page(made_once))


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_run(tmp_path_factory.mktemp("fuzz") / "run", n=100)
