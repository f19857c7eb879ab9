"""What `train --dry-run` says: the resolved tree, the data, what the model costs, and how long it would take. Writes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchstone import profile
from torchstone.core import ranks, tree
from torchstone.data.ready import ready
from torchstone.experiment import Experiment, Prepared, choose_device, prepare, threads_restored
from torchstone.experiment.group_table import group_lines, group_table
from torchstone.experiment.running import chosen_lines, plan_lines, speed_lines
from torchstone.experiment.trying import evaluation_trial, samples_scored
from torchstone.train.build import build_state
from torchstone.train.method import averages
from torchstone.train.speed import trial


@dataclass(frozen=True, slots=True)
class DryRun:
    facts: dict[str, Any]
    text: str
    """A TOML file of the experiment, with the facts as comments in front."""


def dry_run(experiment: Experiment, edits: Sequence[str]) -> DryRun:
    """Prepares the training, and tries a few steps on a copy that is thrown away.

    Raises what the training itself would raise before its first step.
    """
    experiment = tree.edit(experiment, edits)
    with ranks.joined(torch.device(choose_device(experiment.run.device))), threads_restored(), torch.random.fork_rng(devices=[]):
        prepared = prepare(experiment)
        run = prepared.experiment.run
        if run.threads is not None:
            torch.set_num_threads(run.threads)
        facts = measured(prepared)
    lines = [
        f"# {line}"
        for line in [*described(facts), *group_lines(prepared), *chosen_lines(prepared), *plan_lines(prepared), *speed_lines(prepared)]
    ]
    toml = tree.to_toml(prepared.experiment)
    return DryRun({"experiment": tree.encode(prepared.experiment), **facts}, "\n".join([*lines, "", toml]).rstrip("\n"))


def measured(prepared: Prepared) -> dict[str, Any]:
    """Facts of the data, counts of the model, and an estimate of time from a short trial."""
    experiment = prepared.experiment
    method, run = experiment.method, experiment.run
    rows = min(run.microbatch_size or run.batch_size, -(-run.batch_size // ranks.world()))
    sample = ready(prepared.inputs, "contiguous")
    parameters = profile.parameters(prepared.model)
    state = build_state(prepared.model, method, run, prepared.device)
    flat = [tensor for tensor in state.optimizer.values() if tensor.shape == state.parameters.data.shape]
    memory = profile.training_memory(
        prepared.model,
        sample,
        microbatch_size=rows,
        moments=len(flat),
        averaging=averages(method),
        matrices=sum(tensor.nbytes for tensor in state.optimizer.values() if tensor.ndim) - sum(tensor.nbytes for tensor in flat),
    )
    job = prepared.job(Path(), {})
    step_seconds = trial(job, state)
    evaluation_seconds, _ = evaluation_trial(job, state)
    evaluations = -(-job.total // job.evaluate_every)
    sizes = dict(prepared.facts.sizes)
    return {
        "data": {
            "inputs": tree.encode(prepared.facts.inputs) | {"kind": tree.kind_of(prepared.facts.inputs)},
            "classes": list(prepared.facts.classes),
            "class_counts": list(prepared.facts.class_counts),
            "sizes": sizes,
            "split": prepared.facts.split_rule,
            "fingerprint": prepared.facts.fingerprint,
        },
        "parameters": parameters,
        "macs": prepared.macs,
        "memory": memory,
        "groups": group_table(prepared),
        "speed": None if prepared.trial is None else prepared.trial.document(),
        "steps": job.total,
        "steps_per_epoch": job.plan.updates,
        "evaluations": evaluations,
        "seconds_per_step": step_seconds,
        "estimated_seconds": job.total * step_seconds + samples_scored(job) * evaluation_seconds,
    }


def described(facts: dict[str, Any]) -> list[str]:
    """The facts in words, a line each."""
    data, memory, parameters = facts["data"], facts["memory"], facts["parameters"]
    inputs = ", ".join(f"{name} {value}" for name, value in data["inputs"].items() if name != "kind")
    sizes = ", ".join(f"{name} {count}" for name, count in data["sizes"].items())
    parts = ", ".join(f"{name} {megabytes(count)}" for name, count in memory.items() if name != "total")
    macs = "not counted" if facts["macs"] is None else f"{facts['macs']:,} a sample and forward pass"
    lines = [
        f"data        {data['inputs']['kind'].removesuffix('_shape')} ({inputs}); {sizes}",
        f"split       {data['split']}",
    ]
    if data["classes"]:
        counted = [
            " ".join(map(str, pair)) for pair in zip(data["classes"], data["class_counts"] or [""] * len(data["classes"]), strict=True)
        ]
        shown = ", ".join(counted[:20]) + (", …" if len(counted) > 20 else "")
        lines.append(f"classes     {len(counted)}, training samples of each: {shown}")
    return [
        " ".join(line.splitlines())
        for line in [
            *lines,
            f"parameters  {parameters['total']:,} ({parameters['trainable']:,} trained)",
            f"macs        {macs}",
            f"memory      {megabytes(memory['total'])} for a step ({parts}); an estimate",
            f"steps       {facts['steps']} ({facts['steps_per_epoch']} an epoch), {facts['evaluations']} evaluations",
            f"time        about {duration(facts['estimated_seconds'])}, {facts['seconds_per_step'] * 1e3:.2f} ms a step in a short trial",
        ]
    ]


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
