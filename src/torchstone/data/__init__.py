"""Data: sources (opened into three splits and their facts), the order of an epoch, transforms, the loader. The unions are the registry.

sources            Digits, StdlibText, PlainText, Arrays
sampler            Uniform: the order of an epoch
sample_transforms  Resize, AddNoise: one sample as it is read
batch_transforms   Flip, PaddedCrop, Normalize, Mixup: a whole batch, on its device
splits             TensorSplit (samples in memory), and how samples are held out
facts              counts, mean and deviation, fingerprint
loader, workers    batches of an epoch, prepared here or ahead in worker processes
pytree             functions over every tensor of a sample
"""

from torchstone.data.batch_transforms import Flip, Mixup, Normalize, PaddedCrop
from torchstone.data.loader import load
from torchstone.data.sample_transforms import AddNoise, Resize
from torchstone.data.sampler import Uniform
from torchstone.data.sources import Arrays, Digits, PlainText, StdlibText

Source = Digits | StdlibText | PlainText | Arrays
Sampler = Uniform
SampleTransform = Resize | AddNoise
BatchTransform = Flip | PaddedCrop | Normalize | Mixup

__all__ = [
    "AddNoise",
    "Arrays",
    "BatchTransform",
    "Digits",
    "Flip",
    "Mixup",
    "Normalize",
    "PaddedCrop",
    "PlainText",
    "Resize",
    "SampleTransform",
    "Sampler",
    "Source",
    "StdlibText",
    "Uniform",
    "load",
]
