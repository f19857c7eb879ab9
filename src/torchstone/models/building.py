"""From a model's config to the network with its first weights.

Each tensor is drawn from a key of its own: the network's key, the tensor's shape, how many parameters of that shape came before it, and
how often it has been drawn. Two networks that differ in one layer therefore start from the same weights everywhere else.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from torchstone.core import random, tree
from torchstone.core.errors import UserError
from torchstone.core.protocols import InputShape


def build(config: Any, inputs: InputShape, outputs: int, key: int) -> nn.Module:
    """The network on the CPU; its weights depend on `key` alone, and no global generator moves.

    Raises UserError when the model does not take such inputs, or is larger than this machine's memory (nothing is allocated then).
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key)
        try:
            with torch.device("meta"):
                size = sum(parameter.nbytes for parameter in config.build(inputs, outputs).parameters())
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            if size > memory:
                raise UserError(f"takes {size / 1e9:,.0f} GB of memory, this machine has {memory / 1e9:,.0f}; make it smaller")
            with KeyedDraws(key):
                return config.build(inputs, outputs)
        except (ValueError, RuntimeError, MemoryError) as error:
            reason = (str(error) or "no memory is left").splitlines()[0]
            raise UserError(f"model={tree.kind_of(config)}: {reason}") from None


class KeyedDraws(TorchDispatchMode):
    """Inside, every random operation on the CPU starts the default generator from the key of what it fills."""

    def __init__(self, key: int) -> None:
        super().__init__()
        self.key = key
        self.came: Counter[tuple[int, ...]] = Counter()
        """How many tensors of a shape have been drawn; parameters, and what is only on the way to one, apart."""
        self.drawn: dict[int, list[Any]] = {}
        """[the parameter (kept, so that no other takes its id), which of its shape it is, how often it has been drawn]."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
            torch.default_generator.manual_seed(self._next(args))
        return func(*args, **(kwargs or {}))

    def _next(self, args: Sequence[Any]) -> int:
        filled: Any = args[0] if args else None
        if not isinstance(filled, nn.Parameter):
            size = filled.shape if isinstance(filled, torch.Tensor) else filled if isinstance(filled, list | tuple) else ()
            shape = (0, *(each for each in size if isinstance(each, int)))
            self.came[shape] += 1
            return random.derived(self.key, *shape, self.came[shape])
        shape = (1, *filled.shape)
        if id(filled) not in self.drawn:
            self.came[shape] += 1
            self.drawn[id(filled)] = [filled, self.came[shape], 0]
        _, which, before = self.drawn[id(filled)]
        self.drawn[id(filled)][2] += 1
        return random.derived(self.key, *shape, which, before)
