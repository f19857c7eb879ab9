"""Changes to a whole batch, on its device: pure functions of the batch and one key a row.

flip       Flip: mirror left and right
crop       PaddedCrop: shift by a few pixels
normalize  Normalize: mean 0, deviation 1 a channel; prediction needs it too
mixup      Mixup: blend pairs of rows and their targets
"""

from torchstone.data.batch_transforms.crop import PaddedCrop
from torchstone.data.batch_transforms.flip import Flip
from torchstone.data.batch_transforms.mixup import Mixup
from torchstone.data.batch_transforms.normalize import Normalize

__all__ = ["Flip", "Mixup", "Normalize", "PaddedCrop"]
