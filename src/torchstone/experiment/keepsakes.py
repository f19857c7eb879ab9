"""What a finished run keeps for its report: its outputs on the test split, its most confident mistakes and samples after augmentation,
as pictures.

Shapes: N samples, C classes.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from torchstone.core import files, layout, random
from torchstone.core.json_text import to_json
from torchstone.core.protocols import Batch, Facts, ImageShape, Split
from torchstone.data.loader import Samples
from torchstone.data.pixels import as_float
from torchstone.data.steady import steady
from torchstone.experiment.preparing import Prepared
from torchstone.train.build import streams
from torchstone.train.results import Predictions

MISTAKES = 24
"""Most pictures of mistakes."""
SAMPLES = 12
"""Pictures of training samples, before and after augmentation."""
LARGEST_SIDE = 224
"""Pixels; larger pictures are made smaller."""


def keep(prepared: Prepared, where: Path, task: Any, predictions: Predictions | None) -> None:
    """Writes `pictures/` into the run folder, for images: nothing otherwise. `task`: with what it has fitted, so that a mistake is what
    prediction gets wrong."""
    if not isinstance(prepared.facts.inputs, ImageShape) or not hasattr(prepared.experiment.task, "picture"):
        return
    album = Album(prepared)
    document = {
        "mistakes": [] if predictions is None else album.mistakes(predictions, task),
        "originals": album.samples("original", augmented=False),
        "augmented": album.samples("augmented", augmented=True),
    }

    def fill(folder: Path) -> None:
        for name, content in album.files.items():
            files.write_new(folder / name, content)
        files.write_new(folder / "index.json", (to_json(document, indent=2) + "\n").encode())

    if (where / layout.PICTURES).exists():  # a resumed run makes them anew
        files.remove_folder(where / layout.PICTURES)
    files.new_folder(where / layout.PICTURES, fill)


class Album:
    """The pictures of one run, by file name, and what is to be said of each."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.files: dict[str, bytes] = {}

    def mistakes(self, predictions: Predictions, task: Any) -> list[dict[str, Any]]:
        """The wrong answers given with the highest probability, that one first."""
        classes, split = self.prepared.facts.classes, self.prepared.splits.test
        said = []
        for index, truth, answer, row in confident_mistakes(predictions, MISTAKES, task):
            probabilities = row.softmax(dim=0)
            file = self.add(f"mistake-{len(said):02d}.png", self._sample(split, index))
            if file is None:
                return []
            said.append(
                {
                    "file": file,
                    "index": index,
                    "truth": classes[truth],
                    "label": classes[answer],
                    "probability": float(probabilities[answer]),
                    "truth_probability": float(probabilities[truth]),
                    "name": name_of(split, index),
                }
            )
        return said

    def samples(self, stem: str, *, augmented: bool) -> list[dict[str, Any]]:
        """The same few training samples as they are, or as the first epoch's batch transforms make them."""
        rows = samples_of_every_class(self.prepared.splits.train, self.prepared.facts, SAMPLES)
        batch = self._augmented(rows) if augmented else self._batch(rows)
        said = []
        for number, (image, target) in enumerate(zip(as_float(batch.inputs), batch.target, strict=True)):
            file = self.add(f"{stem}-{number:02d}.png", (image.clamp(0, 1), target))
            if file is None:
                return []
            said.append({"file": file, "label": label_of(target, self.prepared.facts.classes)})
        return said

    def add(self, name: str, sample: tuple[Tensor, Tensor]) -> str | None:
        """Makes the picture; None where the task has none of such a sample."""
        pixels = self.prepared.experiment.task.picture(sample)  # type: ignore[union-attr]
        if pixels is None:
            return None
        image = Image.fromarray(pixels)
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        content = io.BytesIO()
        image.save(content, format="PNG")
        self.files[name] = content.getvalue()
        return name

    def _sample(self, split: Split, index: int) -> tuple[Tensor, Tensor]:
        method = self.prepared.experiment.method
        inputs, target = Samples(split, steady(method.sample_transforms), 0).whole(np.array([index]))
        return as_float(inputs)[0], target[0]

    def _batch(self, rows: np.ndarray) -> Batch:
        method = self.prepared.experiment.method
        inputs, target = Samples(self.prepared.splits.train, steady(method.sample_transforms), 0).whole(rows)
        return Batch(inputs, target, torch.from_numpy(rows), torch.ones(len(rows)))

    def _augmented(self, rows: np.ndarray) -> Batch:
        """As in the first epoch, without what prediction applies too (normalization): what comes out can be looked at."""
        method, seed = self.prepared.experiment.method, self.prepared.experiment.run.seed
        inputs, target = Samples(self.prepared.splits.train, method.sample_transforms, random.key(seed, "samples", 0)).whole(rows)
        batch = Batch(inputs, target, torch.from_numpy(rows), torch.ones(len(rows)))
        for stream, transform in zip(streams(method), method.batch_transforms, strict=True):
            if transform.train_only:
                batch = transform(batch, random.sample_keys(random.key(seed, stream, 0), batch.index))
        return batch


def confident_mistakes(predictions: Predictions, most: int, task: Any = None) -> list[tuple[int, int, int, Float[Tensor, " C"]]]:
    """(position in the split, truth, answer, outputs) of the wrong answers, the most probable first. The answer is the task's `labels`
    (by its threshold, where it has one), else the likeliest class."""
    said = getattr(task, "labels", None)
    answer = predictions.outputs.argmax(dim=1) if said is None else said(predictions.outputs)
    probability = predictions.outputs.softmax(dim=1).gather(1, answer[:, None]).squeeze(1)
    wrong = (answer != predictions.target).nonzero().flatten()
    order = wrong[probability[wrong].argsort(descending=True, stable=True)][:most]
    return [
        (int(predictions.index[row]), int(predictions.target[row]), int(answer[row]), predictions.outputs[row]) for row in order.tolist()
    ]


def samples_of_every_class(split: Split, facts: Facts, most: int) -> np.ndarray:
    """The first samples of a fixed shuffle, one class after the other: int64 [most] or fewer."""
    order = random.permutation(random.key(0, "pictures"), len(split))[:1000]
    _, target = split.fetch(order)
    if target.ndim != 1 or target.is_floating_point() or not facts.classes:
        return np.sort(order[:most])
    labels = target.numpy()
    rank = np.zeros(len(labels), dtype=np.int64)  # how many of its class came before
    for label in np.unique(labels):
        rank[labels == label] = np.arange((labels == label).sum())
    return order[np.lexsort((labels, rank))][:most]


def label_of(target: Tensor, classes: tuple[str, ...]) -> str:
    """A class, or the shares of a blend."""
    if not target.is_floating_point():
        return classes[int(target)] if classes else str(target.tolist())
    if not classes or target.ndim != 1:
        return ""
    shares = sorted(((float(share), classes[i]) for i, share in enumerate(target)), reverse=True)
    return " + ".join(f"{share:.0%} {name}" for share, name in shares[:2] if share > 0.005)


def name_of(split: Split, index: int) -> str:
    """The file a sample came from, where the split knows it."""
    names = getattr(split, "names", ())
    return str(names[index]) if index < len(names) else ""
