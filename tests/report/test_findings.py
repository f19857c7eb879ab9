"""The doctor's findings on a run's page: every piece said in words, evidence drawn, hostile ones left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from report.reading_page import Seen, seen
from report.sample_run import write_json
from report.sample_study import finding
from torchstone import report
from torchstone.report.findings import read_findings

TABLE = {"kind": "table", "columns": ["class", "share"], "rows": [["bag", 0.25], ["coat", None], ["sandal", True]]}
CURVE = {
    "kind": "curve",
    "x": "depth",
    "y": "norm of the gradient",
    "lines": [{"name": "step 10", "x": [0, 1, 2], "y": [100.0, 10.0, 1.0]}, {"name": "step 90", "x": [0, 1, 2], "y": [50.0, 5.0, 2.0]}],
}
BARS = {"kind": "bars", "labels": ["a", "b"], "values": [4000, 1000]}
IMAGES = {"kind": "images", "files": ["mistake-00.png", "pictures/mistake-01.png"], "captions": ["called coat", "called bag"]}


def with_findings(run: Path, *found: Any, checks: tuple[Any, ...] = ()) -> Seen:
    write_json(run / "findings.json", {"version": 1, "kind": "findings", "findings": list(found), "checks": list(checks)})
    return seen(report.page(run))


def test_no_section_where_no_doctor_looked(made: Path) -> None:
    assert "findings" not in seen(report.page(made)).ids()


def test_nothing_found_is_said(made: Path) -> None:
    check = {"check": "loss_at_init", "seconds": 0.2, "value": 2.31, "threshold": 2.76, "outcome": "passed", "why": "loss before step 1"}
    page = with_findings(made, checks=(check,))
    assert page.ids()[0] == "findings"
    assert "Nothing was found. 1 check, 1 passed" in page.text
    assert "loss at init passed 2.31 2.76 loss before step 1" in page.text


def test_a_finding_says_everything_in_words_gravest_first(made: Path) -> None:
    page = with_findings(
        made, finding("slow", "note", "A note.", []), finding("rate_too_high", "error", "It fell apart.", ["a.b=1", "c=2"])
    )
    text = page.text
    assert (
        "error rate too high It fell apart. Found 0.31 against a threshold of 0.1 : a tenth is what reading may cost. Read the advice."
        in text
    )
    assert text.index("error rate too high") < text.index("note slow")
    assert "a.b=1 c=2" in page.words
    signs = [attributes["class"] for tag, attributes in page.tags if attributes.get("class", "").startswith("sign ")]
    assert signs == ["sign is-error", "sign is-note"]


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (TABLE, "class share bag 0.25 coat – sandal yes"),
        (CURVE, "norm of the gradient by depth, logarithmic"),
        (BARS, "a 4,000 b 1,000"),
        (IMAGES, "called coat called bag"),
    ],
)
def test_evidence_is_drawn(made: Path, evidence: dict[str, Any], expected: str) -> None:
    page = with_findings(made, finding("check", "warning", "Seen.", []) | {"evidence": evidence})
    assert expected in page.text


def test_bars_and_lines_are_where_their_numbers_are(made: Path) -> None:
    write_json(
        made / "findings.json", {"kind": "findings", "findings": [finding("a", "note", "b", []) | {"evidence": e} for e in (BARS, CURVE)]}
    )
    bars, curve = (each.evidence for each in read_findings(made).findings)
    assert bars is not None and [bar.share for bar in bars.bars] == [100, 25]
    assert curve is not None and curve.chart is not None
    assert [line.name for line in curve.chart.lines] == ["step 10", "step 90"]
    # From 1 to 100 on a logarithmic scale: the first line is the diagonal.
    assert curve.chart.lines[0].path == "M0.0 0.0L500.0 500.0L1000.0 1000.0"
    assert curve.chart.header[0] == "depth"


@pytest.mark.parametrize(
    "evidence",
    [
        {"kind": "table", "columns": [], "rows": [[1]]},
        {"kind": "table", "columns": ["a"], "rows": 3},
        {"kind": "curve", "x": 1, "y": None, "lines": [{"x": ["a", None], "y": [1, 2]}, 7]},
        {"kind": "bars", "labels": "abc", "values": [1]},
        {"kind": "images", "files": ["../../etc/passwd", "/etc/passwd", 3, None], "captions": 5},
        {"kind": "pictures"},
        {"kind": ["table"]},
        [],
        "text",
    ],
)
def test_evidence_that_is_none_costs_its_drawing_only(made: Path, evidence: Any) -> None:
    page = with_findings(made, finding("check", "warning", "Seen all the same.", ["a=1"]) | {"evidence": evidence})
    assert "Seen all the same." in page.text and "a=1" in page.words
    assert not [1 for _, attributes in page.tags if attributes.get("class") == "evidence"]


@pytest.mark.parametrize(
    "entry", [None, 3, {}, {"severity": "fatal", "summary": "x"}, {"severity": ["error"], "summary": "x"}, {"severity": "error"}]
)
def test_a_finding_that_is_none_is_left_out(made: Path, entry: Any) -> None:
    assert "Nothing was found." in with_findings(made, entry).text


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"kind": "other"}', b"[" * 100_000])
def test_a_garbled_file_is_named(made: Path, content: bytes) -> None:
    (made / "findings.json").write_bytes(content)
    page = seen(report.page(made))
    assert "findings" not in page.ids() and "findings.json" in page.text


def test_huge_evidence_is_cut_and_said(made: Path) -> None:
    evidence = {"kind": "table", "columns": [f"c{i}" for i in range(50)], "rows": [[i] * 50 for i in range(5000)]}
    page = with_findings(made, finding("check", "warning", "Seen.", []) | {"evidence": evidence})
    assert "… and 4,976 more" in page.text
    many = {
        "kind": "curve",
        "x": "x",
        "y": "y",
        "lines": [{"name": str(i), "x": list(range(9000)), "y": list(range(9000))} for i in range(9)],
    }
    html = json.dumps(many)
    page = with_findings(made, finding("check", "warning", "Seen.", []) | {"evidence": many})
    assert len(report.page(made)) < 600_000 < len(html)
