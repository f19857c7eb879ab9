"""All trained parameters of a model laid end to end, so that a step is a handful of torch calls whatever the number of layers.

Layout of `data` (and of `grad`, and of every optimizer memory made like it):

    | group 0                                                | group 1 ...
    | w w w w | w w w w | u u . . . . | b b b . | c . . . .  |
      same-shape matrices side by side   the rest   (. = padding)

- Every tensor starts at a multiple of 16 elements. Padding is 0, its gradient is 0, and no update moves it.
- A group's tensors are contiguous. Inside a group the tensors with two dimensions or more come first, those of equal flattened shape
  [rows, columns] adjacent in the order of the model, so that a batched product reads them in place; then the others, the longest first.
- `p.data` and `p.grad` of each trained parameter are views, contiguous whatever the memory format was before (values are kept).
- A tied parameter is there once, under its first name; a frozen one stays where it is.
- Persistent floating buffers (batch-norm statistics) lie in `buffers` in the same way, in the order of the model.

What keeps the views: backward, `load_state_dict`, DDP (with gradient_as_bucket_view=False), torch.compile. What breaks them: moving or
casting the model afterwards, `load_state_dict(assign=True)`, and for the gradients `backward(create_graph=True)` and `module.zero_grad()`;
the next `FlatParameters.zero_grad` puts the gradients right again. `check` tells.

Shapes: P scalars of all parameters with padding, B of all buffers; K matrices of m rows and n columns.
"""

import copy
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from math import prod
from operator import attrgetter, is_not

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from torchstone.core.errors import UserError
from torchstone.core.protocols import Group

ALIGNMENT = 16
"""Elements; 64 bytes of float32, one cache line."""
PIECE = 1 << 18
"""Elements that are updated together on the CPU: a few such tensors, a megabyte each, wait in the cache between the calls."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one tensor lies."""

    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape)

    def view(self, flat: Shaped[Tensor, " P"]) -> Tensor:
        return flat[self.start : self.start + self.size].view(self.shape)


@dataclass(slots=True)
class Span:
    """Where one group lies, and what scales its rate and its decay."""

    start: int
    stop: int
    lr_scale: float
    """0: frozen. The groups seat may move it during the run (`protocols.Groups`)."""
    decay_scale: float
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """K neighboring hidden matrices of one flattened shape [m, n] in one group: a batched matrix without a copy."""

    names: tuple[str, ...]
    span: Span
    start: int
    stop: int
    shape: tuple[int, int, int]
    stride: int
    """Elements from one matrix to the next: m * n and the padding."""

    def view(self, flat: Float[Tensor, " P"]) -> Float[Tensor, "K m n"]:
        return flat.as_strided(self.shape, (self.stride, self.shape[2], 1), flat.storage_offset() + self.start)


@dataclass(frozen=True, slots=True)
class Run:
    """Neighboring whole tensors of one group, together about `PIECE` elements; a larger one is alone."""

    span: Span
    start: int
    stop: int
    stacks: tuple[tuple[int, int], ...]
    """(K, S): neighbors K at a time that are equally long, S elements with the padding."""

    def views(self, flat: Float[Tensor, " R"]) -> list[Float[Tensor, "K S"]]:
        """What belongs to the run, a row each tensor."""
        if len(self.stacks) == 1:
            return [flat.view(self.stacks[0])]
        return [part.view(stack) for part, stack in zip(flat.split([prod(stack) for stack in self.stacks]), self.stacks, strict=True)]


