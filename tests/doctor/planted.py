"""Short real trainings with exactly one fault, and healthy ones: what the tests of the doctor's judgment of runs share."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import torchstone
from torchstone.core import tree
from torchstone.core.errors import WorkError
from torchstone.core.protocols import Splits
from torchstone.data import Digits
from torchstone.data.splits import TensorSplit
from torchstone.doctor.during import judge
from torchstone.doctor.finding import Examination
from torchstone.experiment import preparing, train_experiment

BASE = (
    "run.threads=1",
    "run.device=cpu",
    "run.trackers=[{kind=jsonl,every=2},csv,{kind=probes,every=20}]",
    "run.keep=1",
    "run.evaluate_every=1000",
)


def train(
    monkeypatch: pytest.MonkeyPatch, out: Path, *edits: str, mutate: Callable[[nn.Module], None] | None = None, data: Any = None
) -> Path:
    """A run of digits-mini with the edits, its model changed by `mutate` before the first step."""
    built = preparing.build_model

    def build(*arguments: Any, **options: Any) -> nn.Module:
        model = built(*arguments, **options)
        if mutate is not None:
            with torch.no_grad():
                mutate(model)
        return model

    experiment = torchstone.recipes.digits_mini()
    if data is not None:
        experiment = replace(experiment, data=data)
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "build_model", build)
        try:
            train_experiment(experiment, *BASE, *edits, out=out)
        except WorkError as error:
            assert "diverged" in str(error)
    return out


def require(examination: Examination, *checks: str) -> None:
    """One of the checks is the first or second finding, says a number, and all remedies apply to the run's experiment."""
    names = [finding.check for finding in examination.findings]
    assert set(names[:2]) & set(checks), [(f.severity, f.check, f.summary) for f in examination.findings]
    for finding in examination.findings:
        assert finding.summary and finding.because and (finding.remedy or finding.advice)
        assert finding.check == "non_finite" or (finding.value is not None and finding.threshold is not None)
        assert any(character.isdigit() for character in finding.summary)


def applies(edits: tuple[str, ...], examination: Examination) -> None:
    """Pastes every remedy on the experiment that was trained: it is taken, and changes something."""
    experiment = tree.edit(torchstone.recipes.digits_mini(), [*BASE, *edits])
    for finding in examination.findings:
        if finding.remedy:
            assert tree.edit(experiment, finding.remedy) != experiment, finding.remedy


@dataclass(frozen=True, kw_only=True, slots=True)
class FewDigits:
    """Digits with few training samples, some of them mislabeled; or slow, or with a broken pixel: one fault each."""

    neutral_reason: ClassVar[str] = "data"

    train: int = 1257
    wrong: float = 0.0
    """Share of training labels drawn at random."""
    slow: float = 0.0
    """Seconds a batch takes to fetch."""
    broken: float = 0.0
    """A pixel of training sample 5 has this value if it is not 0."""
    loud: float = 1.0
    """One in four hundred training samples is multiplied by it."""

    def open(self) -> Splits:
        splits = Digits().open()
        inputs, target = splits.train.fetch(np.arange(self.train))
        inputs, target = inputs.clone().float() / (255 if inputs.dtype == torch.uint8 else 1), target.clone()
        draw = np.random.default_rng(0)
        chosen = torch.from_numpy(draw.permutation(self.train)[: round(self.wrong * self.train)])
        target[chosen] = torch.from_numpy(draw.integers(0, 10, len(chosen)))
        if self.broken:
            inputs[5, 0, 3, 3] = self.broken
        inputs[::400] *= self.loud
        split = TensorSplit(inputs, target)
        others = [
            TensorSplit((i := s.fetch(np.arange(len(s))))[0].float() / (255 if i[0].dtype == torch.uint8 else 1), i[1])
            for s in (splits.validation, splits.test)
        ]
        return Splits(train=SlowSplit(split, self.slow) if self.slow else split, validation=others[0], test=others[1], facts=splits.facts)


@dataclass(frozen=True)
class SlowSplit:
    """A disk that is slower than the model."""

    split: TensorSplit
    seconds: float

    def __len__(self) -> int:
        return len(self.split)

    def fetch(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(self.seconds)
        return self.split.fetch(indices)


def examined(run: Path, **options: Any) -> Examination:
    return judge(run, **options)
