"""One file of tensors in the safetensors format, written and read as a stream with a SHA-256 of each tensor.

Format: https://github.com/huggingface/safetensors: 8 bytes with the length of a JSON header, the header, the tensors' bytes end to end.
Own code and not the library's, for three reasons: the hashes are of the very bytes that are written and read; a tensor is
read into its own memory, so nothing is held twice; and a reader that knows the entries from a manifest never parses a
header, since it can only be the one that these entries make. Any other safetensors reader reads the files.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from torchstone.core.errors import Damaged, UserError, clean
from torchstone.core.files import Bytes, read_exactly

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""The format's names of the element types it shares with torch."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MOST_ELEMENTS = 2**48
_BLOCK = 1 << 20

if sys.byteorder != "little":
    raise ImportError("torchstone stores tensors little-endian, as this machine does not")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a manifest says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"{self.dtype!r} is no element type of safetensors")
        if not all(type(size) is int and 0 <= size <= _MOST_ELEMENTS for size in self.shape) or len(self.shape) > 64:
            raise ValueError(f"{list(self.shape)} is no shape")
        if prod(max(size, 1) for size in self.shape) > _MOST_ELEMENTS:
            raise ValueError(f"a shape of {list(self.shape)} is too large")

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPES[self.dtype].itemsize


Entries = Mapping[str, Entry]


def entry_of(name: str, tensor: Tensor) -> Entry:
    """The entry of a dense tensor, without its hash. UserError for what the format cannot hold."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.dtype not in _NAMES:
        kind = "meta" if tensor.is_meta else f"{tensor.layout} {tensor.dtype}".replace("torch.", "")
        raise UserError(f"tensor {name!r} cannot be stored: {kind}")
    return Entry(_NAMES[tensor.dtype], tuple(tensor.shape))


def size_of(entries: Entries) -> int:
    """Bytes of the whole file."""
    return len(_header(entries)) + sum(entry.nbytes for entry in entries.values())


def pieces(tensors: Mapping[str, Tensor], entries: Entries, hashes: dict[str, str]) -> Iterator[Bytes]:
    """The bytes of the file, in order; `hashes` receives each tensor's SHA-256 as it passes. Holds one tensor on the CPU at a time."""
    yield _header(entries)
    for name in _layout(entries):
        held = tensors[name].detach().cpu().contiguous()
        content = _bytes_of(held)
        hashes[name] = hashlib.sha256(content).hexdigest()
        yield content


def read(fd: int, entries: Entries, source: str, wanted: bool = True) -> dict[str, Tensor]:
    """The tensors of an open file, each compared with its hash as it is read; with `wanted` False only compared, in little memory.

    Raises Damaged naming `source` and the tensor (or the header).
    """
    header = _header(entries)
    if read_exactly(fd, len(header)) != header:
        raise Damaged(f"{source}: its header is not the one its manifest describes")
    tensors = {name: _read_tensor(fd, name, entries[name], source, wanted) for name in _layout(entries)}
    if os.read(fd, 1):
        raise Damaged(f"{source}: longer than its manifest says")
    return {name: tensors[name] for name in entries} if wanted else {}


def _read_tensor(fd: int, name: str, entry: Entry, source: str, wanted: bool) -> Tensor:
    try:
        tensor = torch.empty(entry.shape if wanted else 0, dtype=DTYPES[entry.dtype])
    except (RuntimeError, MemoryError):
        raise UserError(f"{source}: no memory for tensor {clean(name)!r} of {entry.nbytes} bytes") from None
    digest = hashlib.sha256()
    for block in _read_blocks(fd, entry.nbytes, _bytes_of(tensor) if wanted else None):
        digest.update(block)
    if digest.hexdigest() != entry.sha256:
        raise Damaged(f"{source}: tensor {clean(name)!r} is not the one that was written")
    # A bool of another byte than 0 or 1 is undefined behavior further on; a hash proves no good will.
    if wanted and entry.dtype == "BOOL" and tensor.numel() and int(tensor.view(torch.uint8).max()) > 1:
        raise Damaged(f"{source}: tensor {clean(name)!r} holds bytes that are no booleans")
    return tensor


def _read_blocks(fd: int, size: int, into: memoryview | None) -> Iterator[memoryview]:
    """The next `size` bytes block by block, in place in `into` if it is given; fewer at the end of the file."""
    scratch = memoryview(bytearray(min(size, _BLOCK))) if into is None else into
    done = 0
    while done < size:
        start = 0 if into is None else done
        block = scratch[start : start + min(_BLOCK, size - done)]
        count = os.readv(fd, [block])
        if count == 0:
            return
        done += count
        yield block[:count]


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    if tensor.numel() == 0:  # whose strides may be anything, which a view of another type refuses
        return memoryview(b"")
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _layout(entries: Entries) -> list[str]:
    """The order in the file: wide elements first, so that every tensor is aligned."""
    return sorted(entries, key=lambda name: -DTYPES[entries[name].dtype].itemsize)


def _header(entries: Entries) -> bytes:
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in _layout(entries):
        entry = entries[name]
        described[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [end, end + entry.nbytes]}
        end += entry.nbytes
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
