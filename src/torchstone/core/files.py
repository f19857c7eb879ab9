"""The only writer of the program: files and folders that are whole or absent, whatever happens in between.

A durable write fills a temporary sibling, fsyncs it, renames it over its name and fsyncs the folder (Pillai et al., "All file
systems are not created equal", OSDI 2014: leaving out any of the four loses or garbles data on some file system). Every
operation passes a fault point (`core.fault`). On an error the temporary sibling is removed and the target is as it was;
after a kill it stays behind until `remove_partial`.

Errors are OSErrors with the path; a path that is taken is a UserError, what is no plain file is Damaged.
"""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torchstone.core import fault
from torchstone.core.errors import Damaged, UserError

Bytes = bytes | bytearray | memoryview

PARTIAL = ".partial-"
"""How the names of unfinished files and folders begin. No reader looks at them."""

_BLOCK = 1 << 20
"""Smaller pieces are gathered into blocks of this many bytes before they are written."""

_LARGEST_WRITE = 1 << 26

_NOT_PLAIN = {errno.ELOOP, errno.EISDIR, errno.ENXIO}
"""What opening a link, a folder or a socket gives; other errors are the disk's or the user's rights."""


# --- whole files -----------------------------------------------------------------------------------------------------


def write_durable(path: Path, content: bytes | Iterable[Bytes]) -> None:
    """Puts `content` (pieces are written one after the other) at `path` in one instant; what was there is replaced."""
    partial = _partial_name(path)
    try:
        write_new(partial, content)
        _rename(partial, path)
    except BaseException:
        with suppress(OSError):
            _unlink(partial)
        raise
    fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_durable` of UTF-8: pointers (`last`, `best`), TOML, JSON, HTML."""
    write_durable(path, text.encode())


def write_new(path: Path, content: bytes | Iterable[Bytes]) -> None:
    """A new file with its content on the disk. Not yet its name: that is for who makes the folder (`new_folder`). May leave half a file."""
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
        for block in _blocks([content] if isinstance(content, bytes) else content):
            write_all(fd, block, path)
        fsync(fd, path)


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes. Damaged for a link or a pipe, UserError for a larger file.

    For the files of runs and studies, which torchstone wrote itself; a user may well keep a recipe behind a link.
    """
    with opened_plain(path) as (fd, size):
        if size > limit:
            raise UserError(f"{path}: {size} bytes; at most {limit} are read here")
        return read_exactly(fd, size)


def read_text(path: Path, limit: int = 1 << 26) -> str:
    """As `read_bytes`, as UTF-8."""
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None


@contextmanager
def opened_plain(path: Path, folder: int | None = None) -> Iterator[tuple[int, int]]:
    """(descriptor, size) of a plain file opened for reading, looked up by its last name in the open `folder` if one is given.

    Never follows a link or waits for a pipe: those are Damaged. Raises FileNotFoundError.
    """
    try:
        name = path if folder is None else path.name
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(f"{path}: not a readable plain file ({error.strerror})") from None
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise Damaged(f"{path}: not a plain file")
        yield fd, facts.st_size
    finally:
        os.close(fd)


def read_exactly(fd: int, size: int) -> bytes:
    """The next `size` bytes, or fewer at the end of the file."""
    pieces = []
    while size > 0 and (piece := os.read(fd, min(size, _LARGEST_WRITE))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


# --- folders ---------------------------------------------------------------------------------------------------------


def make_folder(path: Path) -> None:
    """The folder and its missing parents, durably; nothing if it exists."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        _mkdir(path)
    fsync_folder(path.parent)


def new_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """A folder that appears at `path` whole and durable, or not at all.

    `fill` gets an empty folder beside it and puts its files there with `write_new` and `make_folder`. Raises UserError if
    `path` exists; whatever `fill` raises passes on.
    """
    if os.path.lexists(path):
        raise UserError(f"{path} exists; a new folder never overwrites one")
    make_folder(path.parent)
    partial = _partial_name(path)
    try:
        _mkdir(partial)
        fill(partial)
        for folder, _, _ in os.walk(partial, topdown=False):
            fsync_folder(Path(folder))
        _rename(partial, path)
    except BaseException:
        with suppress(OSError):
            _remove_tree(partial)
        raise
    fsync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Deletes a folder: its name goes first and durably, so nobody meets half of it. Links inside are not followed."""
    partial = _partial_name(path)
    _rename(path, partial)
    fsync_folder(path.parent)
    _remove_tree(partial)


def remove_file(path: Path) -> None:
    """Deletes a file durably; nothing if there is none."""
    with suppress(FileNotFoundError):
        _unlink(path)
        fsync_folder(path.parent)


def remove_partial(folder: Path) -> None:
    """Deletes what a killed process left unfinished in `folder`. For the holder of the folder's lock."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.name.startswith(PARTIAL):
            continue
        if entry.is_dir(follow_symlinks=False):
            _remove_tree(Path(entry.path))
        else:
            _unlink(Path(entry.path))


def free_bytes(path: Path) -> int:
    """Bytes that an ordinary user may still write where `path` is or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


# --- single operations, each with its fault point --------------------------------------------------------------------


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor, closed at the end. Modes are as `open` gives them: 0644 under the usual umask."""
    fd = open_descriptor(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def open_descriptor(path: Path, flags: int) -> int:
    """Never follows a link or waits for a pipe: what is no plain file is Damaged."""
    if flags & os.O_CREAT:
        fault.point("create", str(path))
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in _NOT_PLAIN:
            raise
        raise Damaged(f"{path}: not a plain file ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Damaged(f"{path}: not a plain file")
    return fd


def write_all(fd: int, data: Bytes, path: Path) -> None:
    """Writes all of `data`, however often the system takes only a part."""
    rest = memoryview(data)
    with _named(path):
        while rest:
            rest = rest[fault.write(fd, rest[:_LARGEST_WRITE], str(path)) :]


def fsync(fd: int, path: Path) -> None:
    fault.point("fsync", str(path))
    with _named(path):
        os.fsync(fd)


def truncate(fd: int, size: int, path: Path) -> None:
    fault.point("truncate", str(path), size)
    with _named(path):
        os.ftruncate(fd, size)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """The system's errors on a descriptor say no path."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _rename(path: Path, to: Path) -> None:
    fault.point("rename", str(path), str(to))
    os.rename(path, to)


def _unlink(path: Path) -> None:
    fault.point("unlink", str(path))
    os.unlink(path)


def _mkdir(path: Path) -> None:
    fault.point("mkdir", str(path))
    os.mkdir(path)


def _rmdir(path: Path) -> None:
    fault.point("rmdir", str(path))
    os.rmdir(path)


def fsync_folder(path: Path) -> None:
    fault.point("fsync_folder", str(path))
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _named(path):
            os.fsync(fd)
    finally:
        os.close(fd)


def _remove_tree(path: Path) -> None:
    for folder, folders, names in os.walk(path, topdown=False):
        inside = Path(folder)
        for name in names + [name for name in folders if (inside / name).is_symlink()]:
            _unlink(inside / name)
        _rmdir(inside)


def _partial_name(path: Path) -> Path:
    return path.with_name(f"{PARTIAL}{path.name[:100]}-{secrets.token_hex(4)}")


def _blocks(pieces: Iterable[Bytes]) -> Iterator[Bytes]:
    """The same bytes, small pieces gathered, large ones passed on as they are."""
    gathered = bytearray()
    for piece in pieces:
        if len(piece) < _BLOCK:
            gathered += piece
        if gathered and (len(piece) >= _BLOCK or len(gathered) >= _BLOCK):
            yield gathered
            gathered = bytearray()
        if len(piece) >= _BLOCK:
            yield piece
    if gathered:
        yield gathered
