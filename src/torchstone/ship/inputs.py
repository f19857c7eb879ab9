"""What a model is given in use, as samples: picture files, folders of them, files of arrays.

Shapes: N pictures, C channels, H x W pixels.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from torchstone.core.errors import UserError, warn
from torchstone.core.protocols import ImageShape, InputShape, Split, TokenShape
from torchstone.data.decode import MODES, SUFFIXES, Fit, picture_size, read_fitted, read_picture
from torchstone.data.splits import TensorSplit
from torchstone.ship.arrays import read_samples

ARRAY_SUFFIXES = frozenset((".npy", ".npz"))
FITTED = {"crop": "resized and the middle cut out", "stretch": "resized to that", "pad": "resized into that, with borders"}
FIRST = 10
"""Bad files that a message names."""

Named = tuple[Sequence[Any], Split]
"""(what each sample is called, the samples)."""


@dataclass(frozen=True, slots=True)
class PictureFiles:
    """Picture files as a split: decoded when they are fetched, in as many threads as torch may use."""

    paths: tuple[Path, ...]
    target: Int64[Tensor, " N"]
    shape: ImageShape
    fit: Fit
    any_size: bool = False
    """The pictures keep their size: a transform resizes them."""

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, indices: np.ndarray) -> tuple[UInt8[Tensor, "N C H W"], Int64[Tensor, " N"]]:
        """With `any_size`, pictures fetched together must be of one size. Raises UserError naming the file."""
        with ThreadPoolExecutor(max(1, min(torch.get_num_threads(), len(indices)))) as pool:
            pictures = list(pool.map(self._read, indices.tolist()))
        empty = torch.zeros(0, self.shape.channels, self.shape.height, self.shape.width, dtype=torch.uint8)
        return torch.stack(pictures) if pictures else empty, self.target.index_select(0, torch.from_numpy(indices))

    def _read(self, row: int) -> UInt8[Tensor, "C H W"]:
        if self.any_size:
            return read_picture(self.paths[row], self.shape.channels)
        return read_fitted(self.paths[row], self.shape.channels, self.shape.height, self.shape.width, self.fit)


@dataclass(frozen=True, slots=True)
class Opener:
    """How files become samples of one model."""

    shape: InputShape
    """What the model reads, before its own resizing."""
    fit: Fit
    any_size: bool
    skipped: list[str] | None = None
    """Receives a line a file that cannot be read, and the others go on; None: such files are refused."""

    def open(self, paths: Iterable[Path]) -> list[Named]:
        """The samples of each source, folders walked, every file looked at; consecutive pictures are one source.

        Raises UserError naming all files that cannot be read, or the folder that holds none.
        """
        sources: list[Named] = []
        pictures: list[Path] = []
        odd: list[str] = []
        bad: list[str] = []
        files = [path for given in paths for path in (below(given, self.wanted) if given.is_dir() else [given])]
        for path in files:
            try:
                if path.suffix.lower() in ARRAY_SUFFIXES:
                    samples = read_samples(_existing(path), self.shape, any_size=self.any_size)
                    sources += [*self._gathered(pictures), ([f"{path}:{row}" for row in range(len(samples))], unlabeled(samples))]
                    pictures = []
                else:
                    width, height = self.look_at(path)
                    pictures.append(path)
                    if self.is_odd(width, height):
                        odd.append(f"{path.name} is {width}x{height}")
            except UserError as error:
                bad.append(str(error))
        sources += self._gathered(pictures)
        if bad:
            self.set_aside(bad, len(files))
        self.say_odd(odd)
        return sources

    @property
    def wanted(self) -> frozenset[str]:
        """Suffixes of the files of a folder that are meant; a file that is named outright may be called anything."""
        return SUFFIXES if isinstance(self.shape, ImageShape) else ARRAY_SUFFIXES

    def set_aside(self, bad: list[str], total: int) -> None:
        """Keeps the lines about bad files among `skipped`, or raises UserError with all of them."""
        if self.skipped is None:
            raise UserError(refusal(bad, total))
        self.skipped.extend(bad)

    def pictures(self, paths: Sequence[Path], target: Int64[Tensor, " N"]) -> PictureFiles:
        assert isinstance(self.shape, ImageShape)
        return PictureFiles(tuple(paths), target, self.shape, self.fit, self.any_size)

    def _gathered(self, paths: list[Path]) -> list[Named]:
        if not paths:
            return []
        return [([str(path) for path in paths], self.pictures(paths, torch.zeros(len(paths), dtype=torch.int64)))]

    def look_at(self, path: Path) -> tuple[int, int]:
        """(width, height), or UserError for a file whose header says that the model cannot read it."""
        if not isinstance(self.shape, ImageShape):
            kind = "tokens" if isinstance(self.shape, TokenShape) else "vectors"
            raise UserError(f"{_existing(path)}: this model reads {kind}; hand them over as .npy or .npz (array x)")
        if self.shape.channels not in MODES:
            raise UserError(
                f"{path}: the model reads {self.shape.channels} channels, a picture has 1, 3 or 4; hand the samples over as .npy or .npz"
            )
        return picture_size(path)

    def is_odd(self, width: int, height: int) -> bool:
        """Such a picture is brought to the model's size in a way that is worth a word: enlarged, or its proportions changed. A larger one
        that is cut or bordered goes the way of the pictures that the model was trained on."""
        if self.any_size or not isinstance(self.shape, ImageShape) or (width, height) == (self.shape.width, self.shape.height):
            return False
        return self.fit == "stretch" or width < self.shape.width or height < self.shape.height

    def say_odd(self, odd: Sequence[str]) -> None:
        """Says once what happens to pictures of other sizes."""
        if odd:
            assert isinstance(self.shape, ImageShape)
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            warn(f"the model reads pictures of {self.shape.width}x{self.shape.height}: {odd[0]}{more}, {FITTED[self.fit]}")


def refusal(bad: Sequence[str], total: int) -> str:
    """One line that names the bad files among `total`."""
    if total == 1:
        return bad[0]
    more = f"; and {len(bad) - FIRST} more" if len(bad) > FIRST else ""
    count = "1 file" if len(bad) == 1 else f"{len(bad)} files"
    return f"{count} of {total} cannot be read (--on-bad skip goes on without): {'; '.join(bad[:FIRST])}{more}"


def below(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """The files in a folder and its folders that are called so, in order; hidden ones and linked folders are left out.

    Says how many others there are. Raises UserError if there is none of the wanted.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})")

    found: list[Path] = []
    others: list[str] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in suffixes:
                found.append(Path(place, name))
            else:
                others.append(name)
    listed = "pictures" if suffixes == SUFFIXES else " or ".join(sorted(suffixes)) + " files"
    if not found:
        raise UserError(f"{folder}: holds no {listed}")
    if others:
        files = "1 file that is" if len(others) == 1 else f"{len(others)} files that are"
        warn(f"{folder}: {files} no {listed} left out, such as {min(others)}")
    return sorted(found)


def unlabeled(samples: Tensor) -> TensorSplit:
    """Samples without a target, as a split."""
    return TensorSplit(samples, torch.zeros(len(samples), dtype=torch.int64))


def unreadable(split: Split, rows: Iterable[int]) -> dict[int, str]:
    """Row -> problem of those rows that cannot be fetched, each tried on its own."""
    problems = {}
    for row in rows:
        try:
            split.fetch(np.array([row], dtype=np.int64))
        except UserError as error:
            problems[row] = str(error)
    return problems


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: {'not a plain file' if path.exists() else 'no such file'}")
    return path