class FlatParameters:
    """The trained parameters of `model` as one tensor; iterating yields the parameters themselves.

    `groups` must name every trained parameter exactly once; None is one group of all. `grad=False` leaves gradients out (an average needs
    none). `flat_buffers=False` leaves the buffers where they are; the averaging then works on them one by one.
    Raises UserError when nothing is trained, when dtypes or devices differ, when two parameters share memory without being the same object,
    and when `groups` is not a partition. Build it after the model has its final device and dtype.
    """

    def __init__(self, model: nn.Module, groups: Sequence[Group] | None = None, *, grad: bool = True, flat_buffers: bool = True) -> None:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        _refuse_what_cannot_lie_together(trained)
        self.module = model
        self._slots: dict[str, Slot] = {}
        spans, end = [], 0
        for group in _partition(model, trained, groups):
            start = end
            for name in _matrices_first(group.names, trained):
                self._slots[name] = Slot(end, tuple(trained[name].shape))
                end += _aligned(trained[name].numel())
            spans.append(Span(start, end, group.lr_scale, group.decay_scale, tuple(group.names)))
        self.groups: tuple[Span, ...] = tuple(spans)
        self.names: tuple[str, ...] = tuple(self._slots)
        self._parameters = [trained[name] for name in self.names]

        self.data: Float[Tensor, " P"] = _moved(self._parameters, self._slots.values(), end)
        self._grads: list[Tensor] = []
        if grad:
            self.grad: Float[Tensor, " P"] = torch.zeros_like(self.data)
            self._grads = [slot.view(self.grad) for slot in self._slots.values()]
            for p, view in zip(self._parameters, self._grads, strict=True):
                p.grad = view

        floats, self.other_buffers = _persistent_buffers(model)
        self.float_buffers: dict[str, Tensor] = floats
        """Persistent floating buffers by name."""
        self.buffers: Float[Tensor, " B"] | None = None
        if flat_buffers and len({(b.dtype, b.device) for b in floats.values()}) == 1:
            slots, end = [], 0
            for buffer in floats.values():
                slots.append(Slot(end, tuple(buffer.shape)))
                end += _aligned(buffer.numel())
            self.buffers = _moved(floats.values(), slots, end)

    # --- by name -----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[nn.Parameter]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def view(self, flat: Shaped[Tensor, " P"], name: str) -> Tensor:
        """The part of `flat` (laid out like `data`) that belongs to parameter `name`, in its shape."""
        return self._slots[name].view(flat)

    def named(self, flat: Shaped[Tensor, " P"]) -> dict[str, Tensor]:
        """Views of `flat` by parameter name: what a checkpoint stores of a memory."""
        return {name: slot.view(flat) for name, slot in self._slots.items()}

    def load(self, flat: Shaped[Tensor, " P"], named: Mapping[str, Tensor]) -> None:
        """Writes `named` into `flat`. Names and shapes must be exactly the parameters', else UserError and nothing is written."""
        for name in self.names:
            if name not in named:
                raise UserError(f"parameter {name} is missing among the tensors to load")
        for name, value in named.items():
            if name not in self._slots:
                raise UserError(f"{name} is to be loaded, but is no trained parameter of the model")
            if tuple(value.shape) != self._slots[name].shape:
                raise UserError(f"parameter {name} has shape {list(self._slots[name].shape)}, the tensor to load {list(value.shape)}")
        with torch.no_grad():
            for name, view in self.named(flat).items():
                view.copy_(named[name])

    def owners(self, name: str) -> tuple[tuple[str, nn.Module], ...]:
        """(path, module) of every module that holds the parameter: several when it is tied."""
        return self._owners[name]

    @cached_property
    def _owners(self) -> dict[str, tuple[tuple[str, nn.Module], ...]]:
        first_name = {id(p): name for name, p in zip(self.names, self._parameters, strict=True)}
        found: dict[str, list[tuple[str, nn.Module]]] = defaultdict(list)
        for path, module in self.module.named_modules(remove_duplicate=False):
            for p in module.parameters(recurse=False):
                if id(p) in first_name:
                    found[first_name[id(p)]].append((path, module))
        return {name: tuple(owners) for name, owners in found.items()}

    # --- by group and by shape ---------------------------------------------------------------------------------------

    def cut(self, flat: Shaped[Tensor, " P"]) -> list[Tensor]:
        """`flat` cut into the groups, in the order of `groups`."""
        return [flat] if len(self.groups) == 1 else [flat[span.start : span.stop] for span in self.groups]

    def is_hidden_matrix(self, name: str) -> bool:
        """Two dimensions or more, and neither an embedding's nor under a module called `head`."""
        return len(self._slots[name].shape) >= 2 and not any(
            isinstance(module, nn.Embedding | nn.EmbeddingBag) or "head" in path.split(".") for path, module in self.owners(name)
        )

    @cached_property
    def stacks(self) -> tuple[Stack, ...]:
        """The hidden matrices (filters flattened to [out, the rest]), neighbors of equal shape together."""
        stacks: list[Stack] = []
        for span in self.groups:
            run: list[str] = []
            for name in [*(n for n in self.names if span.start <= self._slots[n].start < span.stop), None]:
                if run and (name is None or not self.is_hidden_matrix(name) or self._rows_columns(name) != self._rows_columns(run[0])):
                    stacks.append(self._stack(run, span))
                    run = []
                if name is not None and self.is_hidden_matrix(name):
                    run.append(name)
        return tuple(stacks)

    @cached_property
    def outside_stacks(self) -> tuple[tuple[Span, int, int], ...]:
        """(group, start, stop) of the runs that `stacks` leaves."""
        runs = []
        for span in self.groups:
            end = span.start
            for stack in [s for s in self.stacks if s.span is span]:
                runs.append((span, end, stack.start))
                end = stack.stop
            runs.append((span, end, span.stop))
        return tuple(run for run in runs if run[1] < run[2])

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """All tensors in order, cut between tensors: for what needs a number a tensor. An accelerator gets one run a group."""
        runs, limit = [], PIECE if self.data.device.type == "cpu" else self.data.numel()
        for span in self.groups:
            starts = [slot.start for slot in self._slots.values() if span.start <= slot.start < span.stop] + [span.stop]
            lengths: list[int] = []
            for start, stop in itertools.pairwise(starts):
                if lengths and sum(lengths) + stop - start > limit:
                    runs.append(_run(span, start, lengths))
                    lengths = []
                lengths.append(stop - start)
            runs.append(_run(span, span.stop, lengths))
        return tuple(runs)

    def _rows_columns(self, name: str) -> tuple[int, int]:
        return _flattened(self._slots[name].shape)

    def _stack(self, names: list[str], span: Span) -> Stack:
        rows, columns = self._rows_columns(names[0])
        start, stride = self._slots[names[0]].start, _aligned(rows * columns)
        return Stack(tuple(names), span, start, start + len(names) * stride, (len(names), rows, columns), stride)

    # --- in the step -------------------------------------------------------------------------------------------------

    def zero_grad(self) -> None:
        """Gradients to 0 in one call. A `p.grad` that something replaced becomes the view again (about 40 ns a parameter to look)."""
        self.grad.zero_()
        replaced = map(is_not, map(attrgetter("grad"), self._parameters), self._grads)
        for p, view in list(compress(zip(self._parameters, self._grads, strict=True), replaced)):
            p.grad = view

    def norm(self) -> Float[Tensor, ""]:
        """Euclidean norm of the whole gradient; at least float32."""
        grad = self.grad
        if grad.device.type == "cpu" and grad.dtype in (torch.float32, torch.float64):  # twice as fast, and nearer: its sums are shorter
            return torch.dot(grad, grad).sqrt_()
        return torch.linalg.vector_norm(grad, dtype=torch.promote_types(grad.dtype, torch.float32))

    def check(self) -> None:
        """AssertionError naming a parameter that no longer lies in the buffers. For tests; costs a Python loop."""
        for i, (name, slot) in enumerate(self._slots.items()):
            p = self._parameters[i]
            assert p.dtype == self.data.dtype, f"{name} left the flat data: it was cast"
            assert p.data_ptr() == slot.view(self.data).data_ptr(), f"{name} left the flat data"
            assert not self._grads or p.grad is self._grads[i], f"the gradient of {name} left the flat gradient"

    # --- copies ------------------------------------------------------------------------------------------------------

    def twin(self) -> "FlatParameters":
        """A copy of the model with the same layout, in evaluation mode and without gradients: where an average lives (`twin().module`)."""
        groups = [Group(span.names, span.lr_scale, span.decay_scale) for span in self.groups]
        average = FlatParameters(copy.deepcopy(self.module), groups, grad=False, flat_buffers=self.buffers is not None)
        average.module.requires_grad_(False).eval()
        return average


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _run(span: Span, stop: int, lengths: Sequence[int]) -> Run:
    return Run(span, stop - sum(lengths), stop, tuple((len(list(equal)), length) for length, equal in itertools.groupby(lengths)))


