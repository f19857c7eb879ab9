"""`probes.jsonl`: what goes on inside the model, at a few updates of the run. It only collects; `doctor` judges.

A look, an object a line: `{"step", "loss", "norm", "layers": {"name": […], "gradient": […], "weight": […], "update": […]}, "outputs":
{"name", "mean", "std"}, "activations": {"name", "kind", "mean", "std", "off"}, "weight_norm", "scale", "seconds": {"step", "wait",
"idle"}}`. Layers are the weights of two dimensions and more, in the order in which they were used; `gradient` (as the update met it, after
the gradient transforms) and `weight` are root mean squares over a layer's numbers, `update` is |change of the weights| / |weights|. `off`
is the share of a rectifier's units that are dead, or of a sigmoid's outputs that are saturated (`trackers.activations`). All but `seconds`
is the same when the run is repeated.

A run that diverged has one more: `{"step", "origin": {…}}` (`train.origin`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchstone.core.journal import Journal
from torchstone.core.layout import PROBES
from torchstone.core.protocols import Evaluation, Inside, StepReport
from torchstone.train.trackers.activations import Activations
from torchstone.train.trackers.journaled import JournalTracker
from torchstone.train.trackers.reading import number


@dataclass(frozen=True, kw_only=True, slots=True)
class Probes:
    """Gradients, updates and activations by depth, at updates 1, 2, 4, 8 … and then at every `every`-th, in probes.jsonl."""

    every: int = 100
    """Updates between two looks; the first ones are closer together: their gaps double until they are as wide."""

    neutral: ClassVar["Probes"]

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"Probes.every must be >= 1, got {self.every}")

    def open(self, folder: Path) -> "ProbesTracker":
        """The tracker of one run; goes on where `folder`/probes.jsonl ends, an unfinished last line cut off."""
        return ProbesTracker(Journal(folder / PROBES), self.every)


Probes.neutral = Probes()


class ProbesTracker(JournalTracker):
    """Appends to one journal. Raises OSError where the disk does."""

    def __init__(self, journal: Journal, every: int) -> None:
        super().__init__(journal)
        self._every = every
        self._total = 0
        self._view: Inside | None = None
        self._seen: Activations | None = None
        self._before: Tensor | None = None
        """The weights before the update that is looked at; None between looks."""
        self._order: tuple[str, ...] = ()
        self._steps, self._worked, self._waited = 0, 0.0, 0.0
        self._clock: _Idle | None = None

    def start(self, run: Mapping[str, Any]) -> None:
        """Reads from `run`: `total` updates."""
        self._total = int(run.get("total", 0))

    def due(self, step: int) -> bool:
        """Whether update `step` is looked at."""
        return step % self._every == 0 or step == self._total or (step < self._every and step & (step - 1) == 0)

    def inside(self, view: Inside) -> None:
        self._view = view
        self._seen = None if view.compiled else Activations(view.model)
        self._order = layers_of(view.parameters)
        self._clock = _Idle() if view.parameters.data.device.type == "cuda" else None

    def before(self, step: int, waited: float) -> None:
        self._waited += waited
        if self._view is None or not self.due(step):
            return
        self._before = self._view.parameters.data.clone()
        if self._clock is not None:
            self._clock.begins()
        if self._seen is not None:
            self._seen.arm()

    def step(self, report: StepReport) -> None:
        self._steps += 1
        self._worked += report.seconds
        if self._before is not None:
            self._look(report)
        if self._clock is not None and self.due(report.step + 1):
            self._clock.ended()

    def evaluation(self, evaluation: Evaluation) -> None:
        pass

    def diverged(self, step: int, origin: Mapping[str, Any]) -> None:
        self.append({"step": step, "origin": dict(origin)})

    def close(self) -> None:
        if self._seen is not None:
            self._seen.disarm()
        super().close()

    def _look(self, report: StepReport) -> None:
        view, seen, before = self._view, self._seen, self._before
        assert view is not None and before is not None
        self._before = None
        outputs, activations = ([], []) if seen is None else (seen.outputs, seen.activations)
        if seen is not None:
            seen.disarm()
            self._order = in_order(self._order, [name for name, _ in outputs])
        flat = view.parameters
        weight_norm = torch.linalg.vector_norm(flat.data)
        weights = [torch.linalg.vector_norm(flat.view(before, name)) for name in self._order]
        torch.sub(flat.data, before, out=before)
        changes = [torch.linalg.vector_norm(flat.view(before, name)) for name in self._order]
        gradients = [torch.linalg.vector_norm(flat.view(flat.grad, name)) for name in self._order]
        found = torch.stack([weight_norm, *weights, *changes, *gradients]).tolist()  # the only wait for the device, with the next two
        total, *rest = found
        count = len(self._order)
        weights, changes, gradients = rest[:count], rest[count : 2 * count], rest[2 * count :]
        roots = [math.sqrt(flat.view(flat.data, name).numel()) for name in self._order]
        line = {
            "step": report.step,
            "loss": number(report.loss),
            "norm": number(report.norm),
            "layers": {
                "name": list(self._order),
                "gradient": [value / root for value, root in zip(gradients, roots, strict=True)],
                "weight": [value / root for value, root in zip(weights, roots, strict=True)],
                "update": [change / weight if weight else None for change, weight in zip(changes, weights, strict=True)],
            },
            "outputs": {"name": [name for name, _ in outputs], **columns(("mean", "std"), [values for _, values in outputs])},
            "activations": {
                "name": [name for name, _, _ in activations],
                "kind": [kind for _, kind, _ in activations],
                **columns(("mean", "std", "off"), [values for _, _, values in activations]),
            },
            "weight_norm": total,
            "scale": view.scale(),
            "seconds": {
                "step": self._worked / self._steps,
                "wait": self._waited / self._steps,
                "idle": None if self._clock is None else self._clock.seconds(),
            },
        }
        self._steps, self._worked, self._waited = 0, 0.0, 0.0
        self.append(line)


class _Idle:
    """How long an accelerator had nothing to do between two updates, by its own clock."""

    def __init__(self) -> None:
        self._end: Any = None
        self._start: Any = None

    def ended(self) -> None:
        self._end = torch.cuda.Event(enable_timing=True)
        self._end.record()

    def begins(self) -> None:
        self._start = torch.cuda.Event(enable_timing=True)
        self._start.record()

    def seconds(self) -> float | None:
        """None before the first update. The device must have passed both marks: read after a number of this update."""
        end, start, self._end, self._start = self._end, self._start, None, None
        return None if end is None or start is None else end.elapsed_time(start) / 1e3


def layers_of(parameters: Any) -> tuple[str, ...]:
    """The weights of two dimensions and more, in the order of the model."""
    trained = set(parameters.names)
    return tuple(name for name, p in parameters.module.named_parameters() if name in trained and p.ndim >= 2)


def in_order(layers: tuple[str, ...], used: list[str]) -> tuple[str, ...]:
    """The layers in the order in which their modules were used; one that was not seen keeps its place after the one before it."""
    rank, last = {name: place for place, name in reversed(list(enumerate(used)))}, -1
    places = []
    for name in layers:
        last = rank.get(name.rpartition(".")[0], last)
        places.append(last)
    return tuple(name for _, name in sorted(zip(places, layers, strict=True), key=lambda pair: pair[0]))


def columns(names: tuple[str, ...], rows: list[Tensor]) -> dict[str, list[float]]:
    """The rows, [names] each, as a list a name."""
    return dict(zip(names, torch.stack(rows).T.tolist() if rows else [[] for _ in names], strict=True))
