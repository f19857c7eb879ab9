"""Bits per byte: the length of the code that the model's probabilities give."""

import math

import pytest
import torch
import torch.nn.functional as F

from torchstone.metrics import BitsPerByte


def test_even_odds_cost_eight_bits() -> None:
    sums = BitsPerByte().measure(torch.zeros(2, 7, 256), torch.full((2, 7), 65), torch.ones(2, 7), torch.zeros(2, 7))
    assert BitsPerByte().result(sums)["bits_per_byte"] == pytest.approx(8.0, rel=1e-6)


def test_it_is_the_cross_entropy_whatever_the_loss() -> None:
    g = torch.Generator().manual_seed(0)
    logits, target = torch.randn(3, 9, 256, generator=g), torch.randint(0, 256, (3, 9), generator=g)
    target[2, 4:] = -100
    weight = (target >= 0).float() * 3  # a class weight is no part of a code's length
    sums = BitsPerByte().measure(logits, target, weight, torch.full((3, 9), 99.0))
    reference = F.cross_entropy(logits.double().flatten(0, 1), target.flatten()) / math.log(2)
    assert int(sums["bytes"]) == 22
    assert BitsPerByte().result(sums)["bits_per_byte"] == pytest.approx(float(reference), rel=1e-6)
