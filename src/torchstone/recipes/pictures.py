"""Classifiers of pictures."""

from torchstone.data import IDX, Flip, ImageFolder, Normalize, PaddedCrop, Warp
from torchstone.experiment import Experiment
from torchstone.losses import CrossEntropy
from torchstone.models import CifarResnetConfig, FastConvNetConfig, PretrainedConfig, ResnetConfig
from torchstone.optim import EMA, SGD, AdamW, ClipByNorm, Cosine, HeadFirst, Muon, NoDecay, OneCycle
from torchstone.tasks import Classify
from torchstone.train.method import Method
from torchstone.train.settings import Run

FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def fashion() -> Experiment:
    """Fashion-MNIST (`data.path` = the folder of its four files) by a small network that spends few operations for its accuracy.

    `task.views=flip_shift` looks at every test picture six times: slower, and a little better.
    """
    return Experiment(
        data=IDX(classes=FASHION_CLASSES),
        task=Classify(),
        model=FastConvNetConfig(),
        method=Method(
            batch_transforms=(Flip(), PaddedCrop(padding=2), Normalize()),
            loss=CrossEntropy(smoothing=0.1),
            groups=NoDecay(),
            optimizer=Muon(lr=0.02),
            schedules=(OneCycle(path="optimizer.lr", warmup=0.1, warmup_start=0.2),),
            averaging=EMA(decay=0.98),
        ),
        run=Run(epochs=8, batch_size=250, evaluation_batch_size=500, speed="auto"),
    )


def image_folder() -> Experiment:
    """Your own pictures (`data.path` = a folder of class folders), from scratch."""
    return Experiment(
        data=ImageFolder(),
        task=Classify(),
        model=ResnetConfig(width=None),
        method=Method(
            batch_transforms=(Warp(crop_area=0.4, rotation=10, flip=0.5), Normalize()),
            loss=CrossEntropy(smoothing=0.1),
            gradient_transforms=(ClipByNorm(max_norm=1.0),),
            groups=NoDecay(),
            optimizer=AdamW(lr=2e-3, weight_decay=0.05),
            schedules=(Cosine(path="optimizer.lr", warmup=0.1),),
            averaging=EMA(decay=0.99),
        ),
        run=Run(epochs=40, batch_size=32, evaluation_batch_size=128, speed="auto"),
    )


def resnet_cifar() -> Experiment:
    """A residual network of 20 layers for pictures of 32 pixels, as in section 4.2 of He et al., 2015, with a shorter schedule."""
    return Experiment(
        data=ImageFolder(cache_side=32),
        task=Classify(),
        model=CifarResnetConfig(),
        method=Method(
            batch_transforms=(Flip(), PaddedCrop(padding=4), Normalize()),
            groups=NoDecay(),
            optimizer=SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
            schedules=(OneCycle(path="optimizer.lr", warmup=0.2),),
        ),
        run=Run(epochs=30, batch_size=128, evaluation_batch_size=500, speed="auto"),
    )


def finetune() -> Experiment:
    """Your own pictures by a network trained before (`model.path` = a run, or a .safetensors file and `model.body`): first a new head
    alone, then everything, the body at a smaller rate."""
    return Experiment(
        data=ImageFolder(),
        task=Classify(),
        model=PretrainedConfig(),
        method=Method(
            batch_transforms=(Warp(crop_area=0.5, flip=0.5), Normalize()),
            loss=CrossEntropy(smoothing=0.1),
            gradient_transforms=(ClipByNorm(max_norm=1.0),),
            groups=HeadFirst(),
            optimizer=AdamW(lr=2e-3, weight_decay=0.05),
            schedules=(Cosine(path="optimizer.lr", warmup=0.05),),
            averaging=EMA(decay=0.99),
        ),
        run=Run(epochs=20, batch_size=32, evaluation_batch_size=128, speed="auto"),
    )
