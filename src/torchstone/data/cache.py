"""The cache of decoded pictures: one file of bytes that is mapped into memory, made once and shared by every later run.

    <root>/pictures/<folder>-<digest>/v1-crop-96-3-<listing>/
        pixels.bin     M * C * S * S bytes, nothing else
        records.bin    of each picture its place in the listing, digest and sums (`data.pictures.records`)
        manifest.json  how many, the digest of records.bin, what could not be decoded; written last: without it nobody reads the rest
        progress.jsonl while it is made: how far whole chunks reach

The name holds everything the bytes depend on: the decoder's version, the form, and the listing (names, sizes, times of change). A
chunk is written, synced and then noted; whoever goes on after a kill checks each noted picture against its digest and keeps the
whole ones. One process makes it (`core.lock`), others wait. At every opening the sizes, the digest of the records and 64 pictures
spread over the file are checked. Where nothing can be written the pictures stay in memory, with a warning.
Shapes: M good pictures of the collection, C channels, S x S pixels.
"""

import hashlib
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from torchstone.core import files
from torchstone.core.errors import Damaged, UserError, plural, warn
from torchstone.core.journal import Journal, read_journal
from torchstone.core.json_text import from_json, to_json
from torchstone.core.lock import InUse, Lock
from torchstone.data import decode
from torchstone.data.pictures import Collection, Decoded, Form, Pictures, decoded, digest_of, in_memory, records

CHUNK_BYTES = 1 << 24
"""Pixels between two notes of how far the work is; a kill loses at most so many."""
CHUNK_PICTURES = 1024
CHECKED = 64
"""Pictures that are hashed when a cache is opened."""
KEPT_FORMS = 3
"""Caches of one folder in other forms (side, fit, channels) that stay beside a new one: the newest ones."""
SPARE_BYTES = 1 << 26
"""Free space that must be left on the disk."""
_NAME = re.compile(r"(v\d+)-(\w+-\d+-\d+)-([0-9a-f]{16})")
_LARGEST_MANIFEST = 1 << 26


def pictures_of(collection: Collection, form: Form, *, cache: bool, cache_dir: str) -> Pictures:
    """The decoded pictures: from the cache, which is made first if it is missing; without `cache`, what is known of them alone."""
    if not cache:
        return in_memory(collection, form, keep=False)
    root = cache_root(cache_dir)
    try:
        return _cached(collection, form, root)
    except OSError as error:
        size = len(collection) * form.nbytes
        if size > _memory() // 2:
            raise UserError(
                f"{root}: the decoded pictures cannot be kept there ({error.strerror or error}), and their {_shown(size)} are too many "
                "for the memory; name a folder with data.cache_dir, or set data.cache=false"
            ) from error
        warn(f"{root}: no cache can be kept there ({error.strerror or error}); the decoded pictures ({_shown(size)}) stay in memory")
        return in_memory(collection, form, keep=True)


def cache_root(cache_dir: str) -> Path:
    """`cache_dir`, else $TORCHSTONE_CACHE, else torchstone/ in $XDG_CACHE_HOME or ~/.cache."""
    named = cache_dir or os.environ.get("TORCHSTONE_CACHE", "")
    if named:
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()).absolute() / "torchstone"


def folder_of(collection: Collection, form: Form, root: Path) -> Path:
    """Where this collection's pictures are kept in this form."""
    listing = hashlib.sha256()
    for name, stamp in zip(collection.names, collection.stamps, strict=True):
        listing.update(f"{name}\0{stamp}\0".encode(errors="surrogateescape"))
    place = hashlib.sha256(collection.place.encode(errors="surrogateescape")).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(collection.place).name)[:60]
    return root / "pictures" / f"{readable}-{place}" / f"v{decode.VERSION}-{form}-{listing.hexdigest()[:16]}"


