"""A prepared experiment trained in its run folder: made, held, filled, and gone on with after an interruption."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from torchstone import profile
from torchstone.core import files, layout, ranks, tree
from torchstone.core.errors import Interrupted, UserError, WorkError, clean, warn
from torchstone.core.json_text import to_json
from torchstone.core.lock import Lock
from torchstone.core.protocols import Facts, ImageShape, MovingGroups
from torchstone.data.steady import steady
from torchstone.experiment.group_table import group_lines, group_table
from torchstone.experiment.keepsakes import keep
from torchstone.experiment.memory import microbatch_that_fits
from torchstone.experiment.preparing import Prepared, choose_device, prepare, threads_restored
from torchstone.experiment.tree import Experiment, load_without_own_parts
from torchstone.train import checkpoint, folder, results
from torchstone.train.build import build_state
from torchstone.train.environment import environment
from torchstone.train.exactness import differences, exactness_key
from torchstone.train.loop import Job, fit
from torchstone.train.method import averages
from torchstone.train.results import finish
from torchstone.train.settings import Run
from torchstone.train.signals import Request, listening
from torchstone.train.state import TrainState


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a training leaves."""

    folder: Path
    status: str
    metrics: dict[str, Any]
    """The document of metrics.json."""


def train_experiment(
    experiment: Experiment,
    *edits: str,
    out: str | Path | None = None,
    recipe: str = "",
    resume: bool = False,
    report: Callable[[Path], object] | None = None,
    divided: Callable[[Experiment], Experiment] = lambda experiment: experiment,
) -> Trained:
    """Trains in a new run folder: `out`, or one under runs/<recipe>/. With `resume`, goes on with the run in `out`, from 0 if it has
    no checkpoint yet. `report`, if given, draws the run's page when it is over, however it ended.
    `divided` is done to the experiment after the edits (`experiment.folds`).

    Raises UserError before anything is written when the input is wrong, WorkError when the work fails (it diverged, the disk is full),
    Interrupted after a checkpoint when a signal asked for the end.
    """
    plain = experiment
    experiment = divided(tree.edit(experiment, edits))
    place = None if out is None else Path(out)
    going_on = resume and place is not None and place.exists()
    with ranks.joined(torch.device(choose_device(experiment.run.device))), threads_restored():
        if place is not None and going_on:
            experiment = with_measured_speed(experiment, place)
        with starting(place if going_on else None):
            prepared = prepare(experiment, fresh=place is None or not (going_on and checkpoint.by_age(place)))
            origin = {"recipe": recipe, "edits": changes(plain, experiment)}
            experiment = prepared.experiment
            torch.set_num_threads(experiment.run.threads or 1)
            where = require_same(place, prepared) if place is not None and going_on else make_folder(place, recipe, prepared, origin)
        held = Lock(where) if ranks.is_main() else nullcontext()
        with held, listening() as request, torch.random.fork_rng(devices=[]):
            if going_on and over(where, prepared):
                if ranks.is_main():
                    print(f"{where}: the run is finished already", file=sys.stderr)
                metrics = folder.read_json(where / layout.METRICS)
                return Trained(folder=where, status=metrics["status"], metrics=metrics)
            if ranks.is_main():
                announce(prepared)
            try:
                return work(prepared, where, request, report)
            except OSError as error:
                raise WorkError(f"{where}: {error}; what was saved before is whole: mend it and --resume") from error


@contextmanager
def starting(place: Path | None) -> Iterator[None]:
    """An interruption before the first step says what it leaves. `place`: a run that was to go on."""
    try:
        yield
    except KeyboardInterrupt:
        left = f"{place} is as it was" if place is not None else "no run folder was made yet"
        message = f"interrupted while getting ready: {left}, and pictures decoded so far stay in the cache; start again as before"
        raise Interrupted(signal.SIGINT, message) from None


