"""Factors on one number of the method over the run: pure functions of the update index, so a resumed run meets the same values."""

from dataclasses import dataclass
from math import cos, inf, pi
from typing import ClassVar

from torchstone.core.protocols import History


def _cosine(start: float, end: float, share: float) -> float:
    """`start` at 0, `end` at 1."""
    return end + (start - end) * (1 + cos(pi * share)) / 2


def _check_path(kind: str, path: str) -> None:
    if not path or any(not word for word in path.split(".")):
        raise ValueError(f"{kind}.path must be a path such as optimizer.lr, got {path!r}")


def _check_share(kind: str, warmup: float) -> None:
    if not 0 <= warmup < 1:
        raise ValueError(f"{kind}.warmup must be in [0, 1), got {warmup}")


def _check_factor(field: str, factor: float) -> None:
    if not 0 <= factor < inf:
        raise ValueError(f"{field} must be finite and >= 0, got {factor}")


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine.

    Loshchilov and Hutter, "SGDR", 2017, https://arxiv.org/abs/1608.03983, eq. 5, without restarts; warm-up: Goyal et al., 2017,
    https://arxiv.org/abs/1706.02677, section 2.2. With W = int(warmup * total) and update s from 0: (s + 1) / W for s < W, then
    final + (1 - final) (1 + cos(pi (s - W) / (total - W))) / 2. The factor is 1 at s = W, one notch above `final` at the last update
    (which would teach nothing at rate 0), and `final` from s = total on.
    """

    path: str = "optimizer.lr"
    """The number of the method that is scheduled."""
    warmup: float = 0.05
    """Share of the run."""
    final: float = 0.0
    """Factor at the end."""

    neutral: ClassVar["WarmupCosine"]

    def __post_init__(self) -> None:
        _check_path("WarmupCosine", self.path)
        _check_share("WarmupCosine", self.warmup)
        _check_factor("WarmupCosine.final", self.final)

    def __call__(self, step: int, total: int, history: History) -> float:
        step, start = min(step, total), min(int(self.warmup * total), total - 1)
        if step < start:
            return (step + 1) / start
        return _cosine(1.0, self.final, (step - start) / (total - start))


WarmupCosine.neutral = WarmupCosine(warmup=0.0, final=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class OneCycle:
    """Half a cosine up, half a cosine down.

    Smith and Topin, "Super-Convergence", 2018, https://arxiv.org/abs/1708.07120; values as torch.optim.lr_scheduler.OneCycleLR with cosine
    annealing and two phases, as a factor on the highest rate. The peak lies at update warmup * total - 1, rounded by neither. The last
    update, total - 1, has `final_factor`, as have all after it. The momentum, which torch's class cycles too, stays.
    """

    path: str = "optimizer.lr"
    """The number of the method that is scheduled; its own value is the peak."""
    warmup: float = 0.3
    """Share of the run that goes up."""
    start_factor: float = 1 / 25
    """Factor at the first update."""
    final_factor: float = 4e-6
    """Factor at the last update; the default is torch's 1e-4 of the start."""

    neutral: ClassVar["OneCycle"]

    def __post_init__(self) -> None:
        _check_path("OneCycle", self.path)
        _check_share("OneCycle", self.warmup)
        _check_factor("OneCycle.start_factor", self.start_factor)
        _check_factor("OneCycle.final_factor", self.final_factor)

    def __call__(self, step: int, total: int, history: History) -> float:
        step, peak, last = min(step, total - 1), self.warmup * total - 1, total - 1
        if step < peak:
            return _cosine(self.start_factor, 1.0, step / peak)
        return _cosine(1.0, self.final_factor, (step - peak) / (last - peak))


OneCycle.neutral = OneCycle(start_factor=1.0, final_factor=1.0)
