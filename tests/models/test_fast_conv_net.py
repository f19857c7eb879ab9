"""The whitening layer against NumPy's covariance, what the stages are, and how much a frozen layer is frozen."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape
from torchstone.models import FastConvNetConfig
from torchstone.models.vision.fast_conv_net import whitening_axes


def pictures(n, channels=3, side=12, seed=0):
    """Smooth, correlated, far from zero mean: what whitening is for."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, side, side, generator=draw)
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), "reflect"), 3, 1) + 0.5 * x.mean(dim=1, keepdim=True) + 3.0


def patches(x, kernel):
    return x.unfold(2, kernel, 1).unfold(3, kernel, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * kernel**2).double().numpy()


@pytest.mark.parametrize(("channels", "kernel"), [(3, 2), (1, 3), (1, 2), (2, 1)])
def test_filters_whiten_the_patches(channels, kernel):
    x = pictures(300, channels)
    axes = whitening_axes(x, kernel, epsilon=1e-12).flatten(1).double().numpy()
    whitened = np.cov(patches(x, kernel) @ axes.T, rowvar=False).reshape(len(axes), -1)
    np.testing.assert_allclose(whitened, np.eye(len(axes)), atol=1e-4)
    variances = np.linalg.eigvalsh(np.cov(patches(x, kernel), rowvar=False).reshape(len(axes), -1))[::-1]
    np.testing.assert_allclose(1 / (axes**2).sum(1), variances, rtol=1e-4)


def test_epsilon_bounds_what_a_direction_without_signal_is_multiplied_by():
    x = pictures(50, 1)[:, :, :1, :1].expand(-1, 1, 8, 8)  # one gray a picture: three of four directions are empty
    axes = whitening_axes(x, 2, epsilon=5e-4).flatten(1)
    torch.testing.assert_close(axes[1:].norm(dim=1), torch.full((3,), 5e-4**-0.5), rtol=1e-3, atol=0)
    assert axes[0].norm() < 0.1 * 5e-4**-0.5


def test_the_layer_has_both_signs_and_only_its_bias_is_trained():
    model = FastConvNetConfig(widths=(8,)).build(ImageShape(3, 12, 12), 5)
    before = model.whitening.weight.clone()
    model.initialize_from(pictures(100))
    weight = model.whitening.weight
    assert weight.shape == (24, 3, 2, 2)
    assert torch.equal(weight[:12], -weight[12:])
    assert not torch.equal(weight, before)
    assert [name for name, _ in model.whitening.named_parameters()] == ["bias"]
    assert "whitening.weight" in model.state_dict()


def test_initialize_from_is_a_function_of_the_images_alone():
    x = pictures(700)

    def weight(inputs, seed):
        torch.manual_seed(seed)
        model = FastConvNetConfig(widths=(4,)).build(ImageShape(3, 12, 12), 5)
        state = torch.get_rng_state()
        model.initialize_from(inputs)
        assert torch.equal(torch.get_rng_state(), state)
        return model.whitening.weight

    first = weight(x, 0)
    assert torch.equal(first, weight(x, 1))
    assert torch.equal(first, weight(x.to(memory_format=torch.channels_last), 2))
    torch.testing.assert_close(first, weight(x.flip(0), 3), rtol=1e-4, atol=1e-4)
    assert (first[:12].flatten(1).gather(1, first[:12].flatten(1).abs().argmax(1, keepdim=True)) > 0).all()


def test_bad_images_are_refused():
    model = FastConvNetConfig(widths=(4,)).build(ImageShape(3, 12, 12), 5)
    with pytest.raises(UserError, match="given none"):
        model.initialize_from(torch.zeros(0, 3, 12, 12))
    bad = pictures(4)
    bad[1, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="NaN or infinity"):
        model.initialize_from(bad)


def by_definition(model, x):
    state, config = model.state_dict(), model.config
    x = F.gelu(F.conv2d(x, state["whitening.weight"], state["whitening.bias"]))

    def norm(x, name):
        mean, variance = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, correction=0)
        return (x - mean) / (variance + 1e-5).sqrt() + state[f"{name}.bias"][:, None, None]

    for stage in range(len(config.widths)):
        x = F.conv2d(x, state[f"blocks.{stage}.convs.0.weight"], padding=1)
        if min(x.shape[2:]) > 1:
            x = torch.stack([x[:, :, i : x.shape[2] // 2 * 2 : 2, j : x.shape[3] // 2 * 2 : 2] for i in (0, 1) for j in (0, 1)]).amax(0)
        first = x = F.gelu(norm(x, f"blocks.{stage}.norms.0"))
        for i in range(1, config.convs_per_stage):
            x = norm(F.conv2d(x, state[f"blocks.{stage}.convs.{i}.weight"], padding=1), f"blocks.{stage}.norms.{i}")
            x = F.gelu(x + first if config.residual and i == config.convs_per_stage - 1 else x)
    return x.flatten(2).amax(2) @ state["head.weight"].T * config.head_scale


@pytest.mark.parametrize(
    "config",
    [
        FastConvNetConfig(widths=(5, 6, 7)),
        FastConvNetConfig(widths=(30, 6), convs_per_stage=3, residual=True, whiten_kernel=3),
        FastConvNetConfig(widths=(4,) * 5, convs_per_stage=1, head_scale=0.5),
    ],
)
@pytest.mark.parametrize("size", [(12, 12), (17, 9)])
def test_forward_is_its_definition(config, size):
    torch.manual_seed(1)
    model = config.build(ImageShape(3, *size), 5).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(6, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(model(x), by_definition(model, x), rtol=1e-9, atol=1e-9)


def test_dirac_convolutions_start_as_the_identity():
    model = FastConvNetConfig(widths=(30,)).build(ImageShape(3, 12, 12), 5)
    stage = model.blocks[0]
    x = torch.randn(2, 24, 6, 6)
    torch.testing.assert_close(stage.convs[0](x)[:, :24], x)
    assert not torch.allclose(stage.convs[0](x)[:, 24:], x[:, :6], atol=0.1)
    y = torch.randn(2, 30, 6, 6)
    torch.testing.assert_close(stage.convs[1](y), y)


def test_norm_momentum_is_how_far_a_batch_moves_the_statistics():
    model = FastConvNetConfig(widths=(4,), norm_momentum=1.0).build(ImageShape(1, 8, 8), 2)
    outputs = []
    model.blocks[0].norms[0].register_forward_pre_hook(lambda module, args: outputs.append(args[0]))
    model(torch.randn(5, 1, 8, 8))
    torch.testing.assert_close(model.blocks[0].norms[0].running_mean, outputs[0].mean(dim=(0, 2, 3)))
