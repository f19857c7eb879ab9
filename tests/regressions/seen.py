"""What a training sees, for the tests beside it: the samples of every update, and their bits."""

from dataclasses import replace
from typing import Any

from laws import cases
from laws.cases import NOISY
from torchstone.core import random
from torchstone.data import AddNoise, Flip, Mixup, PaddedCrop
from torchstone.train.loop import updates


def seen_by(job: Any, step: int = 0) -> list[list[int]]:
    """The sample positions of every update from `step` on."""
    return [[int(i) for batch in batches for i in batch.index] for _, batches in updates(job, step)]


def flat(updates: list[list[int]]) -> list[int]:
    return [index for update in updates for index in update]


def bits_seen_by(job: Any, step: int = 0) -> list[bytes]:
    """The inputs of every update after sample and batch transforms."""
    made = []
    for epoch, batches in updates(job, step):
        for stream, transform in zip(job.setting.streams, job.method.batch_transforms, strict=True):
            key = random.key(job.setting.seed, stream, epoch)
            batches = [transform(batch, random.sample_keys(key, batch.index)) for batch in batches]
        made.append(b"".join(cases.raw(batch.inputs) for batch in batches))
    return made


AUGMENTED = replace(NOISY, sample_transforms=(AddNoise(),), batch_transforms=(Flip(), PaddedCrop(padding=1), Mixup()))
