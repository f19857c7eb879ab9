"""Real runs for the tests of the statistics: `digits-mini` over many seeds, alone and with a few edits, to be resampled.

python benchmarks/study_runs.py [FILE] (tests/study/digits_mini_runs.json if none is named; about 15 minutes of one core)

What each run keeps: accuracy and loss on the validation split, of the weights it ends with, and both on the test split. The labels of
the variant "labels_10" are shuffled among 10 % of the training samples, the same ones whatever the run's seed: other data, as in a
study, not other luck. A variant's seeds are the baseline's first ones, so seed s of one is paired with seed s of the other.
"""

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

import torchstone
from torchstone.core.protocols import Splits
from torchstone.core.random import key
from torchstone.data import Digits
from torchstone.data.splits import TensorSplit
from torchstone.experiment import Experiment

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "tests" / "study" / "digits_mini_runs.json"
SHUFFLED = 0.1
KEPT = {"validation": ("accuracy", "loss"), "test": ("accuracy", "loss")}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffledDigits:
    """Digits whose training labels are shuffled among a share of the samples; some get their own label again."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "there is no training without data"

    share: float = SHUFFLED

    def open(self) -> Splits:
        splits = Digits().open()
        train = splits.train
        assert isinstance(train, TensorSplit) and isinstance(train.target, torch.Tensor)
        generator = torch.Generator().manual_seed(key(0, "shuffled labels"))
        chosen = torch.randperm(len(train), generator=generator)[: round(self.share * len(train))]
        target = train.target.clone()
        target[chosen] = target[chosen[torch.randperm(len(chosen), generator=generator)]]
        return replace(splits, train=TensorSplit(train.inputs, target))


def shuffled(experiment: Experiment) -> Experiment:
    return replace(experiment, data=ShuffledDigits())  # type: ignore[arg-type]


def same(experiment: Experiment) -> Experiment:
    return experiment


VARIANTS: dict[str, tuple[int, Callable[[Experiment], Experiment], tuple[str, ...]]] = {
    "baseline": (200, same, ()),
    "labels_10": (50, shuffled, ()),
    "smoothing_01": (50, same, ("method.loss.smoothing=0.1",)),
    "ema": (50, same, ("method.averaging=ema",)),
    "lr_1e-3": (50, same, ("method.optimizer.lr=1e-3",)),
}
"""Name: (seeds, what is done to the recipe's tree, edits)."""


def values(experiment: Experiment, edits: tuple[str, ...], seed: int) -> dict[str, float]:
    """What one run keeps, by `split_metric`."""
    fixed = (f"run.seed={seed}", "run.threads=1", "run.trackers=[]")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        run = torchstone.train_experiment(experiment, *edits, *fixed, out=Path(folder) / "run")
    # The resulting weights are those that were best on validation, so the two documents speak of the same weights.
    found: dict[str, dict[str, Any]] = {"validation": run.metrics["best"], "test": run.metrics["final"]}
    return {f"{split}_{name}": found[split][name] for split, names in KEPT.items() for name in names}


def main(path: Path) -> None:
    document: dict[str, Any] = {
        "what": "recipe digits-mini: accuracy and loss by run.seed 0, 1, …, one list a metric",
        "made_by": "benchmarks/study_runs.py",
        "torch": torch.__version__,
        "variants": {},
    }
    for name, (seeds, change, edits) in VARIANTS.items():
        runs = [values(change(torchstone.recipes.digits_mini()), edits, seed) for seed in range(seeds)]
        document["variants"][name] = {"edits": list(edits), **{metric: [run[metric] for run in runs] for metric in runs[0]}}
        path.write_text(json.dumps(document) + "\n")
        print(name, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
