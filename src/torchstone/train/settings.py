"""How long, on what and how exactly a training runs: everything that is not the data, the task, the model or the method."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from torchstone.train.trackers import Console, Csv, Jsonl, Probes, TensorBoard, Tracker

MOST_SNAPSHOTS = 1000
MOST_PROCESSES = 1024
"""Workers, or threads: beyond it is a slip of the hand, and would take the machine down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The outer settings of one training."""

    name: str = "run"
    """Name of the run's folder under runs/<recipe>/."""
    seed: int = 0
    """All randomness of the run comes from this number."""
    epochs: int = 10
    """Passes over the training split."""
    steps: int | None = None
    """Updates in all; takes the place of `epochs`."""
    batch_size: int = 64
    """Samples of one update, over all micro-batches and ranks."""
    microbatch_size: int | None = None
    """Samples of one forward at most; smaller than the share of a rank = gradient accumulation."""
    evaluation_batch_size: int = 256
    """Samples of one forward in an evaluation."""
    evaluate_every: int | None = None
    """Updates between evaluations (and checkpoints); none: once an epoch."""
    evaluate_training: bool = False
    """When the run is over, score the resulting weights on the whole training split too, as it is without train-only transforms:
    `training` in metrics.json, `train_loss` and its like in a study."""
    select: Literal["last", "best"] = "last"
    """Which weights are the result: those at the end, or those of the best evaluation."""
    keep: int = 2
    """Checkpoints that stay on disk, beside the best one."""
    snapshots: int = 0
    """Checkpoints kept on the way, evenly spaced, the last at the end: the members of `predict RUN --snapshots`. Made for a rate that
    falls as often: schedules=[{kind="cosine_restarts",path="optimizer.lr",first=1/M,growth=1}] (Huang et al. 2017)."""
    max_seconds: float | None = None
    """Wall time after which training stops at the end of a step (a stop that reads a clock: not repeatable)."""
    device: str = "auto"
    """auto (the accelerator if there is one), cpu, cuda, cuda:1 ..."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the model: bf16 and fp16 by autocast, fp16 with loss scaling."""
    compile: bool = False
    """Compile the model with torch.compile."""
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    """How images lie in memory on their way through the model; channels_last is what fast convolutions read."""
    speed: Literal["plain", "auto", "measured"] = "plain"
    """auto: a short trial chooses precision, memory_format, compile and threads before the run; measured: it has done so."""
    activation_checkpointing: bool = False
    """Recompute the inside of every block in the backward pass: less memory, about a third more time."""
    synchronize_batch_norm: bool = True
    """With several ranks: batch-norm statistics over all of them."""
    threads: int | None = None
    """CPU threads; none: 1 below about 50 MFLOP a step, else one a core."""
    workers: int = 0
    """Processes that fetch samples; 0: in the training process (best for data in memory)."""
    trackers: tuple[Tracker, ...] = (Console(), Jsonl(), Csv(), TensorBoard(), Probes())
    """What watches the run."""
    note: str = ""
    """Free text; changes nothing."""

    resumable: ClassVar[tuple[str, ...]] = (
        "run.epochs",
        "run.steps",
        "run.max_seconds",
        "run.keep",
        "run.device",
        "run.threads",
        "run.workers",
        "run.trackers",
        "run.note",
    )
    """What may differ when a run is resumed."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("evaluation_batch_size", 1), ("keep", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"Run.{name} must be >= {least}, got {getattr(self, name)}")
        if not 0 <= self.snapshots <= MOST_SNAPSHOTS:
            raise ValueError(f"Run.snapshots must be from 0 to {MOST_SNAPSHOTS}, got {self.snapshots}")
        for name in ("workers", "threads"):
            if not 0 <= (getattr(self, name) or 0) <= MOST_PROCESSES:
                raise ValueError(f"Run.{name} must be at most {MOST_PROCESSES} and not negative, got {getattr(self, name)}")
        for name in ("steps", "microbatch_size", "evaluate_every", "threads", "max_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"Run.{name} must be > 0 or none, got {value}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"Run.seed must be in [0, 2^63), got {self.seed}")
        if not re.fullmatch(r"[^\W_][\w .+=,@-]{0,99}", self.name):
            raise ValueError(f"Run.name must be a folder name of at most 100 letters, digits and .+=,@_- got {self.name!r}")

    def total(self, updates: int) -> int:
        """Updates of the whole run, given those of an epoch."""
        return self.steps or self.epochs * updates

    def snapshot_steps(self, total: int) -> tuple[int, ...]:
        """After which updates of `total` a snapshot is kept: the ends of as many equal cycles."""
        return tuple(-(-number * total // self.snapshots) for number in range(1, self.snapshots + 1))
