"""The predictor: a trained model in use. Samples go through the preprocessing, the batches and the arithmetic of the run's
evaluations, so the numbers are theirs.

Shapes: N samples, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchstone import models
from torchstone.core import random, ranks, store
from torchstone.core.errors import UserError
from torchstone.core.precision import autocast
from torchstone.core.protocols import Batch, BatchTransform, PyTree
from torchstone.data.loader import Samples
from torchstone.data.pytree import map_leaves
from torchstone.data.ready import ready
from torchstone.ship.arrays import as_samples
from torchstone.ship.artifact import Artifact, read_artifact, read_weights
from torchstone.ship.inputs import Named, Opener, unlabeled, unreadable
from torchstone.tasks import Language


def load(run: Path, *, device: str = "auto", checkpoint: Path | None = None) -> "Predictor":
    """The predictor of one run folder, by the weights its artifact names, or those of one of its checkpoints (`ship.load` opens ensembles
    too). Raises UserError for what is no run, or has no weights yet.
    """
    artifact = read_artifact(run)
    target = ranks.device_named(device, "--device ")
    model = build(artifact, str(run))
    if artifact.memory_format == "channels_last":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tensors, checkpoint = read_weights(run, artifact.weights, checkpoint)
    store.copy_into(model.state_dict(keep_vars=True), tensors, f"{checkpoint}/{artifact.weights.file}.safetensors")
    model = model.to(target).eval()
    return Predictor(artifact=artifact, model=model, device=target, checkpoint=checkpoint, transforms=artifact.preprocess.batch)


@dataclass(frozen=True, slots=True)
class Scored:
    """A batch of samples and what the model says of them."""

    names: list[Any]
    """What each sample is called: the file, `file:row` or the row."""
    inputs: PyTree
    """The samples as they were read and resized, before the batch's preprocessing."""
    outputs: Tensor
    """One row a sample, on the model's device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """A model with its weights, in evaluation mode, and all that surrounds it."""

    artifact: Artifact
    model: nn.Module
    device: torch.device
    checkpoint: Path
    """The folder the weights were read from."""
    members: tuple[Path, ...] = ()
    """Of an ensemble: the checkpoint of each member; `checkpoint` is then the folder around them."""
    transforms: tuple[BatchTransform, ...] = ()
    """What a batch passes on its way to the model."""

    @property
    def is_language(self) -> bool:
        """It continues texts."""
        return isinstance(self.artifact.task, Language)

    def predict(self, inputs: Any, **options: Any) -> list[dict[str, Any]]:
        """One dict a sample: `input` (the file, `file:row` or the row), and what the task makes of the outputs: `label`, `probabilities`.

        inputs: an array or tensor of samples in the data's own form; or paths of pictures, folders of pictures, .npy, .npz (array x or
        x_test). For a language model: a text or several, with the options of `continue_text`; the dicts hold `input` and `text`.
        Raises UserError naming all files that cannot be read. Everything is held in memory: `scored` and `answers` go batch by batch.
        """
        if self.is_language:
            prompts = [inputs] if isinstance(inputs, str) else list(inputs)
            texts = [self.continue_text(prompt, **options) for prompt in prompts]
            return [{"input": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)]
        if options:
            raise UserError(
                f"{next(iter(options))} is an option of language models; this run's task is {type(self.artifact.task).__name__.lower()}"
            )
        return [answer for batch in self.scored(inputs) for answer in self.answers(batch)]

    def answers(self, batch: Scored) -> list[dict[str, Any]]:
        """What the task makes of the outputs, one dict a sample."""
        decoded = self.artifact.task.decode(batch.outputs.float(), self.artifact.facts)
        return [{"input": name, **answer} for name, answer in zip(batch.names, decoded, strict=True)]

    def logits(self, inputs: Any) -> Tensor:
        """The model's outputs for the samples, on the CPU, bit for bit those of an evaluation that cuts its batches at the same places.

        Of several views (`task.views`) they are the log of the mean probabilities.
        """
        return torch.cat([batch.outputs.cpu() for batch in self.scored(inputs)])

    def scored(self, inputs: Any, skipped: list[str] | None = None) -> Iterator[Scored]:
        """The samples batch by batch, in bounded memory where they are files of pictures.

        skipped: receives a line a file that cannot be read, and the others go on; None: UserError with all such files, before the
        first batch where a header tells.
        """
        opener = self.opener(skipped)
        sources = self._sources(inputs, opener)
        for number, (names, split) in enumerate(sources):
            samples = Samples(split, self.artifact.preprocess.sample, 0)
            for start in range(0, len(split), self.artifact.batch_size):
                rows = np.arange(start, min(start + self.artifact.batch_size, len(split)), dtype=np.int64)
                try:
                    read = _read(samples, rows)
                except UserError:
                    rows, read = self._without_bad(samples, rows, opener, sources[number + 1 :])
                if len(rows):
                    yield Scored([names[row] for row in rows.tolist()], read, self.outputs(self._batch(read, rows)))

    def continue_text(self, prompt: str, *, count: int = 200, temperature: float = 0.8, top_k: int = 0, seed: int = 0) -> str:
        """The `count` bytes that the model writes after `prompt`, as text: a function of the prompt and the options alone.

        temperature 0 takes the likeliest byte each time; top_k 0 draws from all. Raises UserError for an empty prompt or a negative option.
        """
        task = self.artifact.task
        if not isinstance(task, Language):
            raise UserError(f"this run's task is {type(task).__name__.lower()}; only a language model continues a text")
        if not isinstance(prompt, str):
            raise UserError(f"a prompt is a text, got {type(prompt).__name__}")
        for name, value in (("count", count), ("temperature", temperature), ("top_k", top_k)):
            if not 0 <= value < float("inf"):
                raise UserError(f"{name} must be >= 0, got {value}")
        with torch.no_grad(), autocast(self.artifact.precision, self.device):
            key = random.key(seed, "continue")
            return task.continue_text(self.model, prompt, count=count, temperature=temperature, top_k=top_k, key=key)

    # --- on the way ------------------------------------------------------------------------------------------------------

    def opener(self, skipped: list[str] | None = None) -> Opener:
        """How files become samples of this model; `skipped` as in `scored`."""
        return Opener(self.artifact.facts.inputs, self.artifact.preprocess.fit, self.resizes, skipped)

    @property
    def resizes(self) -> bool:
        """The preprocessing takes images of any size."""
        return any(hasattr(transform, "reshape") for transform in self.artifact.preprocess.sample)

    def outputs(self, batch: Batch) -> Tensor:
        """The model's outputs for one batch that is on the device already, over the task's views."""
        for transform in self.transforms:
            batch = transform(batch, torch.zeros_like(batch.index))
        with torch.no_grad(), autocast(self.artifact.precision, self.device):
            return self.artifact.task.forward(self.model, ready(batch.inputs, self.artifact.memory_format))

    def _sources(self, inputs: Any, opener: Opener) -> list[Named]:
        paths = _paths(inputs)
        if paths is not None:
            return opener.open(paths)
        samples = as_samples(inputs, self.artifact.facts.inputs, any_size=self.resizes)
        return [(range(len(samples)), unlabeled(samples))]

    def _batch(self, inputs: PyTree, rows: np.ndarray) -> Batch:
        batch = Batch(inputs, torch.zeros(len(rows), dtype=torch.int64), torch.from_numpy(rows), torch.ones(len(rows)))
        return map_leaves(lambda tensor: tensor.to(self.device), batch)

    def _without_bad(self, samples: Samples, rows: np.ndarray, opener: Opener, later: list[Named]) -> tuple[np.ndarray, PyTree]:
        """The rows that can be read and their samples. Where bad files are refused, all that are still to come are looked for."""
        problems = unreadable(samples.split, rows.tolist())
        bad, total = list(problems.values()), len(samples.split)
        if opener.skipped is None:
            bad += unreadable(samples.split, range(int(rows[-1]) + 1, total)).values()
            for _, split in later:
                bad += unreadable(split, range(len(split))).values()
            total += sum(len(split) for _, split in later)
        opener.set_aside(bad, total)
        good = np.array([row for row in rows.tolist() if row not in problems], dtype=np.int64)
        return good, _read(samples, good)


def _read(samples: Samples, rows: np.ndarray) -> PyTree:
    """The inputs of some samples, resized one by one where that is asked for."""
    return (samples.one_by_one(rows, lambda row: None) if samples.transforms else samples.split.fetch(rows))[0]


def build(artifact: Artifact, where: str) -> nn.Module:
    """The artifact's network; its first weights are drawn and thrown away, no global generator moves."""
    try:
        model = models.build(artifact.model, artifact.facts.inputs, artifact.task.outputs(artifact.facts), key=0)
        for transform in artifact.transforms:
            model = transform(model)
        return model
    except UserError as error:
        raise UserError(f"{where}: the model of artifact.json cannot be built: {error}") from None


def _paths(inputs: Any) -> list[Path] | None:
    """The inputs as file paths, where that is what they are."""
    if isinstance(inputs, str | Path):
        return [Path(inputs)]
    if isinstance(inputs, Sequence) and len(inputs) and all(isinstance(each, str | Path) for each in inputs):
        return [Path(each) for each in inputs]
    return None
