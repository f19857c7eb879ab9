"""How the weights move: optimizers, their groups and schedules, what makes and shapes the gradient, averages, and when to stop.

| seat | union | file |
|---|---|---|
| optimizer | Optimizer | sgd, adaptive, adam, adamw, layerwise, lion, muon, shampoo, soap, schedule_free, lookahead, second_order/ |
| groups | Groups | groups, mup |
| schedules | Schedule | schedules/ |
| gradient | Gradient | gradient |
| gradient_transforms | GradientTransform | clip, gradient_shape |
| averaging | Averaging | averaging |
| stop | Stop | stop |

`flat` lays the parameters of a model end to end; everything here works on that. `kernels` names torch's fused updates.
"""

from torchstone.optim.adam import Adam, Adamax, Nadam, Radam
from torchstone.optim.adamw import AdamW
from torchstone.optim.adaptive import Adadelta, Adagrad, Rmsprop
from torchstone.optim.averaging import EMA, LAWA, SWA
from torchstone.optim.clip import AdaptiveClip, ClipByNorm, ClipByValue
from torchstone.optim.flat import FlatParameters
from torchstone.optim.gradient import ASAM, SAM, Backprop
from torchstone.optim.gradient_shape import Centralize, GradientNoise
from torchstone.optim.groups import HeadFirst, LayerDecay, NoDecay, Patterns, Rule
from torchstone.optim.layerwise import LAMB, LARS
from torchstone.optim.lion import Lion
from torchstone.optim.lookahead import Lookahead
from torchstone.optim.muon import Muon
from torchstone.optim.mup import MuP
from torchstone.optim.schedule_free import ScheduleFree
from torchstone.optim.schedules import (
    WSD,
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    MultiStep,
    OneCycle,
    Plateau,
    Polynomial,
    Schedule,
    Step,
)
from torchstone.optim.second_order import BFGS, LBFGS, ClosedForm, ConjugateGradient, GradientDescent, Newton
from torchstone.optim.sgd import SGD
from torchstone.optim.shampoo import Shampoo
from torchstone.optim.soap import SOAP
from torchstone.optim.stop import LossThreshold, Patience

Optimizer = (
    SGD
    | Adagrad
    | Adadelta
    | Rmsprop
    | Adam
    | AdamW
    | Nadam
    | Radam
    | Adamax
    | LAMB
    | LARS
    | Lion
    | Muon
    | Shampoo
    | SOAP
    | ScheduleFree
    | Lookahead
    | GradientDescent
    | ConjugateGradient
    | LBFGS
    | BFGS
    | Newton
    | ClosedForm
)
Averaging = EMA | SWA | LAWA
Groups = NoDecay | HeadFirst | LayerDecay | Patterns | MuP
Gradient = Backprop | SAM | ASAM
GradientTransform = ClipByNorm | ClipByValue | AdaptiveClip | Centralize | GradientNoise
Stop = Patience | LossThreshold

__all__ = [
    "ASAM",
    "BFGS",
    "EMA",
    "LAMB",
    "LARS",
    "LAWA",
    "LBFGS",
    "SAM",
    "SGD",
    "SOAP",
    "SWA",
    "WSD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "AdaptiveClip",
    "Averaging",
    "Backprop",
    "Centralize",
    "ClipByNorm",
    "ClipByValue",
    "ClosedForm",
    "ConjugateGradient",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "FlatParameters",
    "Gradient",
    "GradientDescent",
    "GradientNoise",
    "GradientTransform",
    "Groups",
    "HeadFirst",
    "InverseSqrt",
    "LayerDecay",
    "Lion",
    "Lookahead",
    "LossThreshold",
    "MuP",
    "MultiStep",
    "Muon",
    "Nadam",
    "Newton",
    "NoDecay",
    "OneCycle",
    "Optimizer",
    "Patience",
    "Patterns",
    "Plateau",
    "Polynomial",
    "Radam",
    "Rmsprop",
    "Rule",
    "Schedule",
    "ScheduleFree",
    "Shampoo",
    "Step",
    "Stop",
]
