"""Initial weights have the variance they promise."""

import math

import pytest
import torch

from torchstone.nn import fan_in_normal_, residual_scale


@pytest.mark.parametrize("shape", [(300, 200), (100, 20, 3, 3)])
def test_fan_in_normal(shape):
    torch.manual_seed(0)
    weight = torch.empty(shape)
    fan_in_normal_(weight)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / weight[0].numel()), rel=0.03)


def test_residual_scale():
    assert residual_scale(8) == 0.25
