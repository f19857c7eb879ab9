"""Label noise: another source of which some training samples have each other's classes, to see what wrong labels cost."""

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from torchstone.core import protocols, random
from torchstone.core.errors import UserError
from torchstone.core.protocols import Splits
from torchstone.data.pictures import FetchedPictures, StoredPictures
from torchstone.data.sources.arrays import Arrays
from torchstone.data.sources.digits import Digits
from torchstone.data.sources.idx import IDX
from torchstone.data.sources.image_folder import ImageFolder
from torchstone.data.splits import TensorSplit


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelNoise:
    """`source` with the classes of a `share` of its training samples shuffled among those samples; validation and test stay clean.

    Uniform label noise, as Zhang et al. 2017 (https://arxiv.org/abs/1611.03530, section 2) corrupt labels, but each class keeps its
    count: of C classes of equal size about (C - 1) / C of the chosen samples get a wrong one. UserError for a source without classes.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "it stands around its source; with share = 0 it is that source, bit for bit"

    source: Digits | Arrays | ImageFolder | IDX | protocols.Source = Digits()
    """Where the samples come from."""
    share: float = 0.1
    """Of the training samples, those whose classes are shuffled; 0: none."""
    seed: int = 0
    """Which samples, and how; it does not follow the run's seed, so that seeds can be compared."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"LabelNoise.share must be in [0, 1], got {self.share}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"LabelNoise.seed must be in [0, 2^63), got {self.seed}")

    @property
    def fit(self) -> str:
        """As the source's: how pictures of another size are brought to the model's."""
        return getattr(self.source, "fit", "stretch")

    def open(self) -> Splits:
        splits = self.source.open()
        train: Any = splits.train
        if not isinstance(train, TensorSplit | StoredPictures | FetchedPictures) or not splits.facts.classes:
            raise UserError("data=label_noise: the source has no samples with classes, so there is no label to shuffle")
        count = math.floor(self.share * len(train) + 0.5)
        if count < 2:  # nothing to exchange
            return splits
        chosen = random.permutation(random.key(self.seed, "label noise", "who"), len(train))[:count]
        given = random.permutation(random.key(self.seed, "label noise", "what"), count)
        target = train.target.clone()
        target[torch.from_numpy(chosen)] = train.target[torch.from_numpy(chosen[given])]
        digest = hashlib.sha256(splits.facts.fingerprint.encode() + b"\nlabel noise\n" + target.numpy().tobytes()).hexdigest()
        wrong = int((target != train.target).sum())
        notes = (*splits.facts.notes, ("training samples with a wrong class by data=label_noise", wrong))
        facts = replace(splits.facts, fingerprint=digest, notes=notes)
        return replace(splits, train=replace(train, target=target), facts=facts)
