"""The loss scale of an fp16 training.

Micikevicius et al., "Mixed Precision Training", 2018, https://arxiv.org/abs/1710.03740, section 3.2 (dynamic).
"""

from dataclasses import dataclass


@dataclass(slots=True)
class LossScale:
    """The factor on an fp16 loss that keeps small gradients above zero.

    Halved by an overflow (that update is skipped), doubled after `patience` good updates.
    """

    scale: float = 2.0**16
    good: int = 0
    patience: int = 2000

    def observe(self, overflow: bool) -> None:
        """Moves the scale after an attempted update."""
        if overflow:
            self.scale, self.good = self.scale / 2, 0
            return
        self.good += 1
        if self.good == self.patience:
            self.scale, self.good = self.scale * 2, 0

    @property
    def exhausted(self) -> bool:
        """No scale is small enough: the gradient itself is not finite."""
        return self.scale < 2.0**-14
