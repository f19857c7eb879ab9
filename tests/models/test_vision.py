"""Parameter counts in closed form, sizes, and what a block starts as."""

import pytest
import torch

from torchstone.core.protocols import ImageShape
from torchstone.models import ConvNetConfig, MLPConfig


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_mlp_parameters():
    assert count(MLPConfig(hidden=(128, 32)).build(ImageShape(1, 8, 8), 10)) == 64 * 128 + 128 + 128 * 32 + 32 + 32 * 10 + 10


def test_conv_net_parameters():
    def block(inputs, outputs):
        return 9 * inputs * outputs + 9 * outputs**2 + 4 * outputs + (inputs * outputs if inputs != outputs else 0)

    expected = 9 * 32 + 2 * 32 + block(32, 32) + block(32, 64) + block(64, 128) + 128 * 10 + 10
    assert count(ConvNetConfig().build(ImageShape(1, 8, 8), 10)) == expected


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 13), (64, 64)])
def test_conv_net_reads_any_size_and_halves_rounding_up(size):
    model = ConvNetConfig(widths=(4, 6, 8)).build(ImageShape(3, *size), 5).eval()
    sizes = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, x, y: sizes.append(tuple(y.shape[2:])))
    assert model(torch.randn(2, 3, *size)).shape == (2, 5)
    expected = [size]
    while len(expected) < 3:
        expected.append(tuple(-(-s // 2) for s in expected[-1]))
    assert sizes == expected


def test_a_block_starts_as_its_shortcut():
    block = ConvNetConfig(widths=(4,)).build(ImageShape(4, 6, 6), 2).blocks[0]
    x = torch.randn(2, 4, 6, 6).abs()
    assert torch.equal(block(x), x)


def test_conv_net_names():
    names = list(ConvNetConfig(widths=(4, 6)).build(ImageShape(1, 8, 8), 2).state_dict())
    assert names[:2] == ["stem.weight", "stem_norm.weight"]
    assert {"blocks.1.conv_1.weight", "blocks.1.norm_2.running_var", "blocks.1.projection.weight", "head.bias"} <= set(names)


def test_mlp_is_its_definition():
    torch.manual_seed(0)
    model = MLPConfig(hidden=(5,), activation="squared_relu").build(ImageShape(1, 2, 2), 3).double()
    x = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    (w1, b1), (w2, b2) = (list(layer.parameters()) for layer in (model.hidden[0], model.head))
    expected = (x.reshape(4, 4) @ w1.T + b1).clamp(min=0) ** 2 @ w2.T + b2
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
