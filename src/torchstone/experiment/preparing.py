"""From an experiment to what is trained: the data opened, and everything that depends on them or on the machine filled in.

Nothing is written to disk here (but the cache of decoded pictures, which belongs to the data).
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from torchstone import metrics, models, profile
from torchstone.core import random, ranks, tree
from torchstone.core.allocator import keep_freed_memory
from torchstone.core.errors import UserError, clean, warn
from torchstone.core.parts import hint
from torchstone.core.protocols import Batch, Facts, MadeFromData, PyTree, Splits
from torchstone.data.loader import Samples
from torchstone.data.ready import ready
from torchstone.data.steady import as_evaluated, steady
from torchstone.experiment import memory
from torchstone.experiment.tree import Experiment
from torchstone.losses.layouts import may_be_told, require_fit, tell_probabilities
from torchstone.nn import LSUV
from torchstone.train import speed
from torchstone.train.build import blocks_of
from torchstone.train.evaluate import evaluating
from torchstone.train.loop import Job
from torchstone.train.method import Method, check, check_length, couples, mixed_rows
from torchstone.train.plan import Plan
from torchstone.train.settings import Run
from torchstone.train.step import term_weights

FIRST_SAMPLES = 5000
"""Training samples that a layer made from data sees at most."""
THREADS_PAY_FROM = 25e6
"""Multiply-accumulates of a step (50 MFLOP) below which a second CPU thread costs more than it brings."""


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
    chosen: tuple[str, ...] = ()
    """Settings of the model that were left open and the data have decided, as edits."""
    trial: speed.Trial | None = None
    """What `run.speed=auto` measured."""

    @property
    def facts(self) -> Facts:
        return self.splits.facts

    @property
    def inputs(self) -> PyTree:
        """A few training samples as the model reads them."""
        return evaluation_inputs(self.experiment.method, self.splits, np.arange(memory.ROWS) % len(self.splits.train))

    def job(self, folder: Path, facts: dict[str, Any]) -> Job:
        """This training in a run folder; `facts` go into every checkpoint."""
        task = self.experiment.task
        return Job(
            method=self.experiment.method,
            run=self.experiment.run,
            splits=self.splits,
            task=task,
            metrics=task.metrics(self.facts),
            selection=task.selection,
            device=self.device,
            folder=folder,
            facts=facts,
        )


def prepare(experiment: Experiment, *edits: str, fresh: bool = True, must_fit: bool = True) -> Prepared:
    """Applies the edits, opens the data, and fills in what depends on them and on the machine. Not `fresh`: the weights come from a
    checkpoint, so no first ones are made from the data or read from a file. Not `must_fit`: a step larger than the free memory is no error.
    The process keeps its freed memory from here on.

    Raises UserError for anything in the experiment or its data that cannot be trained.
    """
    experiment = tree.edit(experiment, edits)
    if not experiment.run.device.startswith("cuda"):
        keep_freed_memory()
    splits = experiment.data.open()
    experiment = replace(experiment, data=filled(experiment.data, splits.facts))
    facts = reshaped(splits.facts, experiment.method)
    splits = replace(splits, facts=facts)
    experiment.task.accepts(facts)
    asked = experiment.model
    experiment = resolved(experiment, facts)
    check(experiment.method)
    require_fit(experiment.method.loss, experiment.task, experiment.method.model_transforms)
    check_batches(experiment, len(splits.train))
    model = build_model(experiment, splits, fresh)
    check_model(model, experiment.run, len(splits.train))
    if may_be_told(experiment.method.loss):
        tell_probabilities(experiment.method.loss, few_outputs(model, experiment.method, splits))
    check_watched(experiment, model, splits)
    macs = profile.macs(model, ready(evaluation_inputs(experiment.method, splits, np.zeros(1, dtype=np.int64)), "contiguous"))
    if experiment.run.threads is None:
        pays = 3 * macs * experiment.run.batch_size >= THREADS_PAY_FROM
        experiment = with_run(experiment, threads=available_cores() if pays else 1)
    prepared = Prepared(
        experiment=experiment,
        splits=splits,
        model=model,
        device=torch.device(experiment.run.device),
        macs=macs,
        chosen=decided(asked, experiment.model),
    )
    if must_fit:
        memory.check_memory(prepared.job(Path(), {}), model, prepared.inputs)
    return timed(prepared) if experiment.run.speed == "auto" else prepared


def timed(prepared: Prepared) -> Prepared:
    """The experiment with the settings that a short trial found fastest."""
    experiment = prepared.experiment

    def job(run: Run) -> Job:
        return replace(prepared, experiment=replace(experiment, run=run)).job(Path(), {})

    run, trial = speed.choose(prepared.model, experiment.run, prepared.device, job, available_cores())
    return replace(prepared, experiment=replace(experiment, run=run), trial=trial)


def resolved(experiment: Experiment, facts: Facts) -> Experiment:
    """Every number that comes from the data or the machine written in; the task's default loss where none is named."""
    if experiment.method.loss is None:
        experiment = replace(experiment, method=replace(experiment.method, loss=experiment.task.default_loss(facts)))
    experiment = replace(
        experiment,
        task=filled(experiment.task, facts),
        model=filled(experiment.model, facts),
        method=filled(experiment.method, facts),
    )
    return with_run(experiment, device=choose_device(experiment.run.device))


