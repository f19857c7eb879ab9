"""`torchstone report`: where the page goes, and what is refused."""

import json
from pathlib import Path

import pytest

from report.reading_page import seen
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
