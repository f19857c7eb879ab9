"""What the finished runs of a study say: read from their folders, so that it is the same however often the study was cut off."""

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torchstone.core import files, layout
from torchstone.core.errors import UserError, warn
from torchstone.core.layout import TRAINING
from torchstone.fleet.unit import ended
from torchstone.study.definition import Definition
from torchstone.study.design import Variant
from torchstone.train import checkpoint
from torchstone.train.folder import read_json

COSTS = ("seconds", "peak_memory_mb", "samples_per_s")
"""What a run says of time and memory: another machine or hour gives others."""

MOST_KEPT = 4096
"""Runs whose small files are not read again."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run that is over, or has failed."""

    seed: int
    """The run's own."""
    pair: int
    """The study's seed: what the same number means is compared."""
    name: str
    """Of the run's folder, inside the study's."""
    status: str
    metrics: Mapping[str, float | None]
    """Of the resulting weights, as `numbers`; None is not a number."""
    recall: tuple[float | None, ...]
    cost: Mapping[str, Any]

    def value(self, metric: str) -> float | None:
        found = self.metrics.get(metric)
        return found if found is not None and math.isfinite(found) else None


Results = Mapping[str, tuple[RunResult, ...]]
"""The runs of each variant, in the order of the study's seeds."""


def run_name(study: Definition, number: int, variant: Variant, seed: int) -> str:
    return f"{variant.name}/seed-{study.seed_of(number, seed)}"


def read_results(study: Definition, folder: Path, failed: Collection[str] = ()) -> dict[str, tuple[RunResult, ...]]:
    """Every run that is over, and those in `failed`, which are over for now."""
    found = {}
    for number, variant in enumerate(study.variants):
        runs = []
        for seed in study.seeds:
            name = run_name(study, number, variant, seed)
            status, metrics, recall, cost = _measured(folder / name, stamp(folder / name))
            if status is not None:
                runs.append(RunResult(study.seed_of(number, seed), seed, name, status, metrics, recall, cost))
            elif name in failed:
                runs.append(RunResult(study.seed_of(number, seed), seed, name, "failed", {}, (), {}))
        found[variant.name] = tuple(runs)
    return found


def stamp(run: Path) -> tuple[int, int] | None:
    """Another one whenever the run's metrics.json is another file; None: there is none."""
    try:
        found = (run / layout.METRICS).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


@lru_cache(maxsize=MOST_KEPT)
def _measured(
    run: Path, at: tuple[int, int] | None
) -> tuple[str | None, Mapping[str, float | None], tuple[float | None, ...], Mapping[str, Any]]:
    """How a run ended for good, if it has, its numbers, the recall of each class, and its cost. Read once: a sequential study asks anew
    after every seed."""
    status = None if at is None else ended(run)
    if status is None:
        return None, {}, (), {}
    document = read_json(run / layout.METRICS)
    classes = document.get("validation", {}).get("per_class") or []
    recall = tuple(each.get("recall") for each in classes if isinstance(each, dict))
    return status, numbers(document), recall, document.get("cost", {})


def numbers(document: Mapping[str, Any]) -> dict[str, float | None]:
    """What a metrics.json says that is one number: of the validation split, and as `train_…` of the training split."""
    both = (("", document.get("validation", {})), (TRAINING, document.get("training", {})))
    return {
        prefix + key: value
        for prefix, measured in both
        for key, value in measured.items()
        if (value is None or isinstance(value, int | float)) and key != "per_class"
    }


def identical(folder: Path, one: RunResult, other: RunResult) -> bool:
    """Whether two runs came to the same weights and the same outputs, bit for bit."""
    if dict(one.metrics) != dict(other.metrics):
        return False
    try:
        runs = folder / one.name, folder / other.name
        return _outcome(runs[0], stamp(runs[0])) == _outcome(runs[1], stamp(runs[1]))
    except (UserError, OSError, KeyError, TypeError) as error:
        warn(f"{folder}: whether {one.name} and {other.name} are identical cannot be said ({error})")
        return False


@lru_cache(maxsize=MOST_KEPT)
def _outcome(run: Path, at: tuple[int, int] | None) -> tuple[dict[str, str], str]:
    """SHA-256 of each tensor of the resulting weights, from the checkpoint's manifest, and of the outputs on the test split."""
    weights = read_json(run / layout.ARTIFACT)["weights"]
    manifest = read_json(checkpoint.named(run, weights["checkpoint"]) / "manifest.json")
    tensors = {name: facts["sha256"] for name, facts in manifest["files"][weights["file"]]["tensors"].items()}
    outputs = run / layout.PREDICTIONS
    digest = hashlib.sha256(files.read_bytes(outputs, 1 << 30)).hexdigest() if outputs.is_file() else ""
    return tensors, digest


def classes_of(study: Definition, results: Results, folder: Path) -> list[str]:
    """The names of the classes, from the first finished run."""
    for runs in results.values():
        for run in runs:
            if run.recall:
                return list(read_json(folder / run.name / layout.ARTIFACT)["facts"].get("classes", []))
    return []