def _flattened(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], prod(shape[1:])


def _moved(tensors: Iterable[Tensor], slots: Iterable[Slot], size: int) -> Tensor:
    """One buffer of `size` elements with the values of `tensors`, which become views of it."""
    tensors = list(tensors)
    flat = torch.zeros(size, dtype=tensors[0].dtype, device=tensors[0].device)
    for tensor, slot in zip(tensors, slots, strict=True):
        view = slot.view(flat)
        view.copy_(tensor.detach())
        tensor.data = view
    return flat


def _refuse_what_cannot_lie_together(trained: Mapping[str, nn.Parameter]) -> None:
    if not trained:
        raise UserError("the model has no parameter to train: none at all, or all are frozen (requires_grad=False)")
    first_name, first = next(iter(trained.items()))
    seen: dict[int, str] = {}
    for name, p in trained.items():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise UserError(f"parameter {name} has no shape yet: run the lazy module once before training")
        if p.dtype != first.dtype:
            raise UserError(f"parameter {name} is {p.dtype}, but {first_name} is {first.dtype}: trained parameters need one dtype")
        if p.device != first.device:
            raise UserError(f"parameter {name} is on {p.device}, but {first_name} on {first.device}: trained parameters need one device")
        if p.numel() and seen.setdefault(p.data_ptr(), name) != name:
            raise UserError(f"{seen[p.data_ptr()]} and {name} share memory but are two parameters: tie them by assigning one nn.Parameter")


