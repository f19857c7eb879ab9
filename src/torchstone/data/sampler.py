"""The order of an epoch: a pure function of a key, so that a resumed run needs no state to go on with it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from torchstone.core import random
from torchstone.core.protocols import Split


@dataclass(frozen=True, kw_only=True, slots=True)
class Uniform:
    """Every sample once an epoch, all orders equally likely."""

    neutral: ClassVar["Uniform"]

    def __call__(self, split: Split, key: int) -> np.ndarray:
        return random.permutation(key, len(split))


Uniform.neutral = Uniform()
