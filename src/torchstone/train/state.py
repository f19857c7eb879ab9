"""The training state: everything that changes while a model trains, by name, and nothing else anywhere."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from torchstone.core.protocols import History, Memory
from torchstone.optim.flat import FlatParameters
from torchstone.train.guard import Guard
from torchstone.train.precision import LossScale


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation so far."""

    step: int
    value: float


@dataclass(slots=True)
class TrainState:
    """One object; `checkpoint` stores all of it but what is marked as a view."""

    model: nn.Module
    parameters: FlatParameters
    """View: the model's trained parameters end to end."""
    forward: Callable[..., Any]
    """View: the model as the step calls it (compiled, wrapped for ranks)."""
    device: torch.device
    optimizer: Memory
    average: FlatParameters | None = None
    """The averaged model (`average.module`), laid out like `parameters`."""
    memory: dict[str, Memory] = field(default_factory=dict)
    """What other seats remember, by the seat's path."""
    scale: LossScale | None = None
    guard: Guard = field(default_factory=lambda: Guard(torch.device("cpu")))
    history: History = field(default_factory=History)
    step: int = 0
    """Batches consumed: the cursor in the plan."""
    updates: int = 0
    """Updates made: `step` without the skipped ones. Schedules and averages read this."""
    skipped: list[int] = field(default_factory=list)
    """Steps without an update: nothing to learn from (all terms ignored), or an fp16 overflow."""
    best: Best | None = None
    seconds: float = 0.0
    """Wall time spent in training and evaluation, over all resumptions."""
    looked: tuple[int, dict[str, Any]] | None = None
    """The step of this process's newest evaluation and all it measured; not stored: it can be measured again."""
    ending: str | None = None
    """Why training is over, once it is: "done", or what a stop said."""

    @property
    def evaluated(self) -> nn.Module:
        """The module that evaluations use."""
        return self.model if self.average is None else self.average.module

    def modules(self) -> dict[str, nn.Module]:
        """What the files `model` and `average` hold."""
        return {"model": self.model} | ({} if self.average is None else {"average": self.average.module})

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Every stored tensor: file -> name -> tensor (views, no copies). Flat memory is filed under the parameters' names."""
        files = {name: stored(module) for name, module in self.modules().items()}
        files["optimizer"] = _by_name(self.parameters, self.optimizer)
        for path, memory in self.memory.items():
            files["optimizer"].update({f"{path}/{name}": tensor for name, tensor in _by_name(self.parameters, memory).items()})
        return files

    def numbers(self) -> dict[str, Any]:
        """Everything else, as JSON."""
        return {
            "step": self.step,
            "updates": self.updates,
            "skipped": list(self.skipped),
            "loss": self.history.loss,
            "evaluations": [{"step": e.step, "metrics": dict(e.metrics)} for e in self.history.evaluations],
            "best": None if self.best is None else {"step": self.best.step, "value": self.best.value},
            "scale": None if self.scale is None else {"scale": self.scale.scale, "good": self.scale.good},
            "seconds": self.seconds,
            "ending": self.ending,
        }


def stored(module: nn.Module) -> dict[str, Tensor]:
    """The module's parameters and persistent buffers by name; tied ones appear under each of their names."""
    return {name: tensor.detach() for name, tensor in module.state_dict(keep_vars=True).items()}


def _by_name(parameters: FlatParameters, memory: Memory) -> dict[str, Tensor]:
    """Memory over all scalars becomes one tensor a parameter, `<memory>/<parameter>`; memory of another shape stays."""
    named = {}
    for key, tensor in memory.items():
        if tensor.shape != parameters.data.shape:
            named[key] = tensor
        else:
            named.update({f"{key}/{name}": view for name, view in parameters.named(tensor).items()})
    return named
