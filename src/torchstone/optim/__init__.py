"""How the weights move: optimizers, their groups and schedules, what makes and shapes the gradient, averages, and when to stop.

| seat | union | file |
|---|---|---|
| optimizer | Optimizer | sgd, adamw, muon |
| groups | Groups | groups |
| schedules | Schedule | schedules |
| gradient | Gradient | gradient |
| gradient_transforms | GradientTransform | clip |
| averaging | Averaging | averaging |
| stop | Stop | stop |

`flat` lays the parameters of a model end to end; everything here works on that. `kernels` names torch's fused updates.
"""

from torchstone.optim.adamw import AdamW
from torchstone.optim.averaging import EMA
from torchstone.optim.clip import ClipByNorm
from torchstone.optim.flat import FlatParameters
from torchstone.optim.gradient import SAM, Backprop
from torchstone.optim.groups import HeadFirst, NoDecay
from torchstone.optim.muon import Muon
from torchstone.optim.schedules import OneCycle, WarmupCosine
from torchstone.optim.sgd import SGD
from torchstone.optim.stop import LossThreshold, Patience

Optimizer = SGD | AdamW | Muon
Schedule = WarmupCosine | OneCycle
Averaging = EMA
Groups = NoDecay | HeadFirst
Gradient = Backprop | SAM
GradientTransform = ClipByNorm
Stop = Patience | LossThreshold

__all__ = [
    "EMA",
    "SAM",
    "SGD",
    "AdamW",
    "Averaging",
    "Backprop",
    "ClipByNorm",
    "FlatParameters",
    "Gradient",
    "GradientTransform",
    "Groups",
    "HeadFirst",
    "LossThreshold",
    "Muon",
    "NoDecay",
    "OneCycle",
    "Optimizer",
    "Patience",
    "Schedule",
    "Stop",
    "WarmupCosine",
]
