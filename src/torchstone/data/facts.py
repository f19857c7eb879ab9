"""What the parts may know of the data before training: counts, mean and deviation, a fingerprint.

Shapes: N samples, C channels (or features) in dimension 1.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from torchstone.core.protocols import Facts, InputShape
from torchstone.data.pixels import as_float
from torchstone.data.splits import TensorSplit

CHUNK = 4096
"""Samples converted to float64 at once: statistics of a large uint8 array need little memory beside it."""


def describe(splits: Mapping[str, TensorSplit], inputs: InputShape, classes: tuple[str, ...], split_rule: str) -> Facts:
    """Facts of "train", "validation" and "test" splits held in memory; all but the sizes and the fingerprint from "train" alone."""
    train = splits["train"]
    mean, std = mean_and_std(train)
    counts = torch.bincount(train.target, minlength=len(classes)).tolist() if classes else []
    return Facts(
        inputs=inputs,
        classes=classes,
        class_counts=tuple(counts),
        mean=mean,
        std=std,
        sizes=tuple((name, len(split)) for name, split in splits.items()),
        split_rule=split_rule,
        fingerprint=fingerprint(
            {f"{name}.{part}": tensor for name, s in splits.items() for part, tensor in (("inputs", s.inputs), ("target", s.target))}
        ),
    )


def mean_and_std(split: TensorSplit) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (N in the divisor) of every channel of the inputs as the model gets them; two passes in float64."""
    rows = np.arange(len(split), dtype=np.int64)
    chunks = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
    across = [d for d in range(split.inputs.ndim) if d != 1]
    count = split.inputs.numel() // split.inputs.shape[1]
    shape = [-1 if d == 1 else 1 for d in range(split.inputs.ndim)]
    mean = sum((as_float(split.fetch(chunk)[0]).double().sum(across) for chunk in chunks), torch.zeros(())) / count
    centered = mean.reshape(shape)
    variance = (
        sum(((as_float(split.fetch(chunk)[0]).double() - centered).square().sum(across) for chunk in chunks), torch.zeros(())) / count
    )
    return tuple(mean.tolist()), tuple(variance.sqrt().tolist())


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
