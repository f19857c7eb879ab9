"""Each color change against Pillow's ImageEnhance or its closed form."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from torchstone.ops.color import LUMINANCE, hue_turn, mix, recolor

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 17, 3), dtype=np.uint8)
IMAGES = torch.from_numpy(PICTURE).permute(2, 0, 1)[None].contiguous()


def numbers(*values: float) -> list[torch.Tensor]:
    return [torch.tensor([value]) for value in values]


def close_to_pillow(ours: torch.Tensor, theirs: Image.Image) -> None:
    """Pillow rounds the luminance or its mean, and cuts the result, to whole levels."""
    np.testing.assert_allclose(ours[0].permute(1, 2, 0).numpy() * 255, np.asarray(theirs), atol=2.0)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_brightness_contrast_and_saturation_are_pillows(factor: float) -> None:
    image = Image.fromarray(PICTURE)
    gain, one, zero = numbers(factor, 1.0, 0.0)
    close_to_pillow(recolor(IMAGES, mix(gain, one, zero, zero), zero), ImageEnhance.Brightness(image).enhance(factor))
    close_to_pillow(recolor(IMAGES, mix(gain, one, zero, zero), 1 - gain), ImageEnhance.Contrast(image).enhance(factor))
    close_to_pillow(recolor(IMAGES, mix(one, gain, zero, zero), zero), ImageEnhance.Color(image).enhance(factor))


def test_gray_is_the_luminance() -> None:
    one, zero = numbers(1.0, 0.0)
    ours = recolor(IMAGES, mix(one, one, zero, one), zero)
    expected = (PICTURE / 255.0) @ LUMINANCE
    np.testing.assert_allclose(ours[0].numpy(), np.stack([expected] * 3), atol=1e-6)
    theirs = np.asarray(Image.fromarray(PICTURE).convert("L"))
    np.testing.assert_allclose(ours[0, 0].numpy() * 255, theirs, atol=1.0)


def test_hue_turns_the_chroma_and_keeps_luminance_and_grays() -> None:
    to_yiq = np.array([LUMINANCE, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    for turn in (0.0, 0.1, -0.25, 0.5):
        matrix = hue_turn(torch.tensor([turn], dtype=torch.float64))[0].numpy()
        color = np.array([0.7, 0.2, 0.4])
        (y, i, q), (y2, i2, q2) = to_yiq @ color, to_yiq @ matrix @ color
        assert abs(y - y2) < 1e-12
        assert abs(complex(i2, q2) - complex(i, q) * np.exp(2j * np.pi * turn)) < 1e-12
        np.testing.assert_allclose(matrix @ np.ones(3), np.ones(3), atol=1e-12)


def test_all_at_once_is_one_after_the_other_where_nothing_is_clamped() -> None:
    x = 0.4 + 0.2 * torch.rand(4, 3, 8, 8)
    gain, saturation, hue = torch.tensor([0.9, 1.1, 1.0, 0.8]), torch.tensor([0.5, 1.2, 0.9, 1.0]), torch.tensor([0.02, -0.03, 0.0, 0.04])
    one, zero = torch.ones(4), torch.zeros(4)
    pull = torch.tensor([0.1, -0.05, 0.0, 0.2])
    steps = recolor(x, mix(gain, one, zero, zero), pull)
    for matrix in (mix(one, saturation, zero, zero), mix(one, one, hue, zero)):
        steps = recolor(steps, matrix, zero)
    torch.testing.assert_close(recolor(x, mix(gain, saturation, hue, zero), pull), steps, atol=2e-6, rtol=0)


def test_bytes_floats_and_gray_images() -> None:
    one, zero = numbers(1.0, 0.0)
    matrix = mix(*numbers(1.3, 0.5, 0.1, 0.0))
    torch.testing.assert_close(recolor(IMAGES, matrix, one * 0.1), recolor(IMAGES / 255, matrix, one * 0.1), atol=2e-6, rtol=0)
    assert recolor(IMAGES.double() / 255, matrix, one).dtype == torch.float64
    gray = torch.rand(3, 1, 5, 5)
    ours = recolor(gray, torch.full((3, 1, 1), 0.5), torch.full((3,), 0.5))
    torch.testing.assert_close(ours, 0.5 * gray + 0.5 * gray.mean(dim=(2, 3), keepdim=True))
    assert recolor(gray[:0], torch.ones(0, 1, 1), torch.ones(0)).shape == (0, 1, 5, 5)


def test_the_result_is_clamped_once() -> None:
    one, zero = numbers(1.0, 0.0)
    white = recolor(IMAGES, mix(*numbers(100.0, 1.0, 0.0, 0.0)), zero)
    assert white.max() == 1.0
    assert white.min() >= 0.0
