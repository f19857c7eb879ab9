"""Encoded pictures made into samples: each decoded to one size, measured on the way, and held as bytes or decoded again when fetched.

Shapes: M pictures of a collection, N samples, C channels, S x S pixels.
"""

import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, ImageShape
from torchstone.data.decode import Fit

DIGEST_BYTES = 16
"""Of the SHA-256 of a picture's pixels: enough to tell pictures apart, and to see damage."""
CHUNK = 256
"""Pictures measured at a time."""
AHEAD = 32
"""Pictures a thread that are decoded before they are asked for."""


@dataclass(frozen=True, slots=True)
class Form:
    """What every picture is made into."""

    channels: int
    side: int
    fit: Fit

    @property
    def nbytes(self) -> int:
        return self.channels * self.side * self.side

    def __str__(self) -> str:
        return f"{self.fit}-{self.side}-{self.channels}"


@dataclass(frozen=True, slots=True)
class Collection:
    """Pictures as they lie somewhere, in a fixed order."""

    place: str
    """The absolute folder or file they come from."""
    names: tuple[str, ...]
    stamps: tuple[str, ...]
    """One a picture: another text whenever the picture may be another one (its size and time of change)."""
    read: Callable[[int, Form], UInt8[Tensor, "C S S"]]
    """(position, form) -> pixels. Raises UserError for a picture that cannot be decoded, Changed for one that is not what was listed."""

    def __len__(self) -> int:
        return len(self.names)


class Changed(UserError):
    """A picture is no longer the one that was listed: nothing that is read now can be trusted."""


def records(channels: int) -> np.dtype:
    """What is kept of a decoded picture: its position, and the digest, sums and sums of squares (by channel) of its pixels."""
    sums = ("<i8", (channels,))
    return np.dtype([("position", "<i8"), ("digest", f"V{DIGEST_BYTES}"), ("sums", *sums), ("squares", *sums)])


@dataclass(frozen=True, slots=True)
class Decoded:
    """One picture of a collection after decoding, or the reason why there is none."""

    position: int
    pixels: np.ndarray | None
    record: np.ndarray
    """Zeros for a bad picture."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The good pictures of a collection."""

    form: Form
    records: np.ndarray
    """One a picture, in the order of the collection."""
    images: UInt8[Tensor, "M C S S"] | None
    """Their pixels (perhaps a file mapped into memory); None where they are decoded again at every fetch."""
    bad: tuple[tuple[int, str], ...]
    """(position, problem) of every picture that could not be decoded."""


# --- decoding --------------------------------------------------------------------------------------------------------


