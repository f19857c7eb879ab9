"""Recipes: functions that return an experiment with good defaults. Each is a place to start from; every choice in it is one edit away.

digits        8x8 handwritten digits, a small residual ConvNet (the default of `make run`)
digits_mini   the same digits, a small MLP: about two seconds, for studies and tests
fashion       Fashion-MNIST, a small fast network
image_folder  your own pictures in class folders, from scratch
finetune      your own pictures, by a network trained before
resnet_cifar  pictures of 32 pixels, a residual network of 20 layers
gpt_bytes     a byte-level GPT on text
"""

from collections.abc import Callable

from torchstone.experiment import Experiment
from torchstone.recipes.digits import digits, digits_mini
from torchstone.recipes.gpt import gpt_bytes
from torchstone.recipes.pictures import fashion, finetune, image_folder, resnet_cifar

RECIPES: dict[str, Callable[[], Experiment]] = {
    "digits": digits,
    "digits-mini": digits_mini,
    "fashion": fashion,
    "image-folder": image_folder,
    "finetune": finetune,
    "resnet-cifar": resnet_cifar,
    "gpt-bytes": gpt_bytes,
}
"""By the name the command line uses."""

__all__ = ["RECIPES", "digits", "digits_mini", "fashion", "finetune", "gpt_bytes", "image_folder", "resnet_cifar"]
