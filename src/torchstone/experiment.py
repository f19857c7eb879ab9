"""The experiment: the frozen tree that says everything about one training, and what becomes of it.

`prepare` opens the data and fills in what depends on them; `train_experiment` runs the result in a run folder.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from torchstone import data, models, profile, tasks
from torchstone.core import files, layout, protocols, random, ranks, tree
from torchstone.core.errors import Interrupted, UserError, WorkError, warn
from torchstone.core.json_text import to_json
from torchstone.core.lock import Lock
from torchstone.core.protocols import Facts, Splits
from torchstone.data.loader import Samples
from torchstone.train import checkpoint, folder
from torchstone.train.build import blocks_of, build_state
from torchstone.train.environment import environment
from torchstone.train.exactness import differences, exactness_key
from torchstone.train.loop import Job, fit
from torchstone.train.method import Method, check, couples, mixed_rows
from torchstone.train.plan import Plan
from torchstone.train.results import finish
from torchstone.train.settings import Run
from torchstone.train.signals import Request, listening
from torchstone.train.state import TrainState

THREADS_PAY_FROM = 25e6
"""Multiply-accumulates of a step (50 MFLOP) below which a second CPU thread costs more than it brings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """Everything about one training."""

    data: data.Source | protocols.Source
    """Where the samples come from."""
    task: tasks.Task
    """What outputs mean."""
    model: models.Model
    """What is trained."""
    method: Method = Method()
    """How it learns."""
    run: Run = Run()
    """How long, on what, how exactly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An experiment that has met its data: nothing on disk yet."""

    experiment: Experiment
    """Resolved: every number that comes from the data or the machine is written in."""
    splits: Splits
    model: nn.Module
    """Freshly initialized from the run's seed, on the CPU."""
    device: torch.device
    macs: int
    """Multiply-accumulates of one sample's forward pass."""

    @property
    def facts(self) -> Facts:
        return self.splits.facts

    def job(self, folder: Path, facts: dict[str, Any]) -> Job:
        """This training in a run folder; `facts` go into every checkpoint."""
        task = self.experiment.task
        return Job(
            method=self.experiment.method,
            run=self.experiment.run,
            splits=self.splits,
            metrics=task.metrics(self.facts),
            selection=task.selection,
            device=self.device,
            folder=folder,
            facts=facts,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a training leaves."""

    folder: Path
    status: str
    metrics: dict[str, Any]
    """The document of metrics.json."""


def prepare(experiment: Experiment, *edits: str) -> Prepared:
    """Applies the edits, opens the data, and fills in what depends on them and on the machine.

    Raises UserError for anything in the experiment or its data that cannot be trained.
    """
    experiment = tree.edit(experiment, edits)
    splits = experiment.data.open()
    facts = reshaped(splits.facts, experiment.method)
    splits = replace(splits, facts=facts)
    experiment.task.accepts(facts)
    experiment = resolved(experiment, facts)
    check(experiment.method)
    check_batches(experiment, len(splits.train))
    model = build_model(experiment, facts)
    check_model(model, experiment.run)
    macs = profile.macs(model, Samples(splits.train, experiment.method.sample_transforms, 0).whole(np.zeros(1, dtype=np.int64))[0])
    if experiment.run.threads is None:
        pays = 3 * macs * experiment.run.batch_size >= THREADS_PAY_FROM
        experiment = with_run(experiment, threads=available_cores() if pays else 1)
    return Prepared(experiment=experiment, splits=splits, model=model, device=torch.device(experiment.run.device), macs=macs)


def train_experiment(experiment: Experiment, *edits: str, out: str | Path | None = None, recipe: str = "", resume: bool = False) -> Trained:
    """Trains in a new run folder: `out`, or one under runs/<recipe>/. With `resume`, goes on with the run in `out`, from 0 if it has
    no checkpoint yet.

    Raises UserError before anything is written when the input is wrong, WorkError when the work fails (it diverged, the disk is full),
    Interrupted after a checkpoint when a signal asked for the end.
    """
    experiment = tree.edit(experiment, edits)
    with ranks.joined(torch.device(choose_device(experiment.run.device))), threads_restored():
        prepared = prepare(experiment)
        experiment = prepared.experiment
        torch.set_num_threads(experiment.run.threads or 1)
        place = None if out is None else Path(out)
        going_on = resume and place is not None and place.exists()
        where = require_same(place, prepared) if place is not None and going_on else make_folder(place, recipe, prepared)
        held = Lock(where) if ranks.is_main() else nullcontext()
        with held, listening() as request, torch.random.fork_rng(devices=[]):
            if going_on and over(where, prepared):
                if ranks.is_main():
                    print(f"{where}: the run is finished already", file=sys.stderr)
                metrics = folder.read_json(where / layout.METRICS)
                return Trained(folder=where, status=metrics["status"], metrics=metrics)
            try:
                return work(prepared, where, request)
            except OSError as error:
                raise WorkError(f"{where}: {error}; what was saved before is whole: mend it and --resume") from error


def work(prepared: Prepared, where: Path, request: Request) -> Trained:
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
        metrics = finish(job, state, status, size)
    finally:
        for tracker in trackers:
            tracker.close()
    if status == "interrupted":
        raise Interrupted(request.signal or signal.SIGTERM, f"interrupted at step {state.step}; --out {where} --resume goes on from there")
    if status == "diverged":
        raise WorkError(diverged(where, state))
    return Trained(folder=where, status=status, metrics=metrics)


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
        checkpoint.settle(state, job.folder, keep=job.run.keep)
    if state.ending == "done" and state.step < job.total:
        state.ending = None
        warn(
            f"{job.folder}: resumed with more steps than before; the schedules now end at step {job.total}, "
            "so the result is not that of an uninterrupted run"
        )


def require_same(where: Path, prepared: Prepared) -> Path:
    """Refuses to go on with a run whose tree differs from this one in more than the settings that may change."""
    folder.require_run(where)
    stored = load_experiment(where / layout.EXPERIMENT)
    changed = [(path, old, new) for path, old, new in tree.diff(stored, prepared.experiment) if not path.startswith(Run.resumable)]
    if changed:
        listed = "; ".join(f"{path}: {old} there, {new} here" for path, old, new in changed[:4])
        raise UserError(f"{where}: --resume with a changed experiment ({listed}); train it in a new folder, or take the change back")
    return where


def over(where: Path, prepared: Prepared) -> bool:
    """Whether the run in `where` has come to its end and this experiment asks for no more steps."""
    status = folder.finished(where)
    run = prepared.experiment.run
    total = run.total(-(-len(prepared.splits.train) // run.batch_size))
    return status == "stopped" or (status == "done" and folder.read_json(where / layout.METRICS).get("steps", 0) >= total)


def make_folder(out: Path | None, recipe: str, prepared: Prepared) -> Path:
    """A new run folder, made by the main rank: everything in it that is known before training."""
    made, problem = "", ""
    if ranks.is_main():
        try:
            made = str(
                folder.create(out, Path("runs") / (recipe or "python") / prepared.experiment.run.name, contents(prepared)).absolute()
            )
        except UserError as error:
            problem = str(error)
    made, problem = ranks.broadcast_object([made, problem])
    if problem:
        raise UserError(problem)
    return Path(made)


def contents(prepared: Prepared) -> dict[str, str]:
    """The files a run folder starts with."""
    experiment = prepared.experiment
    return {
        layout.EXPERIMENT: tree.to_toml(experiment),
        layout.ENVIRONMENT: to_json({**environment(), "data": prepared.facts.fingerprint}, indent=2) + "\n",
        layout.ARTIFACT: to_json(artifact(prepared), indent=2) + "\n",
    }


def artifact(prepared: Prepared) -> dict[str, Any]:
    """What eval, predict, export and serve build from, with the weights: no training part is needed to read it."""
    experiment = prepared.experiment
    return {
        "version": layout.VERSION,
        "task": tree.encode(experiment.task) | {"kind": tree.kind_of(experiment.task)},
        "model": tree.encode(experiment.model) | {"kind": tree.kind_of(experiment.model)},
        "facts": tree.encode(prepared.facts),
        "preprocess": {
            "sample": [tree.encode(t) | {"kind": tree.kind_of(t)} for t in experiment.method.sample_transforms if not t.train_only],
            "batch": [tree.encode(t) | {"kind": tree.kind_of(t)} for t in experiment.method.batch_transforms if not t.train_only],
        },
        "precision": experiment.run.precision,
        "batch_size": experiment.run.evaluation_batch_size,
        "threads": experiment.run.threads,
        "weights": {"checkpoint": experiment.run.select, "file": "model" if experiment.method.averaging is None else "average"},
    }


def load_experiment(path: Path) -> Experiment:
    """The experiment that a TOML file says.

    Raises UserError naming the file and the place in it.
    """
    try:
        text = files.read_text(path, limit=1 << 20)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return tree.from_toml(Experiment, text, path)


# --- resolving -------------------------------------------------------------------------------------------------------


def resolved(experiment: Experiment, facts: Facts) -> Experiment:
    """Every number that comes from the data or the machine written in; the task's default loss where none is named."""
    if experiment.method.loss is None:
        experiment = replace(experiment, method=replace(experiment.method, loss=experiment.task.default_loss(facts)))
    experiment = replace(
        experiment, task=filled(experiment.task, facts), model=filled(experiment.model, facts), method=filled(experiment.method, facts)
    )
    return with_run(experiment, device=choose_device(experiment.run.device))


def reshaped(facts: Facts, method: Method) -> Facts:
    """The facts as the model meets the samples: after the sample transforms that every sample passes."""
    inputs = facts.inputs
    for transform in method.sample_transforms:
        inputs = getattr(transform, "reshape", lambda shape: shape)(inputs)
    return replace(facts, inputs=inputs)


def filled(part: Any, facts: Facts) -> Any:
    """The part with each `resolve(facts)` inside it done, innermost first."""
    if isinstance(part, tuple):
        return tuple(filled(each, facts) for each in part)
    if not is_dataclass(part) or isinstance(part, type):
        return part
    inner = {field.name: filled(getattr(part, field.name), facts) for field in fields(part) if field.init}
    part = replace(part, **inner)
    return part.resolve(facts) if hasattr(part, "resolve") else part


def with_run(experiment: Experiment, **changes: Any) -> Experiment:
    return replace(experiment, run=replace(experiment.run, **changes))


def choose_device(name: str) -> str:
    """As torch writes it; UserError for a device this machine does not have."""
    return str(ranks.device_named(name, "run.device="))


def build_model(experiment: Experiment, facts: Facts) -> nn.Module:
    """The network with its first weights, which depend on the run's seed alone.

    Raises UserError when the model does not take such data.
    """
    key = random.key(experiment.run.seed, "init")
    return models.build(experiment.model, facts.inputs, experiment.task.outputs(facts), key)


def check_model(model: nn.Module, run: Run) -> None:
    """Raises UserError for what the model cannot do, warns of what will not mean what it seems to."""
    if run.activation_checkpointing:
        blocks_of(model)
    share = -(-run.batch_size // ranks.world())
    if (run.microbatch_size or share) < share and any(isinstance(module, _BatchNorm) for module in model.modules()):
        warn(
            f"run.microbatch_size={run.microbatch_size} with batch norm: each micro-batch is normalized by itself, "
            "so accumulation is not the same as one large batch here"
        )


def check_batches(experiment: Experiment, samples: int) -> None:
    """Raises UserError when the batches asked for cannot be cut from the data."""
    run, method = experiment.run, experiment.method
    try:
        Plan(samples=samples, batch_size=run.batch_size, microbatch_size=run.microbatch_size, world=ranks.world(), group=mixed_rows(method))
    except ValueError as error:
        raise UserError(str(error)) from None
    share = -(-run.batch_size // ranks.world())
    if couples(method) and (ranks.world() > 1 or (run.microbatch_size or share) < share):
        raise UserError(
            f"method.loss={tree.kind_of(method.loss)} compares the samples of a whole batch: run it on one rank with microbatch_size=none"
        )
    if run.precision == "fp16" and run.device == "cpu":
        warn("run.precision=fp16 on a CPU is about a hundred times slower than bf16 or fp32")


def available_cores() -> int:
    """Cores this process may run on, shared out among the ranks of this machine; OMP_NUM_THREADS, where it is set, has the last word."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else max(1, len(os.sched_getaffinity(0)) // ranks.local_world())


@contextmanager
def threads_restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def diverged(where: Path, state: TrainState) -> str:
    """One line: where it happened, what is safe, what would do."""
    good = checkpoint.by_age(where)
    kept = f"the last good checkpoint is {good[0]}" if good else "there is no checkpoint yet"
    return (
        f"{where}: diverged at step {state.guard.tripped_at}: the loss or its gradient is not finite; no update was made from it; {kept}; "
        "try a smaller method.optimizer.lr or gradient_transforms=[clip_by_norm]"
    )
