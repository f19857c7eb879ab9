"""What the laws run on: every part of every union, found by its annotation, and tiny real jobs to put it into.

A part that cannot be made by its defaults alone, or that does not fit the pictures, has its row in `NEEDS` or `WORLD`.
"""

import copy
import hashlib
import struct
import typing
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from data.folder_of_pictures import fill
from torchstone import data, losses, metrics, models, optim, tasks
from torchstone.core.protocols import Facts, ImageShape, Splits, StepReport, TokenShape
from torchstone.core.tree import choices, kind_of, slots_of
from torchstone.data.sources.without import list_text
from torchstone.data.splits import TensorSplit
from torchstone.experiment import Experiment, Prepared, prepare
from torchstone.models import ConvNetConfig, GPTConfig, MLPConfig
from torchstone.optim import EMA, AdamW
from torchstone.slim import CosineHead, HardConcrete
from torchstone.tasks import Classify, Language
from torchstone.train import checkpoint
from torchstone.train.build import build_state
from torchstone.train.loop import Job, fit, updates
from torchstone.train.method import Method
from torchstone.train.settings import Run
from torchstone.train.signals import Request
from torchstone.train.state import TrainState
from torchstone.train.step import train_step

# --- every part --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One member of one union."""

    seat: str
    """A seat of the method, or the union's own name."""
    cls: type

    @property
    def kind(self) -> str:
        return kind_of(self.cls)

    @property
    def many(self) -> bool:
        """Whether the seat is a list."""
        return self.seat in SEATS and SEATS[self.seat].many is not None

    def make(self, folder: Path) -> Any:
        """The part with its defaults, and what `NEEDS` adds; `folder` is for files that it names."""
        return self.cls(**NEEDS.get(self.kind, lambda folder: {})(folder))

    def __str__(self) -> str:
        return f"{self.seat}-{self.kind}"


SEATS = {name: slot for name, slot in slots_of(Method).items() if (slot.many or slot).parts}
SEATED = [Part(seat, cls) for seat, slot in SEATS.items() for cls in (slot.many or slot).parts.values()]
UNTRAINED = {kind for kind in choices(losses.OtherLoss)}
"""Losses of outputs that no task here gives (boxes, pairs, sequences): tests/losses/test_every_loss.py is their law."""
METHOD_PARTS = [part for part in SEATED if (part.seat != "loss" or part.kind not in UNTRAINED) and part.kind != "closed_form"]
"""`closed_form` solves linear models under squared error alone: tests/train/test_full_batch.py is its law."""
UNIONS = {
    "model": models.Model,
    "data": data.Source,
    "task": tasks.Task,
    "metric": metrics.Metric,
    "trackers": typing.get_type_hints(Run)["trackers"],
}
PARTS = SEATED + [Part(name, cls) for name, union in UNIONS.items() for cls in choices(union).values()]


def parts_of(*seats: str) -> list[Part]:
    return [part for part in PARTS if part.seat in seats]


def _arrays(folder: Path) -> dict[str, Any]:
    path = folder / "arrays.npz"
    if not path.exists():
        draw = np.random.default_rng(0)
        np.savez(path, x=draw.normal(size=(60, 4)).astype(np.float32), y=np.arange(60) % 3)
    return {"path": str(path)}


def _text(folder: Path) -> dict[str, Any]:
    path = folder / "text.txt"
    if not path.exists():
        path.write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    return {"path": str(path), "context": 16}


def _pictures(folder: Path) -> dict[str, Any]:
    root = folder / "pictures"
    if not root.exists():
        fill(root)
    return {"path": str(root), "cache_dir": str(folder / "cache")}


