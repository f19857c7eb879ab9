"""Uniform: an epoch is a permutation, a pure function of its key."""

import numpy as np
import torch

from torchstone.core import random
from torchstone.data import Uniform
from torchstone.data.splits import TensorSplit

SPLIT = TensorSplit(torch.zeros(101, 1), torch.zeros(101, dtype=torch.int64))


def test_every_sample_once() -> None:
    order = Uniform()(SPLIT, 7)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(101))


def test_epochs_differ_and_repeat() -> None:
    keys = [random.key(seed, "order", epoch) for seed in range(3) for epoch in range(3)]
    orders = [tuple(Uniform()(SPLIT, key)) for key in keys]
    assert len(set(orders)) == 9  # not seed + epoch: no two runs share an epoch
    assert orders == [tuple(Uniform()(SPLIT, key)) for key in keys]
