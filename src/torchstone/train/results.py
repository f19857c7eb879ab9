"""What a finished run says of itself: metrics.json."""

import math
import resource
import sys
from typing import Any

import torch

from torchstone.core import files, ranks, store
from torchstone.core.json_text import to_json
from torchstone.core.layout import METRICS
from torchstone.train import checkpoint
from torchstone.train.loop import Job, score
from torchstone.train.state import TrainState, stored


def finish(job: Job, state: TrainState, status: str, size: dict[str, Any]) -> dict[str, Any]:
    """Scores the resulting weights on the test split (not after divergence or an interruption) and writes metrics.json.

    `size`: parameters and macs. Returns the document; every rank must call it.
    """
    over = status in ("done", "stopped")
    if over and job.run.select == "best" and state.best is not None:
        load_best(job, state)
    document = {
        "final": score(job, state, job.splits.test) if over else {},
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
    }
    if ranks.is_main():
        files.write_text(job.folder / METRICS, to_json(document, indent=2) + "\n")
    return document


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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