def decoded(collection: Collection, form: Form, start: int = 0) -> Iterator[Decoded]:
    """Every picture from `start` on, in order, decoded in as many threads as there are cores; with a progress line on a terminal."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)
    try:
        made = _in_order(pool, lambda position: _decode_one(collection, form, position), range(start, len(collection)), AHEAD * workers)
        yield from _with_progress(made, start, len(collection))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode_one(collection: Collection, form: Form, position: int) -> Decoded:
    try:
        pixels = collection.read(position, form).numpy()
    except Changed:
        raise
    except UserError as error:
        return Decoded(position, None, np.zeros((), dtype=records(form.channels)), str(error))
    return Decoded(position, pixels, measured(position, pixels))


def measured(position: int, pixels: np.ndarray) -> np.ndarray:
    """The record of a picture [C, S, S]. Sums of bytes are whole numbers: nothing is rounded, whatever their order."""
    channels = len(pixels)
    flat = pixels.reshape(channels, -1)
    counts = np.stack([np.bincount(channel, minlength=256) for channel in flat])
    levels = np.arange(256)
    record = np.zeros((), dtype=records(channels))
    record["position"] = position
    record["digest"] = np.void(digest_of(pixels))
    record["sums"] = counts @ levels
    record["squares"] = counts @ levels**2
    return record


def digest_of(pixels: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()[:DIGEST_BYTES]


def _in_order(pool: ThreadPoolExecutor, work: Callable[[int], Decoded], items: Iterable[int], ahead: int) -> Iterator[Decoded]:
    waiting: deque[Future[Decoded]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _with_progress(made: Iterator[Decoded], start: int, total: int) -> Iterator[Decoded]:
    if not sys.stderr.isatty():
        yield from made
        return
    shown = time.monotonic()
    for count, each in enumerate(made, start + 1):
        if time.monotonic() - shown > 0.2:
            shown = time.monotonic()
            print(f"\rpicture {count} of {total}", end="", file=sys.stderr, flush=True)
        yield each
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def in_memory(collection: Collection, form: Form, *, keep: bool) -> Pictures:
    """Decodes everything now. With `keep` the pixels stay in memory, else only what was measured."""
    images = torch.empty(len(collection) if keep else 0, form.channels, form.side, form.side, dtype=torch.uint8)
    rows: list[np.ndarray] = []
    bad: list[tuple[int, str]] = []
    for each in decoded(collection, form):
        if each.pixels is None:
            bad.append((each.position, each.problem))
            continue
        if keep:
            images[len(rows)] = torch.from_numpy(each.pixels)
        rows.append(each.record)
    return Pictures(form, np.array(rows, dtype=records(form.channels)), images[: len(rows)] if keep else None, tuple(bad))


# --- splits ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredPictures:
    """Samples whose pixels are at hand: a gather from memory, or from a mapped file."""

    images: UInt8[Tensor, "M C S S"]
    """Of all splits together."""
    rows: Int64[Tensor, " N"]
    """Which of them are this split's."""
    target: Int64[Tensor, " N"]
    names: tuple[str, ...]
    """The file of each sample, relative to the folder."""

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, indices: np.ndarray) -> tuple[UInt8[Tensor, "N C S S"], Int64[Tensor, " N"]]:
        positions = torch.from_numpy(indices)
        return self.images.index_select(0, self.rows.index_select(0, positions)), self.target.index_select(0, positions)

    def joined(self, other: "StoredPictures") -> "StoredPictures":
        """These samples and then the other's, of the same collection."""
        rows, target = torch.cat((self.rows, other.rows)), torch.cat((self.target, other.target))
        return StoredPictures(self.images, rows, target, self.names + other.names)

    def taken(self, rows: np.ndarray) -> "StoredPictures":
        """The samples at `rows` (int64 [N])."""
        chosen, names = torch.from_numpy(rows), tuple(self.names[row] for row in rows.tolist())
        return StoredPictures(self.images, self.rows[chosen], self.target[chosen], names)


@dataclass(frozen=True, slots=True)
class FetchedPictures:
    """Samples decoded whenever they are fetched: the same bytes, for folders that fit neither the disk nor the memory."""

    collection: Collection
    form: Form
    positions: Int64[Tensor, " N"]
    """In the collection."""
    target: Int64[Tensor, " N"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.positions)

    def fetch(self, indices: np.ndarray) -> tuple[UInt8[Tensor, "N C S S"], Int64[Tensor, " N"]]:
        positions = self.positions[torch.from_numpy(indices)].tolist()
        empty = torch.zeros(0, self.form.channels, self.form.side, self.form.side, dtype=torch.uint8)
        images = torch.stack([self.collection.read(position, self.form) for position in positions]) if positions else empty
        return images, self.target.index_select(0, torch.from_numpy(indices))

    def joined(self, other: "FetchedPictures") -> "FetchedPictures":
        """These samples and then the other's, of the same collection."""
        positions, target = torch.cat((self.positions, other.positions)), torch.cat((self.target, other.target))
        return FetchedPictures(self.collection, self.form, positions, target, self.names + other.names)

    def taken(self, rows: np.ndarray) -> "FetchedPictures":
        """The samples at `rows` (int64 [N])."""
        chosen, names = torch.from_numpy(rows), tuple(self.names[row] for row in rows.tolist())
        return FetchedPictures(self.collection, self.form, self.positions[chosen], self.target[chosen], names)


