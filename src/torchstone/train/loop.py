"""The loop: epochs of the plan, a step for every update, and at fixed steps an evaluation and a checkpoint."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from torchstone import data
from torchstone.core import random, ranks
from torchstone.core.errors import UserError, WorkError
from torchstone.core.precision import autocast
from torchstone.core.protocols import (
    Batch,
    Evaluation,
    Inside,
    InsideTracker,
    Metric,
    MovingGroups,
    PyTree,
    Split,
    Splits,
    StepReport,
    Tracker,
)
from torchstone.losses.targets import OutsideClasses
from torchstone.train import batch_norm, checkpoint, origin
from torchstone.train.build import streams
from torchstone.train.evaluate import evaluate
from torchstone.train.method import Method, has_own_average, mixed_rows
from torchstone.train.plan import Plan
from torchstone.train.settings import Run
from torchstone.train.signals import Request
from torchstone.train.state import Best, TrainState
from torchstone.train.step import Setting, only_pads, train_step, transformed


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A training as prepared: nothing in it changes while it runs."""

    method: Method
    run: Run
    splits: Splits
    task: Any = None
    """Says how outputs are made with the model (`forward`), where that is not one call."""
    metrics: Sequence[Metric]
    selection: tuple[str, str]
    """The metric that says which evaluation is best, and whether "max" or "min" is better."""
    device: torch.device
    folder: Path
    facts: dict[str, Any]
    """Stored with every checkpoint: exactness key, data fingerprint, digest of the tree."""

    @property
    def plan(self) -> Plan:
        return Plan(
            samples=len(self.splits.train),
            batch_size=self.run.batch_size,
            microbatch_size=self.run.microbatch_size,
            world=ranks.world(),
            group=mixed_rows(self.method),
        )

    @property
    def total(self) -> int:
        """Updates of the whole run."""
        return self.run.total(self.plan.updates)

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Updates after which a checkpoint is kept as a snapshot."""
        return self.run.snapshot_steps(self.total)

    @property
    def evaluate_every(self) -> int:
        return self.run.evaluate_every or self.plan.updates

    @property
    def setting(self) -> Setting:
        return Setting(
            seed=self.run.seed,
            noise=random.key(self.run.seed, "model"),
            total=self.total,
            epoch=self.plan.updates,
            batch_size=self.run.batch_size,
            gradient=random.key(self.run.seed, "gradient"),
            streams=streams(self.method),
            precision=self.run.precision,
            memory_format=self.run.memory_format,
            moving_groups=isinstance(self.method.groups, MovingGroups),
            group=mixed_rows(self.method),
        )


def fit(job: Job, state: TrainState, trackers: Sequence[Tracker], request: Request) -> str:
    """Trains from wherever `state` stands to the end, and says how it ended: "done", "stopped", "diverged" or "interrupted".

    Every end but divergence leaves a checkpoint of the last step. Raises OSError when one cannot be written: those before it are whole.
    """
    setting, started = job.setting, perf_counter() - state.seconds
    total, every, snapshots = job.total, job.evaluate_every, set(job.snapshots)
    if state.ending is not None or state.step >= total:
        state.ending = state.ending or "done"
        return _status(state.ending)
    looking = [tracker for tracker in trackers if isinstance(tracker, InsideTracker)]
    for tracker in looking:
        tracker.inside(inside(job, state))
    for epoch, microbatches, waited in timed(updates(job, state.step)):
        for tracker in looking:
            tracker.before(state.step + 1, waited)
        try:
            report = train_step(state, microbatches, job.method, setting, epoch)
        except OutsideClasses as error:
            raise in_the_split(error, microbatches) from error
        for tracker in trackers:
            tracker.step(report)
        state.seconds = perf_counter() - started
        ending = "done" if state.step == total else why_end(job, state, report, request)
        due = state.step % every == 0 or state.step in snapshots
        if due or ending:
            state.guard.read()
        if state.guard.tripped_at is not None:
            found = where_from(job, state, state.guard.tripped_at)
            for tracker in looking:
                tracker.diverged(state.guard.tripped_at + 1, found)
            return "diverged"
        if not (due or ending):
            continue
        write_own_average(job.method, state)
        if due or ending != "interrupted":
            look(job, state, trackers)
            if ending in (None, "interrupted"):  # what a stop makes of the evaluation counts, whatever else arrived
                ending = why_end(job, state, report, request) or ending
        state.seconds = perf_counter() - started
        state.ending = None if ending == "interrupted" else ending
        for tracker in trackers:
            tracker.sync()
        save(job, state)
        if ending:
            return _status(ending)
    raise AssertionError("the plan ended before the total number of steps")


def inside(job: Job, state: TrainState) -> Inside:
    """What trackers that look inside are given."""
    return Inside(state.model, state.parameters, lambda: None if state.scale is None else state.scale.scale, job.run.compile)


def timed(batches: Iterator[tuple[int, list[Batch]]]) -> Iterator[tuple[int, list[Batch], float]]:
    """Each with the seconds it was waited for."""
    asked = perf_counter()
    for epoch, microbatches in batches:
        yield epoch, microbatches, perf_counter() - asked
        asked = perf_counter()


def where_from(job: Job, state: TrainState, step: int) -> dict[str, Any]:
    """What made step `step` (counted from 0) not finite: its micro-batches once more, as they were, and the weights that met them."""
    setting = job.setting
    epoch, microbatches = next(updates(job, step))
    return origin.find(state, transformed(microbatches, job.method, setting, epoch), job.method, setting, step)


def in_the_split(error: OutsideClasses, microbatches: Sequence[Batch]) -> UserError:
    """The error about a target with the sample's own number in place of its row in the batch."""
    for batch in microbatches:
        target = batch.target if isinstance(batch.target, torch.Tensor) else torch.empty(0)
        places = (target == error.found).nonzero()
        if len(places):
            sample, last = int(batch.index[places[0, 0]]), error.classes - 1
            return UserError(f"the target of training sample {sample} is class {error.found}; the outputs have classes 0 to {last}")
    return error


