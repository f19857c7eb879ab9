"""A finding: what a check saw that should not be so, with the number, the threshold and its reason, evidence, and a remedy to paste.

`Examination` is what all checks together said; `findings.json` in a run folder is one, as is the output of `doctor --json`. Evidence is
plain figure data (`table`, `curve`, `bars`, `images` below), which `report` and the terminal draw.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torchstone.core import files
from torchstone.core.errors import UserError
from torchstone.core.json_text import from_json, to_json

VERSION = 1
FILE = "findings.json"
"""Where the examination of a run lies, in its folder."""

Severity = Literal["error", "warning", "note"]
Outcome = Literal["passed", "found", "skipped"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The gravest first. error: the training cannot come right, or what it measures will be wrong; warning: it will be worse than it could, or
its numbers flatter; note: worth a look."""

Evidence = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that a check found."""

    check: str
    """Its name, as in `--only`."""
    severity: Severity
    summary: str
    """One sentence, with the number in it."""
    value: float | None = None
    """The number."""
    threshold: float | None = None
    """What it was held against."""
    because: str = ""
    """Why that threshold."""
    evidence: Evidence | None = None
    """Figure data."""
    remedy: tuple[str, ...] = ()
    """Edits of the experiment that can be pasted: `path=value`."""
    advice: str = ""
    """One sentence: what to do, where an edit alone does not say it."""
    rank: float = 50.0
    """How surely it explains a failure: of equal severity the lowest comes first. Not in the document: its order is."""

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"Finding.severity must be {', '.join(SEVERITIES)}, got {self.severity}")

    def document(self) -> dict[str, Any]:
        """As findings.json says it."""
        return {
            "check": self.check,
            "severity": self.severity,
            "summary": self.summary,
            "value": self.value,
            "threshold": self.threshold,
            "because": self.because,
            "evidence": self.evidence,
            "remedy": list(self.remedy),
            "advice": self.advice,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """One check: what it measured and what came of it."""

    check: str
    outcome: Outcome
    value: float | None = None
    threshold: float | None = None
    why: str = ""
    """Why it was skipped; else what was measured, in words."""
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "seconds": round(self.seconds, 3),
            "value": self.value,
            "threshold": self.threshold,
            "outcome": self.outcome,
            "why": self.why,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """What all checks said; the findings come gravest first."""

    findings: tuple[Finding, ...] = ()
    checks: tuple[Checked, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    def document(self) -> dict[str, Any]:
        """findings.json, version 1."""
        return {
            "version": VERSION,
            "kind": "findings",
            "findings": [finding.document() for finding in self.findings],
            "checks": [check.document() for check in self.checks],
        }

    def joined(self, other: "Examination") -> "Examination":
        """Both, in order."""
        return Examination(
            findings=ordered((*self.findings, *other.findings)),
            checks=(*self.checks, *other.checks),
            seconds=self.seconds + other.seconds,
        )


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Severity first, then rank; of equals the order they came in."""
    return tuple(sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), finding.rank)))


def write_findings(folder: Path, examination: Examination) -> Path:
    """Writes findings.json into a run folder, whole or not at all."""
    path = folder / FILE
    files.write_text(path, to_json(examination.document(), indent=2) + "\n")
    return path


def read_findings(path: Path) -> Examination:
    """The inverse. Raises UserError naming the file and what is wrong in it."""
    try:
        document = from_json(files.read_text(path), str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not isinstance(document, Mapping) or document.get("kind") != "findings":
        raise UserError(f"{path}: not the findings of a doctor")
    if document.get("version") != VERSION:
        raise UserError(f"{path}: findings of version {document.get('version')}, this torchstone reads {VERSION}")
    try:
        found = [_finding(each, rank) for rank, each in enumerate(document["findings"])]
        checks = tuple(Checked(**each) for each in document["checks"])
        return Examination(findings=ordered(found), checks=checks, seconds=sum(check.seconds for check in checks))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: a finding or check in it is not whole ({error})") from None


def _finding(document: Mapping[str, Any], rank: int) -> Finding:
    return Finding(**{**document, "remedy": tuple(document["remedy"])}, rank=float(rank))


# --- evidence --------------------------------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Evidence:
    """Rows of texts and numbers."""
    return {"kind": "table", "columns": list(columns), "rows": [list(row) for row in rows]}


def curve(x: str, y: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Evidence:
    """Lines by name, each (x values, y values)."""
    named = [{"name": name, "x": list(xs), "y": list(ys)} for name, (xs, ys) in lines.items()]
    return {"kind": "curve", "x": x, "y": y, "lines": named}


def bars(labels: Sequence[str], values: Sequence[float]) -> Evidence:
    return {"kind": "bars", "labels": list(labels), "values": list(values)}


def images(paths: Sequence[str], captions: Sequence[str]) -> Evidence:
    """Picture files, by their path, and a text below each."""
    return {"kind": "images", "files": list(paths), "captions": list(captions)}
