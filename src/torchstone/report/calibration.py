"""The reliability diagram: of the samples that the model was 80 % sure of, are 80 % right?

Guo et al., "On Calibration of Modern Neural Networks", 2017, https://arxiv.org/abs/1706.04599, figure 1 and eq. 3: equal-width bins
over the probability of the class that was named. Shapes: N samples, C classes.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from torchstone.report.numbers import wilson

BINS = 15
CHUNK = 1 << 22
"""Numbers held at once."""
PREDICTIONS = "predictions.safetensors"


@dataclass(frozen=True, slots=True)
class Bin:
    n: int
    right: int
    confidence: float
    """Mean over the bin."""
    accuracy: float
    low: float
    high: float
    """Wilson interval of the accuracy."""
    filled: float
    """Its count over the largest count."""


@dataclass(frozen=True, slots=True)
class Calibration:
    bins: tuple[Bin, ...]
    """The bins that hold samples."""
    error: float
    """Expected calibration error."""
    confidence: float
    """Mean over all samples."""
    right: int
    total: int

    @property
    def verdict(self) -> str:
        gap = self.confidence - self.right / self.total
        return (
            "about as sure as it is right" if abs(gap) < 0.01 else "more sure than it is right" if gap > 0 else "less sure than it is right"
        )


def read_calibration(run: Path) -> tuple[Calibration | None, str]:
    """(the diagram, what is wrong with the file in words); both empty where a run kept no predictions."""
    path = run / PREDICTIONS
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None, f"{PREDICTIONS} is not a plain file"
        return binned(path), ""
    except FileNotFoundError:
        return None, ""
    except (SafetensorError, OSError, ValueError, TypeError, IndexError, OverflowError, MemoryError) as error:
        return None, f"{PREDICTIONS} cannot be used: {error}"


def binned(path: Path) -> Calibration:
    """Counts and sums of every bin, read a piece at a time.

    Raises ValueError for a file that holds no predictions of classes.
    """
    n, right, confidence = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64), np.zeros(BINS)
    for sure, correct in judged(path):
        # (0.2, 0.4] and not [0.2, 0.4): as in the paper.
        place = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
        n += np.bincount(place, minlength=BINS)
        right += np.bincount(place, weights=correct, minlength=BINS).astype(np.int64)
        confidence += np.bincount(place, weights=sure, minlength=BINS)
    total = int(n.sum())
    if total == 0:
        raise ValueError("it holds no finite outputs")
    bins = []
    for i in np.flatnonzero(n).tolist():
        low, high = wilson(int(right[i]), int(n[i]))
        bins.append(Bin(int(n[i]), int(right[i]), confidence[i] / n[i], right[i] / n[i], low, high, n[i] / n.max()))
    error = float(np.abs(right - confidence).sum() / total)
    return Calibration(tuple(bins), error, float(confidence.sum() / total), int(right.sum()), total)


def judged(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(probability of the class that was named float64 [n], whether it is right bool [n]) of a piece of the samples after the other.

    Rows that are not finite are left out.
    """
    with safe_open(path, framework="numpy") as file:
        outputs, target, shape = classified(file)
        rows = max(1, CHUNK // shape[1])
        for start in range(0, shape[0], rows):
            end = min(start + rows, shape[0])
            logits_NC, truth_N = keep_finite(outputs[start:end].astype(np.float64), target[start:end])
            logits_NC -= logits_NC.max(axis=1, keepdims=True, initial=-np.inf)
            # exp(0) is the largest term: its probability is one over the sum.
            yield 1 / np.exp(logits_NC).sum(axis=1), logits_NC.argmax(axis=1) == truth_N


def classified(file: Any) -> tuple[Any, Any, list[int]]:
    """(slices of the outputs, of the target, shape [N, C]) of an open file.

    Raises ValueError for one that holds no predictions of classes.
    """
    if not {"outputs", "target"} <= set(file.keys()):
        raise ValueError("outputs and target are expected in it")
    outputs, target = file.get_slice("outputs"), file.get_slice("target")
    shape = outputs.get_shape()
    if len(shape) != 2 or target.get_shape() != shape[:1] or shape[1] < 2 or target.get_dtype() != "I64":
        raise ValueError(f"outputs [N, C] and target int64 [N] are expected, found {shape} and {target.get_shape()}")
    if outputs.get_dtype() not in ("F32", "F64"):
        raise ValueError(f"outputs are {outputs.get_dtype()}")
    return outputs, target, shape


def keep_finite(logits_NC: np.ndarray, truth_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fine_N = np.isfinite(logits_NC).all(axis=1)
    return logits_NC[fine_N], truth_N[fine_N]
