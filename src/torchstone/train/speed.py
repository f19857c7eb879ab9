"""`run.speed=auto`: a short measured trial chooses precision, memory format, threads and compilation before a run begins.

One setting is changed at a time, from plain to fast, and kept where it is faster; the whole trial may take 3 % of the run it is for.
"""

import copy
import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from torchstone.core import ranks
from torchstone.train.build import build_state
from torchstone.train.loop import Job, updates
from torchstone.train.settings import Run
from torchstone.train.state import TrainState
from torchstone.train.step import train_step

SHARE = 0.03
"""Most of the estimated run that the trial may take."""
COMPILING_SECONDS = 60.0
"""What compiling a model once may take: tried only where the share leaves that much."""
WORTH = 0.97
"""A setting must bring the step to this share of the best so far: less is noise."""
WORTH_COMPILING = 0.85
"""The same for compilation, which is paid again at every start and resume."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting that was tried."""

    precision: str
    memory_format: str
    compile: bool
    threads: int
    seconds_per_step: float
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    rows: tuple[Row, ...]
    seconds: float
    """What the trial took."""

    def document(self) -> dict[str, Any]:
        return {"rows": [asdict(row) for row in self.rows], "seconds": round(self.seconds, 2)}


def choose(model: nn.Module, run: Run, device: torch.device, job: Callable[[Run], Job], cores: int) -> tuple[Run, Trial]:
    """`run` with the fastest settings written in and `speed` "measured", and what was tried. The model is copied, not trained.

    `job` makes the training for given settings. Every rank must call it; all decide by the main rank's clock.
    """
    with torch.random.fork_rng(devices=[]):
        return _chosen(model, replace(run, speed="measured"), device, job, cores)


def _chosen(model: nn.Module, best: Run, device: torch.device, job: Callable[[Run], Job], cores: int) -> tuple[Run, Trial]:
    started = perf_counter()
    seconds = _measured(model, best, device, job)
    rows: list[tuple[Run, float]] = [(best, seconds)]
    total = job(best).total
    for changes in _stages(device, cores):
        for change in changes:
            candidate = replace(best, **change)
            if any(candidate == tried for tried, _ in rows):
                continue
            spent = ranks.broadcast_object(perf_counter() - started)
            expected = COMPILING_SECONDS if candidate.compile else 3 * seconds
            if spent + expected > SHARE * total * seconds:
                continue
            measured = _measured(model, candidate, device, job)
            rows.append((candidate, measured))
            if measured < (WORTH_COMPILING if candidate.compile else WORTH) * seconds:
                best, seconds = candidate, measured
    kept = [
        Row(tried.precision, tried.memory_format, tried.compile, tried.threads or 1, measured, chosen=tried == best)
        for tried, measured in rows
    ]
    return best, Trial(tuple(kept), perf_counter() - started)


def _stages(device: torch.device, cores: int) -> Iterator[list[dict[str, Any]]]:
    """What is tried, in order: each stage starts from the best of those before. Threads first: on shared cores the wrong number of
    them costs more than all the rest brings."""
    if device.type == "cpu" and cores > 1:
        yield [{"threads": 1}, {"threads": cores}]
    if fast_bf16(device):
        yield [{"precision": "bf16"}]
    yield [{"memory_format": "channels_last"}]
    if shutil.which("c++") or shutil.which("g++"):
        yield [{"compile": True}]


def fast_bf16(device: torch.device) -> bool:
    """Whether the machine multiplies bf16 in hardware. Emulated, it is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _measured(model: nn.Module, run: Run, device: torch.device, job: Callable[[Run], Job]) -> float:
    """Seconds of a step under these settings, on a copy of the model; the same number on every rank."""
    with _threads(run.threads):
        training = job(run)
        state = build_state(copy.deepcopy(model), training.method, run, device)
        seconds = trial(training, state, most_seconds=3.0, most_steps=6)
    del state
    gc.collect()
    return ranks.broadcast_object(seconds)


def trial(job: Job, state: TrainState, *, most_seconds: float = 1.0, most_steps: int = 20) -> float:
    """Seconds a step: the median after the first, which is slower."""
    seconds: list[float] = []
    started = last = perf_counter()
    for number, (epoch, microbatches) in enumerate(updates(job, 0)):
        report = train_step(state, microbatches, job.method, job.setting, epoch)
        float(report.loss)  # waits for an accelerator
        now = perf_counter()
        seconds, last = [*seconds, now - last], now
        if ranks.any_of(now - started > most_seconds and number > 0)[0] or number + 1 >= most_steps:
            break
    return float(np.median(seconds[1:] or seconds))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
