"""What Warp draws: each field alone has its distribution and its effect; the pass itself is tested in tests/ops/test_warp.py."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from torchstone.core import random
from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch, Facts, ImageShape, VectorShape
from torchstone.data.batch_transforms import Flip, Warp

N = 4000


def keys_of(n: int = N) -> torch.Tensor:
    return random.sample_keys(random.key(3, "warp"), torch.arange(n))


def maps(part: Warp, height: int = 20, width: int = 30) -> np.ndarray:
    return part.maps(keys_of(), height, width).numpy()


def batch_of(inputs: torch.Tensor) -> Batch:
    n = len(inputs)
    return Batch(inputs, torch.zeros(n, dtype=torch.int64), torch.arange(n), torch.ones(n))


def only(**fields: object) -> Warp:
    """These fields alone; the others are off."""
    return replace(Warp.neutral, **fields)


def uniform(draws: np.ndarray, low: float, high: float) -> bool:
    return low <= draws.min() and draws.max() <= high and stats.kstest(draws, stats.uniform(low, high - low).cdf).pvalue > 0.01


def test_off_is_the_identity_map() -> None:
    np.testing.assert_allclose(maps(only()), np.broadcast_to(np.eye(2, 3), (N, 2, 3)), atol=1e-12)


def test_rotation_is_uniform_about_the_center() -> None:
    drawn = maps(only(rotation=30))
    assert uniform(np.degrees(np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0])), -30, 30)
    np.testing.assert_allclose(np.linalg.det(drawn[:, :, :2]), 1)
    np.testing.assert_allclose(drawn @ [14.5, 9.5, 1], np.broadcast_to([14.5, 9.5], (N, 2)), atol=1e-9)


def test_shear_is_horizontal_and_uniform() -> None:
    drawn = maps(only(shear=20))
    assert uniform(np.degrees(np.arctan(drawn[:, 0, 1])), -20, 20)
    np.testing.assert_allclose(drawn[:, 1], np.broadcast_to([0, 1, 0], (N, 3)), atol=1e-9)


def test_translation_is_a_share_of_each_side() -> None:
    drawn = maps(only(translation=0.1))
    assert uniform(drawn[:, 0, 2], -3, 3)
    assert uniform(drawn[:, 1, 2], -2, 2)
    assert abs(np.corrcoef(drawn[:, 0, 2], drawn[:, 1, 2])[0, 1]) < 0.05


def test_scale_enlarges_the_picture() -> None:
    drawn = maps(only(scale=(0.5, 2.0)))
    assert uniform(1 / drawn[:, 0, 0], 0.5, 2.0)
    np.testing.assert_allclose(drawn[:, 0, 0], drawn[:, 1, 1])


def test_a_crop_lies_inside_with_its_area_and_ratio() -> None:
    drawn = maps(only(crop_area=0.08))
    wide, high = drawn[:, 0, 0], drawn[:, 1, 1]
    assert (wide * high >= 0.08 - 1e-9).all() and wide.max() <= 1 and high.max() <= 1
    assert (np.abs(np.log(wide / high)) <= math.log(4 / 3) + 1e-9).all()
    # The crop's edges, half a pixel outside its outermost pixel centers, in the image's.
    left, right = drawn[:, 0, 2] + wide * -0.5, drawn[:, 0, 2] + wide * 29.5
    assert left.min() >= -0.5 - 1e-9 and right.max() <= 29.5 + 1e-9
    assert uniform((left + 0.5) / (30 * (1 - wide)), 0, 1)
    assert uniform(maps(only(crop_area=0.25, crop_ratio=1.0))[:, 0, 0] ** 2, 0.25, 1)


def test_crops_are_drawn_until_one_fits() -> None:
    """By rejection, as the reference codes draw: the areas of accepted crops follow the accepted share of a plain simulation."""
    drawn = maps(only(crop_area=0.5, crop_ratio=2.0))
    draw = np.random.default_rng(0)
    area, ratio = draw.uniform(0.5, 1, 40000), np.exp(draw.uniform(-math.log(2), math.log(2), 40000))
    accepted = area[(area * ratio <= 1) & (area / ratio <= 1)]
    assert stats.ks_2samp(drawn[:, 0, 0] * drawn[:, 1, 1], accepted).pvalue > 0.01


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_flip_alone_is_flip(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (200, 3, 6, 7), dtype=torch.uint8).to(dtype)
    out = only(flip=0.3)(batch_of(images), keys_of(200)).inputs
    mirrored = [torch.allclose(a.float(), b.flip(-1).float(), atol=1e-2) for a, b in zip(out, images, strict=True)]
    kept = [torch.allclose(a.float(), b.float(), atol=1e-2) for a, b in zip(out, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert stats.binomtest(sum(mirrored), 200, 0.3).pvalue > 0.01
    everyone = only(flip=1.0)(batch_of(images), keys_of(200)).inputs
    torch.testing.assert_close(everyone, Flip(p=1.0)(batch_of(images), keys_of(200)).inputs, atol=1e-2, rtol=0)


def test_a_field_does_not_move_what_another_draws() -> None:
    alone, both = maps(only(translation=0.1)), maps(only(translation=0.1, crop_area=0.5, flip=0.5))
    crop = maps(only(crop_area=0.5, flip=0.5))
    np.testing.assert_allclose((both - crop)[:, 0, 2], crop[:, 0, 0] * alone[:, 0, 2], atol=1e-9)


def test_settings_and_data_that_do_not_fit_are_refused() -> None:
    for bad in (
        {"rotation": -1.0},
        {"rotation": float("nan")},
        {"shear": 90.0},
        {"translation": 1.5},
        {"scale": (1.0, 0.5)},
        {"scale": (0.0, 1.0)},
        {"crop_area": 0.0},
        {"crop_ratio": 0.5},
        {"flip": 2.0},
    ):
        with pytest.raises(ValueError, match=rf"Warp\.{next(iter(bad))} must be"):
            Warp(**bad)
    with pytest.raises(UserError, match="Warp needs images"):
        Warp().resolve(Facts(inputs=VectorShape(3)))
    assert Warp(rotation=3).resolve(Facts(inputs=ImageShape(1, 8, 8))) == Warp(rotation=3)
