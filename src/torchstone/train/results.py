"""What a finished run says of itself: metrics.json, and its outputs on the test split.

Shapes: N samples, C classes.
"""

import math
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from torchstone.core import files, ranks, store, tensor_file
from torchstone.core.errors import warn
from torchstone.core.json_text import to_json
from torchstone.core.layout import METRICS, PREDICTIONS
from torchstone.train import checkpoint
from torchstone.train.loop import Job, score
from torchstone.train.state import TrainState, stored

MOST_PREDICTIONS = 100_000_000
"""Outputs in all beyond which they are not kept: 400 MB."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """The outputs of a classifier on a split."""

    index: Int64[Tensor, " N"]
    """Position in the split."""
    outputs: Float[Tensor, "N C"]
    target: Int64[Tensor, " N"]


def settled(job: Job, state: TrainState, status: str) -> Job:
    """Puts the resulting weights (the best, where those are selected) into the state's modules, when training is over; and the job with
    what its task fits by them on the validation split: a temperature, a threshold.

    The same job where the task fits nothing or training is not over. Every rank must call it, before `finish`.
    """
    over = status in ("done", "stopped")
    if over and job.run.select == "best" and state.best is not None:
        load_best(job, state)
    if not over or not getattr(job.task, "settles", False):
        return job
    kept: list[Any] = []
    score(job, state, job.splits.validation, kept)
    found = gathered(kept, len(job.splits.validation), len(job.splits.facts.classes), job.device)
    if found is None:
        warn(f"{job.folder}: the validation split has no plain classes or too many outputs to keep, so nothing of the task is fitted on it")
        return job
    task = job.task.settled(found.outputs, found.target)
    return replace(job, task=task, metrics=task.metrics(job.splits.facts))


def finish(job: Job, state: TrainState, status: str, size: dict[str, Any], keep: Callable[[Predictions | None], object]) -> dict[str, Any]:
    """Scores the resulting weights on the test, the validation and, if asked for, the training split (not after divergence or an
    interruption) and writes, of a classifier, predictions.safetensors; what `keep` keeps of them; and last, so that a run which says it
    is done is whole, metrics.json.

    `size`: parameters and macs. Returns the document; every rank must call it, `keep` is the main one's.
    """
    over = status in ("done", "stopped")
    kept: list[Any] = []
    document = {
        "final": score(job, state, job.splits.test, kept) if over else {},
        "validation": validation(job, state) if over else {},
        **({"training": score(job, state, job.splits.train)} if over and job.run.evaluate_training else {}),
        "best": best(job, state),
        "cost": {
            "seconds": round(state.seconds, 3),
            "samples_per_s": round(state.step * job.run.batch_size / state.seconds, 1) if state.seconds else None,
            "peak_memory_mb": round(peak_memory_mb(job.device), 1),
            **size,
        },
        "status": status,
        "steps": state.step,
        "skipped": len(state.skipped),
        "ending": state.ending or status,
        "data": dict(job.splits.facts.notes),
        **({"fitted": job.task.fitted} if over and getattr(job.task, "settles", False) else {}),
    }
    predictions = gathered(kept, len(job.splits.test), len(job.splits.facts.classes), job.device) if over else None
    if ranks.is_main():
        if predictions is not None:
            tensors = {"index": predictions.index, "outputs": predictions.outputs, "target": predictions.target}
            entries = {name: tensor_file.entry_of(name, tensor) for name, tensor in tensors.items()}
            files.write_durable(job.folder / PREDICTIONS, tensor_file.pieces(tensors, entries, {}))
        keep(predictions)
        files.write_text(job.folder / METRICS, to_json(document, indent=2) + "\n")
    return document


def validation(job: Job, state: TrainState) -> dict[str, Any]:
    """The resulting weights on the validation split: what the last evaluation measured, where it was of these weights and this task."""
    if state.looked is not None and state.looked[0] == state.step and ends_as_looked_at(job):
        return state.looked[1]
    return score(job, state, job.splits.validation)


def ends_as_looked_at(job: Job) -> bool:
    """Whether the newest evaluation is of the result: no weights are chosen, and nothing of the task settled, after it."""
    return job.run.select == "last" and not getattr(job.task, "settles", False)


def gathered(kept: list[Any], samples: int, classes: int, device: torch.device) -> Predictions | None:
    """The outputs of all ranks in the order of the split; None for what is no classifier, or holds too many."""
    plain = all(isinstance(o, Tensor) and o.ndim == 2 and isinstance(t, Tensor) and not t.is_floating_point() for _, o, t in kept)
    if ranks.any_of(not (classes and plain))[0] or samples * classes > MOST_PREDICTIONS:
        return None
    outputs, target = torch.zeros(samples, classes), torch.zeros(samples, dtype=torch.int64)
    for index, some, truth in kept:
        outputs[index], target[index] = some.float(), truth
    # Every sample was scored by one rank, so the others add zeros.
    outputs, target = ranks.sum_(outputs.to(device)).cpu(), ranks.sum_(target.to(device)).cpu()
    return Predictions(torch.arange(samples), outputs, target)


def best(job: Job, state: TrainState) -> dict[str, Any]:
    """The best evaluation on the validation split, with its step."""
    if state.best is None:
        return {}
    name, _ = job.selection
    chosen = next(e for e in state.history.evaluations if e.step == state.best.step)
    return {"step": state.best.step, "selected_by": name, **{k: v for k, v in chosen.metrics.items() if not math.isnan(v)}}


def load_best(job: Job, state: TrainState) -> None:
    """Puts the best evaluation's weights into the state's modules: for scoring, after the last checkpoint is made."""
    tensors, _ = store.read_store(checkpoint.named(job.folder, "best"), finite=("model", "average"))
    for name, module in state.modules().items():
        store.copy_into(stored(module), tensors[name], job.folder)


def peak_memory_mb(device: torch.device) -> float:
    """Most memory this process has held: on the accelerator where there is one, else resident in RAM. In 10^6 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    status = Path("/proc/self/status").read_text(encoding="ascii")  # getrusage would count what the parent held when it forked
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
