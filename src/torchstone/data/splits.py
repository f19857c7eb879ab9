"""Samples in memory, and how validation and test samples are held out.

Shapes: N samples.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SPLIT_SEED = 0
"""Constant: which samples are held out never depends on the run's seed, so that seeds can be compared."""


@dataclass(frozen=True, slots=True)
class TensorSplit:
    """All samples as two tensors; fetching is one gather each. Images of bytes stay bytes (`data.pixels` says what they mean)."""

    inputs: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def fetch(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        positions = torch.from_numpy(indices)
        return self.inputs.index_select(0, positions), self.target.index_select(0, positions)

    def joined(self, other: "TensorSplit") -> "TensorSplit":
        """These samples and then the other's."""
        return TensorSplit(torch.cat((self.inputs, other.inputs)), torch.cat((self.target, other.target)))

    def taken(self, rows: np.ndarray) -> "TensorSplit":
        """The samples at `rows` (int64 [N])."""
        return TensorSplit(*self.fetch(rows))


@dataclass(frozen=True, slots=True)
class HoldOut:
    """Positions (sorted int64) that stay and that are held out."""

    kept: np.ndarray
    held: np.ndarray
    stratified: bool
    """Every class has the same share in both. False for regression, and where a class is too rare for it."""


def hold_out(count: int, held: int, labels: np.ndarray | None = None) -> HoldOut:
    """`held` of `count` samples, the same ones in every call; stratified by `labels` (int [N]) where there are enough of each class."""
    from sklearn.model_selection import train_test_split

    classes = np.unique(labels, return_counts=True)[1] if labels is not None else np.zeros(0, dtype=np.int64)
    stratified = len(classes) > 0 and classes.min() >= 2 and len(classes) <= min(held, count - held)
    positions = np.arange(count, dtype=np.int64)
    kept, taken = train_test_split(positions, test_size=held, random_state=SPLIT_SEED, stratify=labels if stratified else None)
    return HoldOut(np.sort(kept), np.sort(taken), bool(stratified))


def hold_out_groups(groups: np.ndarray, held: int, labels: np.ndarray | None = None) -> HoldOut:
    """Whole groups (int [N]) of about `held` samples in all, by class as near as groups allow; the same ones in every call.

    The groups are dealt into as many parts as `held` goes into N; the part nearest to `held` is taken. Needs two groups or more.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    parts = int(np.clip(round(len(groups) / held), 2, len(np.unique(groups))))
    stratified = labels is not None and np.unique(labels, return_counts=True)[1].min() >= parts
    splitter = (StratifiedGroupKFold if stratified else GroupKFold)(n_splits=parts, shuffle=True, random_state=SPLIT_SEED)
    cuts = [(kept, taken) for kept, taken in splitter.split(groups, labels, groups) if len(kept) and len(taken)]
    kept, taken = min(cuts, key=lambda cut: abs(len(cut[1]) - held))
    return HoldOut(np.sort(kept), np.sort(taken), bool(stratified))


def hold_out_last(count: int, held: int) -> HoldOut:
    """The last `held` of `count` samples."""
    positions = np.arange(count, dtype=np.int64)
    return HoldOut(positions[: count - held], positions[count - held :], False)


def labels_of(target: Tensor) -> np.ndarray | None:
    """int64 [N] where the targets are class indices."""
    return target.numpy() if target.ndim == 1 and not target.is_floating_point() else None