def updates(job: Job, step: int) -> Iterator[tuple[int, list[Batch]]]:
    """(epoch, this rank's micro-batches) of every update from `step` to the total."""
    plan, total = job.plan, job.total
    while step < total:
        epoch, start = divmod(step, plan.updates)
        order = job.method.sampler(job.splits.train, random.key(job.run.seed, "sampler", epoch))
        batches = data.load(
            job.splits.train,
            plan.rows(order, ranks.rank(), start),
            sample_transforms=job.method.sample_transforms,
            key=random.key(job.run.seed, "samples", epoch),
            workers=job.run.workers,
            device=job.device,
        )
        for microbatches in batches:
            yield epoch, microbatches
            step += 1
            if step == total:
                return


def why_end(job: Job, state: TrainState, report: StepReport, request: Request) -> str | None:
    """The reason to end after this step, or None: decided alike on all ranks."""
    if job.method.stop is not None:
        state.history.loss = float(report.loss)
        reason = job.method.stop(state.history)
        if reason is not None:
            return reason
    over = job.run.max_seconds is not None and state.seconds >= job.run.max_seconds
    asked, over = ranks.any_of(request.signal is not None, over)
    if asked:
        return "interrupted"
    return f"the budget of {job.run.max_seconds:g} s is spent" if over else None


def look(job: Job, state: TrainState, trackers: Sequence[Tracker]) -> None:
    """Evaluates on the validation split, unless this step already has been, and remembers the best."""
    history = state.history
    if history.evaluations and history.evaluations[-1].step == state.step:
        return
    refresh_batch_norm(job, state)
    result = score(job, state, job.splits.validation)
    state.looked = state.step, result
    evaluation = Evaluation(state.step, {name: value for name, value in result.items() if isinstance(value, int | float)})
    history.evaluations.append(evaluation)
    name, mode = job.selection
    value = evaluation.metrics[name]
    if not math.isnan(value) and (state.best is None or (value > state.best.value if mode == "max" else value < state.best.value)):
        state.best = Best(state.step, value)
    for tracker in trackers:
        tracker.evaluation(evaluation)


def write_own_average(method: Method, state: TrainState) -> None:
    """The evaluation weights of an optimizer that has its own, into the second model: for whoever looks at them next."""
    if state.average is not None and has_own_average(method.optimizer):
        method.optimizer.evaluation_weights(state.average, state.parameters, state.optimizer)  # type: ignore[union-attr]


def refresh_batch_norm(job: Job, state: TrainState) -> None:
    """Computes the average's batch-norm statistics anew, where the averaging or the optimizer asks for it."""
    if state.average is not None and batch_norm.wanted(job.method.averaging, job.method.optimizer):
        recompute_batch_norm(job, state, state.average.module)


def recompute_batch_norm(job: Job, state: TrainState, module: nn.Module) -> None:
    """Batch-norm statistics of a copy of the trained model, on the batches of the first epoch as the step sees them, so that nothing but
    its weights decides what comes out."""
    setting = job.setting
    first = islice(updates(job, 0), min(batch_norm.BATCHES, setting.epoch))

    def forward(inputs: PyTree) -> PyTree:
        with autocast(setting.precision, state.device):
            return module(inputs)

    batches = (transformed(microbatches, job.method, setting, epoch) for epoch, microbatches in first)
    batch_norm.recompute(module, state.model, batches, forward, padding=lambda batch: ranks.world() > 1 and only_pads(batch, setting))


def score(job: Job, state: TrainState, split: Split, keep: list[Any] | None = None) -> dict[str, Any]:
    """All metrics of the evaluated weights on a split; `keep` as in `evaluate`."""
    return evaluate(
        state.evaluated,
        split,
        forward=getattr(job.task, "forward", None),
        loss=job.method.objective,
        loss_memory=state.memory.get("loss"),
        metrics=job.metrics,
        device=job.device,
        batch_size=job.run.evaluation_batch_size,
        precision=job.run.precision,
        memory_format=job.run.memory_format,
        sample_transforms=job.method.sample_transforms,
        batch_transforms=job.method.batch_transforms,
        workers=job.run.workers,
        keep=keep,
    )


def save(job: Job, state: TrainState) -> None:
    """A checkpoint by the main rank; the others wait until it is whole."""
    problem = ""
    if ranks.is_main():
        try:
            checkpoint.save(state, job.folder, keep=job.run.keep, facts=job.facts, snapshots=job.snapshots)
        except OSError as error:
            problem = f"{error.strerror or error}"
    problem = ranks.broadcast_object(problem)
    if problem:
        raise WorkError(
            f"{job.folder}: the checkpoint of step {state.step} could not be written ({problem}); the one before it is whole: "
            "free some space and --resume"
        )


def _status(ending: str) -> str:
    return ending if ending in ("done", "interrupted") else "stopped"