def work(prepared: Prepared, where: Path, request: Request, report: Callable[[Path], object] | None = None) -> Trained:
    """Trains in the run folder `where`, which this process holds, from its newest good checkpoint or from 0."""
    run, method = prepared.experiment.run, prepared.experiment.method
    state = build_state(prepared.model, method, run, prepared.device)
    facts = {"exactness": exactness_key(run, prepared.device), "fingerprint": prepared.facts.fingerprint}
    job = prepared.job(where, facts)
    if ranks.is_main():
        for place in (where, where / layout.CHECKPOINTS):
            files.remove_partial(place)
        require_space(where, state)
    trackers = [part.open(where) for part in run.trackers] if ranks.is_main() else []
    try:
        resume_state(state, job)
        for tracker in trackers:
            tracker.rewind(state.step)
            tracker.start({"total": job.total, "step": state.step, "folder": str(where)})
        status = fit(job, state, trackers, request)
        size = {"parameters": profile.parameters(state.model)["total"], "macs": prepared.macs}
        job = settled(prepared, job, state, status)
        metrics = finish(job, state, status, size, partial(keep, prepared, where, job.task))
    except torch.OutOfMemoryError as error:
        raise WorkError(out_of_memory(prepared, job, state)) from error
    finally:
        for tracker in trackers:
            tracker.close()
    if report is not None and ranks.is_main():
        report(where)
    if status == "interrupted":
        raise Interrupted(request.signal or signal.SIGTERM, f"interrupted at step {state.step}; --out {where} --resume goes on from there")
    if status == "diverged":
        raise WorkError(diverged(where, state), "try a smaller method.optimizer.lr or gradient_transforms=[clip_by_norm]")
    return Trained(folder=where, status=status, metrics=metrics)


def settled(prepared: Prepared, job: Job, state: TrainState, status: str) -> Job:
    """The job with what its task fits when training is over, which prediction finds in artifact.json."""
    job = results.settled(job, state, status)
    if ranks.is_main() and job.task != prepared.experiment.task:
        after = replace(prepared, experiment=replace(prepared.experiment, task=job.task))
        files.write_text(job.folder / layout.ARTIFACT, to_json(artifact(after), indent=2) + "\n")
    return job


def out_of_memory(prepared: Prepared, job: Job, state: TrainState) -> str:
    """One line: the micro-batch that fits on the accelerator, and keeps the batch."""
    state.parameters.zero_grad()
    total = torch.cuda.mem_get_info(prepared.device)[1]
    fits = microbatch_that_fits(job, prepared.model, prepared.inputs, int(0.95 * total))
    size = f"run.microbatch_size={fits} fits and" if fits else "a smaller run.microbatch_size"
    return f"{job.folder}: the accelerator is out of memory at a batch of {job.run.batch_size}; {size} keeps the batch by accumulation"


def announce(prepared: Prepared) -> None:
    """What a person wants to know before it starts: the data, their split, and what was decided."""
    for line in [
        *described(prepared.facts),
        *group_lines(prepared),
        *chosen_lines(prepared),
        *plan_lines(prepared),
        *speed_lines(prepared),
    ]:
        print(" ".join(clean(line).split()), file=sys.stderr)


def described(facts: Facts) -> list[str]:
    """The data in words, a line each."""
    counts = [f"{name} {count}" for name, count in zip(facts.classes, facts.class_counts, strict=False)]
    shown = ", ".join(counts[:20]) + (", …" if len(counts) > 20 else "")
    lines = ["data: " + ", ".join(f"{name} {count}" for name, count in facts.sizes)]
    lines += [f"data: {sentence}" for sentence in facts.split_rule.split("; ") if sentence]
    if facts.classes:
        lines.append(f"classes: {len(facts.classes)}, training samples of each: {shown}")
    return lines + [f"data: {count} {what.replace('pictures', 'picture') if count == 1 else what}" for what, count in facts.notes]


