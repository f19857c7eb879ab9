"""Resize agrees with Pillow; AddNoise is a pure function of its key with the right distribution."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, VectorShape
from torchstone.data import AddNoise, Resize

TARGET = torch.tensor(3)


@pytest.mark.parametrize("size", [(5, 9), (16, 16), (40, 12), (1, 1)])
def test_resize_agrees_with_pillow(size: tuple[int, int]) -> None:
    image = torch.rand(3, 24, 17, generator=torch.Generator().manual_seed(0))
    ours, target = Resize(height=size[0], width=size[1])((image, TARGET), 0)
    theirs = [np.asarray(Image.fromarray(channel.numpy()).resize(size[::-1], Image.Resampling.BILINEAR)) for channel in image]
    np.testing.assert_allclose(ours.numpy(), np.stack(theirs), atol=1e-5)
    assert target is TARGET


def test_resize_leaves_the_right_size_alone() -> None:
    sample = (torch.rand(1, 8, 8), TARGET)
    assert Resize(height=8, width=8)(sample, 0) is sample


def test_resize_says_what_the_model_will_see() -> None:
    assert Resize(height=4, width=5).reshape(ImageShape(3, 8, 8)) == ImageShape(3, 4, 5)
    with pytest.raises(UserError, match="Resize needs images"):
        Resize(height=4, width=5).reshape(VectorShape(3))


def test_noise_is_gaussian_and_its_key_alone_decides() -> None:
    inputs = torch.zeros(1, 100, 100)
    noisy, target = AddNoise(std=0.5)((inputs, TARGET), 11)
    assert stats.kstest(noisy.flatten() / 0.5, "norm").pvalue > 0.01
    assert torch.equal(noisy, AddNoise(std=0.5)((inputs, TARGET), 11)[0])
    assert not torch.equal(noisy, AddNoise(std=0.5)((inputs, TARGET), 12)[0])
    assert target is TARGET
    assert noisy.dtype == torch.float32


def test_neutral_is_absent() -> None:
    sample = (torch.rand(4), TARGET)
    assert AddNoise.neutral(sample, 3) is sample
    assert Resize.neutral is None
    assert Resize.neutral_reason


@pytest.mark.parametrize("make", [lambda: Resize(height=0, width=3), lambda: AddNoise(std=-1.0), lambda: AddNoise(std=float("inf"))])
def test_settings_out_of_range_are_refused(make) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()