def write_idx(folder: Path) -> dict[str, Any]:
    """The four files of the MNIST family, small; the settings that name them."""
    draw = np.random.default_rng(0)
    for stem, count in (("train", 60), ("t10k", 12)):
        pixels, labels = draw.integers(0, 256, (count, 6, 5), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 3
        for name, array in ((f"{stem}-images-idx3-ubyte", pixels), (f"{stem}-labels-idx1-ubyte", labels)):
            (folder / name).write_bytes(struct.pack(f">{1 + array.ndim}i", 0x800 + array.ndim, *array.shape) + array.tobytes())
    return {"path": str(folder)}


def _leave_out(folder: Path) -> dict[str, Any]:
    """A list of two of the digits."""
    path = folder / "leave_out.json"
    path.write_text(list_text(data.Digits().open().facts.fingerprint, {"train": {3: "copy"}, "validation": {1: "copy"}}))
    return {"leave_out": str(path)}


NEEDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "newton": lambda folder: {"solver": "cg", "cg_steps": 4},  # the whole Hessian of a network is hundreds of products a step
    "center": lambda folder: {"dim": 4},
    "resize": lambda folder: {"height": 6, "width": 7},
    "arrays": _arrays,
    "image_folder": _pictures,
    "idx": write_idx,
    "plain_text": _text,
    "subset": lambda folder: {"samples": 100},
    "without": _leave_out,
    "stdlib_text": lambda folder: {"context": 16, "max_bytes": 4000},
}
"""Settings that a part cannot be made (or opened quickly) without."""

BESIDE: dict[str, dict[str, Any]] = {
    "l0": {"model_transforms": (HardConcrete(),)},
    "arcface": {"model_transforms": (CosineHead(),)},
    "schedule_free": {"averaging": None},
}
"""Seats of the method that a part does nothing without, or that must be empty beside it."""

WORLD: dict[str, str] = {}
"""Kind -> "tokens" for a part that trains on text alone; all others train on pictures."""


# --- tiny data ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class TinyImages:
    """Pictures of three classes, each a bright stripe in noise."""

    neutral_reason: ClassVar[str] = "data"

    train: int = 22
    side: int = 8
    shift: float = 0.0
    """Added to every pixel: other data of the same form."""

    def open(self) -> Splits:
        draw = np.random.default_rng(7)
        made = {}
        for name, count in (("train", self.train), ("validation", 13), ("test", 11)):
            target = draw.integers(0, 3, count)
            images = draw.normal(scale=0.5, size=(count, 1, self.side, self.side)) + self.shift
            for image, label in zip(images, target, strict=True):
                image[0, 2 * label] += 1.5
            made[name] = TensorSplit(torch.from_numpy(images).float(), torch.from_numpy(target))
        counts = torch.bincount(made["train"].target, minlength=3).tolist()
        facts = Facts(
            inputs=ImageShape(1, self.side, self.side),
            classes=("a", "b", "c"),
            class_counts=tuple(counts),
            mean=(0.2,),
            std=(0.7,),
            sizes=tuple((name, len(split)) for name, split in made.items()),
            fingerprint=hashlib.sha256(f"images {self.train} {self.side} {self.shift}".encode()).hexdigest(),
        )
        return Splits(train=made["train"], validation=made["validation"], test=made["test"], facts=facts)


