"""`torchstone report`: where the page goes, and what is refused."""

import json
from pathlib import Path

import pytest

from report.reading_page import seen
from report.sample_run import sample_run
from report.sample_study import sample_study
from torchstone.cli import main, output, report
from torchstone.cli.parsing import Parser
from torchstone.core.errors import UserError


def run(*arguments: str) -> int:
    parser = Parser("report", report.HELP, report.EXAMPLES)
    report.add(parser)
    return report.run(parser.parse(arguments))


def test_the_page_goes_into_the_run(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(made)) == output.DONE
    assert capsys.readouterr().out == f"{made}/report.html\n"
    first = (made / "report.html").read_text()
    assert run(str(made), "--json") == output.DONE  # and again, over the old one
    assert json.loads(capsys.readouterr().out) == {"report": f"{made}/report.html", "bytes": len(first.encode())}
    assert (made / "report.html").read_text() == first
    assert not [path for path in made.iterdir() if path.name.startswith(".partial")]


def test_or_where_it_is_asked_to(made: Path, tmp_path: Path) -> None:
    assert run(str(made), "--out", str(tmp_path / "page.html")) == output.DONE
    assert (tmp_path / "page.html").stat().st_size > 10_000 and not (made / "report.html").exists()


def test_what_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        run(str(made), "--out", str(tmp_path / "none" / "page.html"))
    with pytest.raises(UserError, match="is a folder"):
        run(str(made), "--out", str(tmp_path))
    with pytest.raises(UserError, match="no such run folder"):
        run(str(tmp_path / "none"))
    with pytest.raises(UserError, match="not a run folder"):
        run(str(tmp_path))


def test_a_run_that_was_trained(tmp_path: Path) -> None:
    """The files as train really writes them."""
    assert main(["train", "digits-mini", "run.epochs=2", "run.threads=1", "--out", str(tmp_path / "run")]) == output.DONE
    assert run(str(tmp_path / "run")) == output.DONE
    page = seen((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert {"curves", "confusion", "classes", "data", "experiment", "environment", "use"} <= set(page.ids())
    assert "95 % interval" in page.text and "Not everything could be read" not in page.text


def test_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sample_study(tmp_path / "studies" / "small")
    assert run(str(folder)) == output.DONE
    assert capsys.readouterr().out == f"{folder}/report.html\n"
    assert "averaging=ema helps" in seen((folder / "report.html").read_text(encoding="utf-8")).text


def test_several_runs_stand_side_by_side_beside_them(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = sample_run(tmp_path / "runs" / "digits" / "run")
    assert run(str(made), str(other), "--json") == output.DONE
    path = tmp_path / "runs" / "side-by-side.html"
    assert json.loads(capsys.readouterr().out) == {"report": str(path), "bytes": path.stat().st_size}
    assert {"results", "differences", "curves"} <= set(seen(path.read_text(encoding="utf-8")).ids())
    assert not (made / "report.html").exists()


def test_a_study_has_a_page_of_its_own(made: Path, tmp_path: Path) -> None:
    folder = sample_study(tmp_path / "studies" / "small")
    with pytest.raises(UserError, match="a page of its own"):
        run(str(made), str(folder))