def split_of(collection: Collection, pictures: Pictures, rows: np.ndarray, target: np.ndarray) -> StoredPictures | FetchedPictures:
    """The pictures at `rows` (of the good ones) with their classes."""
    positions = pictures.records["position"][rows]
    names = tuple(collection.names[position] for position in positions.tolist())
    labels = torch.from_numpy(np.ascontiguousarray(target, dtype=np.int64))
    if pictures.images is None:
        return FetchedPictures(collection, pictures.form, torch.from_numpy(np.ascontiguousarray(positions)), labels, names)
    return StoredPictures(pictures.images, torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64)), labels, names)


# --- facts -----------------------------------------------------------------------------------------------------------


def described(
    pictures: Pictures,
    rows: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    split_rule: str,
    notes: tuple[tuple[str, int], ...],
) -> Facts:
    """Facts of the splits "train", "validation" and "test" given as rows; `labels` (int [M]) are of all good pictures.

    Mean and deviation come from whole sums, so they are exact to the last division; no pixel is read again.
    """
    form, train = pictures.form, rows["train"]
    mean, std = mean_and_std(pictures.records[train], form.side**2)
    return Facts(
        inputs=ImageShape(form.channels, form.side, form.side),
        classes=tuple(classes),
        class_counts=tuple(np.bincount(labels[train], minlength=len(classes)).tolist()),
        mean=mean,
        std=std,
        sizes=tuple((name, len(chosen)) for name, chosen in rows.items()),
        split_rule=split_rule,
        fingerprint=_fingerprint(pictures, rows, labels, classes),
        notes=notes,
    )


def mean_and_std(chosen: np.ndarray, pixels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of records of pictures with so many pixels each, by channel, in units of [0, 1]; N in the divisor."""
    count = len(chosen) * pixels
    sums, squares = ([int(number) for number in chosen[name].sum(axis=0)] for name in ("sums", "squares"))
    mean = tuple(total / (255 * count) for total in sums)
    # n * sum(x^2) - sum(x)^2 in Python's integers: no cancellation.
    spread = (count * square - total**2 for total, square in zip(sums, squares, strict=True))
    return mean, tuple((inner / (255 * count) ** 2) ** 0.5 for inner in spread)


def moments(split: StoredPictures | FetchedPictures) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation by channel over the pictures of a split, as `mean_and_std` of their records: every picture is read once."""
    rows = np.arange(len(split), dtype=np.int64)
    chunks = (split.fetch(rows[start : start + CHUNK])[0] for start in range(0, len(rows), CHUNK))
    # Channels first and flat: measured() counts each byte value exactly.
    found = [measured(0, chunk.transpose(0, 1).flatten(1).numpy()) for chunk in chunks]
    size = int(split.fetch(rows[:1])[0][0, 0].numel())
    whole = np.zeros(1, dtype=found[0].dtype)
    for name in ("sums", "squares"):
        whole[name] = sum(each[name] for each in found)
    return mean_and_std(whole, len(split) * size)


def shared_between(pictures: Pictures, rows: Mapping[str, np.ndarray]) -> tuple[int, tuple[int, int] | None]:
    """How many pictures (equal pixels at this size) are in more than one split, and the rows of a first such pair."""
    first: dict[bytes, tuple[str, int]] = {}
    shared: dict[bytes, tuple[int, int]] = {}
    digests = pictures.records["digest"]
    for split, chosen in rows.items():
        for row in chosen.tolist():
            digest = digests[row].tobytes()
            seen, where = first.setdefault(digest, (split, row))
            if seen != split:
                shared.setdefault(digest, (where, row))
    return len(shared), next(iter(shared.values()), None)


def _fingerprint(pictures: Pictures, rows: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str]) -> str:
    """SHA-256 over the pictures' digests and classes: other bytes, another order or another split give another one."""
    digest = hashlib.sha256(f"{pictures.form} {len(classes)}\n".encode())
    for name, chosen in rows.items():
        digest.update(f"{name} {len(chosen)}\n".encode())
        digest.update(pictures.records["digest"][chosen].tobytes())
        digest.update(labels[chosen].astype("<i8").tobytes())
    return digest.hexdigest()
