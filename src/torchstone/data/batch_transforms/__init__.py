"""Changes to a whole batch, on its device: pure functions of the batch and one key a row.

flip       Flip: mirror left and right
crop       PaddedCrop: shift by a few pixels
warp       Warp: turn, shear, shift, scale, random crop and mirror in one sampling pass
color      ColorJitter: brightness, contrast, saturation, hue and gray in one matrix
cutout     Cutout: hide a square
mixup      Mixup: blend pairs of rows and their targets
cutmix     Cutmix: exchange a box between pairs of rows
normalize  Normalize: mean 0, deviation 1 a channel; prediction needs it too
in_turn    a chain of them, as the step applies it: neighbors that change pictures one by one share a pass
pairs, boxes  what the mixing and the cutting ones share
"""

from torchstone.data.batch_transforms.color import ColorJitter
from torchstone.data.batch_transforms.crop import PaddedCrop
from torchstone.data.batch_transforms.cutmix import Cutmix
from torchstone.data.batch_transforms.cutout import Cutout
from torchstone.data.batch_transforms.flip import Flip
from torchstone.data.batch_transforms.in_turn import in_turn
from torchstone.data.batch_transforms.mixup import Mixup
from torchstone.data.batch_transforms.normalize import Normalize
from torchstone.data.batch_transforms.warp import Warp

__all__ = ["ColorJitter", "Cutmix", "Cutout", "Flip", "Mixup", "Normalize", "PaddedCrop", "Warp", "in_turn"]
