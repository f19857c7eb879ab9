"""Small experiments for the doctor: real digits in a .npz file, with or without one fault."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from torchstone.core import tree
from torchstone.data import Arrays
from torchstone.experiment import Experiment
from torchstone.recipes import digits_mini

SAMPLES = 900
PATIENT = 1200.0
"""Seconds of an examination in a test: on a busy machine it must not find less than on a quiet one."""
Split = dict[str, np.ndarray]


def digits_arrays(samples: int = SAMPLES) -> Split:
    """Real digits as float pictures in [0, 1], cut into three splits."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[:samples]
    x, y = (pixels[order].reshape(-1, 8, 8) / 16).astype(np.float32), labels[order]
    cuts = {
        "train": slice(0, int(0.7 * samples)),
        "validation": slice(int(0.7 * samples), int(0.85 * samples)),
        "test": slice(int(0.85 * samples), None),
    }
    return {f"{axis}_{name}": array[cut] for name, cut in cuts.items() for axis, array in (("x", x), ("y", y))}


def digits_file(folder: Path, change: Callable[[Split], None] | None = None) -> Path:
    arrays = {name: array.copy() for name, array in digits_arrays().items()}
    if change is not None:
        change(arrays)
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def on_digits(folder: Path, *edits: str, change: Callable[[Split], None] | None = None) -> Experiment:
    """digits-mini on such a file."""
    base = tree.put(digits_mini(), "data", Arrays(path=str(digits_file(folder, change))))
    return tree.edit(base, ["run.threads=1", "run.trackers=[]", *edits])
