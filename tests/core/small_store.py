"""A small store for the tests of stores: what goes in, and whether two are the same to the bit."""

import math
from typing import Any

import torch
from torch import Tensor

Files = dict[str, dict[str, Tensor]]


def example(seed: int = 0) -> tuple[Files, dict[str, Any]]:
    random = torch.Generator().manual_seed(seed)
    model = {
        "embed.weight": torch.randn(5, 3, generator=random),
        "steps": torch.tensor(seed),
        "mask": torch.tensor([True, False, True]),
        "half": torch.randn(7, generator=random).bfloat16(),
        "none": torch.empty(0, 4),
        "turned": torch.randn(3, 4, generator=random, dtype=torch.float64).t(),
    }
    model["head.weight"] = model["embed.weight"]
    optimizer = {"first/embed.weight": torch.randn(5, 3, generator=random), "count": torch.tensor(2**62 + seed)}
    return {"model": model, "optimizer": optimizer}, {"step": seed, "loss": math.nan, "history": [0.1, math.inf], "name": "é"}


def same(a: Files, b: Files) -> bool:
    """Whether names, types, shapes and bits are equal."""

    def bits(tensor: Tensor) -> tuple[Any, ...]:
        content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist() if tensor.numel() else []
        return tensor.dtype, tuple(tensor.shape), content

    first, second = ({file: {name: bits(t) for name, t in held.items()} for file, held in both.items()} for both in (a, b))
    return first == second
