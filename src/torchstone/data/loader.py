"""The loader: turns the rows of a plan into batches, in this process or ahead of time in workers.

The batches depend on the split, the rows and the key alone: not on the number of workers, nor on when they are made.
Global random generators are neither read nor moved.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchstone.core import random
from torchstone.core.errors import Interrupted, WorkError
from torchstone.core.protocols import Batch, PyTree, SampleTransform, Split
from torchstone.data.pytree import map_leaves
from torchstone.data.workers import Workers, told

Share = tuple[np.ndarray, np.ndarray]
"""(positions in the split int64 [n], weights float32 [n]) of one micro-batch."""

CPU = torch.device("cpu")


def load(
    split: Split,
    rows: Iterable[Sequence[Share]],
    *,
    sample_transforms: Sequence[SampleTransform] = (),
    key: int,
    workers: int = 0,
    device: torch.device = CPU,
    timeout: float = 10.0,
    start_method: str | None = None,
) -> Iterator[list[Batch]]:
    """For every update in `rows` the list of its micro-batches, on `device`.

    `key` is that of the epoch; each sample transform gets its own key a sample from it. `timeout`: seconds without progress
    after which a worker counts as stuck. `start_method`: how workers start; none: "fork" on Linux, "spawn" elsewhere.
    Dropping or closing the iterator ends the workers.
    Raises WorkError, naming the sample, the worker and the cause, when a sample cannot be prepared.
    """
    if workers < 0:
        raise ValueError(f"workers must be >= 0, got {workers}")
    samples = Samples(split, tuple(sample_transforms), key)
    if workers == 0:
        return ([_batch(samples.whole(indices), (indices, weights), device) for indices, weights in update] for update in rows)
    return _ahead(samples, rows, device, workers, timeout, start_method)


def _ahead(
    samples: "Samples", rows: Iterable[Sequence[Share]], device: torch.device, workers: int, timeout: float, start_method: str | None
) -> Iterator[list[Batch]]:
    updates, again = itertools.tee(rows)
    tasks = (indices for update in again for indices, _ in update)
    with Workers(samples.one_by_one, workers, timeout=timeout, start_method=start_method) as pool:
        prepared = pool.map(tasks)
        for update in updates:
            yield [_batch(next(prepared), share, device) for share in update]


@dataclass(frozen=True, slots=True)
class Samples:
    """Prepares micro-batches; holds only what travels to a worker."""

    split: Split
    transforms: tuple[SampleTransform, ...]
    key: int

    def whole(self, indices: np.ndarray) -> tuple[PyTree, PyTree]:
        """A micro-batch in this process: one fetch where no transform wants the samples apart."""
        at = [-1]
        try:
            if not self.transforms:
                return self.split.fetch(indices)
            return self.one_by_one(indices, lambda index: at.__setitem__(0, index))
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:
            index = at[0] if self.transforms else self._culprit(indices)
            raise WorkError(f"sample {index} could not be prepared (in the main process): {told(error)}") from error

    def one_by_one(self, indices: np.ndarray, note: Callable[[int], None]) -> tuple[PyTree, PyTree]:
        """A micro-batch whose samples are fetched and transformed apart; `note` is told each sample before it is touched."""
        keys = self._keys(indices)
        samples = []
        for row, index in enumerate(indices.tolist()):
            note(index)
            sample = map_leaves(_first, self.split.fetch(indices[row : row + 1]))
            for transform, its_keys in zip(self.transforms, keys, strict=True):
                sample = transform(sample, its_keys[row])
            samples.append(sample)
        return map_leaves(_stack, *samples) if samples else self.split.fetch(indices)

    def _keys(self, indices: np.ndarray) -> list[list[int]]:
        """[transform][row]; two transforms of one kind draw apart."""
        seen: Counter[str] = Counter()
        keys = []
        for kind in (type(transform).__name__ for transform in self.transforms):
            stream = random.key(self.key, kind, seen[kind])
            keys.append(random.sample_keys(stream, torch.from_numpy(indices)).tolist())
            seen[kind] += 1
        return keys

    def _culprit(self, indices: np.ndarray) -> int:
        """The first sample that cannot be fetched on its own, or the first of all where each can."""
        for row, index in enumerate(indices.tolist()):
            try:
                self.split.fetch(indices[row : row + 1])
            except (Exception, SystemExit):
                return index
        return int(indices[0])


def _first(tensor: Tensor) -> Tensor:
    return tensor[0]


def _stack(*tensors: Tensor) -> Tensor:
    return torch.stack(tensors)


def _batch(sample: tuple[PyTree, PyTree], share: Share, device: torch.device) -> Batch:
    inputs, target = sample
    index, weight = torch.from_numpy(share[0]), torch.from_numpy(share[1])
    if device.type == "cpu":
        return Batch(inputs, target, index, weight)
    return Batch(*(map_leaves(lambda tensor: _sent(tensor, device), tree) for tree in (inputs, target, index, weight)))


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
