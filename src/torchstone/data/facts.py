"""What the parts may know of the data before training: counts, mean and deviation, a fingerprint.

Shapes: N samples, C channels (or features) in dimension 1.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from torchstone.core.protocols import Facts, InputShape, Split
from torchstone.data.pictures import FetchedPictures, StoredPictures, moments
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


def statistics(split: TensorSplit | StoredPictures | FetchedPictures) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of every channel over exactly these samples, as their source reckons them."""
    return mean_and_std(split) if isinstance(split, TensorSplit) else moments(split)


def of_part(facts: Facts, train: Split, sizes: Mapping[str, int], rule: str, fingerprint: str) -> Facts:
    """The facts of a part of the data that `facts` are of: counts, mean and deviation of `train` alone, the sizes that changed, `rule`
    before the source's own."""
    mean, std = statistics(train) if facts.mean else ((), ())  # type: ignore[arg-type]
    classes = len(facts.classes)
    return replace(
        facts,
        class_counts=tuple(torch.bincount(train.target, minlength=classes).tolist()) if classes else (),  # type: ignore[attr-defined]
        mean=mean,
        std=std,
        sizes=tuple((dict(facts.sizes) | dict(sizes)).items()),
        split_rule=f"{rule}; before that: {facts.split_rule}",
        fingerprint=fingerprint,
    )


def mean_and_std(split: TensorSplit) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (N in the divisor) of every channel of the inputs as the model gets them; two passes in float64."""
    chunks = [slice(i, i + CHUNK) for i in range(0, len(split), CHUNK)]
    across = [d for d in range(split.inputs.ndim) if d != 1]
    count = split.inputs.numel() // split.inputs.shape[1]
    shape = [-1 if d == 1 else 1 for d in range(split.inputs.ndim)]
    mean = sum((_float64(split, chunk).sum(across) for chunk in chunks), torch.zeros(())) / count
    centered = mean.reshape(shape)
    variance = sum((_float64(split, chunk).sub_(centered).square_().sum(across) for chunk in chunks), torch.zeros(())) / count
    return tuple(mean.tolist()), tuple(variance.sqrt().tolist())


def _float64(split: TensorSplit, rows: slice) -> Float64[Tensor, "K *rest"]:
    """A copy of these rows' inputs as the model gets them."""
    return as_float(split.inputs[rows]).to(torch.float64, copy=True)


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
