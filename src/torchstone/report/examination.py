"""What the doctor said before a training, or of a run, as one self-contained page: findings first, then what passed, then what was not
looked at and why."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torchstone.core.files import write_new
from torchstone.report.findings import SEVERITIES, Check, Finding, read_findings
from torchstone.report.numbers import plural
from torchstone.report.rendering import rendered

PAGE = "doctor.html"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was examined, and how the page names it."""

    title: str
    command: str
    """As it was asked."""
    seconds: float
    commands: Mapping[tuple[str, str], str]
    """(check, summary) of a finding -> the command line that trains with its remedy."""
    of_run: bool = False


def write(folder: Path, asked: Asked) -> None:
    """Makes doctor.html in a folder of findings.json and its pictures."""
    write_new(folder / PAGE, page(folder, asked).encode())


def page(folder: Path, asked: Asked) -> str:
    """The page as HTML: no script, nothing fetched."""
    findings = read_findings(folder)
    shown = replace(findings, findings=tuple(with_command(each, asked.commands) for each in findings.findings))
    passed, skipped = ([check for check in findings.checks if check.outcome == outcome] for outcome in ("passed", "skipped"))
    counts = [plural(n, severity) for severity in SEVERITIES if (n := sum(each.severity == severity for each in findings.findings))]
    return rendered(
        "doctor.html",
        asked=asked,
        counts=" and ".join(filter(None, (", ".join(counts[:-1]), *counts[-1:]))) or "Nothing found",
        findings=shown,
        passed=passed,
        skipped=skipped,
        problems=[findings.problem] if findings.problem else [],
        contents=contents(passed, skipped),
        checks=len(findings.checks),
        seconds=f"{asked.seconds:.0f} s" if asked.seconds >= 1 else "less than a second",
    )


def with_command(finding: Finding, commands: Mapping[tuple[str, str], str]) -> Finding:
    return replace(finding, remedy=commands.get((finding.check, finding.summary), finding.remedy))


def contents(passed: list[Check], skipped: list[Check]) -> list[tuple[str, str]]:
    found = (("findings", "Findings", True), ("passed", "Passed", passed), ("skipped", "Not looked at", skipped))
    return [(anchor, name) for anchor, name, there in found if there]
