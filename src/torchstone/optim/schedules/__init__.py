"""Schedules: a factor on one number of the method at every update, a pure function of (update, updates of the run, history).

| kind | file |
|---|---|
| constant, step, multi_step, exponential, polynomial, cosine, inverse_sqrt, wsd | decay, stairs |
| cosine_restarts, cyclic, one_cycle | cycles |
| plateau | plateau |

All share the warm-up of `warmup.WarmedUp` and go on any real number of the method: `path` names it, `optimizer.lr` by default.
A class of your own is a schedule too, in Python: anything with a `path` that is called with the three.

>>> from dataclasses import dataclass
>>> from torchstone.core.protocols import History
>>> from torchstone.optim import SGD
>>> from torchstone.train.method import Method, scheduled
>>> @dataclass(frozen=True, kw_only=True, slots=True)
... class Halving:
...     every: int
...     path: str = "optimizer.lr"
...
...     def __call__(self, step: int, total: int, history: History) -> float:
...         return 0.5 ** (step // self.every)
>>> method = Method(optimizer=SGD(lr=0.1), schedules=(Halving(every=10),))
>>> [scheduled(method, step, 100, History())[1]["optimizer.lr"] for step in (0, 9, 10, 20)]
[0.1, 0.1, 0.05, 0.025]
"""

from torchstone.optim.schedules.cycles import CosineRestarts, Cyclic, OneCycle
from torchstone.optim.schedules.decay import WSD, Constant, Cosine, Exponential, InverseSqrt, Polynomial
from torchstone.optim.schedules.plateau import Plateau
from torchstone.optim.schedules.stairs import MultiStep, Step
from torchstone.optim.schedules.warmup import WarmedUp

Schedule = (
    Constant | Step | MultiStep | Exponential | Polynomial | Cosine | CosineRestarts | OneCycle | Cyclic | Plateau | WSD | InverseSqrt
)

__all__ = [
    "WSD",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "InverseSqrt",
    "MultiStep",
    "OneCycle",
    "Plateau",
    "Polynomial",
    "Schedule",
    "Step",
    "WarmedUp",
]
