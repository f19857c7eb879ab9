"""Weights from elsewhere: the body of a trained model copied by name into one with another head.

A model says with `our_name(name)` what its tensors are called in torchvision, timm and the like, with `first_conv` which tensor reads the
image's channels, and with `fitted(name, tensor)` what else it can adapt (a vision transformer: its positions).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchstone.core.errors import UserError, clean

HEAD = "head."
"""How the names of the output layer begin: it belongs to the classes it was trained for."""

_COUNTER = "num_batches_tracked"
"""A batch norm's step counter. It is copied where there is one, and missed by nobody where there is none."""

_WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What data parallel, torch.compile and trainers put before each name."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `load_body` did."""

    loaded: int
    """Tensors that were copied."""
    left_out: tuple[str, ...]
    """Names in the file that the model's body has no place for: its head, and what this model has not."""
    fresh: tuple[str, ...]
    """Names in the model that keep their first values: its head, and what the file has not."""
    adapted: tuple[str, ...] = ()
    """What was copied in another shape, and how: a sentence each."""


def load_body(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> Loaded:
    """Copies every tensor but the head's into `model`, by our names or those its `our_name` knows.

    All or nothing: raises UserError before anything is copied, naming `source`, the tensor and both shapes where one does not fit, and
    where no tensor has a place at all. Floats of any width are taken.
    """
    state = model.state_dict()
    found, left_out = _matched(model, state, tensors, source)
    if all(name.endswith(_COUNTER) for name in found):
        ours, theirs = _some(name for name in state if not name.startswith(HEAD)), _some(tensors)
        raise UserError(f"{source}: no tensor fits a {type(model).__name__}, whose tensors are called {ours}; found {theirs}")
    values, adapted = {}, []
    for name, (theirs, tensor) in found.items():
        values[name], said = _fitted(model, name, tensor, state[name], f"{source}: tensor {_shown(theirs)}")
        adapted += [said] if said else []
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(value)
    fresh = tuple(name for name in state if name not in values and not name.endswith(_COUNTER))
    return Loaded(len(values), tuple(left_out), fresh, tuple(adapted))


def _matched(
    model: nn.Module, state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str
) -> tuple[dict[str, tuple[str, Tensor]], list[str]]:
    """({our name: (their name, tensor)} for the body, their names without a place)."""
    found: dict[str, tuple[str, Tensor]] = {}
    left_out = []
    for theirs, tensor in tensors.items():
        name = _renamed(model, state, theirs)
        if name is None or name not in state or name.startswith(HEAD):
            left_out.append(theirs)
        elif name in found:
            raise UserError(f"{source}: tensors {_shown(found[name][0])} and {_shown(theirs)} are both the model's {name}")
        else:
            found[name] = (theirs, tensor)
    return found, left_out


def _renamed(model: Any, state: Mapping[str, Tensor], theirs: str) -> str | None:
    for name in _unwrapped(theirs):
        if name in state:
            return name
        if hasattr(model, "our_name") and (ours := model.our_name(name)) is not None:
            return ours
    return None


def _unwrapped(name: str) -> list[str]:
    """The name, and what is left of it without its wrappers."""
    names = [name]
    while wrapper := next((wrapper for wrapper in _WRAPPERS if names[-1].startswith(wrapper)), None):
        names.append(names[-1].removeprefix(wrapper))
    return names


def _fitted(model: Any, name: str, tensor: Tensor, target: Tensor, where: str) -> tuple[Tensor, str]:
    """(the tensor in the target's shape, what was done to it or "")."""
    if tensor.is_floating_point() != target.is_floating_point():
        raise UserError(f"{where} is {_dtype(tensor)}, the model's {name} is {_dtype(target)}")
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise UserError(f"{where} holds NaN or infinity")
    if tensor.shape == target.shape:
        return tensor, ""
    adapted = None
    if name == getattr(model, "first_conv", None):
        adapted = _other_channels(tensor, target)
    elif hasattr(model, "fitted"):
        adapted = model.fitted(name, tensor)
    if adapted is None or adapted[0].shape != target.shape:
        shapes = f"{where} is {list(tensor.shape)}, the model's {name} is {list(target.shape)}"
        raise UserError(f"{shapes}; model.body must be set to the network of the file (stem, depth, widths)")
    return adapted[0], f"{name}: {adapted[1]}"


def _other_channels(tensor: Tensor, target: Tensor) -> tuple[Tensor, str] | None:
    """A first convolution [out, in, ...] for gray instead of color images, or the other way: a gray image gives what it gave in color."""
    channels, wanted = tensor.shape[1] if tensor.ndim == 4 else 0, target.shape[1]
    if (channels, wanted) == (3, 1):
        return tensor.sum(dim=1, keepdim=True), "summed over the three colors, for gray images"
    if (channels, wanted) == (1, 3):
        return tensor.repeat(1, 3, 1, 1) / 3, "a third of it for each of the three colors"
    return None


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(_shown(name) for name in names[:3]) + (" ..." if len(names) > 3 else "") or "none"


def _shown(name: str) -> str:
    """A name from a file, fit for one line of a terminal."""
    return " ".join(clean(name).split())