def decided(asked: Any, model: Any) -> tuple[str, ...]:
    """The edits that say what the data have put in place of none and auto."""
    changes = tree.diff(asked, model)
    return tuple(f"model.{path}={new}" for path, old, new in changes if old in (None, "auto") and isinstance(new, int | float | str))


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


def build_model(experiment: Experiment, splits: Splits, fresh: bool) -> nn.Module:
    """The network with its first weights, which depend on the run's seed and, where it asks for them, on training samples; then those
    of a body trained before, where the model is `pretrained`.

    Raises UserError when the model does not take such data.
    """
    facts = splits.facts
    key = random.key(experiment.run.seed, "init")
    model = models.build(experiment.model, facts.inputs, experiment.task.outputs(facts), key)
    init = getattr(experiment.model, "init", None)
    if fresh and isinstance(experiment.model, models.PretrainedConfig):
        tell_loaded(experiment.model.load(model))
    elif fresh and (isinstance(model, MadeFromData) or isinstance(init, LSUV)):
        order = random.permutation(random.key(experiment.run.seed, "init samples"), len(splits.train))
        rows = np.sort(order[:FIRST_SAMPLES])
        first = ready(evaluation_inputs(experiment.method, splits, rows), "contiguous")
        if isinstance(model, MadeFromData):
            model.initialize_from(first)
        if isinstance(init, LSUV):
            init.initialize_from(model, first)
    return model


def tell_loaded(loaded: models.Loaded) -> None:
    """What came from the file, and what did not."""
    if not ranks.is_main():
        return
    lines = [f"body: {loaded.loaded} tensors loaded", *(f"body: {sentence}" for sentence in loaded.adapted)]
    for what, names in (("left out", loaded.left_out), ("new", loaded.fresh)):
        if names:
            lines.append(f"body: {what}: {', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}")
    for line in lines:
        print(" ".join(clean(line).split()), file=sys.stderr)


def evaluation_inputs(method: Method, splits: Splits, rows: np.ndarray) -> PyTree:
    return evaluation_batch(method, splits, rows).inputs


def evaluation_batch(method: Method, splits: Splits, rows: np.ndarray) -> Batch:
    """Training samples as an evaluation would hand them to the model."""
    inputs, target = Samples(splits.train, steady(method.sample_transforms), 0).whole(rows)
    return as_evaluated(Batch(inputs, target, torch.from_numpy(rows), torch.ones(len(rows))), method.batch_transforms)


def few_outputs(model: nn.Module, method: Method, splits: Splits) -> PyTree:
    """What the model makes of two training samples."""
    inputs = ready(evaluation_inputs(method, splits, np.arange(2) % len(splits.train)), "contiguous")
    with evaluating(model), torch.no_grad():
        return model(inputs)


def check_watched(experiment: Experiment, model: nn.Module, splits: Splits) -> None:
    """Raises UserError where a schedule or the stop waits for a metric that no evaluation gives."""
    method = experiment.method
    parts: dict[str, Any] = {f"method.schedules.{place}": part for place, part in enumerate(method.schedules)}
    parts["method.stop"] = method.stop
    watched = {f"{path}.metric": part.metric for path, part in parts.items() if isinstance(getattr(part, "metric", None), str)}
    known = metric_names(experiment, model, splits) if watched else ()
    for path, name in watched.items():
        if name not in known:
            kind, could = tree.kind_of(experiment.task), hasattr(experiment.task, "also") and name in tree.choices(metrics.Metric)
            also = f"; task.also=[{name}] measures it" if could else ""
            raise UserError(f"{path}: an evaluation of task={kind} gives no {name!r}{hint(name, known)}{also}")


