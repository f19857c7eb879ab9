"""What ColorJitter draws: the factors' distributions, one field at a time; the arithmetic is tested in tests/ops/test_color.py."""

from dataclasses import replace

import pytest
import torch
from scipy import stats

from torchstone.core import random
from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch, Facts, ImageShape, TokenShape
from torchstone.data.batch_transforms import ColorJitter

N = 4000
KEYS = random.sample_keys(random.key(5, "color"), torch.arange(N))


def only(**fields: float) -> ColorJitter:
    """These fields alone; the others are off."""
    return replace(ColorJitter.neutral, **fields)


def apply(part: ColorJitter, color: list[float], side: int = 2) -> torch.Tensor:
    """The colors [N, C] that one color becomes, in images of nothing else."""
    images = torch.tensor(color)[None, :, None, None].expand(N, -1, side, side).contiguous()
    return part(Batch(images, torch.zeros(N), torch.arange(N), torch.ones(N)), KEYS).inputs[:, :, 0, 0]


@pytest.mark.parametrize(("width", "low", "high"), [(0.4, 0.6, 1.4), (1.5, 0.0, 2.5)])
def test_brightness_is_uniform(width: float, low: float, high: float) -> None:
    factor = apply(only(brightness=width), [0.2, 0.1, 0.3])[:, 0].double().numpy() / 0.2
    assert stats.kstest(factor, stats.uniform(low, high - low).cdf).pvalue > 0.01


def test_contrast_keeps_the_mean_and_scales_the_rest() -> None:
    images = torch.tensor([0.4, 0.6]).repeat(N, 1)[:, None, None, :].contiguous()
    out = only(contrast=0.5)(Batch(images, torch.zeros(N), torch.arange(N), torch.ones(N)), KEYS).inputs[:, 0, 0]
    torch.testing.assert_close(out.mean(dim=1), torch.full((N,), 0.5))
    assert stats.kstest((out[:, 1] - out[:, 0]).double() / 0.2, stats.uniform(0.5, 1.0).cdf).pvalue > 0.01


def test_saturation_scales_the_distance_from_luminance() -> None:
    out = apply(only(saturation=0.3), [0.5, 0.2, 0.2]).double()
    assert stats.kstest((out[:, 0] - out[:, 1]) / 0.3, stats.uniform(0.7, 0.6).cdf).pvalue > 0.01
    torch.testing.assert_close(out @ torch.tensor([0.299, 0.587, 0.114]).double(), torch.full((N,), 0.2897).double(), atol=1e-6, rtol=0)


def test_hue_turns_uniformly() -> None:
    out = apply(only(hue=0.1), [0.5, 0.45, 0.4]).double()
    i, q = (out @ torch.tensor(row).double() for row in ((0.596, -0.274, -0.322), (0.211, -0.523, 0.312)))
    start = torch.atan2(torch.tensor(0.211 * 0.5 - 0.523 * 0.45 + 0.312 * 0.4), torch.tensor(0.596 * 0.5 - 0.274 * 0.45 - 0.322 * 0.4))
    turned = (torch.atan2(q, i) - start) / (2 * torch.pi)
    assert stats.kstest((turned + 0.5) % 1 - 0.5, stats.uniform(-0.1, 0.2).cdf).pvalue > 0.01


def test_gray_happens_with_its_probability() -> None:
    out = apply(only(gray=0.2), [0.5, 0.2, 0.3])
    gray = (out - out[:, :1]).abs().amax(dim=1) < 1e-6
    assert stats.binomtest(int(gray.sum()), N, 0.2).pvalue > 0.01
    torch.testing.assert_close(out[~gray], torch.tensor([0.5, 0.2, 0.3]).expand(int((~gray).sum()), 3))


def test_gray_images_have_brightness_and_contrast_alone() -> None:
    assert torch.equal(apply(only(saturation=0.5, hue=0.3, gray=1.0), [0.25]), torch.full((N, 1), 0.25))
    assert apply(only(brightness=0.5), [0.25]).std() > 0.05


def test_settings_and_data_that_do_not_fit_are_refused() -> None:
    for bad in ({"brightness": -0.1}, {"contrast": float("inf")}, {"saturation": float("nan")}, {"hue": 0.6}, {"gray": 1.1}):
        with pytest.raises(ValueError, match=rf"ColorJitter\.{next(iter(bad))} must be"):
            ColorJitter(**bad)
    with pytest.raises(UserError, match="1 or 3 channels, but the data have 4"):
        ColorJitter().resolve(Facts(inputs=ImageShape(4, 8, 8)))
    with pytest.raises(UserError, match="ColorJitter needs images"):
        ColorJitter().resolve(Facts(inputs=TokenShape(4, 8)))
