"""From a model's config to the network with its first weights."""

import os
from typing import Any

import torch
from torch import nn

from torchstone.core import tree
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
            torch.default_generator.manual_seed(key)
            return config.build(inputs, outputs)
        except (ValueError, RuntimeError, MemoryError) as error:
            reason = (str(error) or "no memory is left").splitlines()[0]
            raise UserError(f"model={tree.kind_of(config)}: {reason}") from None