def _partition(model: nn.Module, trained: Mapping[str, nn.Parameter], groups: Sequence[Group] | None) -> list[Group]:
    """The groups with trained names only; empty ones left out."""
    if groups is None:
        return [Group(tuple(trained))]
    known, seen = {name for name, _ in model.named_parameters()}, set()
    for name in (name for group in groups for name in group.names):
        if name not in known:
            raise UserError(f"a group names {name}, which is no parameter of the model")
        if name in seen:
            raise UserError(f"parameter {name} is in two groups")
        seen.add(name)
    for name in trained:
        if name not in seen:
            raise UserError(f"parameter {name} is in no group")
    kept = [Group(tuple(n for n in g.names if n in trained), g.lr_scale, g.decay_scale) for g in groups]
    return [group for group in kept if group.names]


def _matrices_first(names: Iterable[str], trained: Mapping[str, nn.Parameter]) -> list[str]:
    """Matrices by the first appearance of their flattened shape, then the rest by length; otherwise in the order of the model."""
    wanted = set(names)
    in_order = [name for name in trained if name in wanted]
    appearance: dict[tuple[int, int], int] = {}
    for name in in_order:
        if trained[name].ndim >= 2:
            appearance.setdefault(_flattened(tuple(trained[name].shape)), len(appearance))

    def place(name: str) -> tuple[int, int]:
        p = trained[name]
        return (appearance[_flattened(tuple(p.shape))], 0) if p.ndim >= 2 else (len(appearance), -p.numel())

    return sorted(in_order, key=place)


def _persistent_buffers(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(floating, other) buffers that belong to the model's state; one that is not saved is constant, or written by a schedule."""
    saved = {id(value) for value in model.state_dict(keep_vars=True).values()}
    kept = {name: buffer for name, buffer in model.named_buffers() if id(buffer) in saved}
    floats = {name: buffer for name, buffer in kept.items() if buffer.is_floating_point()}
    return floats, {name: buffer for name, buffer in kept.items() if name not in floats}
