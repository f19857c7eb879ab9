"""The warp agrees with SciPy everywhere and with Pillow inside; whole pixels move exactly; bytes are the floats, rounded."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from torchstone.ops.warp import compose, linear, rotation, shift, warp

SCIPY = {"reflect": "mirror", "zero": "grid-constant", "edge": "nearest"}


def images_of(n: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(1))


def maps_of(n: int) -> torch.Tensor:
    """Near the identity, but well outside the image at its edges."""
    draw = np.random.default_rng(0)
    maps = np.eye(2, 3) + draw.normal(size=(n, 2, 3)) * [0.4, 0.4, 5.0]
    return torch.from_numpy(maps)


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize("fill", list(SCIPY))
@pytest.mark.parametrize("size", [(24, 17), (9, 40), (2, 2)])
def test_bilinear_agrees_with_scipy(fill: str, size: tuple[int, int]) -> None:
    images, maps = images_of(8, 2, *size), maps_of(8)
    ours = warp(images, maps, fill=fill).numpy()
    for image, (x, y), result in zip(images.numpy(), maps.numpy(), ours, strict=True):
        matrix, offset = [[y[1], y[0]], [x[1], x[0]]], [y[2], x[2]]  # SciPy says rows first
        for channel, plane in zip(image, result, strict=True):
            theirs = ndimage.affine_transform(channel.astype(float), matrix, offset, order=1, mode=SCIPY[fill])
            np.testing.assert_allclose(plane, theirs, atol=5e-5)


@pytest.mark.parametrize("places", [30.0, 300.0])
def test_mirror_images_of_mirror_images_agree_with_scipy(places: float) -> None:
    image, maps = images_of(1, 1, 9, 12).double(), maps_of(1)
    maps[:, :, 2] += places
    (x, y), result = maps[0].numpy(), warp(image, maps)[0, 0].numpy()
    theirs = ndimage.affine_transform(image[0, 0].numpy(), [[y[1], y[0]], [x[1], x[0]]], [y[2], x[2]], order=1, mode="mirror")
    np.testing.assert_allclose(result, theirs, atol=2e-4)


def test_a_neighbor_read_from_far_away_changes_no_bit() -> None:
    images, maps = images_of(3, 2, 9, 12), maps_of(3)
    far = maps.clone()
    far[0, :, 2] += 100
    assert torch.equal(warp(images, far)[1:], warp(images, maps)[1:])


def test_nearest_agrees_with_scipy() -> None:
    images, maps = images_of(6, 1, 20, 30), maps_of(6)
    ours = warp(images, maps, interpolation="nearest", fill="edge").numpy()
    for image, (x, y), result in zip(images.numpy(), maps.numpy(), ours, strict=True):
        theirs = ndimage.affine_transform(image[0], [[y[1], y[0]], [x[1], x[0]]], [y[2], x[2]], order=0, mode="nearest")
        np.testing.assert_array_equal(result[0], theirs)


@pytest.mark.parametrize("degrees", [30.0, -7.0, 180.0])
def test_rotation_turns_as_pillow_does(degrees: float) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (41, 41), dtype=np.uint8)
    center = one(20.0)
    maps = compose(shift(center, center), rotation(one(degrees)), shift(-center, -center))
    ours = warp(torch.from_numpy(picture)[None, None], maps)[0, 0].numpy().astype(int)
    theirs = np.asarray(Image.fromarray(picture).rotate(degrees, Image.Resampling.BILINEAR)).astype(int)
    inside = np.hypot(*np.mgrid[-20:21, -20:21]) < 19
    assert np.abs(ours - theirs)[inside].max() <= 1


def test_an_enlarged_box_is_pillows_resize() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 48), dtype=np.uint8)
    left, upper, width, height = 10.25, 4.5, 24.0, 20.0
    middle = shift(one(left + width / 2 - 0.5), one(upper + height / 2 - 0.5))
    maps = compose(middle, linear(one(width / 48), one(0.0), one(0.0), one(height / 32)), shift(one(-23.5), one(-15.5)))
    ours = warp(torch.from_numpy(picture)[None, None], maps)[0, 0].numpy().astype(int)
    theirs = Image.fromarray(picture).resize((48, 32), Image.Resampling.BILINEAR, box=(left, upper, left + width, upper + height))
    assert np.abs(ours - np.asarray(theirs).astype(int))[2:-2, 2:-2].max() <= 1  # Pillow does not look outside the box


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_whole_pixels_move_exactly(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (2, 3, 7, 9), dtype=torch.uint8).to(dtype)
    maps = torch.tensor([[[1.0, 0, 2], [0, 1, -1]], [[-1, 0, 8], [0, 1, 0]]])  # 2 from the right and 1 from above; mirrored
    ours = warp(images, maps, fill="zero")
    expected = torch.zeros_like(images)
    expected[0, :, 1:, :-2], expected[1] = images[0, :, :-1, 2:], images[1].flip(-1)
    torch.testing.assert_close(ours, expected, atol=0 if dtype == torch.uint8 else 1e-3, rtol=0)


def test_bytes_are_the_rounded_floats() -> None:
    images, maps = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8), maps_of(5)
    assert (warp(images, maps).double() - warp(images.double(), maps)).abs().max() <= 0.51


def test_composed_maps_are_one_warp_after_the_other() -> None:
    """On an image that is linear in x and y bilinear sampling is exact, so two passes and one must agree away from the edges."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    image = (3 * x - 2 * y)[None, None]
    first = (shift(one(1.5), one(-0.5)), linear(one(1.02), one(0.03), one(-0.02), one(0.97)))
    second = (rotation(one(3.0)),)
    twice = warp(warp(image, compose(*first)), compose(*second))
    torch.testing.assert_close(warp(image, compose(*first, *second))[..., 8:30, 8:30], twice[..., 8:30, 8:30], atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 1, 1, 1), (2, 1, 1, 6)])
def test_tiny_images(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape)
    assert warp(images, maps_of(shape[0])).shape == shape
