"""What makes each family what it is: shortcuts, stems, the table of LeNet, attention, positions."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from torchstone.core.protocols import Facts, ImageShape, VectorShape
from torchstone.models import CifarResnetConfig, LenetConfig, MobileNetV2Config, ResnetConfig, VITConfig
from torchstone.models.vision.cifar_resnet import PadShortcut
from torchstone.models.vision.lenet import READS, scaled_tanh
from torchstone.models.vision.vit import attention, resampled

COLOR = ImageShape(3, 32, 32)


def sizes_of(model, x):
    sizes = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, x, y: sizes.append(tuple(y.shape[2:])))
    model.eval()(x)
    return list(dict.fromkeys(sizes))


# --- ResNet ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("Config", [ResnetConfig, MobileNetV2Config])
def test_auto_stem_is_small_up_to_64_pixels_and_is_written_out(Config):
    for side, stem in ((32, "small"), (64, "small"), (65, "imagenet"), (224, "imagenet")):
        resolved = Config().resolve(Facts(inputs=ImageShape(3, side, 400)))
        assert resolved.stem == stem
        assert resolved.resolve(Facts(inputs=ImageShape(3, 300 - side, 400))).stem == stem
    assert Config().resolve(Facts(inputs=VectorShape(3))).stem == "auto"


def test_sizes_of_the_stages():
    with torch.device("meta"):
        small = ResnetConfig().build(COLOR, 5)
        large = ResnetConfig(depth=50).build(ImageShape(3, 224, 200), 5)
        mobile, mobile_small = MobileNetV2Config().build(ImageShape(3, 224, 224), 5), MobileNetV2Config().build(COLOR, 5)
        x, y, z = torch.empty(2, 3, 32, 32), torch.empty(2, 3, 224, 200), torch.empty(2, 3, 224, 224)
    assert sizes_of(small, x) == [(32, 32), (16, 16), (8, 8), (4, 4)]
    assert sizes_of(large, y) == [(56, 50), (28, 25), (14, 13), (7, 7)]
    assert sizes_of(mobile, z) == [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]
    assert sizes_of(mobile_small, x) == [(32, 32), (16, 16), (8, 8), (4, 4)]


@pytest.mark.parametrize("depth", [18, 50])
def test_blocks_start_as_their_shortcuts(depth):
    model = ResnetConfig(depth=depth, width=4).build(COLOR, 5)
    x = torch.randn(2, 4 if depth == 18 else 16, 6, 6).abs()
    assert torch.equal(model.blocks[1](x), x)
    other = ResnetConfig(depth=depth, width=4, zero_init_residual=False).build(COLOR, 5)
    assert not torch.equal(other.blocks[1](x), x)


def test_a_plain_network_is_the_residual_one_without_its_shortcuts():
    config = CifarResnetConfig(depth=14, width=4)
    torch.manual_seed(0)
    residual = config.build(COLOR, 5).eval()
    plain = replace(config, residual=False).build(COLOR, 5).eval()
    plain.load_state_dict(residual.state_dict())
    x = torch.randn(2, 4, 8, 8)
    block = plain.blocks[0]
    branch = block.norm_2(block.conv_2(F.relu(block.norm_1(block.conv_1(x)))))
    assert torch.equal(block(x), F.relu(branch))
    torch.testing.assert_close(residual.blocks[0](x), F.relu(branch + x))


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
def test_pad_shortcut_takes_every_second_pixel_between_zeros(size):
    x = torch.randn(2, 6, *size)
    y = PadShortcut(6)(x)
    assert y.shape == (2, 12, -(-size[0] // 2), -(-size[1] // 2))
    assert torch.equal(y[:, 3:9], x[:, :, ::2, ::2])
    assert y[:, :3].eq(0).all()
    assert y[:, 9:].eq(0).all()


# --- LeNet -------------------------------------------------------------------------------------------------------------


def test_the_table_of_connections_is_the_papers():
    """Table I, a row a map of S2, X where a map of C3 reads it."""
    table = ["X   XXX  XXXX XX", "XX   XXX  XXXX X", "XXX   XXX  X XXX", " XXX  XXXX  X XX", "  XXX  XXXX XX X", "   XXX  XXXX XXX"]
    assert ["".join("X" if row in reads else " " for reads in READS) for row in range(6)] == table


def test_c3_reads_only_what_the_table_says():
    conv = LenetConfig(variant="1998").build(ImageShape(1, 32, 32), 10).conv_2
    x = torch.randn(1, 6, 14, 14, requires_grad=True)
    for out, reads in enumerate(READS):
        (gradient,) = torch.autograd.grad(conv(x)[0, out].sum(), x)
        assert {i for i in range(6) if gradient[0, i].any()} == reads
    start, total = 0, conv.bias[4].clone()
    for out, reads in enumerate(READS):
        if out == 4:
            total = total + sum((conv.weight[start + i] * x[0, read, :5, :5]).sum() for i, read in enumerate(sorted(reads)))
        start += len(reads)
    torch.testing.assert_close(conv(x)[0, 4, 0, 0], total)


def test_scaled_tanh_is_one_at_one():
    torch.testing.assert_close(scaled_tanh(torch.tensor([-1.0, 0.0, 1.0])), torch.tensor([-1.0, 0.0, 1.0]), rtol=0, atol=1e-4)


def test_a_digit_of_28_pixels_is_one_of_32_with_a_frame():
    model = LenetConfig(variant="1998").build(ImageShape(1, 28, 28), 10)
    framed = LenetConfig(variant="1998").build(ImageShape(1, 32, 32), 10)
    framed.load_state_dict(model.state_dict())
    x = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(model(x), framed(F.pad(x, (2, 2, 2, 2))))


# --- ViT ---------------------------------------------------------------------------------------------------------------


def test_attention_in_bfloat16_is_attention():
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 50, 16, generator=draw).bfloat16().requires_grad_() for _ in range(3))
    ours = attention(q, k, v)
    assert ours.dtype == torch.bfloat16
    grads = torch.autograd.grad(ours.float().square().sum(), (q, k, v))
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    exact = F.scaled_dot_product_attention(*wide)
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=0.02)
    for mine, theirs in zip(grads, torch.autograd.grad(exact.square().sum(), wide), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=0.05 * theirs.abs().max().item())


def test_without_positions_patches_have_no_order():
    model = VITConfig(depth=2, dim=12, num_heads=2, pool="mean").build(ImageShape(1, 8, 8), 3).double().eval()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    swapped = torch.cat([x[..., 4:], x[..., :4]], dim=3)
    assert not torch.allclose(model(x), model(swapped), atol=1e-4)
    torch.nn.init.zeros_(model.positions)
    torch.testing.assert_close(model(x), model(swapped), rtol=1e-9, atol=1e-9)


def test_resampled_positions():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 12, 5, generator=draw)
    assert resampled(x, (3, 4), (3, 4)) is x
    flat = torch.full((1, 16, 2), 0.7)
    torch.testing.assert_close(resampled(flat, (4, 4), (7, 5)), torch.full((1, 35, 2), 0.7))
    # A ramp stays a ramp in the middle: cell i of 16 has its center at (i + 0.5) / 16, as has cell j of 8 at (j + 0.5) / 8.
    ramp = ((torch.arange(16) + 0.5) / 16)[:, None].expand(16, 16).reshape(1, 256, 1)
    made = resampled(ramp, (16, 16), (8, 8)).reshape(8, 8)
    torch.testing.assert_close(made[2:6], ((torch.arange(2, 6) + 0.5) / 8)[:, None].expand(4, 8), rtol=0, atol=2e-3)
    finer = resampled(ramp, (16, 16), (32, 16)).reshape(32, 16)
    torch.testing.assert_close(finer[4:28], ((torch.arange(4, 28) + 0.5) / 32)[:, None].expand(24, 16), rtol=0, atol=2e-3)
