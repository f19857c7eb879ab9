"""Text as bytes for language models: windows of a context and the byte that follows each of its places.

The last 10 % of the bytes validate, the 10 % before them test.
Shapes: M windows in a split, N in a batch, T bytes of context, W = T + 1, L bytes of text.
"""

import hashlib
import os
import stat
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, Splits, TokenShape
from torchstone.core.tree import FilePath

IGNORED = -100
"""The target past the end of the text: what losses ignore."""
NOT_LIBRARY = {
    "__pycache__",
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "_bundled",
}
"""Folders of the installation that are not the library proper: installed packages, tests, applications."""
SPLIT_RULE = "the last 10 % of the bytes validate, the 10 % before them test, the rest train"


@dataclass(frozen=True, slots=True)
class WindowSplit:
    """Windows of T + 1 bytes: inputs are all but the last byte, the target all but the first."""

    windows: UInt8[Tensor, "M W"]
    """A view: windows of one text overlap in memory."""
    ragged: int | None = None
    """Bytes of the last window that are text, where it runs past the end: zeros follow, and as a target they are ignored."""

    def __len__(self) -> int:
        return len(self.windows)

    def fetch(self, indices: np.ndarray) -> tuple[Int64[Tensor, "N T"], Int64[Tensor, "N T"]]:
        window = self.windows.index_select(0, torch.from_numpy(indices))
        inputs, target = (part.to(torch.int64, memory_format=torch.contiguous_format) for part in (window[:, :-1], window[:, 1:]))
        if self.ragged is not None:
            last = torch.from_numpy(indices == len(self.windows) - 1)
            target[last, self.ragged - 1 :] = IGNORED
        return inputs, target


def whole_windows(tokens: UInt8[Tensor, " L"], context: int, stride: int) -> WindowSplit:
    """A window every `stride` bytes, as far as whole ones go: for training."""
    return WindowSplit(tokens.unfold(0, context + 1, stride))


def covering_windows(tokens: UInt8[Tensor, " L"], context: int) -> WindowSplit:
    """Windows that together predict every byte after the first exactly once: for evaluation."""
    count = -(-(len(tokens) - 1) // context)
    missing = count * context + 1 - len(tokens)
    padded = torch.cat((tokens, tokens.new_zeros(missing)))
    return WindowSplit(padded.unfold(0, context + 1, context), ragged=context + 1 - missing if missing else None)


def cut(text: bytes, context: int, stride: int | None, where: str) -> Splits:
    """Three splits of one text. Raises UserError when it is shorter than three windows."""
    # At least 20 bytes, so that the tenths hold a byte and one to predict.
    least = max(3 * (context + 1), 20)
    if len(text) < least:
        found = "is empty" if not text else f"holds {len(text)} bytes"
        raise UserError(f"{where} {found}; a context of {context} needs at least {least}: give more text, or a smaller data.context")
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    tenth = len(text) // 10
    train, test, validation = tokens.split([len(text) - 2 * tenth, tenth, tenth])
    splits = {
        "train": whole_windows(train, context, stride or context),
        "validation": covering_windows(validation, context),
        "test": covering_windows(test, context),
    }
    facts = Facts(
        inputs=TokenShape(256, context),
        sizes=tuple((name, len(split)) for name, split in splits.items()),
        split_rule=SPLIT_RULE,
        fingerprint=hashlib.sha256(text).hexdigest(),
    )
    return Splits(train=splits["train"], validation=splits["validation"], test=splits["test"], facts=facts)


@dataclass(frozen=True, kw_only=True, slots=True)
class StdlibText:
    """The source of the running Python's own standard library: real text on every machine.

    Files `*.py` in the order of their relative paths, without installed packages, tests, bundled applications and the
    machine's own build settings (`_sysconfigdata*`); the same for one Python version, whatever machine it runs on.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "there is no training without data"

    context: int = 256
    """Bytes that the model reads at once."""
    stride: int | None = None
    """Bytes between the starts of training windows; none: the context, so that windows do not overlap."""
    max_bytes: int = 2_000_000
    """The text is cut after that many bytes."""

    def __post_init__(self) -> None:
        _check_windows(self)
        if self.max_bytes < 1:
            raise ValueError(f"StdlibText.max_bytes must be at least 1, got {self.max_bytes}")

    def open(self) -> Splits:
        folder = Path(sysconfig.get_paths()["stdlib"])
        text = bytearray()
        for path in _library_files(folder):
            if len(text) >= self.max_bytes:
                break
            text += path.read_bytes()
        return cut(bytes(text[: self.max_bytes]), self.context, self.stride, f"{folder} (*.py)")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainText:
    """Your own text: a file, or all `*.txt` files below a folder in the order of their relative paths, read as bytes."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "there is no training without data"

    path: FilePath = ""
    """A text file, or a folder of them."""
    context: int = 256
    """Bytes that the model reads at once."""
    stride: int | None = None
    """Bytes between the starts of training windows; none: the context, so that windows do not overlap."""

    def __post_init__(self) -> None:
        _check_windows(self)

    def open(self) -> Splits:
        if not self.path:
            raise UserError("data.path must be given: a text file or a folder of them, as in data.path=book.txt")
        path = Path(self.path)
        try:
            if path.is_dir():
                files = sorted((file for file in path.rglob("*.txt") if file.is_file()), key=lambda file: file.relative_to(path).as_posix())
                if not files:
                    raise UserError(f"{path} is a folder without *.txt files: name a text file, or a folder that holds some")
            else:
                if not stat.S_ISREG(path.stat().st_mode):
                    raise UserError(f"{path} is no regular file: name a text file, or a folder of *.txt files")
                files = [path]
            text = b"".join(file.read_bytes() for file in files)
        except OSError as error:
            raise UserError(
                f"{error.filename or path} cannot be read ({error.strerror}): name a text file, or a folder of *.txt files"
            ) from error
        return cut(text, self.context, self.stride, str(path))


def _check_windows(part: StdlibText | PlainText) -> None:
    name = type(part).__name__
    if part.context < 1:
        raise ValueError(f"{name}.context must be at least 1, got {part.context}")
    if part.stride is not None and part.stride < 1:
        raise ValueError(f"{name}.stride must be at least 1 or none, got {part.stride}")


def _library_files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in NOT_LIBRARY and not name.startswith("config-")]
        found += [Path(place, name) for name in files if name.endswith(".py") and not name.startswith("_sysconfigdata")]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())
