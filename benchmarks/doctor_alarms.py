"""False alarms: what `torchstone doctor` says of experiments in which nothing is wrong, and how long it takes.

python benchmarks/doctor_alarms.py [SETTING …]

The settings are those of tests/doctor/healthy.py; one whose data are not on this machine is left out and named.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from doctor import healthy
from torchstone.doctor import CHECKS, examine


def main(names: list[str]) -> None:
    facts = machine.facts()
    settings: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TORCHSTONE_CACHE"] = f"{folder}/cache"
            try:
                experiment = healthy.made(name, Path(folder))
            except healthy.Missing as absent:
                missing[name] = str(absent)
                continue
            examination = examine(experiment)
        counts = {outcome: sum(check.outcome == outcome for check in examination.checks) for outcome in ("passed", "found", "skipped")}
        settings[name] = {
            "seconds": round(examination.seconds, 1),
            **counts,
            "findings": [{"check": f.check, "severity": f.severity, "summary": f.summary} for f in examination.findings],
            "not_looked_at": {check.check: check.why for check in examination.checks if check.outcome == "skipped"},
        }
        print(name, settings[name]["seconds"], settings[name]["findings"], flush=True)
        machine.save("doctor_alarms", document(facts, settings, missing))  # after each: half an hour in all where the machine is busy
    machine.write("doctor_alarms", document(facts, settings, missing))


def document(facts: dict[str, Any], settings: dict[str, Any], missing: dict[str, str]) -> dict[str, Any]:
    severities = [finding["severity"] for each in settings.values() for finding in each["findings"]]
    return {
        "what": "findings of the doctor's checks before training on healthy experiments, each of which is a false alarm",
        "machine": facts,
        "checks": len(CHECKS),
        "settings": len(settings),
        "missing": missing,
        "errors": severities.count("error"),
        "warnings": severities.count("warning"),
        "notes": severities.count("note"),
        "seconds_largest": max((each["seconds"] for each in settings.values()), default=None),
        "each": settings,
    }


if __name__ == "__main__":
    main(sys.argv[1:] or list(healthy.SETTINGS))
