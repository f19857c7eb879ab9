"""Handwritten digits: 1,797 real pictures of 8x8 pixels that come with scikit-learn."""

from torchstone.data import Digits, Normalize
from torchstone.experiment import Experiment
from torchstone.losses import CrossEntropy
from torchstone.models import ConvNetConfig, MLPConfig
from torchstone.optim import EMA, AdamW, ClipByNorm, Cosine, NoDecay
from torchstone.tasks import Classify
from torchstone.train.method import Method
from torchstone.train.settings import Run


def digits() -> Experiment:
    """A small residual ConvNet."""
    return Experiment(
        data=Digits(),
        task=Classify(),
        model=ConvNetConfig(),
        method=Method(
            batch_transforms=(Normalize(),),
            loss=CrossEntropy(smoothing=0.1),
            gradient_transforms=(ClipByNorm(max_norm=1.0),),
            groups=NoDecay(),
            optimizer=AdamW(lr=3e-3, weight_decay=0.05),
            schedules=(Cosine(path="optimizer.lr", warmup=0.1),),
            averaging=EMA(decay=0.99),
        ),
        run=Run(epochs=12, batch_size=64),
    )


def digits_mini() -> Experiment:
    """An MLP with one hidden layer: fast enough to run many times."""
    return Experiment(
        data=Digits(),
        task=Classify(),
        model=MLPConfig(hidden=(64,)),
        method=Method(
            batch_transforms=(Normalize(),),
            loss=CrossEntropy(),
            groups=NoDecay(),
            optimizer=AdamW(lr=3e-3),
            schedules=(Cosine(path="optimizer.lr", warmup=0.1),),
        ),
        run=Run(epochs=20, batch_size=64),
    )
