"""Where a number that is not finite came from: the micro-batches that tripped the guard, run once more, every module watched.

The first of these that is not finite is named: an input, a weight, the output of a module (in the order in which modules finish, so the
innermost), the loss, a penalty, the gradient that comes back into a module, the gradient of a weight. Run after the fact: the guard let no
update through, so the weights are those that met the batch. Under several ranks each looks at its own share.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from torchstone.core import random, ranks
from torchstone.core.precision import autocast
from torchstone.core.protocols import Batch
from torchstone.train import coupled
from torchstone.train.method import Method, scheduled
from torchstone.train.state import TrainState
from torchstone.train.step import Setting, backward, leave_out_padding, seat, seed_model_noise, term_weights

Origin = dict[str, Any]
"""{"kind": "input" | "weight" | "forward" | "loss" | "penalty" | "backward" | "gradient" | "unknown", "module": path or name, "type":
class, "largest_input": …, "largest_weight": …, "sentence"}."""


def find(state: TrainState, microbatches: Sequence[Batch], method: Method, setting: Setting, step: int) -> Origin:
    """The origin as the first rank sees that finds one; every rank must call it. Leaves scratch in the gradients, and moves batch-norm
    statistics: for a training that is over."""
    method, _ = scheduled(method, state.updates, setting.total, state.history)
    search = Search(state.model)
    with search.watching():
        search.look_at_weights()
        whole = coupled.whole_batch(list(microbatches), method.objective)
        weights = [term_weights(coupled.weight(method.objective, batch.target, whole), batch.weight) for batch in microbatches]
        total = sum(float(weight.sum()) for weight in weights) or 1.0
        state.parameters.zero_grad()
        for number, (batch, weight) in enumerate(zip(microbatches, weights, strict=True)):
            search.look_at_inputs(batch.inputs)
            leave_out_padding(state, batch, setting)
            seed_model_noise(state.device, random.derived(setting.noise, step, number, ranks.rank()))
            with autocast(setting.precision, state.device):
                terms = coupled.terms(seat(state, "loss", method.objective), state.model(batch.inputs), batch.target, whole)
            search.look_at_loss(terms)
            backward(terms, state, (weight / total).to(terms.dtype))
        for number, penalty in enumerate(method.penalties):
            term = seat(state, f"penalties.{number}", penalty)(state.model)
            search.look("penalty", type(penalty).__name__, term)
            backward(term, state, torch.ones_like(term))
    search.look_at_gradients()
    found = [one for one in ranks.gather_objects(search.origin) if one is not None]
    return found[0] if found else UNKNOWN


UNKNOWN: Origin = {"kind": "unknown", "module": "", "sentence": "when the batch was run once more every number was finite"}


class Search:
    """Keeps the first thing seen that is not finite."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.origin: Origin | None = None
        self._names = {id(module): name or type(module).__name__ for name, module in model.named_modules()}
        self._back = "the loss"
        """What the gradient came through last while it was finite."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        handles = [module.register_forward_hook(self._leaving) for module in self.model.modules()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def look(self, kind: str, name: str, value: Any, **more: Any) -> None:
        if self.origin is None and not finite(value):
            self.origin = {"kind": kind, "module": name, **more, "sentence": SENTENCES[kind].format(name)}

    def look_at_weights(self) -> None:
        for name, p in self.model.named_parameters():
            self.look("weight", name, p)

    def look_at_inputs(self, inputs: Any) -> None:
        self.look("input", "the batch", inputs)

    def look_at_loss(self, terms: Tensor) -> None:
        self._back = "the loss"
        self.look("loss", "the loss", terms)

    def look_at_gradients(self) -> None:
        """The last layer's first: the gradient reached it first."""
        for name, p in reversed(list(self.model.named_parameters())):
            self.look("gradient", name, p.grad)

    def _leaving(self, module: nn.Module, inputs: Any, output: Any) -> None:
        name = self._names[id(module)]
        sizes = {"type": type(module).__name__, "largest_input": largest(inputs), "largest_weight": largest(list(module.parameters()))}
        before = "forward" if finite(inputs) else "between"
        self.look(before, name, output, **sizes)
        given = tensors(inputs)
        if not any(True for _ in module.children()) and not (given and given[0] is output):
            for tensor in tensors(output):
                if tensor.requires_grad:
                    tensor.register_hook(self._returning(name, sizes))

    def _returning(self, name: str, sizes: dict[str, Any]) -> Callable[[Tensor], None]:
        def returned(gradient: Tensor) -> None:
            self.look("backward", self._back, gradient, **sizes)
            self._back = name

        return returned


SENTENCES = {
    "input": "{} holds a number that is not finite",
    "weight": "the weight {} is not finite",
    "forward": "the output of {} is not finite, its input is",
    "between": "what {} reads is not finite, though no module before it gave such a number: it was computed between modules",
    "loss": "the outputs of the model are finite, {} of them is not",
    "penalty": "the penalty {} is not finite",
    "backward": "going back, the gradient stops being finite in {}",
    "gradient": "the gradient of {} is not finite",
}


def tensors(tree: Any) -> list[Tensor]:
    """Every floating tensor of outputs, inputs or a list of them."""
    if isinstance(tree, Tensor):
        return [tree] if tree.is_floating_point() else []
    if isinstance(tree, dict):
        tree = list(tree.values())
    elif not isinstance(tree, list | tuple):
        tree = [getattr(tree, name) for name in getattr(tree, "__dataclass_fields__", ())]
    return [tensor for inner in tree for tensor in tensors(inner)]


def finite(tree: Any) -> bool:
    return all(bool(tensor.detach().isfinite().all()) for tensor in tensors(tree))


def largest(tree: Any) -> float | None:
    """The largest magnitude in it; None where there is no number, or it is not finite."""
    sizes = [float(tensor.detach().abs().max()) for tensor in tensors(tree) if tensor.numel()]
    return max(sizes) if sizes and all(map(math.isfinite, sizes)) else None
