"""Data: sources (opened into three splits and their facts), the order of an epoch, transforms, the loader. The unions are the registry.

sources            Digits, StdlibText, PlainText, Arrays, ImageFolder, IDX; Fold, one fold of one of them; LabelNoise; Subset; Without
sampler            Uniform: the order of an epoch
sample_transforms  Resize, AddNoise: one sample as it is read
batch_transforms   Flip, PaddedCrop, Warp, ColorJitter, Cutout, Mixup, Cutmix, Normalize: a whole batch, on its device
splits             TensorSplit (samples in memory), and how samples are held out
folds              what trains and validates, divided for cross-validation
facts              counts, mean and deviation, fingerprint
decode, cache      picture files to bytes of one size, once
pictures           picture files as a split
pixels, ready      what bytes mean, and what the model reads
steady             what prediction does to samples too
loader, workers    batches of an epoch, prepared here or ahead in worker processes
pytree             functions over every tensor of a sample
"""

from torchstone.data.batch_transforms import ColorJitter, Cutmix, Cutout, Flip, Mixup, Normalize, PaddedCrop, Warp
from torchstone.data.loader import load
from torchstone.data.sample_transforms import AddNoise, Resize
from torchstone.data.sampler import Uniform
from torchstone.data.sources import IDX, Arrays, Digits, Fold, ImageFolder, LabelNoise, PlainText, StdlibText, Subset, Without

Source = Digits | StdlibText | PlainText | Arrays | ImageFolder | IDX | Fold | LabelNoise | Subset | Without
Sampler = Uniform
SampleTransform = Resize | AddNoise
BatchTransform = Flip | PaddedCrop | Warp | ColorJitter | Cutout | Mixup | Cutmix | Normalize

__all__ = [
    "IDX",
    "AddNoise",
    "Arrays",
    "BatchTransform",
    "ColorJitter",
    "Cutmix",
    "Cutout",
    "Digits",
    "Flip",
    "Fold",
    "ImageFolder",
    "LabelNoise",
    "Mixup",
    "Normalize",
    "PaddedCrop",
    "PlainText",
    "Resize",
    "SampleTransform",
    "Sampler",
    "Source",
    "StdlibText",
    "Subset",
    "Uniform",
    "Warp",
    "Without",
    "load",
]
