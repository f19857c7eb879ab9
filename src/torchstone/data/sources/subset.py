"""Subset: another source with part of its training samples, to see what more data are worth, or to try something quickly.

Shapes: N samples.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int, Int64

from torchstone.core import protocols, random
from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, Splits
from torchstone.core.tree import kind_of
from torchstone.data.facts import of_part
from torchstone.data.pictures import FetchedPictures, StoredPictures
from torchstone.data.sources.arrays import Arrays
from torchstone.data.sources.digits import Digits
from torchstone.data.sources.idx import IDX
from torchstone.data.sources.image_folder import ImageFolder
from torchstone.data.sources.label_noise import LabelNoise
from torchstone.data.sources.text import PlainText, StdlibText, WindowSplit
from torchstone.data.splits import TensorSplit, labels_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Subset:
    """`source` with only part of its training samples: so many `samples`, or a `share`; validation and test stay whole.

    Every class keeps its share, and one sample at least. A smaller subset lies inside a larger one of the same seed. Of a text it is the
    beginning, in windows. Mean, deviation and class counts are of what is left. UserError where there are not as many samples.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "it stands around its source; with share = 1 it is that source, bit for bit"

    source: Digits | Arrays | ImageFolder | IDX | StdlibText | PlainText | LabelNoise | protocols.Source = Digits()
    """Where the samples come from."""
    samples: int | None = None
    """Training samples that are left. Exactly one of this and `share` is given."""
    share: float | None = None
    """Of the training samples, those that are left."""
    seed: int = 0
    """Which samples; it does not follow the run's seed, so that seeds can be compared."""

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"Subset.samples must be at least 1, got {self.samples}")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"Subset.share must be in (0, 1], got {self.share}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"Subset.seed must be in [0, 2^63), got {self.seed}")

    @property
    def fit(self) -> str:
        """As the source's: how pictures of another size are brought to the model's."""
        return getattr(self.source, "fit", "stretch")

    def open(self) -> Splits:
        # Not in __post_init__: edits come one by one, and the first of them makes a subset of which neither is said yet.
        if (self.samples is None) == (self.share is None):
            raise UserError(
                f"data=subset: give {'one' if self.samples is None else 'only one'} of data.samples and data.share, as in data.samples=1000"
            )
        splits = self.source.open()
        train: Any = splits.train
        whole = len(train)
        count = self.samples if self.samples is not None else math.floor((self.share or 0.0) * whole + 0.5)
        if count > whole:
            raise UserError(f"data.samples={count}: data={kind_of(self.source)} has {whole} training samples")
        if isinstance(train, WindowSplit):
            if count < 1:
                raise UserError(f"data.share={self.share:g} of {whole} windows is none: a larger share, or a smaller data.source.stride")
            if count == whole:
                return splits
            left: Any = WindowSplit(train.windows[:count])
            return replace(splits, train=left, facts=described(splits.facts, left, np.arange(count)))
        if not isinstance(train, TensorSplit | StoredPictures | FetchedPictures):
            raise UserError(f"data=subset: only splits that are TensorSplit, pictures or windows can be cut, got {type(train).__name__}")
        labels = labels_of(train.target) if splits.facts.classes else None
        needed = 1 if labels is None else len(np.unique(labels))
        if count < needed:
            given = f"data.samples={self.samples}" if self.samples is not None else f"data.share={self.share:g} of {whole} samples"
            raise UserError(f"{given}: at least {needed} must be left" + ("" if labels is None else f", one of each of {needed} classes"))
        if count == whole:
            return splits
        rows = np.sort(order(whole, labels, random.key(self.seed, "subset"))[:count])
        left = train.taken(rows)
        groups = None if splits.groups is None else np.concatenate((splits.groups[:whole][rows], splits.groups[whole:]))
        return replace(splits, train=left, facts=described(splits.facts, left, rows), groups=groups)


def described(facts: Facts, left: Any, rows: Int64[np.ndarray, " N"]) -> Facts:
    """The facts of the source, of the training samples at `rows` alone."""
    digest = hashlib.sha256(facts.fingerprint.encode() + b"\nsubset\n" + rows.astype("<i8").tobytes()).hexdigest()
    rule = f"{len(rows)} of {dict(facts.sizes)['train']} training samples"
    return of_part(facts, left, {"train": len(rows)}, rule, digest)


def order(count: int, labels: Int[np.ndarray, " N"] | None, key: int) -> Int64[np.ndarray, " N"]:
    """All rows in an order of which every beginning has the classes in their shares: a class of n has its r-th sample (from 0) at r / n.

    So every class's first sample comes before all others.
    """
    drawn = random.permutation(key, count)
    if labels is None:
        return drawn
    _, at, sizes = np.unique(labels[drawn], return_inverse=True, return_counts=True)
    grouped = np.argsort(at, kind="stable")
    rank = np.empty(count, dtype=np.int64)
    rank[grouped] = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return drawn[np.argsort(rank / sizes[at], kind="stable")]
