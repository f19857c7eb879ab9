"""IDX: the files of the MNIST family (MNIST, Fashion-MNIST, KMNIST, EMNIST), as downloaded, gzipped or not.

The format: two zero bytes, a type byte (8: unsigned bytes), the number of dimensions, each dimension as a big-endian int32, the bytes
(http://yann.lecun.com/exdb/mnist). The files named t10k (or test) are the test; validation is held out of the training ones.
Shapes: N images of H x W pixels.
"""

import gzip
import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, Splits
from torchstone.core.tree import FilePath
from torchstone.data.facts import describe
from torchstone.data.sources.holding_out import check_shares, completed
from torchstone.data.splits import TensorSplit

MAGIC = {"images": 0x803, "labels": 0x801}
ENDINGS = {"images": "idx3-ubyte", "labels": "idx1-ubyte"}
STEMS = {"train": ("train",), "test": ("t10k", "test")}
MOST_BYTES = 1 << 34
"""A larger header is damage, or an attack on the memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IDX:
    """A folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and the same of t10k, each gzipped (.gz) or not.

    Inputs: [N, 1, H, W] as bytes. Raises UserError naming the file that is missing, damaged, or does not fit its partner.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "there is no training without data"

    path: FilePath = ""
    """The folder, or its file of training images."""
    classes: tuple[str, ...] = ()
    """Names of the classes 0, 1, ...; empty: the numbers up to the largest label."""
    validation: float = 1 / 12
    """Share of the training images held out for validation: 5,000 of 60,000."""

    def __post_init__(self) -> None:
        check_shares(self)
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"IDX.classes must differ from each other, got {', '.join(self.classes)}")

    def open(self) -> Splits:
        if not self.path:
            raise UserError(
                "data.path must be given: the folder of train-images-idx3-ubyte.gz and the others, as in data.path=fashion-mnist"
            )
        path = Path(os.path.abspath(self.path))
        found = {split: _pair(path, split) for split in STEMS}
        shape = found["train"][0].shape[1:]
        if found["test"][0].shape[1:] != shape:
            raise UserError(f"{path}: training images are {shape[0]}x{shape[1]}, test images are not; take both from one set")
        labels = np.concatenate([found[split][1] for split in STEMS]).astype(np.int64)
        classes = self._class_names(path, labels, len(found["train"][1]))
        count = len(found["train"][1])
        given = {"train": np.arange(count), "test": np.arange(count, len(labels))}
        rows, rule = completed(str(path), given, labels, classes, {"validation": self.validation}, {"test": "the files"})
        images = {split: torch.from_numpy(found[split][0])[:, None] for split in STEMS}
        made = {name: _part(images["train"], labels, rows[name]) for name in ("train", "validation")}
        splits = {**made, "test": TensorSplit(images["test"], torch.from_numpy(labels[rows["test"]]))}
        facts = describe(splits, ImageShape(1, *shape), classes, rule)
        return Splits(train=splits["train"], validation=splits["validation"], test=splits["test"], facts=facts)

    def _class_names(self, path: Path, labels: np.ndarray, training: int) -> tuple[str, ...]:
        """Given or counted. Raises UserError for a label without a name, and for one that training has not."""
        most = int(labels.max())
        if self.classes and most >= len(self.classes):
            raise UserError(f"{path}: holds label {most}; data.classes names {len(self.classes)} (0 to {len(self.classes) - 1})")
        names = self.classes or tuple(str(label) for label in range(most + 1))
        unknown = sorted(set(labels[training:].tolist()) - set(labels[:training].tolist()))
        if unknown:
            raise UserError(f"{path}: the test files hold label {unknown[0]}, which no training image has; take all files from one set")
        return names


def _part(images: UInt8[Tensor, "M 1 H W"], labels: np.ndarray, rows: np.ndarray) -> TensorSplit:
    positions = torch.from_numpy(rows)
    return TensorSplit(images.index_select(0, positions), torch.from_numpy(labels[rows]))


def _pair(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [N, H, W], labels uint8 [N]) of "train" or "test"."""
    if not path.exists():
        raise UserError(f"{path}: no such folder; data.path names the one that holds the four files of the set")
    folder = path if path.is_dir() else path.parent
    images_path = path if split == "train" and not path.is_dir() else _find(folder, split, "images")
    labels_path = _find(folder, split, "labels")
    images, labels = read_idx(images_path, "images"), read_idx(labels_path, "labels")
    if len(images) != len(labels):
        raise UserError(f"{labels_path}: holds {len(labels)} labels for {len(images)} images of {images_path.name}; they must be as many")
    return images, labels


def _find(folder: Path, split: str, what: str) -> Path:
    names = [f"{stem}-{what}{mark}{ENDINGS[what]}{gz}" for stem in STEMS[split] for mark in "-." for gz in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: has no {names[0]} (or {names[0]}.gz); name the folder that holds the four files of the set")


def read_idx(path: Path, what: str) -> np.ndarray:
    """uint8 [N, H, W] for "images", [N] for "labels". Raises UserError naming the file for anything but a whole one."""
    try:
        with open(path, "rb") as file:
            start = file.read(2)
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if start == b"\x1f\x8b" else file
            shape = _header(path, stream, what)
            size = int(np.prod(shape, dtype=object))
            if size > MOST_BYTES:
                raise UserError(f"{path}: promises {size} bytes of {what}; at most {MOST_BYTES} are read")
            content = _exactly(stream, size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: is no whole gzip file ({error}); download it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(content) != size:
        found = f"only {len(content)}" if len(content) < size else "more"
        raise UserError(f"{path}: promises {size} bytes of {what}, and holds {found}; download it again")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _header(path: Path, stream: io.BufferedIOBase, what: str) -> tuple[int, ...]:
    dimensions = 3 if what == "images" else 1
    header = _exactly(stream, 4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions:
        raise UserError(f"{path}: ends within its header; download it again")
    magic, *shape = struct.unpack(f">{1 + dimensions}i", header)
    if magic != MAGIC[what]:
        raise UserError(f"{path}: begins with {magic & 0xFFFFFFFF:#010x}; a file of {what} begins with {MAGIC[what]:#010x}")
    if min(shape) < 1:
        raise UserError(f"{path}: promises {' x '.join(map(str, shape))} {what}; none may be empty")
    return tuple(shape)


def _exactly(stream: io.BufferedIOBase, size: int) -> bytearray:
    """So many bytes, or fewer at the end. A false promise takes no memory: what is not there is not allocated."""
    content = bytearray()
    while len(content) < size and (piece := stream.read(min(size - len(content), 1 << 24))):
        content += piece
    return content
