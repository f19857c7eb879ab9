"""A small folder of class folders with pictures, for tests: every picture another one."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"ant": 12, "bee": 9, "cow": 7}


def picture(seed: int, height: int = 12, width: int = 14, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def fill(folder: Path, counts: Mapping[str, int] = COUNTS, *, start: int = 0, **shape: int) -> Path:
    """`folder/<class>/<n>.png` for each class."""
    for number, (name, count) in enumerate(counts.items()):
        for index in range(count):
            save(folder / name / f"{index:03}.png", picture(start + 1000 * number + index, **shape))
    return folder
