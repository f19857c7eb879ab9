"""Reads the arrays of a .npz file that nobody vouches for: no code is run, and nothing larger than the machine is unpacked."""

import os
import stat
import zipfile
from pathlib import Path

import numpy as np

from torchstone.core.errors import UserError, clean

MOST_ARRAYS = 1000
"""Members of the archive; a file with more is no data set but an attack on the reader."""


def read_arrays(path: Path, wanted: frozenset[str]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The wanted arrays that are there, and the names of all.

    Raises UserError naming the file, and the array where one is to blame.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is no regular file: name a .npz file (numpy.savez)")
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): name a .npz file (numpy.savez)") from error
    except Exception as error:  # whatever a damaged directory makes the zip reader raise
        raise UserError(f"{path} is no whole .npz file ({_cause(error)}): write it again with numpy.savez") from error
    if len(sizes) > MOST_ARRAYS:
        raise UserError(f"{path} holds {len(sizes)} arrays; at most {MOST_ARRAYS} are read")
    needed = sum(size for name, size in sizes.items() if name in wanted)
    if needed > _memory() // 2:
        raise UserError(f"{path} unpacks to {needed / 2**30:.1f} GiB, more than half of this machine's memory: use fewer rows or uint8")
    arrays = {name: _read(path, name) for name in sizes if name in wanted}
    return arrays, tuple(sizes)


def _read(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as file:
            array = file[name]
            if not isinstance(array, np.ndarray):  # numpy hands out a member without its header as bytes
                raise ValueError("no .npy header")
            return array
    except Exception as error:  # a hostile header may raise nearly anything, MemoryError included
        if "allow_pickle" in str(error):
            raise UserError(f"{path}, array {name}: holds Python objects, which are never read; store numbers") from None
        raise UserError(f"{path}, array {name}: cannot be read ({_cause(error)}): write it again with numpy.savez") from error


def _cause(error: Exception) -> str:
    lines = clean(str(error)).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def _memory() -> int:
    """Bytes of memory in this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
