"""Whether a step fits in memory, and what micro-batch would: predicted from a measured one before a run starts, or after it failed."""

import copy
import os
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from torchstone.core import files, ranks
from torchstone.core.errors import UserError
from torchstone.core.precision import autocast
from torchstone.core.protocols import PyTree
from torchstone.data.pytree import map_leaves
from torchstone.data.ready import ready
from torchstone.profile.count import saved_for_backward
from torchstone.train.loop import Job
from torchstone.train.method import averages

ROWS = 4
"""Samples of the larger measured micro-batch; batch norm refuses a single one."""
SLACK = 1.9
"""Gradients of activations, temporaries of single operations and what the allocator wastes (two fifths, since freed memory is kept), on
top of what is counted."""
SCRATCH = 150_000_000
"""Bytes that the kernels and the allocator keep for themselves once they have run: 70 to 130 MB were seen."""


def check_memory(job: Job, model: nn.Module, inputs: PyTree) -> None:
    """Raises UserError, naming the micro-batch that fits, when a training step would not fit in this machine's free memory.

    inputs: ROWS samples or more, as the model reads them.
    """
    if job.device.type != "cpu":
        return
    fits = microbatch_that_fits(job, model, inputs, free_memory() // ranks.local_world())
    if fits is None:
        return
    remedy = (
        f"run.microbatch_size={fits} does, and keeps the batch by accumulation"
        if fits
        else "not even one sample does: a smaller model or image"
    )
    raise UserError(f"run.batch_size={job.run.batch_size}: a step does not fit in the {free_memory() / 1e9:.1f} GB that are free; {remedy}")


def microbatch_that_fits(job: Job, model: nn.Module, inputs: PyTree, free: int) -> int | None:
    """None if the micro-batches of the job fit into `free` bytes, else the largest size that would, 0 if none."""
    share = -(-job.run.batch_size // ranks.world())
    rows = min(job.run.microbatch_size or share, share)
    own = sum(t.numel() * t.element_size() for t in chain(model.parameters(), model.buffers()))
    kept_averages = averages(job.method) + getattr(job.method.averaging, "count", 0)
    copies = 2 + 2 + kept_averages  # weights, gradients, two moments
    kept, each = activation_bytes(model, inputs, job)
    fixed, each = copies * own + kept + SCRATCH, SLACK * each
    if fixed + rows * each <= free:
        return None
    group = job.plan.group
    return max(0, int((free - fixed) / each) // group * group)


def activation_bytes(model: nn.Module, inputs: PyTree, job: Job) -> tuple[float, float]:
    """What autograd keeps between forward and backward, measured on micro-batches of ROWS and of half as many samples: whatever their
    number (weights in another precision), and for each of them."""
    few, many = (_saved_bytes(model, map_leaves(lambda x, n=n: x[:n], inputs), job) for n in (ROWS // 2, ROWS))
    each = (many - few) / (ROWS - ROWS // 2)
    return max(0.0, many - ROWS * each), each


def _saved_bytes(model: nn.Module, inputs: PyTree, job: Job) -> int:
    """Each storage counts once, the model's own not at all. The model is copied: its statistics stay as they are."""
    model = copy.deepcopy(model).train()
    device = next(model.parameters()).device
    rows = map_leaves(lambda x: x.to(device), ready(inputs, job.run.memory_format))
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), autocast(job.run.precision, device):
        with saved_for_backward(chain(model.parameters(), model.buffers())) as kept:
            outputs = model(rows)  # noqa: F841 - holds the graph
    return sum(tensor.untyped_storage().nbytes() for tensor in kept)


def free_memory() -> int:
    """Bytes that a new program could take on this machine, or in this container."""
    try:
        facts = dict(line.split(":", 1) for line in files.read_text(Path("/proc/meminfo")).splitlines() if ":" in line)
        free = int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = files.read_text(group / "memory.max").strip(), files.read_text(group / "memory.current").strip()
        return min(free, int(limit) - int(used)) if limit.isdigit() else free
    except (OSError, ValueError):
        return free
