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
from torchstone.core.protocols import Batch, ImageShape, InputShape, Split, TokenShape
from torchstone.data.loader import Samples
from torchstone.data.pytree import map_leaves
from torchstone.data.splits import TensorSplit
from torchstone.ship.arrays import as_samples, read_samples
from torchstone.ship.artifact import Artifact, read_artifact, read_weights
from torchstone.ship.pictures import open_pictures
from torchstone.tasks import Language

ARRAY_FILES = (".npy", ".npz")


def load(run: str | Path, *, device: str = "auto") -> "Predictor":
    """The predictor of a run folder: `torchstone.load("runs/digits/run").predict(images)`.

    device: auto (the accelerator if there is one), cpu, cuda, cuda:1 ... Raises UserError for what is no run, or has no weights yet.
    """
    run = Path(run)
    artifact = read_artifact(run)
    target = ranks.device_named(device, "--device ")
    model = build(artifact, str(run))
    tensors, checkpoint = read_weights(run, artifact.weights)
    store.copy_into(model.state_dict(keep_vars=True), tensors, f"{checkpoint}/{artifact.weights.file}.safetensors")
    return Predictor(artifact=artifact, model=model.to(target).eval(), device=target, checkpoint=checkpoint)


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """A model with its weights, in evaluation mode, and all that surrounds it."""

    artifact: Artifact
    model: nn.Module
    device: torch.device
    checkpoint: Path
    """The folder the weights were read from."""

    @property
    def is_language(self) -> bool:
        """It continues texts."""
        return isinstance(self.artifact.task, Language)

    def predict(self, inputs: Any, **options: Any) -> list[dict[str, Any]]:
        """One dict a sample: `input` (the file, `file:row` or the row), and what the task makes of the outputs: `label`, `probabilities`.

        inputs: an array or tensor of samples in the data's own form; or file paths: pictures, .npy, .npz (array x or x_test).
        For a language model: a text or several, with the options of `continue_text`; the dicts hold `input` and `text`.
        """
        if self.is_language:
            prompts = [inputs] if isinstance(inputs, str) else list(inputs)
            texts = [self.continue_text(prompt, **options) for prompt in prompts]
            return [{"input": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)]
        if options:
            raise UserError(
                f"{next(iter(options))} is an option of language models; this run's task is {type(self.artifact.task).__name__.lower()}"
            )
        answers = []
        for names, split in self.opened(inputs):
            for rows, outputs in self.batches(split):
                decoded = self.artifact.task.decode(outputs.float(), self.artifact.facts)
                answers += [{"input": names[row], **answer} for row, answer in zip(rows.tolist(), decoded, strict=True)]
        return answers

    def logits(self, inputs: Any) -> Tensor:
        """The model's outputs for the samples, on the CPU, bit for bit those of an evaluation that cuts its batches at the same places."""
        return torch.cat([outputs.cpu() for _, split in self.opened(inputs) for _, outputs in self.batches(split)])

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

    def opened(self, inputs: Any) -> Iterator[tuple[list[Any], Split]]:
        """(names of the samples, samples) of each source in `inputs`; consecutive picture files are one source."""
        shape, any_size = self.artifact.facts.inputs, self.resizes
        paths = _paths(inputs)
        if paths is None:
            samples = as_samples(inputs, shape, any_size=any_size)
            yield list(range(len(samples))), unlabeled(samples)
            return
        pictures: list[Path] = []
        sources: list[list[Path]] = []
        for path in paths:
            _require_file(path)
            if path.suffix.lower() in ARRAY_FILES:
                sources.append([path])
            elif not isinstance(shape, ImageShape):
                raise UserError(f"{path}: this model reads {_kind(shape)}; hand them over as .npy or .npz (array x)")
            elif sources and sources[-1] is pictures:
                pictures.append(path)
            else:
                pictures = [path]
                sources.append(pictures)
        opened = [self._source(source, shape, any_size) for source in sources]  # all are checked before the first is predicted
        yield from opened

    def _source(self, paths: list[Path], shape: InputShape, any_size: bool) -> tuple[list[Any], Split]:
        if paths[0].suffix.lower() in ARRAY_FILES:
            samples = read_samples(paths[0], shape, any_size=any_size)
            return [f"{paths[0]}:{row}" for row in range(len(samples))], unlabeled(samples)
        assert isinstance(shape, ImageShape)
        return [str(path) for path in paths], open_pictures(paths, shape, any_size=any_size)

    @property
    def resizes(self) -> bool:
        """The preprocessing takes images of any size."""
        return any(hasattr(transform, "reshape") for transform in self.artifact.preprocess.sample)

    def batches(self, split: Split) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(rows, outputs) of each batch, in order; every sample is preprocessed as in an evaluation."""
        samples = Samples(split, self.artifact.preprocess.sample, 0)
        for start in range(0, len(split), self.artifact.batch_size):
            rows = np.arange(start, min(start + self.artifact.batch_size, len(split)), dtype=np.int64)
            inputs, target = samples.one_by_one(rows, lambda row: None) if samples.transforms else split.fetch(rows)
            index = torch.from_numpy(rows)
            batch = map_leaves(lambda tensor: tensor.to(self.device), Batch(inputs, target, index, torch.ones(len(rows))))
            yield rows, self.outputs(batch)

    def outputs(self, batch: Batch) -> Tensor:
        """The model's outputs for one batch that is on the device already."""
        for transform in self.artifact.preprocess.batch:
            batch = transform(batch, torch.zeros_like(batch.index))
        with torch.no_grad(), autocast(self.artifact.precision, self.device):
            return self.model(batch.inputs)


def build(artifact: Artifact, where: str) -> nn.Module:
    """The artifact's network; its first weights are drawn and thrown away, no global generator moves."""
    try:
        return models.build(artifact.model, artifact.facts.inputs, artifact.task.outputs(artifact.facts), key=0)
    except UserError as error:
        raise UserError(f"{where}: the model of artifact.json cannot be built: {error}") from None


def unlabeled(samples: Tensor) -> TensorSplit:
    """Samples without a target, as a split."""
    return TensorSplit(samples, torch.zeros(len(samples), dtype=torch.int64))


def _paths(inputs: Any) -> list[Path] | None:
    """The inputs as file paths, where that is what they are."""
    if isinstance(inputs, str | Path):
        return [Path(inputs)]
    if isinstance(inputs, Sequence) and len(inputs) and all(isinstance(each, str | Path) for each in inputs):
        return [Path(each) for each in inputs]
    return None


def _require_file(path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder; name the files in it' if path.is_dir() else 'not a plain file'}")


def _kind(shape: InputShape) -> str:
    return "tokens" if isinstance(shape, TokenShape) else "vectors"
