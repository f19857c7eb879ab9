"""Views: the mean of probabilities over mirrored and moved pictures, each where the library says it is."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from torchstone.tasks import Classify
from torchstone.tasks.views import averaged, views_of


def images(height: int = 5, width: int = 4) -> torch.Tensor:
    return torch.randn(3, 2, height, width, generator=torch.Generator().manual_seed(0))


def lopsided(height: int = 5, width: int = 4) -> nn.Module:
    """A model that mirror images and shifts do not leave alone."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * height * width, 7)).eval()


def test_one_is_the_model_bit_for_bit() -> None:
    model, x = lopsided(), images()
    assert torch.equal(averaged(model, x, "one"), model(x))
    assert torch.equal(Classify().forward(model, x), model(x))


def test_the_views_are_numpy_s() -> None:
    x = images()
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    expected = [(x.numpy(), 0.25)] * 2 + [(padded[:, :, 2:, 2:], 0.125)] * 2 + [(padded[:, :, :-2, :-2], 0.125)] * 2
    found = list(views_of(x, "flip_shift"))
    assert [weight for _, weight in found] == [weight for _, weight in expected]
    for position, ((view, _), (array, _)) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_array_equal(view, array[..., ::-1] if position % 2 else array)
    assert [weight for _, weight in views_of(x, "flip")] == [0.5, 0.5]


@pytest.mark.parametrize("views", ["flip", "flip_shift"])
def test_the_mean_is_of_probabilities(views: str) -> None:
    model, x = lopsided(), images()
    expected = sum(weight * model(view).double().softmax(1) for view, weight in views_of(x, views))
    found = Classify(views=views).forward(model, x)
    torch.testing.assert_close(found.double().exp(), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(3))
    assert not torch.allclose(found.softmax(1), model(x).softmax(1), rtol=1e-3)


def test_a_mirrored_picture_gets_the_same_answer() -> None:
    """By "flip"; the shifts are along one diagonal, which a mirror turns into the other."""
    model, x = lopsided(), images()
    torch.testing.assert_close(averaged(model, x, "flip"), averaged(model, x.flip(-1), "flip"))


def test_a_constant_model_stays_constant() -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.0, math.log(3.0)]], dtype=torch.bfloat16).expand(len(x), 2)

    found = averaged(Constant(), images(), "flip_shift")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.exp(), torch.tensor([[0.25, 0.75]]).expand(3, 2), rtol=1e-2, atol=0)


def test_pictures_of_one_pixel_and_empty_batches() -> None:
    assert averaged(lopsided(1, 4), images(1, 4), "flip_shift").shape == (3, 7)
    assert averaged(lopsided(), images()[:0], "flip_shift").shape == (0, 7)
