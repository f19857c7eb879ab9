"""What the checks look at: a prepared experiment, samples of its splits (capped), copies of its model, and small trainings of them.

Nothing of the experiment is changed and nothing is written. Shapes: N samples, F features, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from torchstone.core import layout, random
from torchstone.core.protocols import Batch, BatchTransform, Facts, ImageShape, PyTree, TokenShape
from torchstone.data.loader import Samples
from torchstone.data.pixels import as_float
from torchstone.data.pytree import map_leaves
from torchstone.data.ready import ready
from torchstone.data.splits import TensorSplit
from torchstone.data.steady import as_evaluated, steady
from torchstone.doctor.before.practice import FirstSteps, Practised, first_steps, practised
from torchstone.experiment import Experiment, Prepared
from torchstone.experiment.keepsakes import Album
from torchstone.train.evaluate import evaluating
from torchstone.train.method import Method
from torchstone.train.settings import Run
from torchstone.train.step import seed_model_noise

MOST = {"train": 3000, "validation": 1500, "test": 1500}
"""Samples of a split that the checks look at; duplicates and counts look at more."""
MOST_FEATURES = 1024
"""Numbers of a flattened sample that classical models get; larger pictures are averaged down to it."""
COARSE_FEATURES = 256
"""The same for forests, which ask for hundreds of trees and hardly see the difference."""
PRACTICE_STEPS, PRACTICE_SECONDS = 300, 9.0
"""The longest of the small trainings."""
ENOUGH_STEPS = 40
"""Fewer than these say nothing about what is learnt."""
LATE = 1.3
"""A small training that is so much slower than its budget (the machine has become busier) ends where it is."""
AT_ONCE = 256
"""Samples of one forward."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """Some samples of a split, as the batch transforms meet them."""

    rows: np.ndarray
    """Their positions, int64 [N]."""
    inputs: PyTree
    target: PyTree

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(kw_only=True)
class Patient:
    """One experiment under examination."""

    prepared: Prepared
    asked: Experiment
    """As it was asked about: not yet resolved. Remedies are edits of this."""
    album: Album | None = None
    """Where checks put pictures; none: nobody wants any."""
    out: Path | None = None
    """The folder of the examination, as edits name what lies in it; none: nobody wants files."""
    listed: dict[str, dict[int, str]] = field(default_factory=lambda: {"train": {}, "validation": {}})
    """Rows that remedies leave out, and why: see `leaving_out`."""
    own_model: bool = False
    """The network is not the experiment's: no edit of `model` mends it."""
    patience: float = 1.0
    """What the seconds of every small training are multiplied by."""
    better_rate: float | None = None
    """A rate by which one batch is learnt, where the experiment's own does not do: what `overfit_one_batch` found."""
    sampled: dict[str, Sampled] = field(default_factory=dict)

    @property
    def method(self) -> Method:
        return self.prepared.experiment.method

    @property
    def run(self) -> Run:
        return self.prepared.experiment.run

    @property
    def facts(self) -> Facts:
        return self.prepared.facts

    @property
    def is_text(self) -> bool:
        return isinstance(self.facts.inputs, TokenShape)

    @property
    def is_pictures(self) -> bool:
        return isinstance(self.facts.inputs, ImageShape)

    @property
    def has_classes(self) -> bool:
        """One class index an example, and logits of the classes as outputs."""
        target = self.samples("train").target
        return bool(self.facts.classes) and isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point()

    @property
    def device(self) -> torch.device:
        return self.prepared.device

    def generator(self, *words: str | int) -> np.random.Generator:
        """Draws of one purpose: the same in every examination."""
        return random.generator(random.key(0, "doctor", *words))

    # --- samples ---------------------------------------------------------------------------------------------------

    def samples(self, name: str) -> Sampled:
        """At most `MOST` samples of "train", "validation" or "test", drawn without replacement, in the order of the split."""
        if name not in self.sampled:
            split = getattr(self.prepared.splits, name)
            rows = np.sort(self.generator("rows", name).permutation(len(split))[: MOST[name]]).astype(np.int64)
            self.sampled[name] = Sampled(rows, *self.fetched(name, rows))
        return self.sampled[name]

    def fetched(self, name: str, rows: np.ndarray) -> tuple[PyTree, PyTree]:
        """(inputs, target) of these rows of a split, after the sample transforms that every sample passes."""
        return Samples(getattr(self.prepared.splits, name), steady(self.method.sample_transforms), 0).whole(rows)

    def labels(self, name: str) -> Int64[np.ndarray, " N"]:
        """Class of each of `samples(name)`."""
        return self.samples(name).target.numpy().astype(np.int64)

    def flat(self, name: str) -> Float64[np.ndarray, "N F"]:
        """`samples(name)` as rows of at most `MOST_FEATURES` numbers, before any batch transform; pictures are averaged down."""
        return flattened(self.samples(name).inputs)

    def coarse(self, name: str) -> Float64[np.ndarray, "N F"]:
        """As `flat`, pictures averaged down to `COARSE_FEATURES` numbers: for forests, whose time goes by them."""
        return flattened(self.samples(name).inputs, COARSE_FEATURES)

    def picture(self, file: str, split: str, row: int) -> str | None:
        """Puts the picture of a sample into the album, and says by which path evidence names it; none where nobody wants pictures."""
        if self.album is None:
            return None
        inputs, target = self.fetched(split, np.array([row], dtype=np.int64))
        return f"{layout.PICTURES}/{file}" if self.album.add(file, (inputs[0], target[0])) is not None else None

    # --- the model -------------------------------------------------------------------------------------------------

    @property
    def steady(self) -> tuple[BatchTransform, ...]:
        """The batch transforms that prediction applies too."""
        return steady(self.method.batch_transforms)

    def as_read(self, inputs: PyTree, target: PyTree) -> PyTree:
        """Samples as the model reads them in an evaluation."""
        count = len(target)
        batch = Batch(inputs, target, torch.arange(count), torch.ones(count))
        batch = as_evaluated(batch, self.steady)
        return ready(batch.inputs, self.run.memory_format)

    def outputs(self, model: nn.Module, inputs: PyTree, target: PyTree, *, training: bool = False) -> Tensor:
        """Outputs over raw samples, on the CPU: in evaluation mode, or as a training step sees them."""
        made = []
        forward = getattr(self.prepared.experiment.task, "forward", None)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            seed_model_noise(torch.device("cpu"), 0)
            for start in range(0, len(target), AT_ONCE):
                some, truth = (map_leaves(lambda x, a=start: x[a : a + AT_ONCE], part) for part in (inputs, target))
                read = map_leaves(lambda x: x.to(self.device), self.as_read(some, truth))
                if training:
                    made.append(model.train()(read).cpu())
                else:
                    with evaluating(model):
                        made.append((model(read) if forward is None else forward(model, read)).cpu())
        return torch.cat(made)

    def probabilities(self, model: nn.Module, inputs: PyTree, target: PyTree) -> Float64[np.ndarray, "N K"]:
        return self.outputs(model, inputs, target).double().softmax(dim=-1).numpy()

    def mean_loss(self, outputs: Tensor, target: Tensor) -> float:
        """The mean of the method's loss as the step takes it: weighted."""
        loss = self.method.objective
        terms, weight = loss(outputs, target).double(), loss.weight(target).double()
        return float((terms * weight).sum() / weight.sum().clamp(min=1e-300))

    # --- small trainings -------------------------------------------------------------------------------------------

    @cached_property
    def first_steps(self) -> FirstSteps:
        return first_steps(self.prepared, self.training_split())

    @property
    def step_seconds(self) -> float:
        """Of one training step."""
        return self.first_steps.seconds

    def training_split(self) -> TensorSplit:
        some = self.samples("train")
        return TensorSplit(some.inputs, some.target)

    def steps_in(self, seconds: float, most: int) -> int:
        """Steps that fit in a budget."""
        return max(1, min(most, int(self.patience * seconds / self.step_seconds)))

    @property
    def can_practise(self) -> bool:
        """Whether enough steps fit into the longest small training to say anything."""
        return self.steps_in(PRACTICE_SECONDS, self.practice_steps) >= ENOUGH_STEPS

    def practise(self, split: TensorSplit, steps: int, *, transforms: Sequence[BatchTransform] | None = None, **options) -> Practised:
        """A copy of the model trained on these samples, without augmentation unless `transforms` are given."""
        return practised(self.prepared, split, steps, tuple(self.steady if transforms is None else transforms), **options)

    @property
    def practice_steps(self) -> int:
        """Steps of the longest small training, where time is no matter: a dozen epochs, 60 to `PRACTICE_STEPS`."""
        return min(PRACTICE_STEPS, max(60, 12 * -(-len(self.samples("train")) // self.run.batch_size)))

    @cached_property
    def practised(self) -> Practised:
        """The copy that has learnt the samples without augmentation, as far as a short budget goes."""
        steps = self.steps_in(PRACTICE_SECONDS, self.practice_steps)
        return self.practise(self.training_split(), steps, seconds=self.patience * PRACTICE_SECONDS * LATE)


def flattened(inputs: Tensor, most: int = MOST_FEATURES) -> Float64[np.ndarray, "N F"]:
    """Inputs [N, ...] as rows; pictures of more than `most` numbers are averaged to fewer pixels."""
    x = as_float(inputs).float()
    if x.ndim == 4 and x[0].numel() > most:
        side = max(1, int((most / x.shape[1]) ** 0.5))
        x = torch.cat([F.adaptive_avg_pool2d(part, (min(side, x.shape[2]), min(side, x.shape[3]))) for part in x.split(AT_ONCE)])
    return x.flatten(1).double().numpy()


def shuffled(target: Tensor, generator: np.random.Generator) -> Tensor:
    """The targets dealt out anew."""
    return target[torch.from_numpy(generator.permutation(len(target)))]


def prior(labels: Int64[np.ndarray, " N"], classes: int) -> Float[np.ndarray, " K"]:
    """Share of each class."""
    return np.bincount(labels, minlength=classes) / max(1, len(labels))