@dataclass(frozen=True, kw_only=True, slots=True)
class TinyTokens:
    """Sequences over 12 tokens, each the one before plus a step; their ends are ragged: targets -100."""

    neutral_reason: ClassVar[str] = "data"

    train: int = 22
    vocabulary: int = 12
    length: int = 6
    mute: int = 1
    """Only every so-manieth training sequence has any target that counts."""

    def open(self) -> Splits:
        draw = np.random.default_rng(8)
        made = {}
        for name, count in (("train", self.train), ("validation", 13), ("test", 11)):
            start, step = draw.integers(0, self.vocabulary, (count, 1)), draw.integers(1, 4, (count, 1))
            tokens = torch.from_numpy((start + step * np.arange(self.length + 1)) % self.vocabulary)
            target = tokens[:, 1:].clone()
            for row, kept in enumerate(draw.integers(1, self.length + 1, count)):
                target[row, kept:] = -100
            if name == "train":
                target[torch.arange(count) % self.mute != 0] = -100
            made[name] = TensorSplit(tokens[:, :-1].contiguous(), target)
        facts = Facts(inputs=TokenShape(self.vocabulary, self.length), fingerprint=hashlib.sha256(f"tokens {self}".encode()).hexdigest())
        return Splits(train=made["train"], validation=made["validation"], test=made["test"], facts=facts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedded(Classify):
    """Outputs are embeddings of four dimensions, the target a class."""

    gives: ClassVar[str] = "embeddings"
    selection: ClassVar[tuple[str, typing.Literal["min", "max"]]] = ("loss", "min")

    def outputs(self, facts: Facts) -> int:
        return 4

    def metrics(self, facts: Facts) -> tuple[Any, ...]:
        return (metrics.MeanLoss(),)


# --- tiny jobs ---------------------------------------------------------------------------------------------------------

MLP = MLPConfig(hidden=(9,), dropout=0.2)
CONV = ConvNetConfig(widths=(4, 6), dropout=0.2)
GPT = GPTConfig(depth=1, dim=16, num_heads=2, dropout=0.1)
NOISY = Method(loss=losses.CrossEntropy(), optimizer=AdamW(lr=0.01, weight_decay=0.1), averaging=EMA(decay=0.8))
PLAIN = Method(loss=losses.CrossEntropy(), optimizer=optim.SGD(lr=0.1, momentum=0.0))
STILL = Method(loss=losses.CrossEntropy(), optimizer=optim.SGD(lr=0.0, momentum=0.0))
"""Never moves: what it leaves in `.grad` is the gradient."""


def ready(method: Method, model: Any = CONV, source: Any = None, **run: Any) -> Prepared:
    """A resolved experiment on tiny data: pictures, or tokens for GPT."""
    tokens = isinstance(model, GPTConfig)
    run = {"epochs": 3, "batch_size": 8, "threads": 1, "device": "cpu", "evaluation_batch_size": 5, "trackers": ()} | run
    experiment = Experiment(
        data=source or (TinyTokens() if tokens else TinyImages()),
        task=Language() if tokens else Embedded() if "embeddings" in getattr(method.loss, "takes", ()) else Classify(),
        model=model,
        method=method,
        run=Run(**run),
    )
    prepared = _prepared(experiment)
    return replace(prepared, model=copy.deepcopy(prepared.model))


_prepared = lru_cache(prepare)


def begin(prepared: Prepared, folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Job, TrainState]:
    """The job and its state at step 0."""
    (folder / checkpoint.FOLDER).mkdir(parents=True, exist_ok=True)
    experiment = prepared.experiment
    job = Job(
        method=experiment.method,
        run=experiment.run,
        splits=prepared.splits,
        metrics=experiment.task.metrics(prepared.facts),
        selection=experiment.task.selection,
        device=prepared.device,
        folder=folder,
        facts={"exactness": {}, "fingerprint": prepared.facts.fingerprint},
    )
    return job, build_state(prepared.model.to(dtype), experiment.method, experiment.run, prepared.device)


def advance(job: Job, state: TrainState, steps: int) -> list[StepReport]:
    """So many updates, and nothing else."""
    return [train_step(state, batches, job.method, job.setting, epoch) for epoch, batches in islice(updates(job, state.step), steps)]


def trained(method: Method, folder: Path, model: Any = CONV, steps: int = 5, source: Any = None, **run: Any) -> TrainState:
    """The state after `steps` updates."""
    job, state = begin(ready(method, model, source, **run), folder)
    advance(job, state, steps)
    return state


class StopAt:
    """A tracker that sends the signal after some step."""

    def __init__(self, step: int, request: Request) -> None:
        self.at, self.request = step, request

    def step(self, report: StepReport) -> None:
        if report.step == self.at:
            self.request.signal = 15

    def start(self, run: Any) -> None: ...

    def evaluation(self, evaluation: Any) -> None: ...

    def rewind(self, step: int) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


def run_whole(prepared: Callable[[], Prepared], folder: Path, until: int | None = None, trackers: Any = ()) -> tuple[str, TrainState]:
    """From the newest checkpoint in `folder` (or 0) to the end, or to the signal after step `until`, as the verb would."""
    job, state = begin(prepared(), folder)
    found = checkpoint.newest_good(folder)
    if found is not None:
        checkpoint.restore(state, found[1], found[2], found[0])
    request = Request()
    watchers = [*trackers] if until is None else [*trackers, StopAt(until, request)]
    return fit(job, state, watchers, request), state


# --- comparing -----------------------------------------------------------------------------------------------------------


def raw(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def weights(state: TrainState) -> dict[str, Tensor]:
    return state.tensors()["model"]


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """Names whose bits are not the same in both."""
    return [name for name in sorted(a.keys() | b.keys()) if name not in a or name not in b or raw(a[name]) != raw(b[name])]


def all_tensors(state: TrainState) -> dict[str, Tensor]:
    return {f"{file}/{name}": tensor for file, named in state.tensors().items() for name, tensor in named.items()}


def steady(state: TrainState) -> dict[str, Any]:
    """The state's numbers but the wall time, comparable (NaN equals NaN)."""
    return {name: repr(value) for name, value in state.numbers().items() if name != "seconds"}


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def put_in(method: Method, part: Part, value: Any) -> Method:
    """The method with `value` alone in the part's seat."""
    return replace(beside(method, part), **{part.seat: (value,) if part.many else value})


def beside(method: Method, part: Part) -> Method:
    """The method with what the part needs in other seats."""
    return replace(method, **BESIDE.get(part.kind, {}))


def emptied(method: Method, seat: str) -> Method:
    """The method with that seat empty, or at what cannot be empty: backprop, plain cross-entropy, every sample once."""
    never_empty = {"sampler": data.Uniform(), "gradient": optim.Backprop(), "loss": losses.CrossEntropy(), "optimizer": method.optimizer}
    empty: Any = () if SEATS[seat].many is not None else None
    return replace(method, **{seat: never_empty.get(seat, empty)})


def walk(root: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) of every tensor, number, text and random state reachable by attributes, items and keys."""
    seen: dict[int, Any] = {}  # holds the objects, or an id could come back as another's
    todo = deque([(path, root)])  # breadth first: a thing goes by its shortest path
    while todo:
        path, node = todo.popleft()
        if node is None or isinstance(node, bool | int | float | str | bytes):
            yield path, node
            continue
        if id(node) in seen or isinstance(node, type | torch.dtype | torch.device):
            continue
        seen[id(node)] = node
        if isinstance(node, Tensor):
            yield path, node.detach()
            if node.grad is not None:
                todo.append((f"{path}.grad", node.grad))
        elif isinstance(node, np.ndarray):
            yield path, torch.from_numpy(node)
        elif isinstance(node, dict):
            todo += [(f"{path}[{key!r}]", value) for key, value in node.items()]
        elif isinstance(node, list | tuple | set | frozenset):
            todo += [(f"{path}[{number}]", value) for number, value in enumerate(node)]
        else:
            slots = [name for cls in type(node).__mro__ for name in getattr(cls, "__slots__", ()) if hasattr(node, name)]
            todo += [(f"{path}.{name}", getattr(node, name)) for name in slots if not name.startswith("__")]
            todo += [(f"{path}.{name}", value) for name, value in getattr(node, "__dict__", {}).items()]


def snapshot(root: Any) -> dict[str, Any]:
    """Every leaf by path, as bits or text."""
    return {path: raw(leaf) if isinstance(leaf, Tensor) else repr(leaf) for path, leaf in walk(root)}
