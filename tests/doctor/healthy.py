"""Experiments in which nothing is wrong: recipes and small data of several kinds. The doctor must raise no error there.

Shared by `test_healthy.py` and `benchmarks/doctor_alarms.py`.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from sklearn import datasets

from torchstone import recipes
from torchstone.core import tree
from torchstone.data import IDX, Arrays, ImageFolder
from torchstone.experiment import Experiment

FOLDERS = [folder / "shared" / "data" for folder in Path(__file__).resolve().parents]
FASHION = next((folder for folder in FOLDERS if folder.is_dir()), FOLDERS[-1]) / "fashion-mnist"
PLAIN = ("run.threads=1", "run.trackers=[]")


class Missing(Exception):
    """The data of a setting are not on this machine."""


def digits(folder: Path) -> Experiment:
    return recipes.digits()


def digits_mini(folder: Path) -> Experiment:
    return recipes.digits_mini()


def digits_sgd(folder: Path) -> Experiment:
    return tree.edit(recipes.digits_mini(), ["optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.9"])


def digits_resnet(folder: Path) -> Experiment:
    return tree.edit(recipes.digits(), ["model=cifar_resnet", "run.epochs=8"])


def digits_warped(folder: Path) -> Experiment:
    return tree.edit(recipes.digits(), ["batch_transforms=[{kind=warp,rotation=8,crop_area=1,flip=0,translation=0.05},normalize]"])


def gpt_tiny(folder: Path) -> Experiment:
    return tree.edit(recipes.gpt_bytes(), ["data.context=64", "data.max_bytes=300000", "depth=2", "dim=64", "num_heads=2", "run.steps=300"])


def fashion(folder: Path) -> Experiment:
    if not FASHION.is_dir():
        raise Missing(f"{FASHION} is absent")
    return tree.edit(recipes.fashion(), [f"data.path={FASHION}"])


def fashion_mlp(folder: Path) -> Experiment:
    """2,000 real Fashion-MNIST pictures by an MLP."""
    splits = IDX(path=str(FASHION)).open() if FASHION.is_dir() else None
    if splits is None:
        raise Missing(f"{FASHION} is absent")
    parts = {name: getattr(splits, name).fetch(np.arange(count)) for name, count in (("train", 2000), ("validation", 500), ("test", 500))}
    arrays = {f"{axis}_{name}": part[i].numpy() for name, part in parts.items() for i, axis in enumerate("xy")}
    return on_arrays(folder, arrays, "model.hidden=[128]")


def on_arrays(folder: Path, arrays: dict[str, np.ndarray], *edits: str) -> Experiment:
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return tree.edit(replace(recipes.digits_mini(), data=Arrays(path=str(folder / "data.npz"))), edits)


def table_of(load: Callable[..., Any]) -> Callable[[Path], Experiment]:
    def made(folder: Path) -> Experiment:
        x, y = load(return_X_y=True)
        return on_arrays(folder, {"x": x.astype(np.float32), "y": y}, "run.batch_size=16")

    return made


def pictures_of(draw: Callable[[np.random.Generator, int], np.ndarray], classes: int, *edits: str) -> Callable[[Path], Experiment]:
    """Class folders of 90 pictures of 32 pixels each."""

    def made(folder: Path) -> Experiment:
        rng = np.random.default_rng(0)
        for label in range(classes):
            (folder / "pictures" / f"class-{label}").mkdir(parents=True)
            for number in range(90):
                Image.fromarray(draw(rng, label)).save(folder / "pictures" / f"class-{label}" / f"{number}.png")
        base = replace(recipes.image_folder(), data=ImageFolder(path=str(folder / "pictures"), cache_side=32))
        return tree.edit(base, ["model=conv_net", "model.widths=[16,32]", *edits])

    return made


def shapes(rng: np.random.Generator, label: int) -> np.ndarray:
    """A disk, a square or a triangle, of any color, anywhere on a noisy ground."""
    image = Image.fromarray(rng.integers(0, 60, (32, 32, 3), dtype=np.uint8))
    x, y, r = *rng.integers(10, 22, 2), rng.integers(6, 10)
    color = tuple(int(c) for c in rng.integers(120, 256, 3))
    pen = ImageDraw.Draw(image)
    match label:
        case 0:
            pen.ellipse((x - r, y - r, x + r, y + r), fill=color)
        case 1:
            pen.rectangle((x - r, y - r, x + r, y + r), fill=color)
        case _:
            pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=color)
    return np.asarray(image)


def colors(rng: np.random.Generator, label: int) -> np.ndarray:
    """Noise of one of four colors."""
    base = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [180, 180, 60]])[label]
    return np.clip(base + rng.normal(0, 40, (32, 32, 3)) + rng.normal(0, 25), 0, 255).astype(np.uint8)


def stripes(rng: np.random.Generator, label: int) -> np.ndarray:
    """Stripes across or along, of any width, gray."""
    wave = 127 + 90 * np.sin(np.arange(32) * rng.uniform(0.6, 1.4) + rng.uniform(0, 6))
    flat = np.tile(wave, (32, 1)) if label else np.tile(wave[:, None], (1, 32))
    return np.clip(flat + rng.normal(0, 20, (32, 32)), 0, 255).astype(np.uint8)


def grain(rng: np.random.Generator, label: int) -> np.ndarray:
    """Noise of three grain sizes."""
    size = (1, 2, 4)[label]
    coarse = rng.integers(0, 256, (32 // size, 32 // size)).astype(np.uint8)
    return coarse.repeat(size, axis=0).repeat(size, axis=1)


SETTINGS: dict[str, Callable[[Path], Experiment]] = {
    "digits": digits,
    "digits-mini": digits_mini,
    "digits by SGD": digits_sgd,
    "digits by a residual network of 20 layers": digits_resnet,
    "digits, a little warped": digits_warped,
    "gpt-bytes, tiny": gpt_tiny,
    "fashion": fashion,
    "fashion by an MLP": fashion_mlp,
    "image-folder: shapes": pictures_of(shapes, 3),
    "image-folder: colors": pictures_of(colors, 4),
    "image-folder: stripes": pictures_of(stripes, 2),
    "image-folder: grain": pictures_of(grain, 3, "batch_transforms=[flip,normalize]"),
    "image-folder: shapes, mixed": pictures_of(shapes, 3, "batch_transforms=[flip,mixup,normalize]"),
    "table: breast cancer": table_of(datasets.load_breast_cancer),
    "table: wine": table_of(datasets.load_wine),
    "table: iris": table_of(datasets.load_iris),
}


def made(name: str, folder: Path) -> Experiment:
    """The experiment, its data written to `folder`. Raises Missing."""
    return tree.edit(SETTINGS[name](folder), PLAIN)
