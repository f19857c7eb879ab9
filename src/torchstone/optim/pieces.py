"""What an update written in plain torch needs: pieces of the buffers that stay in the cache, and a way to take a step back.

The numbers of a piece are read from memory once and wait in the processor's cache for the next pass. An accelerator gets each group as one
piece.
Shapes: P scalars of all parameters, S of a piece.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.optim.flat import PIECE, FlatParameters, Span


def pieces(parameters: FlatParameters, *flats: Float[Tensor, " P"]) -> Iterator[tuple[Span, tuple[Tensor, ...]]]:
    """(group, (data, gradient, *flats) [S]) of every piece of every group that is not frozen."""
    tensors = (parameters.data, parameters.grad, *flats)
    for span in parameters.groups:
        if span.lr_scale == 0:
            continue
        group = tensors if len(parameters.groups) == 1 else tuple(flat[span.start : span.stop] for flat in tensors)
        if parameters.data.device.type != "cpu" or span.stop - span.start <= PIECE:
            yield span, group
        else:
            yield from ((span, piece) for piece in zip(*(flat.split(PIECE) for flat in group), strict=True))


@contextmanager
def undone(found_inf: Tensor | None, *tensors: Tensor) -> Iterator[None]:
    """What is done to `tensors` inside is taken back where `found_inf` (0-d) is not 0. Nobody waits for the device."""
    if found_inf is None:
        yield
        return
    before = [tensor.clone() for tensor in tensors]
    yield
    for tensor, old in zip(tensors, before, strict=True):
        tensor.copy_(torch.where(found_inf != 0, old, tensor))


def number(tensor: Float[Tensor, ""]) -> float | Tensor:
    """A 0-d memory to compute with: a float on the CPU, where reading costs nothing; elsewhere a tensor of the best precision there is."""
    if tensor.device.type == "cpu":
        return tensor.item()
    return tensor if tensor.device.type == "mps" else tensor.double()


def counter(parameters: FlatParameters, value: float = 0.0) -> Float[Tensor, ""]:
    """A 0-d memory beside the parameters; float32, where the fused kernels want it."""
    return torch.full((), value, dtype=torch.float32, device=parameters.data.device)


def coupled(grad: Float[Tensor, "*S"], data: Float[Tensor, "*S"], weight_decay: float) -> Float[Tensor, "*S"]:
    """The gradient of the loss plus weight_decay / 2 |w|^2; itself where there is no decay."""
    return grad if weight_decay == 0 else grad.add(data, alpha=weight_decay)
