"""The words every floor shares: a batch, the facts of a data set, and what fits in each seat of the method.

Shapes: N samples of a (micro-)batch, P scalars of all trained parameters laid end to end.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

PyTree = Any
"""A tensor, or a dict / tuple / frozen dataclass of tensors, each with the leading dimension N."""

Memory = dict[str, Tensor]
"""What a seat remembers between steps. The training state owns it; the seat changes it in place."""


@dataclass(frozen=True, slots=True)
class Batch:
    """N samples as the step sees them."""

    inputs: PyTree
    target: PyTree
    index: Int[Tensor, " N"]
    """Position of every sample in its split: what its random keys are made of."""
    weight: Float[Tensor, " N"]
    """1, or 0 for a row that only pads a rank's share."""


@dataclass(frozen=True, slots=True)
class ImageShape:
    channels: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class VectorShape:
    features: int


@dataclass(frozen=True, slots=True)
class TokenShape:
    vocabulary: int
    length: int
    """Tokens the model reads at once (the context)."""


InputShape = ImageShape | VectorShape | TokenShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the parts may know of the data before training: computed from the training split alone, but for the sizes."""

    inputs: InputShape
    classes: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    """Training samples of each class."""
    mean: tuple[float, ...] = ()
    """Mean of each input channel (or feature) over the training split."""
    std: tuple[float, ...] = ()
    """Standard deviation of the same, with N in the divisor."""
    sizes: tuple[tuple[str, int], ...] = ()
    """Samples of each split: (("train", n), ("validation", n), ("test", n))."""
    split_rule: str = ""
    """How the splits were made, in words."""
    fingerprint: str = ""
    """SHA-256 over everything the splits hold; a resumed run must meet the same."""
    notes: tuple[tuple[str, int], ...] = ()
    """What was counted while the data were read: (("skipped pictures", 2), ...)."""


@runtime_checkable
class Split(Protocol):
    """A finite, indexable set of samples. Fetching reads no global random state and is safe in a forked worker."""

    def __len__(self) -> int: ...

    def fetch(self, indices: np.ndarray) -> tuple[PyTree, PyTree]:
        """(inputs, target) of the samples at `indices` (int64 [N]), stacked along a new first dimension."""
        ...


@dataclass(frozen=True, slots=True)
class Splits:
    """Opened data: three splits and their facts."""

    train: Split
    validation: Split
    test: Split
    facts: Facts
    groups: np.ndarray | None = None
    """Group of each sample of train and then of validation (int64), where the source knows which belong together."""
    ordered: bool = False
    """Train, validation and test follow each other in time, and so do the samples of each."""


@runtime_checkable
class Source(Protocol):
    """A part in `Experiment.data`."""

    def open(self) -> Splits: ...


@runtime_checkable
class Parameters(Protocol):
    """All trained parameters of a model, laid end to end; iterating gives the parameters themselves (see `optim.flat`)."""

    data: Tensor
    grad: Tensor

    def __iter__(self) -> Iterator[nn.Parameter]: ...


@runtime_checkable
class MadeFromData(Protocol):
    """A network with weights that are computed from data before training."""

    def initialize_from(self, inputs: Tensor) -> None:
        """Called once, with a few thousand training samples as the model reads them."""
        ...


# --- the seats -------------------------------------------------------------------------------------------------------


@runtime_checkable
class Sampler(Protocol):
    def __call__(self, split: Split, key: int) -> np.ndarray:
        """The order of one epoch: int64 positions in `split`, a pure function of `key`."""
        ...


@runtime_checkable
class SampleTransform(Protocol):
    train_only: ClassVar[bool]
    """False for what prediction needs as well (resizing)."""

    def __call__(self, sample: tuple[PyTree, PyTree], key: int) -> tuple[PyTree, PyTree]: ...


@runtime_checkable
class BatchTransform(Protocol):
    """One that mixes rows has a `group` too: how many consecutive ones (2 for mixup and cutmix, 4 for mosaic). One that reads what another
    takes away says in `before` which kinds come after it: a method with another order is refused, and `+=` puts it in its place."""

    train_only: ClassVar[bool]
    """False for what prediction needs as well (normalization)."""

    def __call__(self, batch: Batch, keys: Int[Tensor, " N"]) -> Batch: ...


@runtime_checkable
class ModelTransform(Protocol):
    def __call__(self, model: nn.Module) -> nn.Module: ...

    def apply(self, model: nn.Module, step: int, total: int) -> None: ...


@runtime_checkable
class Loss(Protocol):
    """One may say which outputs and targets it `takes` (`losses.LAYOUTS`). One with `init(model) -> Memory` receives `memory`, writes there
    what it proposes, and makes it count in `commit(memory, skip=...)`, which the step calls after an update."""

    couples: ClassVar[bool]
    """True when a term depends on the other samples of the batch; under several ranks it then sees those of all."""

    def __call__(self, outputs: PyTree, target: PyTree, /) -> Tensor:
        """One number a term: the target's leading shape, [N] or [N, T]."""
        ...

    def weight(self, target: PyTree, /) -> Tensor:
        """The weight of each term, of the same shape; 0 where ignored."""
        ...


@runtime_checkable
class Penalty(Protocol):
    def __call__(self, model: nn.Module, /) -> Tensor: ...


@runtime_checkable
class Gradient(Protocol):
    def __call__(self, model: nn.Module, closure: Callable[[], Tensor]) -> Tensor: ...


@runtime_checkable
class GradientTransform(Protocol):
    def __call__(self, parameters: Parameters, norm: float | Tensor) -> Mapping[str, float | Tensor]:
        """Changes the gradients in place; `norm` is their global norm before. Returns what is worth logging."""
        ...


