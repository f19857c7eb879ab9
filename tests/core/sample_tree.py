"""A small tree with every sort of field, for the tests of the tree."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self

from torchstone.core.tree import FilePath


class Callback(Protocol):
    """Stands for a protocol of a seat."""

    def __call__(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossEntropy:
    """Plain."""

    smoothing: float = 0.0
    """Share of the label given to all classes."""
    weighting: Literal["none", "balanced"] = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"CrossEntropy.smoothing must be in [0, 1), got {self.smoothing}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Focal:
    gamma: float = 2.0
    """How steeply easy examples are discounted;
    0 is plain cross-entropy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MSE:
    pass


Loss = CrossEntropy | Focal | MSE


@dataclass(frozen=True, kw_only=True, slots=True)
class SGD:
    lr: float = 0.1
    momentum: float = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamW:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    p: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixup:
    alpha: float = 0.2
    low: int = 0
    high: int = 3
    inner: Loss | None = None

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"Mixup.low must be <= high, got {self.low} > {self.high}")


BatchTransform = Flip | Mixup


@dataclass(frozen=True, kw_only=True, slots=True)
class EMA:
    decay: float = 0.999
    neutral: ClassVar[Self | None] = None


Averaging = EMA


@dataclass(frozen=True, kw_only=True, slots=True)
class Digits:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrays:
    path: FilePath
    standardize: bool = False
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class MLPConfig:
    depth: int = 2
    hidden: tuple[int, ...] = (32, 64)
    activation: Literal["relu", "gelu"] = "relu"


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTConfig:
    depth: int = 4
    width: int | None = None
    grid: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    loss: Loss | Callback = CrossEntropy()
    optimizer: SGD | AdamW = SGD()
    averaging: Averaging | None = None
    batch_transforms: tuple[BatchTransform, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, AdamW) and self.averaging is not None:
            raise ValueError("adamw and averaging do not go together here")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    name: str = "run"
    note: str | None = None
    seed: int = 0
    budget: float = float("inf")
    depth: int = 1
    resume: bool = False
    loss_limit: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    data: Digits | Arrays = Digits()
    model: MLPConfig | GPTConfig = MLPConfig()
    method: Method = Method()
    run: Run = Run()