def metric_names(experiment: Experiment, model: nn.Module, splits: Splits) -> tuple[str, ...]:
    """The numbers of an evaluation, found by making one of two training samples; their loss is not asked for."""
    task, method = experiment.task, experiment.method
    batch = evaluation_batch(method, splits, np.arange(2) % len(splits.train))
    inputs, forward = ready(batch.inputs, "contiguous"), getattr(task, "forward", None)
    with evaluating(model), torch.no_grad():
        outputs = model(inputs) if forward is None else forward(model, inputs)
    weight = term_weights(method.objective.weight(batch.target), batch.weight)
    found: dict[str, Any] = {}
    for metric in task.metrics(splits.facts):
        found |= metric.result(metric.measure(outputs, batch.target, weight, torch.zeros_like(weight)))
    return tuple(name for name, value in found.items() if isinstance(value, int | float))


def check_model(model: nn.Module, run: Run, samples: int) -> None:
    """Raises UserError for what the model cannot do, warns of what will not mean what it seems to."""
    if run.activation_checkpointing:
        blocks_of(model)
    share = -(-run.batch_size // ranks.world())
    check_batch_norm(model, run, samples)
    if (run.microbatch_size or share) < share and any(isinstance(module, _BatchNorm) for module in model.modules()):
        warn(
            f"run.microbatch_size={run.microbatch_size} with batch norm: each micro-batch is normalized by itself, "
            "so accumulation is not the same as one large batch here"
        )


def check_batch_norm(model: nn.Module, run: Run, samples: int) -> None:
    """Raises UserError where a batch norm would meet batches of one sample: over it alone in training, over all of them in evaluation."""
    normalized = run.batch_size if ranks.world() > 1 and run.synchronize_batch_norm else -(-run.batch_size // ranks.world())
    remedy = "use another norm (group, layer) or larger batches"
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return
    if _smallest(normalized, run.microbatch_size) == 1:
        raise UserError(f"batch norm has nothing to compare in micro-batches of one sample (run.microbatch_size, run.batch_size): {remedy}")
    last = samples % run.batch_size
    # Over the pixels of one image PyTorch goes on; over a single vector it stops with an error at the end of the epoch.
    over_vectors = any(isinstance(module, nn.BatchNorm1d) for module in model.modules())
    if over_vectors and last and _smallest(last, run.microbatch_size) == 1:
        raise UserError(f"the last of {samples} samples would be alone in a micro-batch, where batch norm has nothing to compare: {remedy}")


def _smallest(rows: int, most: int | None) -> int:
    """The rows of the smallest of the near-equal micro-batches, of at most `most` rows each, that a window is cut into."""
    return rows // -(-rows // (most or rows))


def check_batches(experiment: Experiment, samples: int) -> None:
    """Raises UserError when the batches asked for cannot be cut from the data, or are too few for a schedule."""
    run, method = experiment.run, experiment.method
    try:
        Plan(samples=samples, batch_size=run.batch_size, microbatch_size=run.microbatch_size, world=ranks.world(), group=mixed_rows(method))
    except ValueError as error:
        raise UserError(str(error)) from None
    total = run.total(-(-samples // run.batch_size))
    check_length(method, total)
    if run.snapshots > total:
        raise UserError(f"run.snapshots={run.snapshots}: the run has {total} updates only; use fewer snapshots, or a longer run")
    share = -(-run.batch_size // ranks.world())
    if couples(method) and (run.microbatch_size or share) < share:
        raise UserError(f"method.loss={tree.kind_of(method.loss)} compares the samples of a whole batch: run it with microbatch_size=none")
    if getattr(method.optimizer, "searches", False) and run.precision == "fp16":
        raise UserError(f"run.precision=fp16: {tree.kind_of(method.optimizer)} compares losses to the last digit; fp32 fits it")
    if getattr(method.optimizer, "searches", False) and run.batch_size < samples:
        warn(
            f"method.optimizer={tree.kind_of(method.optimizer)} on batches of {run.batch_size}: every step minimizes another function; "
            f"run.batch_size={samples} (cut by run.microbatch_size where memory is short) makes it one"
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