@runtime_checkable
class DrawingTransform(Protocol):
    """A gradient transform that draws numbers: it also receives the key of this update and the number of updates made before it."""

    draws: ClassVar[bool]

    def __call__(self, parameters: Parameters, norm: float | Tensor, *, key: int, updates: int) -> Mapping[str, float | Tensor]: ...


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that share a rate and a decay."""

    names: tuple[str, ...]
    lr_scale: float = 1.0
    decay_scale: float = 1.0


@runtime_checkable
class Groups(Protocol):
    def __call__(self, model: nn.Module) -> Sequence[Group]:
        """A partition of the names in `model.named_parameters()`."""
        ...


@runtime_checkable
class MovingGroups(Groups, Protocol):
    """Groups whose rates move during the run: gradual unfreezing."""

    def update(self, parameters: Any, step: int, total: int) -> None:
        """Sets the `lr_scale` of `parameters.groups` before an update, as a pure function of the step; 0 freezes."""
        ...

    def plan(self, lr: float, total: int) -> list[str]:
        """The phases of a run in words."""
        ...


@runtime_checkable
class Optimizer(Protocol):
    lr: float

    def init(self, parameters: Parameters) -> Memory:
        """Memory as tensors over all P scalars (stored under the parameters' names) or 0-d ones."""
        ...

    def step(self, parameters: Parameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        """One update in place. Its numbers are the part's fields, scheduled ones already written in.
        `found_inf` (0-d, 1.0 = skip everything, memory included) is given on accelerators only."""
        ...


@runtime_checkable
class OwnAverage(Optimizer, Protocol):
    """An optimizer whose weights for evaluation are not those it takes gradients at; no averaging beside it."""

    recompute_batch_norm: ClassVar[bool]
    """Whether the statistics of the evaluated weights are computed anew before each evaluation (`train.batch_norm`)."""

    def evaluation_weights(self, average: Parameters, parameters: Parameters, memory: Memory) -> None:
        """Writes them, and the buffers, into `average`: before each evaluation and each checkpoint."""
        ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One look at the validation split."""

    step: int
    metrics: Mapping[str, float]


@dataclass(slots=True)
class History:
    """What schedules and stops may read: every evaluation so far and the loss of the newest step."""

    evaluations: list[Evaluation] = field(default_factory=list)
    loss: float = float("nan")


@runtime_checkable
class Schedule(Protocol):
    path: str
    """A numeric path of the method, such as "optimizer.lr"."""

    def __call__(self, step: int, total: int, history: History) -> float:
        """The factor on the path's own value at update `step` of `total`, counted from 0."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    updates: int
    """Updates made, counted from 1."""
    total: int = 1
    """Updates of the whole run."""
    epoch: int = 1
    """Updates of one epoch."""
    batch_size: int = 1


@runtime_checkable
class Averaging(Protocol):
    """One that remembers more than the average has `init(parameters) -> Memory` and receives `memory`. One with `recompute_batch_norm` has
    the average's batch-norm statistics computed anew before each evaluation (`train.batch_norm`)."""

    def __call__(self, average: Parameters, parameters: Parameters, progress: Progress, *, skip: Tensor | None = None) -> None:
        """Moves `average` after an update."""
        ...


@runtime_checkable
class Stop(Protocol):
    def __call__(self, history: History) -> str | None:
        """The reason to stop after this step, or None. Pure: called again on the same history it answers the same."""
        ...


@runtime_checkable
class Metric(Protocol):
    """A number over a split, from sums that add over batches and ranks."""

    def measure(self, outputs: PyTree, target: PyTree, weight: Tensor, terms: Tensor) -> dict[str, Tensor]:
        """The sums of one batch: float64 or int64 tensors. `weight` and `terms` (the loss's numbers) are one a term."""
        ...

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        """Name -> value; an undefined value is NaN. Divides once."""
        ...


@runtime_checkable
class RowMetric(Metric, Protocol):
    """A metric that needs every term of the split at once: some of what it measures is laid end to end instead of added."""

    rows: ClassVar[tuple[str, ...]]
    """Those of its measurements, [M, ...] of M terms, of any number type; their order over batches and ranks must not matter."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one update tells the trackers."""

    step: int
    loss: float | Tensor
    norm: float | Tensor
    numbers: Mapping[str, float | Tensor]
    samples: int
    seconds: float


@runtime_checkable
class Tracker(Protocol):
    """Reads, never writes to the training; one object a run, made by a part's `open(folder)`."""

    def start(self, run: Mapping[str, Any]) -> None: ...

    def step(self, report: StepReport) -> None: ...

    def evaluation(self, evaluation: Evaluation) -> None: ...

    def rewind(self, step: int) -> None:
        """A resumed run goes on after `step`: forget what came later."""
        ...

    def sync(self) -> None:
        """A checkpoint is about to be made: what was written so far is on the disk when this returns."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Inside:
    """What a tracker that looks inside may read: the live objects of the training. It writes to none of them."""

    model: nn.Module
    parameters: Any
    """The `optim.flat.FlatParameters` of the step: weights before an update and after it, gradients after it."""
    scale: Callable[[], float | None]
    """The loss scale of an fp16 training as it is now; None without one."""
    compiled: bool
    """The model runs compiled: hooks would compile it again."""


@runtime_checkable
class InsideTracker(Tracker, Protocol):
    """A tracker that looks inside the model at some updates. It draws no random number and leaves every tensor as it was."""

    def inside(self, view: Inside) -> None:
        """Once, before the first update."""
        ...

    def before(self, step: int, waited: float) -> None:
        """Update `step` (counted from 1) is about to be made; its batch was waited for `waited` seconds."""
        ...

    def diverged(self, step: int, origin: Mapping[str, Any]) -> None:
        """Update `step` was not made, because a number in it was not finite; where it came from (`train.origin`)."""
        ...
