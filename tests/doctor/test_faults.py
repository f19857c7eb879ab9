"""Planted faults: the doctor names each as its first or second finding, and what it says to paste can be pasted and mends it.

All of them: `pytest tests/doctor/test_faults.py -m ""`, about a quarter of an hour. Plain `pytest` takes a few.
"""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from doctor import faults_before, faults_during
from doctor.patients import PATIENT, on_digits
from doctor.planted import applies, examined, require, train
from torchstone.core import tree
from torchstone.doctor import Examination, examine
from torchstone.experiment import Experiment, memory

BEFORE, DURING = faults_before.FAULTS, faults_during.FAULTS
QUICK = {"wrong normalization", "a rare class under the default loss", "training samples in the test", "saturated sigmoids in depth"}
"""Those that plain `pytest` examines, by their own check alone."""
STAYS = {"another camera in the test"}
"""Color jitter makes the network bear what differs; the data keep it."""


def test_there_are_enough_of_them() -> None:
    assert len(BEFORE) + len(DURING) + 2 >= 25, "and memory, and degradation in test_runs"


def test_each_check_before_training_has_its_fault() -> None:
    from torchstone.doctor import CHECKS

    assert {fault.check for fault in BEFORE.values()} | {"memory"} == {check.name for check in CHECKS}


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BEFORE])
def test_before_training(name: str, tmp_path: Path) -> None:
    fault, out = BEFORE[name], tmp_path / "looked"
    experiment = fault.made(tmp_path)
    files: dict[str, bytes] = {}
    only = () if name not in QUICK else (fault.check,)
    found = examine(experiment, model=fault.model and fault.model(), budget=PATIENT, out=out, files=files, only=only)
    first = named(found, fault.check, experiment)
    assert bool(first.remedy) == fault.remedy, (first.remedy, first.advice)
    if not first.remedy:
        assert first.advice and ". " not in first.advice, "one sentence says what to do"
    if not first.remedy or name in STAYS:
        return
    out.mkdir()
    for file, content in files.items():
        (out / file).parent.mkdir(exist_ok=True)
        (out / file).write_bytes(content)
    again = examine(tree.edit(experiment, first.remedy), only=[fault.check], budget=PATIENT)
    assert [(finding.check, finding.summary) for finding in again.findings] == [], "the remedy mends it"


def named(examination: Examination, check: str, experiment: Experiment) -> Any:
    """The check's finding, which is among the first two; every remedy is an edit that the experiment takes and that changes it."""
    names = [finding.check for finding in examination.findings]
    assert check in names[:2], [(finding.severity, finding.check, finding.summary) for finding in examination.findings]
    broken = [checked.why for checked in examination.checks if checked.why.startswith("could not be run")]
    assert not broken, broken
    for finding in examination.findings:
        assert finding.because and finding.evidence, finding.check
        assert finding.remedy or finding.advice, finding.check
        if finding.remedy:
            assert tree.edit(experiment, finding.remedy) != experiment
    return next(finding for finding in examination.findings if finding.check == check)


def test_a_step_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = on_digits(tmp_path, "model=conv_net", "run.batch_size=512")
    monkeypatch.setattr("torchstone.doctor.before.start.free_memory", lambda: memory.SCRATCH + 20_000_000)
    found = examine(experiment, only=["memory"])
    (edit,) = named(found, "memory", experiment).remedy
    assert int(edit.removeprefix("run.microbatch_size=")) < 512
    assert not examine(experiment, edit, only=["memory"]).findings, "the remedy is one"


@pytest.mark.slow
def test_the_own_network_without_a_fault_raises_nothing(tmp_path: Path) -> None:
    assert not examine(on_digits(tmp_path), model=faults_before.Own(), budget=PATIENT).findings


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in faults_during.SLOW else name for name in DURING])
def test_during_a_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks, edits, planted = DURING[name]
    models: list[Any] = []

    def mutate(model: nn.Module) -> None:
        planted.get("mutate", lambda model: None)(model)
        models.append(model)

    run = train(monkeypatch, tmp_path / "run", *edits, mutate=mutate, data=planted.get("data"))
    examination = examined(run)
    require(examination, *checks)
    applies(edits, examination)
    if name in faults_during.ORIGINS:
        finding, (kind, module) = examination.findings[0], faults_during.ORIGINS[name]
        assert finding.check == "non_finite" and finding.evidence is not None
        seen = dict(finding.evidence["rows"])
        assert (seen["kind"], seen["module"]) == (kind, module), finding.summary
        assert module in finding.summary
    for module in models[0].modules():  # the probes and the search for the origin leave nothing behind
        assert not module._forward_hooks and not module._forward_pre_hooks
