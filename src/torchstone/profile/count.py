"""Parameters, multiply-accumulates and memory of a model, counted on the meta device: shapes only, nothing is computed.

Counting on the CPU would miss attention: its flash kernel there is not in torch's table of operations (pytorch#195460).
Shapes: N samples; only the shape and type of the inputs beyond N are read.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from torchstone.core.protocols import PyTree

ROWS = 2  # batch norm refuses a single row of a single pixel


def parameters(model: nn.Module) -> dict[str, int]:
    """Scalars in parameters (total, and those that are trained) and in buffers; a tied one counts once."""
    return {
        "total": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "buffers": sum(b.numel() for b in model.buffers()),
    }


def macs(model: nn.Module, inputs: PyTree) -> int:
    """Multiply-accumulates of one forward pass over one sample; flops = 2 x macs.

    Matrix products, convolutions and attention (in full: a causal mask halves nothing here); element-wise work is not counted.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        _on_meta(model).eval()(_rows_on_meta(inputs))
    return counter.get_total_flops() // (2 * ROWS)


def training_memory(
    model: nn.Module, inputs: PyTree, *, microbatch_size: int, moments: int, averaging: bool, matrices: int = 0
) -> dict[str, int]:
    """An estimate of the bytes that one training step holds at once, by what they are for, and `total`.

    Exact for `parameters` (with buffers), `gradients`, `optimizer` (`moments` tensors a trained parameter: AdamW 2, SGD with
    momentum 1; and `matrices` bytes of other shapes, Shampoo's) and `average`. `activations` is what autograd keeps of `microbatch_size`
    samples in the model's own precision.
    Not in it: the loss, the temporaries of single operations, the allocator's slack and the program itself.
    """
    own = _bytes(chain(model.parameters(), model.buffers()))
    trained = _bytes(p for p in model.parameters() if p.requires_grad)
    memory = {
        "parameters": own,
        "gradients": trained,
        "optimizer": moments * trained + matrices,
        "average": own if averaging else 0,
        "activations": _saved_bytes(model, inputs) * microbatch_size,
    }
    return memory | {"total": sum(memory.values())}


def _saved_bytes(model: nn.Module, inputs: PyTree) -> int:
    """What autograd keeps of one sample between forward and backward, each storage once, the model's own tensors aside."""
    copy = _on_meta(model).train()
    with torch.enable_grad(), saved_for_backward(chain(copy.parameters(), copy.buffers())) as kept:
        outputs = copy(_rows_on_meta(inputs))  # noqa: F841 - holds the graph
    return sum(tensor.untyped_storage().nbytes() for tensor in kept) // ROWS


@contextmanager
def saved_for_backward(own: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """A tensor of each storage that autograd keeps inside, each once, those of `own` not at all."""
    seen = {tensor.untyped_storage()._cdata for tensor in own}
    kept: list[Tensor] = []  # alive until the end: a freed storage's address would be met again

    def keep(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()  # an output that its own graph held would never be freed
        if tensor.untyped_storage()._cdata not in seen:
            seen.add(tensor.untyped_storage()._cdata)
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy of the structure with shapes for tensors, the model's memory not copied."""
    shapes: dict[int, Tensor] = {}
    for parameter in model.parameters():
        shapes[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        shapes[id(buffer)] = buffer.detach().to("meta")
    return deepcopy(model, shapes)  # type: ignore[arg-type]


def _rows_on_meta(inputs: PyTree) -> PyTree:
    assert tree_leaves(inputs), "a model without inputs"
    return tree_map(lambda leaf: torch.empty((ROWS, *leaf.shape[1:]), dtype=leaf.dtype, device="meta"), inputs)


def _bytes(tensors: Iterator[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
