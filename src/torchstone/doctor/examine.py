"""The examination before training: every check in turn, timed, its findings sorted.

A check that does not apply says why and is skipped; one that fails on something it did not expect is skipped too, and says what it was: a
doctor that dies of one odd data set helps nobody.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from torchstone.core import layout, ranks, tree
from torchstone.core.errors import Interrupted, UserError
from torchstone.core.parts import hint
from torchstone.doctor.before import CHECKS, Check, Patient, Skip, leaving_out
from torchstone.doctor.finding import Checked, Examination, Finding, ordered
from torchstone.experiment import Experiment, choose_device, prepare, threads_restored
from torchstone.experiment.keepsakes import Album

BUDGET = 60.0
"""Seconds of a whole examination. What is left when it is spent is skipped; no small trainings are begun in the last of it."""
TRAINS = ("overfit_one_batch", "baselines", "batch_norm", "label_shuffle", "augmentation")
"""Checks that train: several seconds each."""
RESERVE = 8.0


def examine(
    experiment: Experiment,
    *edits: str,
    only: Sequence[str] = (),
    model: nn.Module | None = None,
    out: Path | None = None,
    files: dict[str, bytes] | None = None,
    budget: float = BUDGET,
) -> Examination:
    """Runs the checks before training on the experiment's data and a copy of its model.

    `only`: names of checks; `model`: a network of your own in place of the experiment's (it is copied); `files` receives what belongs
    beside the findings (path -> content): pictures of the evidence, and the list of samples that remedies leave out, which they expect in
    the folder `out`; `budget`: seconds in all, beyond 60 the small trainings get more of them too.
    Raises UserError for an unknown check, and for what `prepare` refuses.
    """
    checks = chosen(only)
    started = perf_counter()
    asked = tree.edit(experiment, edits)
    quiet = [] if asked.run.speed != "auto" else ["run.speed=plain"]
    with ranks.joined(torch.device(choose_device(asked.run.device))), threads_restored():
        prepared = prepare(asked, *quiet, must_fit=False)
        torch.set_num_threads(prepared.experiment.run.threads or 1)
        if model is not None:
            prepared = replace(prepared, model=model)
        patient = Patient(prepared=prepared, asked=asked, own_model=model is not None, patience=max(1.0, budget / BUDGET))
        if files is not None:
            patient.album, patient.out = Album(prepared), out
        findings: list[Finding] = []
        done: list[Checked] = []
        for check in checks:
            found, checked = one(check, patient, budget - (perf_counter() - started))
            findings += found
            done.append(checked)
        if files is not None and patient.album is not None:
            files.update({f"{layout.PICTURES}/{name}": content for name, content in patient.album.files.items()})
            if (listed := leaving_out.document(patient)) is not None:
                files[leaving_out.FILE] = listed.encode()
    return Examination(findings=ordered(findings), checks=tuple(done), seconds=perf_counter() - started)


def one(check: Check, patient: Patient, left: float) -> tuple[list[Finding], Checked]:
    """A check, timed; its remedies are edits that the experiment takes."""
    started = perf_counter()
    if left < (RESERVE if check.name in TRAINS else 0.0):
        return [], Checked(check=check.name, outcome="skipped", why="the time of the examination is spent")
    try:
        seen = check.run(patient)
    except Skip as skip:
        return [], Checked(check=check.name, outcome="skipped", why=str(skip), seconds=perf_counter() - started)
    except (Interrupted, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        why = f"could not be run ({type(error).__name__}: {error})".replace("\n", " ")[:300]
        return [], Checked(check=check.name, outcome="skipped", why=why, seconds=perf_counter() - started)
    found = [replace(finding, remedy=pastable(patient, finding.remedy)) for finding in seen.findings]
    checked = Checked(
        check=check.name,
        outcome="found" if found else "passed",
        value=seen.value,
        threshold=seen.threshold,
        why=seen.said,
        seconds=perf_counter() - started,
    )
    return found, checked


def pastable(patient: Patient, remedy: tuple[str, ...]) -> tuple[str, ...]:
    """The remedy as edits of the experiment that was asked about: where its loss is the task's default, it is named first."""
    if not remedy or (patient.own_model and any(edit.startswith("model.") for edit in remedy)):
        return ()
    if patient.asked.method.loss is None and any(edit.startswith("method.loss.") for edit in remedy):
        remedy = (f"method.loss={tree.kind_of(patient.method.objective)}", *remedy)
    try:
        tree.edit(patient.asked, remedy)
    except UserError:
        return ()
    return remedy


def chosen(only: Sequence[str]) -> tuple[Check, ...]:
    """The checks of these names; all where none is named."""
    known = {check.name: check for check in CHECKS}
    for name in only:
        if name not in known:
            raise UserError(f"--only: there is no check {name!r}{hint(name, known)}")
    return tuple(check for check in CHECKS if not only or check.name in only)
