"""A training tried for a few steps on copies that are thrown away: what it would take, and which numbers it would report."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from torchstone.core import ranks
from torchstone.experiment.preparing import Prepared, prepare, threads_restored
from torchstone.experiment.tree import Experiment
from torchstone.train import checkpoint
from torchstone.train.build import build_state
from torchstone.train.evaluate import evaluate
from torchstone.train.loop import Job
from torchstone.train.results import ends_as_looked_at
from torchstone.train.speed import trial
from torchstone.train.state import TrainState


@dataclass(frozen=True, slots=True)
class Tried:
    """What a short trial says of a training."""

    prepared: Prepared
    seconds: float
    """An estimate of the whole run: opening the data, its steps, evaluations and checkpoints."""
    metrics: tuple[str, ...]
    """The names of the metrics that are one number."""


def try_out(experiment: Experiment, *edits: str, steps: int = 3) -> Tried:
    """Prepares the training and makes `steps` updates, one evaluation batch and one checkpoint, in a temporary folder that goes again.
    No generator is moved.

    Raises what the training itself would raise before its first step.
    """
    started = perf_counter()
    with threads_restored(), torch.random.fork_rng(devices=[]):
        prepared = prepare(experiment, *edits)
        torch.set_num_threads(prepared.experiment.run.threads or 1)
        job = prepared.job(Path(), {})
        state = build_state(prepared.model, job.method, job.run, prepared.device)
        opening = perf_counter() - started
        step = trial(job, state, most_steps=steps)
        look, found = evaluation_trial(job, state)
        saving = saving_trial(state)
    evaluations = -(-job.total // job.evaluate_every)
    seconds = opening + job.total * step + evaluations * saving + samples_scored(job) * look
    names = tuple(name for name, value in found.items() if isinstance(value, int | float))
    return Tried(prepared, seconds, names)


def samples_scored(job: Job) -> int:
    """In all evaluations of a run, those at its end included."""
    evaluations, splits = -(-job.total // job.evaluate_every), job.splits
    again = not ends_as_looked_at(job)
    training = len(splits.train) if job.run.evaluate_training else 0
    return (evaluations + again) * len(splits.validation) + len(splits.test) + training


def saving_trial(state: TrainState) -> float:
    """Seconds of a checkpoint."""
    with tempfile.TemporaryDirectory(prefix="torchstone-") as folder:
        started = perf_counter()
        checkpoint.save(state, Path(folder), keep=1, facts={})
        return perf_counter() - started


class Head:
    """The first samples of a split."""

    def __init__(self, split: Any, count: int) -> None:
        self.split, self.count = split, min(count, len(split))

    def __len__(self) -> int:
        return self.count

    def fetch(self, indices: np.ndarray) -> Any:
        return self.split.fetch(indices)


def evaluation_trial(job: Job, state: TrainState) -> tuple[float, dict[str, Any]]:
    """Seconds a sample of an evaluation, from one batch a rank, and what it measured."""
    head = Head(job.splits.validation, job.run.evaluation_batch_size * ranks.world())
    started = perf_counter()
    found = evaluate(
        state.evaluated,
        head,
        loss=job.method.objective,
        loss_memory=state.memory.get("loss"),
        metrics=job.metrics,
        device=job.device,
        batch_size=job.run.evaluation_batch_size,
        precision=job.run.precision,
        memory_format=job.run.memory_format,
        forward=getattr(job.task, "forward", None),
        sample_transforms=job.method.sample_transforms,
        batch_transforms=job.method.batch_transforms,
    )
    return (perf_counter() - started) / len(head), found