def chosen_lines(prepared: Prepared) -> list[str]:
    """What of the model the data have decided."""
    inputs = prepared.facts.inputs
    of = f" for pictures of {inputs.height} x {inputs.width}" if isinstance(inputs, ImageShape) else ""
    return [f"model: {' '.join(prepared.chosen)} chosen{of}; an edit sets another"] if prepared.chosen else []


def plan_lines(prepared: Prepared) -> list[str]:
    """What the groups say of the phases of a run, where they have any."""
    method, total = prepared.experiment.method, prepared.job(Path(), {}).total
    if not isinstance(method.groups, MovingGroups):
        return []
    return [f"plan: {line}" for line in method.groups.plan(method.optimizer.lr, total)]


def speed_lines(prepared: Prepared) -> list[str]:
    """The table of the speed trial."""
    if prepared.trial is None:
        return []
    rows = [
        f"speed: {row.precision} {row.memory_format}{' compiled' if row.compile else ''} threads {row.threads}: "
        f"{row.seconds_per_step * 1e3:.1f} ms a step{' (chosen)' if row.chosen else ''}"
        for row in prepared.trial.rows
    ]
    return [*rows, f"speed: the trial took {prepared.trial.seconds:.1f} s"]


def changes(before: Experiment, after: Experiment) -> list[dict[str, str]]:
    """What the edits changed, as text."""
    return [{"path": path, "before": str(old), "after": str(new)} for path, old, new in tree.diff(before, after)]


def with_measured_speed(experiment: Experiment, place: Path) -> Experiment:
    """For a run to go on with: what `run.speed=auto` chose when it began, rather than another trial."""
    if experiment.run.speed != "auto":
        return experiment
    folder.require_run(place)
    then = load_without_own_parts(place / layout.EXPERIMENT, experiment)[0].run
    names = ("speed", "precision", "memory_format", "compile", "threads")
    return replace(experiment, run=replace(experiment.run, **{name: getattr(then, name) for name in names}))


def require_space(where: Path, state: TrainState) -> None:
    """Raises WorkError when the disk cannot hold two checkpoints: better now than hours from now."""
    size = sum(tensor.nbytes for tensors in state.tensors().values() for tensor in tensors.values())
    free = files.free_bytes(where)
    if free < 2 * size:
        raise WorkError(f"{where}: a checkpoint takes {size / 1e6:.0f} MB and two must fit, but the disk has {free / 1e6:.0f} MB free")


def resume_state(state: TrainState, job: Job) -> None:
    """Puts the newest good checkpoint of the run into the state, if there is one.

    Raises UserError when the data are not those of the checkpoint. Another exactness key is a warning.
    """
    found = checkpoint.newest_good(job.folder)
    if found is None:
        return
    source, tensors, numbers = found
    then, now = numbers["fingerprint"][:12], job.facts["fingerprint"][:12]
    if then != now:
        raise UserError(f"{source}: the data have changed since this checkpoint (fingerprint {then}, now {now})")
    if changed := differences(numbers["exactness"], job.facts["exactness"]):
        warn(f"{job.folder}: resumed, but not bit-exactly: {'; '.join(changed)}")
    checkpoint.restore(state, tensors, numbers, source)
    if ranks.is_main():
        checkpoint.settle(state, job.folder, keep=job.run.keep, snapshots=job.snapshots)
    if state.ending == "done" and state.step < job.total:
        state.ending = None


def require_same(where: Path, prepared: Prepared) -> Path:
    """Refuses to go on with a run whose tree differs from this one in more than the settings that may change."""
    folder.require_run(where)
    stored, own = load_without_own_parts(where / layout.EXPERIMENT, prepared.experiment)
    free = (*Run.resumable, *(f"method.{seat}" for seat in own))  # whether a class of the user's own is what it was, only the user knows
    changed = [(path, old, new) for path, old, new in tree.diff(stored, prepared.experiment) if not path.startswith(free)]
    if changed:
        listed = "; ".join(f"{path}: {old} there, {new} here" for path, old, new in changed[:4])
        raise UserError(f"{where}: --resume with a changed experiment ({listed}); train it in a new folder, or take the change back")
    planned, total = (total_of(experiment.run, prepared) for experiment in (stored, prepared.experiment))
    if planned != total and checkpoint.by_age(where) and ranks.is_main():
        warn(
            f"{where}: resumed with {total} steps where {planned} were planned; the schedules now end at step {total}, "
            "so the result is not that of an uninterrupted run"
        )
    return where


