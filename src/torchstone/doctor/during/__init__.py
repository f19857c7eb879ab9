"""The doctor's judgment of a run, during it or after: from its files alone.

`depth`    what the probes saw of gradients, updates, activations and weights by depth
`curves`   what the training and validation losses say
`runs`     what only two runs can show
`linear`   the linear model that a run should beat, computed from the data on demand
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

from torchstone.doctor.during import curves, depth
from torchstone.doctor.during.runs import degradation
from torchstone.doctor.during.verdict import Verdict
from torchstone.doctor.during.watched import Watched
from torchstone.doctor.finding import Checked, Examination, Finding, ordered

__all__ = ["judge"]


def judge(run: Path, *, beside: Sequence[Path] = (), linear: bool = False) -> Examination:
    """What is wrong with a run. `beside`: runs of other depths on the same data to compare it with; `linear`: fit a linear model on the
    run's data, which the network should beat (opens the data; a second or two).

    Reads files only. Raises UserError for a folder that is no run, or whose files cannot be read.
    """
    watched = Watched(Path(run))
    checks: list[Callable[[], Verdict]] = [partial(check, watched) for check in (*depth.CHECKS, *curves.CHECKS)]
    checks.append(partial(against_linear if linear else curves.underfit, watched))
    checks += [partial(degradation, watched, Watched(Path(other))) for other in beside]
    done: list[Checked] = []
    findings: list[Finding] = []
    started = perf_counter()
    for check in checks:
        begun = perf_counter()
        checked, finding = check()
        done.append(replace(checked, seconds=perf_counter() - begun))
        findings += [] if finding is None else [finding]
    return Examination(findings=ordered(findings), checks=tuple(done), seconds=perf_counter() - started)


def against_linear(run: Watched) -> Verdict:
    from torchstone.doctor.during.linear import linear_loss

    return curves.underfit(run, linear_loss(run.folder))
