"""A store: a folder of tensors and a state, written once and never changed, that is read only if every bit is as written.

    model.safetensors, optimizer.safetensors …   tensors by name
    state.json                                   everything that is no tensor
    manifest.json                                version, and of each file: its size, each tensor's type, shape and SHA-256

A reader trusts the manifest alone, and that only if its bytes hash to the digest inside it; it opens no name but those
above, follows no link, and allocates nothing before all sizes agree. Hashes show damage, not forgery: but a forged store
can only hold other numbers, it cannot run code or leave its folder.
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchstone.core import tensor_file
from torchstone.core.errors import Damaged, UserError, clean
from torchstone.core.files import new_folder, opened_plain, read_exactly, read_text, write_new
from torchstone.core.json_text import from_exact_json, from_json, to_exact_json, to_json
from torchstone.core.tensor_file import Entry

Tensors = Mapping[str, Tensor]

VERSION = 1
_FORMAT = "torchstone store"
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_LARGEST_JSON = 1 << 26


@dataclass(frozen=True, slots=True)
class _File:
    """One file of tensors, as the manifest describes it."""

    nbytes: int
    entries: dict[str, Entry]
    aliases: dict[str, str]
    """Names of tensors that are another one of the file (tied weights) -> the name it is stored under."""


@dataclass(frozen=True, slots=True)
class _Manifest:
    files: dict[str, _File]
    state_nbytes: int
    state_sha256: str


# --- writing ---------------------------------------------------------------------------------------------------------


def write_store(folder: Path, files: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
    """Makes the store `folder` with a file `<name>.safetensors` for each of `files`, durably, or nothing at all.

    Two names of the very same tensor (memory, type, shape, strides) in one file are stored once and read back as one. `state`
    is JSON-able with string keys; its floats, NaN included, come back bit for bit. UserError if `folder` exists or a tensor has
    no place in the format; OSError if the disk fails.
    """
    for name in files:
        if not _FILE_NAME.fullmatch(name):
            raise ValueError(f"a store's file is called like {_FILE_NAME.pattern}, got {name!r}")
    state_text = to_exact_json(state, indent=1).encode()
    if len(state_text) > _LARGEST_JSON:
        raise ValueError(f"a state of {len(state_text)} bytes; at most {_LARGEST_JSON} are read back")

    def fill(partial: Path) -> None:
        written = {name: _write_tensors(partial / f"{name}.safetensors", tensors) for name, tensors in files.items()}
        write_new(partial / "state.json", state_text)
        manifest = _Manifest(written, len(state_text), hashlib.sha256(state_text).hexdigest())
        write_new(partial / "manifest.json", _manifest_text(manifest))

    new_folder(folder, fill)


def _write_tensors(path: Path, tensors: Tensors) -> _File:
    aliases = _aliases(tensors)
    entries = {name: tensor_file.entry_of(name, tensor) for name, tensor in tensors.items() if name not in aliases}
    if "__metadata__" in tensors:
        raise UserError("no tensor can be called __metadata__ in a safetensors file")
    hashes: dict[str, str] = {}
    write_new(path, tensor_file.pieces(tensors, entries, hashes))
    hashed = {name: Entry(entry.dtype, entry.shape, hashes[name]) for name, entry in entries.items()}
    return _File(tensor_file.size_of(entries), hashed, aliases)


def _aliases(tensors: Tensors) -> dict[str, str]:
    """Name -> earlier name of the same tensor."""
    first: dict[tuple[Any, ...], str] = {}
    aliases = {}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.numel() == 0:
            continue
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if first.setdefault(place, name) != name:
            aliases[name] = first[place]
    return aliases


def _manifest_text(manifest: _Manifest) -> bytes:
    files = {
        name: {
            "bytes": file.nbytes,
            "tensors": {name: asdict(entry) for name, entry in file.entries.items()},
            "aliases": file.aliases,
        }
        for name, file in manifest.files.items()
    }
    state = {"bytes": manifest.state_nbytes, "sha256": manifest.state_sha256}
    return _with_digest({"format": _FORMAT, "version": VERSION, "files": files, "state": state})


def _with_digest(document: dict[str, Any]) -> bytes:
    digest = hashlib.sha256(to_json(document).encode()).hexdigest()
    return to_json({**document, "digest": digest}, indent=1).encode()


# --- reading ---------------------------------------------------------------------------------------------------------


def read_store(
    folder: Path, only: Collection[str] | None = None, finite: Collection[str] = ()
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """(tensors of each file, state), on the CPU, each byte compared with the manifest as it is read.

    only: names of the files to read (and to verify); None is all of them.
    finite: names of files in which a NaN or infinity is refused.
    Raises Damaged naming the file and the tensor, or UserError: no such store, another version, no memory.
    """
    with _opened(folder) as (descriptor, manifest):
        names = list(manifest.files) if only is None else list(only)
        if missing := [name for name in names if name not in manifest.files]:
            raise UserError(f"{folder} has no {missing[0]!r}; it has {', '.join(manifest.files) or 'no tensors'}")
        state = _read_state(folder, descriptor, manifest)
        tensors = {name: _read_file(folder, descriptor, name, manifest.files[name], name in finite) for name in names}
    return tensors, state


def verify_store(folder: Path) -> None:
    """Reads everything and keeps nothing; errors as `read_store`."""
    with _opened(folder) as (descriptor, manifest):
        _read_state(folder, descriptor, manifest)
        for name, file in manifest.files.items():
            with _opened_file(folder, descriptor, f"{name}.safetensors", file.nbytes) as fd:
                tensor_file.read(fd, file.entries, _source(folder, f"{name}.safetensors"), wanted=False)


def copy_into(targets: Tensors, values: Tensors, source: Path | str) -> None:
    """Writes `values` into `targets`, in place. Names, shapes and types must be exactly the targets', else UserError naming `source`."""
    if targets.keys() != values.keys():
        missing, extra = sorted(targets.keys() - values.keys()), sorted(values.keys() - targets.keys())
        raise UserError(f"{source}: not of this model and method (missing {missing[:3]}, unexpected {extra[:3]})")
    for name, target in targets.items():
        if (target.shape, target.dtype) != (values[name].shape, values[name].dtype):
            found, wanted = (f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.") for tensor in (values[name], target))
            raise UserError(f"{source}: {name} is {found}, the model's is {wanted}")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(values[name])


def pointed(pointer: Path, prefix: str) -> str | None:
    """The `<prefix><number>` that a text file names (`last`, `best`); None where it is no plain file or names no such thing."""
    try:
        name = read_text(pointer, limit=64).strip()
    except (OSError, UserError):
        return None
    return name if re.fullmatch(f"{re.escape(prefix)}[0-9]{{1,18}}", name) else None


def list_stores(parent: Path, prefix: str) -> dict[int, Path]:
    """The folders `<prefix><number>` in `parent`, by number, lowest first. Looks at names alone; no parent, no stores."""
    return {number: Path(entry.path) for number, entry in _numbered(parent, prefix) if entry.is_dir(follow_symlinks=False)}


def list_pointers(parent: Path, prefix: str) -> dict[int, Path]:
    """As `list_stores`, the files that are called so: numbered pointers."""
    return {number: Path(entry.path) for number, entry in _numbered(parent, prefix) if not entry.is_dir(follow_symlinks=False)}


def _numbered(parent: Path, prefix: str) -> list[tuple[int, os.DirEntry[str]]]:
    entries = list(os.scandir(parent)) if parent.is_dir() else []
    named = [entry for entry in entries if re.fullmatch(f"{re.escape(prefix)}[0-9]{{1,18}}", entry.name)]
    return sorted(((int(entry.name.removeprefix(prefix)), entry) for entry in named), key=lambda pair: pair[0])


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[int, _Manifest]]:
    """(descriptor of the folder, its verified manifest): every file is opened from this one folder, whatever is renamed meanwhile."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UserError(f"{folder}: no such checkpoint") from None
    except OSError as error:
        raise Damaged(f"{folder}: not a plain folder ({error.strerror})") from None
    try:
        yield descriptor, _read_manifest(folder, descriptor)
    finally:
        os.close(descriptor)


def _read_file(folder: Path, descriptor: int, name: str, file: _File, finite: bool) -> dict[str, Tensor]:
    file_name = f"{name}.safetensors"
    with _opened_file(folder, descriptor, file_name, file.nbytes) as fd:
        tensors = tensor_file.read(fd, file.entries, _source(folder, file_name))
    for tensor_name, tensor in tensors.items() if finite else ():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise Damaged(f"{_source(folder, file_name)}: tensor {clean(tensor_name)!r} holds NaN or infinity")
    return tensors | {alias: tensors[stored] for alias, stored in file.aliases.items()}


def _read_state(folder: Path, descriptor: int, manifest: _Manifest) -> dict[str, Any]:
    source = _source(folder, "state.json")
    with _opened_file(folder, descriptor, "state.json", manifest.state_nbytes) as fd:
        content = read_exactly(fd, manifest.state_nbytes)
    if hashlib.sha256(content).hexdigest() != manifest.state_sha256:
        raise Damaged(f"{source}: not the one that was written")
    state = _damaged_if_bad(from_exact_json, content, source)
    if not isinstance(state, dict):
        raise Damaged(f"{source}: no JSON object")
    return state


@contextmanager
def _opened_file(folder: Path, descriptor: int, name: str, nbytes: int | None) -> Iterator[int]:
    """A descriptor of a plain file of exactly `nbytes` in the open folder; None: of any size that a JSON file may have."""
    source = _source(folder, name)
    try:
        with opened_plain(folder / name, descriptor) as (fd, size):
            if nbytes is None and size > _LARGEST_JSON:
                raise Damaged(f"{source}: {size} bytes, too large")
            if nbytes is not None and size != nbytes:
                raise Damaged(f"{source}: {size} bytes where its manifest says {nbytes}")
            yield fd
    except FileNotFoundError:
        raise Damaged(f"{source}: missing") from None
    except OSError as error:
        raise Damaged(f"{source}: cannot be read ({error.strerror})") from None


# --- the manifest ----------------------------------------------------------------------------------------------------


def _read_manifest(folder: Path, descriptor: int) -> _Manifest:
    source = _source(folder, "manifest.json")
    with _opened_file(folder, descriptor, "manifest.json", None) as fd:
        content = read_exactly(fd, _LARGEST_JSON)
    document = _damaged_if_bad(from_json, content, source)
    if not isinstance(document, dict) or not isinstance(document.pop("digest", None), str) or _with_digest(document) != content:
        raise Damaged(f"{source}: not the one that was written")
    if document.get("format") != _FORMAT or document.get("version") != VERSION:
        raise UserError(f"{source}: written by another version of torchstone (store {document.get('version')!r}; this one reads {VERSION})")
    try:
        manifest = _manifest_of(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"{source}: {clean(str(error))}") from None
    return manifest


def _manifest_of(document: dict[str, Any]) -> _Manifest:
    files = {name: _file_of(name, described) for name, described in document["files"].items()}
    state = document["state"]
    if type(state["bytes"]) is not int or not 0 <= state["bytes"] <= _LARGEST_JSON or not isinstance(state["sha256"], str):
        raise ValueError("the size of state.json is out of range")
    return _Manifest(files, state["bytes"], state["sha256"])


def _file_of(name: str, described: dict[str, Any]) -> _File:
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a file in a store")
    entries = {key: Entry(e["dtype"], tuple(e["shape"]), e["sha256"]) for key, e in described["tensors"].items()}
    aliases = dict(described["aliases"])
    if "__metadata__" in entries or not all(stored in entries and alias not in entries for alias, stored in aliases.items()):
        raise ValueError(f"the tensors of {name} do not fit together")
    if described["bytes"] != tensor_file.size_of(entries):
        raise ValueError(f"the declared sizes of {name} do not add up")
    return _File(described["bytes"], entries, aliases)


def _damaged_if_bad(parse: Any, content: bytes, source: str) -> Any:
    try:
        return parse(content, source)
    except UserError as error:
        raise Damaged(str(error)) from None


def _source(folder: Path, name: str) -> str:
    return clean(f"{folder}/{name}")
