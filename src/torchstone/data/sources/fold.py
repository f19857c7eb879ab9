"""Fold: one fold of another source, for cross-validation."""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from torchstone.core import protocols
from torchstone.core.errors import UserError, warn
from torchstone.core.protocols import Facts, Splits, TokenShape
from torchstone.core.tree import kind_of
from torchstone.data.facts import of_part
from torchstone.data.folds import By, Pool, fold_rows, scheme_for
from torchstone.data.pictures import FetchedPictures, StoredPictures
from torchstone.data.sources.arrays import Arrays
from torchstone.data.sources.digits import Digits
from torchstone.data.sources.idx import IDX
from torchstone.data.sources.image_folder import ImageFolder
from torchstone.data.sources.label_noise import LabelNoise
from torchstone.data.sources.subset import Subset
from torchstone.data.sources.without import Without
from torchstone.data.splits import SPLIT_SEED, TensorSplit, labels_of

Divisible = TensorSplit | StoredPictures | FetchedPictures
"""Splits whose samples can be put together and chosen anew."""
MOST = 1000
"""Folds; more is a slip of the hand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """Fold `number` of `of`: the samples that train and validate in `source`, divided anew; its test split stays as it is.

    Mean, deviation and class counts are of this fold's own training samples. `torchstone train … --folds K` trains all of them.
    Raises UserError where the samples cannot be divided so: too few of a class, no groups, texts.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "it replaces the split of its source; the source by itself is its absence"

    source: Digits | Arrays | ImageFolder | IDX | Subset | Without | protocols.Source = Digits()
    """Where the samples come from."""
    number: int = 1
    """Which fold validates, counted from 1; temporal: how many of the earliest stretches train."""
    of: int = 5
    """Folds in all."""
    by: By = "auto"
    """How they are divided: stratified by class, plain (at random), grouped (whole groups), temporal (validated on what comes after);
    auto: grouped where the source knows groups, temporal where it has an order in time, else stratified, without classes plain."""
    seed: int = SPLIT_SEED
    """What the division is drawn from; it does not follow the run's seed, so that seeds can be compared."""

    def __post_init__(self) -> None:
        if not 2 <= self.of <= MOST:
            raise ValueError(f"Fold.of must be from 2 to {MOST}, got {self.of}")
        if not 1 <= self.number <= self.of:
            raise ValueError(f"Fold.number must be from 1 to Fold.of ({self.of}), got {self.number}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"Fold.seed must be in [0, 2^32), got {self.seed}")

    @property
    def fit(self) -> str:
        """As the source's: how pictures of another size are brought to the model's."""
        return getattr(self.source, "fit", "stretch")

    def open(self) -> Splits:
        if isinstance(self.source, LabelNoise):
            raise UserError("data=fold: folds of data=label_noise would validate on its wrong labels; divide its data.source")
        splits = self.source.open()
        whole, pool = pooled(splits, kind_of(self.source))
        scheme = scheme_for(self.by, pool)
        if pool.groups is not None and scheme != "grouped":
            warn(f"the data say which samples belong together, but the folds are {scheme}: a group may be on both sides")
        train_rows, held_rows = fold_rows(scheme, self.of, pool, self.seed)[self.number - 1]
        train, held = whole.taken(train_rows), whole.taken(held_rows)
        rule = f"fold {self.number} of {self.of}, {scheme}, of what trains and validates"
        sizes = {"train": len(train), "validation": len(held), "test": len(splits.test)}
        facts = of_part(splits.facts, train, sizes, rule, fingerprint(splits.facts, train_rows, held_rows))
        return Splits(train=train, validation=held, test=splits.test, facts=facts)


def pooled(splits: Splits, source: str) -> tuple[Divisible, Pool]:
    """Train and validation as one split, and what is known of its samples. Raises UserError for what has no samples to divide."""
    train, validation = splits.train, splits.validation
    if isinstance(splits.facts.inputs, TokenShape):
        raise UserError(f"data={source}: a text is one stretch whose windows are no samples of their own; it is not divided into folds")
    if not isinstance(train, Divisible) or type(train) is not type(validation):
        raise UserError(f"data={source}: only splits that are TensorSplit or pictures can be divided anew, got {type(train).__name__}")
    whole = train.joined(validation)  # type: ignore[arg-type]
    labels = labels_of(whole.target) if splits.facts.classes else None
    return whole, Pool(len(whole), labels, splits.facts.classes, splits.groups, splits.ordered)


def fingerprint(facts: Facts, train: np.ndarray, validation: np.ndarray) -> str:
    """SHA-256 over the source's own and the rows on both sides."""
    digest = hashlib.sha256(facts.fingerprint.encode())
    for name, rows in (("train", train), ("validation", validation)):
        digest.update(f"\n{name} {len(rows)}\n".encode())
        digest.update(rows.astype("<i8").tobytes())
    return digest.hexdigest()