def _cached(collection: Collection, form: Form, root: Path) -> Pictures:
    folder = folder_of(collection, form, root)
    found = _opened(folder, form)
    if found is not None:
        return found
    files.make_folder(folder)
    with _held(folder):
        found = _opened(folder, form)  # another process may have been first
        if found is None:
            _make(folder, collection, form)
            found = _opened(folder, form)
    if found is None:
        raise Damaged(f"{folder}: was written, but does not come back as written; check the disk, or set data.cache_dir to another one")
    _sweep(folder)
    return found


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The lock of the folder, once the process that has it is done or dead."""
    said = False
    while True:
        try:
            lock = Lock(folder)
            break
        except InUse as error:
            if not said:
                print(f"waiting for the pictures: {error.args[0].split(';')[0]}", file=sys.stderr, flush=True)
            said = True
            time.sleep(0.1)
    with lock:
        yield


# --- reading ---------------------------------------------------------------------------------------------------------


def _opened(folder: Path, form: Form) -> Pictures | None:
    """The cache, if it is whole; None if it is not there. A damaged one is said, and taken as not there."""
    try:
        manifest = _manifest(folder)
        return None if manifest is None else _read(folder, form, manifest)
    except (Damaged, FileNotFoundError) as error:
        warn(f"the cache of decoded pictures is damaged ({error}); it is made again")
        return None


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / "manifest.json"
    try:
        manifest = from_json(files.read_text(path, _LARGEST_MANIFEST), str(path))
        digest = manifest.pop("sha256")
    except FileNotFoundError:
        return None
    except (UserError, AttributeError, KeyError, TypeError) as error:
        raise Damaged(f"{path}: not a manifest ({error})") from None
    if digest != _digest(manifest):
        raise Damaged(f"{path}: does not hash to its own digest")
    return manifest


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(to_json(manifest).encode()).hexdigest()


def _read(folder: Path, form: Form, manifest: dict[str, Any]) -> Pictures:
    count, dtype = manifest["pictures"], records(form.channels)
    raw = files.read_bytes(folder / "records.bin", count * dtype.itemsize + 1)
    if hashlib.sha256(raw).hexdigest() != manifest["records"]:
        raise Damaged(f"{folder}/records.bin: not as written")
    rows = np.frombuffer(raw, dtype=dtype)
    images = _mapped(folder / "pixels.bin", count, form)
    for row in np.unique(np.linspace(0, max(count - 1, 0), CHECKED).astype(int)).tolist() if count else ():
        if digest_of(images[row].numpy()) != rows[row]["digest"].tobytes():
            raise Damaged(f"{folder}/pixels.bin: picture {row} is not as written")
    return Pictures(form, rows, images, tuple((position, problem) for position, problem in manifest["bad"]))


def _mapped(path: Path, count: int, form: Form) -> UInt8[Tensor, "M C S S"]:
    """Read-only: the pages are shared by all processes, and come from the disk when they are touched."""
    shape = (count, form.channels, form.side, form.side)
    with files.opened_plain(path) as (fd, size):
        if size != count * form.nbytes:
            raise Damaged(f"{path}: {size} bytes, {count * form.nbytes} are right")
        if count == 0:
            return torch.zeros(shape, dtype=torch.uint8)
        with os.fdopen(fd, "rb", closefd=False) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of memory that must not be written; a split only gathers from it
            return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="r", shape=shape))


# --- making ----------------------------------------------------------------------------------------------------------


def _make(folder: Path, collection: Collection, form: Form) -> None:
    """Fills the folder. The caller holds its lock."""
    if (folder / "manifest.json").exists():  # damaged; another process may have its files mapped: they are never cut, only unlinked
        for name in ("manifest.json", "progress.jsonl", "records.bin", "pixels.bin"):
            files.remove_file(folder / name)
    size = len(collection) * form.nbytes
    if files.free_bytes(folder) + _present(folder / "pixels.bin") < size + SPARE_BYTES:
        raise OSError(f"{_shown(size)} are needed, and the disk has no room for them")
    progress = Journal(folder / "progress.jsonl")
    try:
        done, bad = _kept(folder, form, progress)
        _announce(folder, collection, form, done["seen"])
        count = done["pictures"]
        with _growing(folder / "pixels.bin", count * form.nbytes) as add_pixels, _growing(*_records_end(folder, form, count)) as add_rows:
            for chunk in _chunks(decoded(collection, form, done["seen"]), form):
                good = [(each.pixels, each.record) for each in chunk if each.pixels is not None]
                problems = [[each.position, each.problem] for each in chunk if each.pixels is None]
                if good:
                    add_pixels(np.stack([pixels for pixels, _ in good]).reshape(-1).data)
                    add_rows(b"".join(record.tobytes() for _, record in good))
                count += len(good)
                bad += problems
                progress.append({"seen": chunk[-1].position + 1, "pictures": count, "bad": problems})
                progress.sync()
    finally:
        progress.close()
    raw = files.read_bytes(*_records_end(folder, form, count))
    manifest = {"form": str(form), "pictures": count, "records": hashlib.sha256(raw).hexdigest(), "bad": bad}
    files.write_text(folder / "manifest.json", to_json({**manifest, "sha256": _digest(manifest)}))
    files.remove_file(folder / "progress.jsonl")


@contextmanager
def _growing(path: Path, size: int) -> Iterator[Callable[[files.Bytes], None]]:
    """The file cut to `size` bytes, and what puts more of them at its end and on the disk."""
    with files.opened(path, os.O_RDWR | os.O_CREAT) as fd:
        files.truncate(fd, size, path)
        os.lseek(fd, size, os.SEEK_SET)

        def add(content: files.Bytes) -> None:
            files.write_all(fd, content, path)
            files.fsync(fd, path)

        yield add


def _records_end(folder: Path, form: Form, count: int) -> tuple[Path, int]:
    return folder / "records.bin", count * records(form.channels).itemsize


def _chunks(made: Iterator[Decoded], form: Form) -> Iterator[list[Decoded]]:
    most = max(1, min(CHUNK_PICTURES, CHUNK_BYTES // form.nbytes))
    chunk: list[Decoded] = []
    for each in made:
        chunk.append(each)
        if len(chunk) == most:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _kept(folder: Path, form: Form, progress: Journal) -> tuple[dict[str, int], list[list[Any]]]:
    """How far an interrupted work is good: its last noted chunk whose pictures, and those of all before, are as their digests say."""
    done, bad = {"seen": 0, "pictures": 0}, []
    dtype = records(form.channels)
    pixels, rows = folder / "pixels.bin", folder / "records.bin"
    for note in read_journal(progress.path):
        start, end = done["pictures"], note["pictures"]
        if pixels.stat().st_size < end * form.nbytes or rows.stat().st_size < end * dtype.itemsize:
            break
        if end > start and not _whole(pixels, rows, form, start, end):
            break
        done = {"seen": note["seen"], "pictures": end}
        bad += note["bad"]
    progress.rewind(lambda note: note["seen"] <= done["seen"])
    return done, bad


def _whole(pixels: Path, rows: Path, form: Form, start: int, end: int) -> bool:
    dtype = records(form.channels)
    noted = np.fromfile(rows, dtype=dtype, count=end - start, offset=start * dtype.itemsize)
    found = np.fromfile(pixels, dtype=np.uint8, count=(end - start) * form.nbytes, offset=start * form.nbytes).reshape(end - start, -1)
    return all(digest_of(picture) == note["digest"].tobytes() for picture, note in zip(found, noted, strict=True))


def _announce(folder: Path, collection: Collection, form: Form, seen: int) -> None:
    size, kind = _shown(len(collection) * form.nbytes), "gray" if form.channels == 1 else "color"
    going_on = f", going on at picture {seen}" if seen else ""
    text = f"decoding {plural(len(collection), 'picture')} to {form.side}x{form.side} {kind}: {size} in {folder}{going_on}"
    print(text, file=sys.stderr, flush=True)


def _sweep(folder: Path) -> None:
    """Removes caches of the same pictures that nothing will ask for again: of another decoder, of a listing that has changed, and
    other forms beyond the newest few. One that is being made stays; one that is mapped somewhere stays readable there."""
    own = _NAME.fullmatch(folder.name)
    assert own is not None
    with suppress(OSError):  # another process may sweep as well
        others = [(match, path) for path in folder.parent.iterdir() if path != folder and (match := _NAME.fullmatch(path.name))]
        outdated = [path for match, path in others if match[1] != own[1] or match[2] == own[2]]
        forms = sorted((path for _, path in others if path not in outdated), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in outdated + forms[KEPT_FORMS:]:
            with suppress(OSError, UserError), Lock(path):
                files.remove_folder(path)


def _present(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _memory() -> int:
    """Bytes of memory in this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _shown(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{max(size / 2**20, 0.1):.1f} MiB"
