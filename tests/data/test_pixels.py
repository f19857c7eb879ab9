"""A byte v is v / 255, exactly rounded; everything else passes."""

import numpy as np
import pytest
import torch

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, ImageShape, TokenShape
from torchstone.data.pixels import as_float, image_shape


def test_bytes_become_the_nearest_float_of_their_share() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    np.testing.assert_array_equal(as_float(every).numpy(), (np.arange(256) / 255).astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_other_types_pass(dtype: torch.dtype) -> None:
    x = torch.ones(3, dtype=dtype)
    assert as_float(x) is x


def test_images_or_an_error_that_names_the_part() -> None:
    shape = ImageShape(1, 2, 3)
    assert image_shape(Facts(inputs=shape), "Flip") is shape
    with pytest.raises(UserError, match="Flip needs images, but the data are TokenShape"):
        image_shape(Facts(inputs=TokenShape(5, 5)), "Flip")