def total_of(run: Run, prepared: Prepared) -> int:
    """Updates of a whole run on these data."""
    return run.total(-(-len(prepared.splits.train) // run.batch_size))


def over(where: Path, prepared: Prepared) -> bool:
    """Whether the run in `where` has come to its end and this experiment asks for no more steps."""
    status = folder.finished(where)
    total = total_of(prepared.experiment.run, prepared)
    return status == "stopped" or (status == "done" and folder.read_json(where / layout.METRICS).get("steps", 0) >= total)


def make_folder(out: Path | None, recipe: str, prepared: Prepared, origin: dict[str, Any]) -> Path:
    """A new run folder, made by the main rank: everything in it that is known before training."""
    made, problem = "", ""
    if ranks.is_main():
        try:
            made = str(
                folder.create(
                    out, Path("runs") / (recipe or "python") / prepared.experiment.run.name, contents(prepared, origin)
                ).absolute()
            )
        except UserError as error:
            problem = str(error)
    made, problem = ranks.broadcast_object([made, problem])
    if problem:
        raise UserError(problem)
    return Path(made)


def contents(prepared: Prepared, origin: dict[str, Any]) -> dict[str, str]:
    """The files a run folder starts with. `origin`: the recipe, and what was edited in it."""
    experiment = prepared.experiment
    facts = {
        **environment(),
        **origin,
        "data": prepared.facts.fingerprint,
        "notes": [list(note) for note in prepared.facts.notes],
        "groups": group_table(prepared),
        "speed": None if prepared.trial is None else prepared.trial.document(),
    }
    return {
        layout.EXPERIMENT: tree.to_toml(experiment),
        layout.ENVIRONMENT: to_json(facts, indent=2) + "\n",
        layout.ARTIFACT: to_json(artifact(prepared), indent=2) + "\n",
    }


def artifact(prepared: Prepared) -> dict[str, Any]:
    """What eval, predict, export and serve build from, with the weights: no training part is needed to read it."""
    experiment = prepared.experiment
    model = getattr(experiment.model, "architecture", experiment.model)  # what is built; where first weights came from is history
    return {
        "version": layout.VERSION,
        "task": tree.encode(experiment.task) | {"kind": tree.kind_of(experiment.task)},
        "model": tree.encode(model) | {"kind": tree.kind_of(model)},
        "facts": tree.encode(prepared.facts),
        "preprocess": {
            "sample": [tree.encode(t) | {"kind": tree.kind_of(t)} for t in steady(experiment.method.sample_transforms)],
            "fit": getattr(experiment.data, "fit", "stretch"),
            "batch": [tree.encode(t) | {"kind": tree.kind_of(t)} for t in steady(experiment.method.batch_transforms)],
        },
        "transforms": [
            tree.encode(t) | {"kind": tree.kind_of(t)} for t in experiment.method.model_transforms if getattr(t, "shipped", False)
        ],
        "precision": experiment.run.precision,
        "memory_format": experiment.run.memory_format,
        "batch_size": experiment.run.evaluation_batch_size,
        "threads": experiment.run.threads,
        "weights": {"checkpoint": experiment.run.select, "file": "average" if averages(experiment.method) else "model"},
    }


def diverged(where: Path, state: TrainState) -> str:
    """One line: where it happened, what is safe."""
    good = checkpoint.by_age(where)
    kept = f"the last good checkpoint is {good[0]}" if good else "there is no checkpoint yet"
    return f"{where}: diverged at step {state.guard.tripped_at}: the loss or its gradient is not finite; no update was made from it; {kept}"
