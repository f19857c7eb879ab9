"""First weights come from keys of their own: networks that differ in one layer share all the others, and nothing else moves."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from torchstone import models
from torchstone.core import random
from torchstone.core.protocols import ImageShape, TokenShape
from torchstone.models import ConvNetConfig, GPTConfig, MLPConfig
from torchstone.models.building import KeyedDraws
from torchstone.nn.init import LSUV, Kaiming, MuP, Normal, Orthogonal, Truncated, Uniform, Xavier

IMAGE, TEXT = ImageShape(3, 16, 16), TokenShape(16, 256)
RULES = [None, Kaiming(), Orthogonal(), Xavier(distribution="truncated"), Truncated(), Uniform(), Normal(), LSUV(), MuP()]


def weights(config, inputs=IMAGE, seed=0):
    model = models.build(config, inputs, 10, random.key(seed, "init"))
    return {name: tensor.clone() for name, tensor in model.named_parameters()}


@pytest.mark.parametrize("init", RULES, ids=lambda rule: type(rule).__name__)
def test_one_more_block_leaves_the_others_as_they_were(init):
    small = weights(ConvNetConfig(widths=(8, 16), init=init))
    large = weights(ConvNetConfig(widths=(8, 16, 16), init=init))
    drawn = [name for name, tensor in small.items() if tensor.numel() > 1 and tensor.std() > 0]
    assert {"stem.weight", "blocks.1.conv_2.weight", "head.weight"} <= set(drawn)
    assert [name for name in drawn if not torch.equal(small[name], large[name])] == []


def test_one_more_block_of_a_transformer():
    """But for the last weight of each branch, which starts smaller the deeper the network is: the same draws at another scale."""
    config = GPTConfig(depth=2, dim=16, num_heads=2)
    small, large = weights(config, TEXT), weights(replace(config, depth=3), TEXT)
    for name, tensor in small.items():
        factor = math.sqrt(2 / 3) if name.endswith(("attention.out.weight", "mlp.out.weight")) else 1.0
        torch.testing.assert_close(large[name], tensor * factor, rtol=1e-6, atol=1e-9)


def test_another_width_leaves_what_keeps_its_shape():
    one, other = weights(MLPConfig(hidden=(32, 8, 8))), weights(MLPConfig(hidden=(64, 8, 8)))
    assert not one["hidden.0.weight"].shape == other["hidden.0.weight"].shape
    for name in ("hidden.2.weight", "hidden.2.bias", "head.weight", "head.bias"):
        assert torch.equal(one[name], other[name])


def test_equal_shapes_get_draws_of_their_own_that_are_normal():
    config = ConvNetConfig(widths=(16, 16, 16), init=Normal(std=1.0))
    drawn = {name: tensor.detach() for name, tensor in weights(config).items()}
    alike = [tensor.flatten() for name, tensor in drawn.items() if name.endswith("conv_1.weight")]
    assert len(alike) == 3
    assert torch.corrcoef(torch.stack(alike)).fill_diagonal_(0).abs().max() < 0.1  # 2304 numbers each: 0.1 is five deviations
    assert stats.kstest(torch.cat(alike).double().numpy(), "norm").pvalue > 1e-3


def test_the_key_decides_and_no_generator_moves():
    before = torch.get_rng_state()
    one, same, other = weights(ConvNetConfig(), seed=1), weights(ConvNetConfig(), seed=1), weights(ConvNetConfig(), seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["stem.weight"], other["stem.weight"])


def test_a_second_draw_of_a_tensor_is_another_one():
    tensor = torch.nn.Parameter(torch.zeros(5))
    with KeyedDraws(7), torch.no_grad():
        first = tensor.normal_().clone()
        second = tensor.normal_().clone()
        temporary = [torch.randn(5), torch.empty(5).normal_()]
    assert len({tuple(each.tolist()) for each in (first, second, *temporary)}) == 4
