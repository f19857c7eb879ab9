"""The loader: every row once and in order, the same bits with any number of workers, no global generator touched."""

import random as python_random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchstone.core import random
from torchstone.core.errors import WorkError
from torchstone.data import AddNoise, Digits, Resize, load
from torchstone.data.splits import TensorSplit

SPLIT = TensorSplit(torch.rand(57, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(57) % 10)
TRANSFORMS = (Resize(height=6, width=5), AddNoise(std=0.3), AddNoise(std=0.3))


def rows_of(order: np.ndarray, batch: int, micro: int):
    """Updates of `batch` rows in micro-batches of `micro`."""
    windows = [order[i : i + batch] for i in range(0, len(order), batch)]
    return [[(w[i : i + micro], np.ones(len(w[i : i + micro]), dtype=np.float32)) for i in range(0, len(w), micro)] for w in windows]


def bits(updates) -> list[list[tuple[bytes, ...]]]:
    return [[tuple(t.numpy().tobytes() for t in (b.inputs, b.target, b.index, b.weight)) for b in update] for update in updates]


@given(st.integers(1, 20), st.integers(1, 20))
def test_every_row_once_in_order(batch: int, micro: int) -> None:
    order = random.permutation(5, len(SPLIT))
    rows = rows_of(order, batch, micro)
    updates = list(load(SPLIT, rows, key=1))
    assert [len(update) for update in updates] == [len(update) for update in rows]
    batches = [b for update in updates for b in update]
    assert torch.cat([b.index for b in batches]).tolist() == order.tolist()
    assert torch.equal(torch.cat([b.inputs for b in batches]), SPLIT.inputs[order])
    assert torch.equal(torch.cat([b.target for b in batches]), SPLIT.target[order])


@pytest.mark.parametrize("transforms", [(), TRANSFORMS], ids=["plain", "transformed"])
def test_the_number_of_workers_changes_nothing(transforms) -> None:
    rows = rows_of(random.permutation(5, len(SPLIT)), 12, 5)
    here = bits(load(SPLIT, rows, key=1, sample_transforms=transforms))
    for workers in (1, 2, 3):
        assert bits(load(SPLIT, rows, key=1, sample_transforms=transforms, workers=workers)) == here


@pytest.mark.slow
def test_spawned_workers_change_nothing() -> None:
    rows = rows_of(random.permutation(5, len(SPLIT)), 12, 5)
    spawned = load(SPLIT, rows, key=1, sample_transforms=TRANSFORMS, workers=2, start_method="spawn", timeout=60.0)
    assert bits(spawned) == bits(load(SPLIT, rows, key=1, sample_transforms=TRANSFORMS))


def test_a_sample_is_the_same_wherever_it_falls() -> None:
    """What resume, another batch size and ranks rest on."""
    for order, micro in ((random.permutation(5, 57), 7), (random.permutation(6, 57), 57)):
        batches = [b for update in load(SPLIT, rows_of(order, 57, micro), key=3, sample_transforms=TRANSFORMS) for b in update]
        found = dict(zip(torch.cat([b.index for b in batches]).tolist(), torch.cat([b.inputs for b in batches]), strict=True))
        assert torch.equal(found[17], next(load(SPLIT, rows_of(np.array([17]), 1, 1), key=3, sample_transforms=TRANSFORMS))[0].inputs[0])


def test_draws_differ_by_key_sample_and_place_in_the_list() -> None:
    same = TensorSplit(torch.zeros(4, 50), torch.zeros(4, dtype=torch.int64))
    rows = rows_of(np.arange(4), 4, 4)

    def drawn(key: int, *transforms) -> torch.Tensor:
        return next(load(same, rows, key=key, sample_transforms=transforms))[0].inputs

    once = drawn(0, AddNoise(std=1.0))
    assert len(once.unique(dim=0)) == 4
    assert not torch.equal(once, drawn(1, AddNoise(std=1.0)))
    twice = drawn(0, AddNoise(std=1.0), AddNoise(std=1.0))
    assert (twice - 2 * once).abs().mean() > 0.5
    # A transform of another kind before it does not move its numbers.
    image = TensorSplit(torch.zeros(4, 1, 5, 10), same.target)
    moved = next(load(image, rows, key=0, sample_transforms=(Resize(height=5, width=10), AddNoise(std=1.0))))[0].inputs
    assert torch.equal(moved.flatten(1), once)


@pytest.mark.parametrize("workers", [0, 2])
def test_global_generators_are_neither_read_nor_moved(workers: int) -> None:
    rows = rows_of(np.arange(57), 16, 8)

    def states():
        # Not Python's own: beartype draws from it whenever it checks a list.
        return torch.get_rng_state().tolist(), str(np.random.get_state())

    before = states()
    first = bits(load(SPLIT, rows, key=1, sample_transforms=TRANSFORMS, workers=workers))
    assert states() == before
    torch.manual_seed(99)
    python_random.seed(99)
    np.random.seed(99)
    assert bits(load(SPLIT, rows, key=1, sample_transforms=TRANSFORMS, workers=workers)) == first


def test_rows_are_planned_lazily() -> None:
    taken = []

    def rows():
        for number, update in enumerate(rows_of(np.arange(57), 1, 1)):
            taken.append(number)
            yield update

    batches = load(SPLIT, rows(), key=0)
    next(batches)
    assert taken == [0]
    batches = load(SPLIT, rows(), key=0, workers=2)
    next(batches)
    batches.close()
    assert len(taken) < 10


def test_no_rows_no_batches() -> None:
    assert list(load(SPLIT, [], key=0, workers=1)) == []
    assert list(load(SPLIT, [], key=0)) == []


def test_weights_pass_through() -> None:
    weights = np.array([1, 0], dtype=np.float32)
    (batch,) = next(load(SPLIT, [[(np.array([3, 3]), weights)]], key=0))
    assert batch.weight.tolist() == [1, 0]


@dataclass(frozen=True)
class Named:
    """Samples as a tree: a dict of a tensor and a tuple."""

    def __len__(self) -> int:
        return 6

    def fetch(self, indices: np.ndarray):
        x = torch.from_numpy(indices).float()
        return {"x": x, "pair": (x + 1, x + 2)}, {"y": x.long()}


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_may_be_trees(workers: int) -> None:
    (batch,) = next(load(Named(), rows_of(np.arange(4), 4, 4), key=0, workers=workers))
    assert batch.inputs["pair"][1].tolist() == [2, 3, 4, 5]
    assert batch.target["y"].tolist() == [0, 1, 2, 3]


class Broken:
    def __len__(self) -> int:
        return 100

    def fetch(self, indices: np.ndarray):
        if 13 in indices:
            raise OSError("broken\x1b[31m.jpg\nis cut off")
        return torch.zeros(len(indices), 2), torch.zeros(len(indices))


@pytest.mark.parametrize("transforms", [(), (AddNoise(),)])
def test_a_failure_in_this_process_names_the_sample(transforms) -> None:
    batches = load(Broken(), rows_of(np.arange(100), 10, 10), key=0, sample_transforms=transforms)
    next(batches)
    with pytest.raises(WorkError) as caught:
        next(batches)
    assert str(caught.value) == "sample 13 could not be prepared (in the main process): OSError: broken.jpg is cut off"


def test_the_device_is_where_batches_are() -> None:
    (batch,) = next(load(SPLIT, rows_of(np.arange(4), 4, 4), key=0, device=torch.device("meta")))
    assert {t.device.type for t in (batch.inputs, batch.target, batch.index, batch.weight)} == {"meta"}


@pytest.mark.gpu
def test_batches_on_an_accelerator_are_the_same() -> None:
    split = Digits().open().train
    rows = rows_of(np.arange(100), 32, 16)
    there = load(split, rows, key=0, device=torch.device("cuda"))
    for ours, theirs in zip(load(split, rows, key=0), there, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert b.inputs.is_cuda
            assert torch.equal(a.inputs, b.inputs.cpu())
            assert torch.equal(a.index, b.index.cpu())


def test_workers_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="workers must be >= 0"):
        load(SPLIT, [], key=0, workers=-1)
