"""A model soup: the weights of several finished runs averaged into one model, which costs no more than any of them.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time", 2022,
https://arxiv.org/abs/2203.05482, section 2, recipe 1 (greedy).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from torchstone import profile
from torchstone.core import layout, store, tree
from torchstone.core.errors import UserError, warn
from torchstone.experiment.keepsakes import keep
from torchstone.experiment.preparing import Prepared, prepare, threads_restored
from torchstone.experiment.running import Trained, make_folder, settled
from torchstone.experiment.tree import Experiment, load_without_own_parts
from torchstone.ship.artifact import Artifact, read_artifact, read_weights
from torchstone.train.build import build_state
from torchstone.train.exactness import exactness_key
from torchstone.train.loop import Job, look, recompute_batch_norm, save, score
from torchstone.train.results import finish
from torchstone.train.state import TrainState, stored

By = Literal["greedy", "uniform"]
Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Soup:
    """What `soup` made."""

    run: Trained
    by: By
    scores: dict[str, float]
    """The metric on validation of each run by itself, in the order in which they were tried."""
    used: tuple[str, ...]
    """The runs whose weights are in the mean."""
    metric: str
    value: float
    """The metric of the soup on validation."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A run that goes into the pot, its files read once."""

    place: Path
    artifact: Artifact
    experiment: Experiment
    own: tuple[str, ...]
    """Seats of the method that held a class of the user's own, left at their default: a soup is not trained."""


def soup(runs: Sequence[str | Path], out: str | Path | None = None, *, by: By = "greedy", device: str = "auto") -> Soup:
    """A new run folder whose model is the mean of the runs' resulting weights, with the first run's experiment around it.

    greedy: from the best run on, each joins if the metric on validation does not fall; uniform: all. Batch-norm statistics are computed
    anew for every mean. The runs must be of one network, on the same data with the same preprocessing; only fine-tuned from one body (or
    along one path) do they lie in one valley: the metric on validation tells. Raises UserError for runs that cannot be averaged.
    """
    places = [Path(run) for run in runs]
    if len(places) < 2 or len(set(map(Path.resolve, places))) < len(places):
        raise UserError("a soup needs two different runs or more")
    if by not in ("greedy", "uniform"):
        raise UserError(f"a soup is made greedy or uniform, got {by!r}")
    origins = [Origin(place, read_artifact(place), *load_without_own_parts(place / layout.EXPERIMENT)) for place in places]
    require_alike(origins)
    with threads_restored(), torch.random.fork_rng(devices=[]):
        prepared = base(origins[0], device)
        torch.set_num_threads(prepared.experiment.run.threads or 1)
        pot = Pot(prepared)
        weights = {str(each.place): read_weights(each.place, each.artifact.weights)[0] for each in origins}
        name, mode = pot.job.selection
        scores = {run: pot.value([tensors]) for run, tensors in weights.items()}
        if any(value != value for value in scores.values()):
            raise UserError(f"a soup is chosen by {name} on validation, which is undefined for one of the runs")
        order = sorted(scores, key=lambda run: -scores[run] if mode == "max" else scores[run]) if by == "greedy" else list(scores)
        used = order if by == "uniform" else pot.greedy(order, weights, scores, mode)
        value = pot.value([weights[run] for run in used])
        story = {"by": by, "metric": name, "scores": {run: scores[run] for run in order}, "used": used, "value": value}
        run = pot.served(None if out is None else Path(out), {"recipe": "soup", "edits": [], "soup": story})
    return Soup(run, by, story["scores"], tuple(used), name, value)


def require_alike(origins: Sequence[Origin]) -> None:
    """Raises UserError where runs differ in what must be one: network, task, data, preprocessing."""
    first, *others = origins
    for other in others:
        names = ("model", "transforms", "facts", "preprocess")
        differ = [what for what in names if getattr(other.artifact, what) != getattr(first.artifact, what)]
        differ += ["task"] if other.experiment.task != first.experiment.task else []  # as asked for: the artifact's is fitted
        if differ:
            raise UserError(
                f"{other.place}: its {differ[0]} is not that of {first.place}; a soup averages runs of one network on the same data"
            )


def base(origin: Origin, device: str) -> Prepared:
    """The first run's experiment, its data opened, without an average of its own."""
    place, experiment = origin.place, origin.experiment
    if origin.own:
        seats = ", ".join(f"method.{seat}" for seat in origin.own)
        loss = "; `loss` is the task's default one" if "loss" in origin.own else ""
        warn(f"{place}: classes of your own, which no file can build, are left out of the soup's experiment ({seats}){loss}")
    method, run = replace(experiment.method, averaging=None), replace(experiment.run, select="last", compile=False)
    experiment = replace(experiment, method=method, run=run)
    prepared = prepare(tree.edit(experiment, [f"run.device={device}"]), fresh=False)
    if prepared.facts.fingerprint != origin.artifact.facts.fingerprint:
        raise UserError(f"{place}: its data have changed since the training; a soup is chosen on the validation split it knew")
    return prepared


class Pot:
    """One model that takes on the mean of any weights, and is scored."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        run = prepared.experiment.run
        self.job: Job = prepared.job(Path(), {"exactness": exactness_key(run, prepared.device), "fingerprint": prepared.facts.fingerprint})
        self.state: TrainState = build_state(prepared.model, prepared.experiment.method, run, prepared.device)

    def value(self, weights: Sequence[Tensors]) -> float:
        """The selection metric on validation of the mean of these weights."""
        self.fill(weights)
        return float(score(self.job, self.state, self.job.splits.validation)[self.job.selection[0]])

    def fill(self, weights: Sequence[Tensors]) -> None:
        """Puts the mean into the model, batch-norm statistics computed anew where more than one run is in it."""
        for module in self.state.modules().values():
            store.copy_into(stored(module), mean(weights), "the runs' weights")
            if len(weights) > 1:
                recompute_batch_norm(self.job, self.state, module)

    def greedy(self, order: Sequence[str], weights: dict[str, Tensors], scores: dict[str, float], mode: str) -> list[str]:
        """The best run, and each after it with which the mean is no worse."""
        used, best = [order[0]], scores[order[0]]
        for run in order[1:]:
            value = self.value([weights[each] for each in [*used, run]])
            if value >= best if mode == "max" else value <= best:
                used, best = [*used, run], value
        return used

    def served(self, out: Path | None, origin: dict[str, Any]) -> Trained:
        """A finished run folder around what is in the pot: a checkpoint, its evaluation, metrics.json and pictures."""
        where = make_folder(out, "soup", self.prepared, origin)
        job, state = self.prepared.job(where, self.job.facts), self.state
        state.step = state.updates = job.total
        state.ending = "done"
        look(job, state, [])
        save(job, state)
        job = settled(self.prepared, job, state, "done")
        size = {"parameters": profile.parameters(state.model)["total"], "macs": self.prepared.macs}
        metrics = finish(job, state, "done", size, partial(keep, self.prepared, where, job.task))
        return Trained(folder=where, status="done", metrics=metrics)


def mean(weights: Sequence[Tensors]) -> Tensors:
    """Name by name in float64; whole numbers (counters) are the first's."""
    return {
        name: torch.stack([each[name].double() for each in weights]).mean(dim=0).to(first.dtype) if first.is_floating_point() else first
        for name, first in weights[0].items()
    }
