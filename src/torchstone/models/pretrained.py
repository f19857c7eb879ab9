"""A model whose body starts from weights that were trained before: from a run of torchstone, or from a .safetensors file.

The head is new, and so is all that the file does not have; `load` says what.
"""

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import safetensors
import safetensors.torch
from torch import Tensor, nn

from torchstone.core import files, store, tree
from torchstone.core.errors import UserError, clean
from torchstone.core.json_text import from_json
from torchstone.core.layout import ARTIFACT, CHECKPOINTS, STEP
from torchstone.core.protocols import Facts, InputShape
from torchstone.core.tree import FilePath
from torchstone.models.text.gpt import GPTConfig
from torchstone.models.vision.cifar_resnet import CifarResnetConfig
from torchstone.models.vision.conv_net import ConvNetConfig
from torchstone.models.vision.fast_conv_net import FastConvNetConfig
from torchstone.models.vision.lenet import LenetConfig
from torchstone.models.vision.mlp import MLPConfig
from torchstone.models.vision.mobilenet import MobileNetV2Config
from torchstone.models.vision.resnet import ResnetConfig
from torchstone.models.vision.vit import VITConfig
from torchstone.models.weights import Loaded, load_body

Body = (
    MLPConfig
    | ConvNetConfig
    | LenetConfig
    | ResnetConfig
    | CifarResnetConfig
    | FastConvNetConfig
    | MobileNetV2Config
    | VITConfig
    | GPTConfig
)
"""The architectures."""

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedConfig:
    """A model built as any other, whose body `load` fills."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a model is what is trained; no training is without one"

    path: FilePath = ""
    """A run folder, or a .safetensors file (then `body` must be given)."""
    body: Body | None = None
    """The architecture; none: that of the run."""
    sha256: str = ""
    """Of the file of weights; empty: taken from the file when the run is prepared, so that a repeat notices another one."""

    def __post_init__(self) -> None:
        if not re.fullmatch("([0-9a-f]{64})?", self.sha256):
            raise ValueError(f"PretrainedConfig.sha256 must be 64 hexadecimal digits or empty, got {self.sha256!r}")

    @property
    def architecture(self) -> Body:
        """The body's config. UserError while nothing says which it is."""
        if self.body is None:
            raise UserError("model.body: which architecture the weights are for is not known; give model.path a run, or a model.body")
        return self.body

    def resolve(self, facts: Facts) -> Self:
        """Writes out the architecture of the run and the digest of its weights. Reads the disk; UserError where that fails."""
        body = self.body
        if body is None and not _is_run(self.path):
            self._weights_file()  # a path that leads nowhere is said first
            raise UserError(f"model.body: {clean(self.path)} does not say its architecture; give one, such as model.body=resnet")
        if body is None:
            body = _body_of(Path(self.path))
        return replace(self, body=body, sha256=self.sha256 or _digest(self._weights_file()))

    def build(self, inputs: InputShape, outputs: int) -> nn.Module:
        """The architecture with its first weights; `load` then fills the body."""
        return self.architecture.build(inputs, outputs)

    def load(self, model: nn.Module) -> Loaded:
        """Copies the weights into the body of `model`.

        Raises UserError where the file is not the one of `sha256`, cannot be read or does not fit.
        """
        file = self._weights_file()
        if self.sha256 and _digest(file) != self.sha256:
            raise UserError(f"{clean(str(file))}: changed since this experiment was prepared; empty model.sha256 to take it as it is")
        tensors = _read_run(file) if _is_run(self.path) else _read_safetensors(file)
        return load_body(model, tensors, clean(str(file)))

    def _weights_file(self) -> Path:
        if not self.path:
            raise UserError("model.path: a run folder or a .safetensors file is needed")
        path = Path(self.path)
        if path.is_dir():
            return _weights_of(path)
        if not path.exists():
            raise UserError(f"model.path: {clean(self.path)} does not exist; give a run folder or a .safetensors file")
        if path.suffix != ".safetensors":
            raise UserError(f"model.path: {clean(self.path)} is no run folder and no .safetensors file; nothing else is read")
        return path.resolve()  # a hub's cache is all links


def _is_run(path: str) -> bool:
    return bool(path) and Path(path).is_dir()


# --- a run folder ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Described:
    """What is read of artifact.json: nothing that needs a floor above this one."""

    model: Body | PretrainedConfig
    checkpoint: Literal["last", "best"]
    file: Literal["model", "average"]


def _body_of(run: Path) -> Body:
    model = _described(run).model
    return model.architecture if isinstance(model, PretrainedConfig) else model


def _weights_of(run: Path) -> Path:
    """The file of the weights that the run calls its result, in its checkpoint."""
    described = _described(run)
    checkpoints = run / CHECKPOINTS
    name = store.pointed(checkpoints / described.checkpoint, STEP)
    if name is None:
        stores = list(store.list_stores(checkpoints, STEP).values())
        if not stores:
            raise UserError(f"{clean(str(run))}: no checkpoint yet; the run has not reached its first evaluation")
        return stores[-1] / f"{described.file}.safetensors"
    return checkpoints / name / f"{described.file}.safetensors"


def _described(run: Path) -> _Described:
    path = run / ARTIFACT
    source = clean(str(path))
    try:
        document = from_json(files.read_text(path), source)
    except FileNotFoundError:
        raise UserError(f"model.path: {clean(str(run))} is not a run folder, {ARTIFACT} is missing") from None
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror})") from None
    weights = document.get("weights") if isinstance(document, dict) else None
    if not isinstance(weights, dict) or "model" not in document:
        raise UserError(f"{source}: names no model and weights")
    try:
        return tree.decode(_Described, {"model": document["model"]} | {name: weights.get(name) for name in ("checkpoint", "file")})
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _read_run(file: Path) -> dict[str, Tensor]:
    store.verify_store(file.parent)  # all of it: a checkpoint that is damaged anywhere is not trusted
    tensors, _ = store.read_store(file.parent, only=(file.stem,))
    return tensors[file.stem]


# --- a file ----------------------------------------------------------------------------------------------------------


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"{clean(str(file))}: cannot be read as safetensors ({clean(str(error)).splitlines()[0]})") from None


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with files.opened_plain(file) as (fd, _):
            while block := os.read(fd, _BLOCK):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{clean(str(file))}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()
