"""Stores: whatever damage or trick there is, nothing else comes out than what went in."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.small_store import example
from torchstone.core.errors import Damaged, UserError
from torchstone.core.store import read_store, verify_store, write_store

# --- damage ----------------------------------------------------------------------------------------------------------


def flip_and_read(store: Path, file: Path, bit: int) -> str:
    """The refusal after flipping one bit; the file is whole again afterwards."""
    content = file.read_bytes()
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    file.write_bytes(damaged)
    try:
        with pytest.raises(Damaged) as read:
            read_store(store)
    finally:
        file.write_bytes(content)
    return str(read.value)


def refuse_flips(store: Path, count: int) -> None:
    random = np.random.Generator(np.random.Philox(key=count))
    paths = sorted(store.iterdir())
    for i in range(count):
        path = paths[i % len(paths)]
        message = flip_and_read(store, path, int(random.integers(8 * path.stat().st_size)))
        assert path.name in message
        if path.suffix == ".safetensors":
            assert "tensor '" in message or "header" in message
    read_store(store)


def test_400_flipped_bits_are_refused(store: Path) -> None:
    refuse_flips(store, 400)


@pytest.mark.slow
def test_every_flipped_bit_of_a_small_store_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "s", {"m": {"w": torch.arange(3.0), "v": torch.tensor(1)}}, {"step": 1})
    for path in sorted((tmp_path / "s").iterdir()):
        for bit in range(8 * path.stat().st_size):
            flip_and_read(tmp_path / "s", path, bit)


def test_the_flipped_tensor_is_named(store: Path) -> None:
    """Against the offsets that the safetensors library reads from the header."""
    path = store / "model.safetensors"
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__" and entry["data_offsets"][0] < entry["data_offsets"][1]:
            assert f"model.safetensors: tensor '{name}'" in flip_and_read(store, path, 8 * (start + entry["data_offsets"][0]) + 1)
    assert "header" in flip_and_read(store, path, 8 * 20)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_torn_zeroed_longer_and_missing_files_are_refused(name: str, store: Path) -> None:
    path = store / name
    content = path.read_bytes()
    half = len(content) // 2
    for damaged in (b"", content[:half], content[:-1], content + b"\0", content[:half] + bytes(len(content) - half), bytes(len(content))):
        path.write_bytes(damaged)
        for read in (read_store, verify_store):
            with pytest.raises(Damaged, match=name):
                read(store)
    path.unlink()
    with pytest.raises(Damaged, match=f"{name}: missing"):
        read_store(store)


def test_a_file_of_another_checkpoint_is_refused(store: Path, tmp_path: Path) -> None:
    write_store(tmp_path / "step-8", *example(8))
    for name in ("model.safetensors", "state.json", "manifest.json"):
        content = (store / name).read_bytes()
        shutil.copy(tmp_path / "step-8" / name, store / name)
        with pytest.raises(Damaged, match=r"step-7/\w+\.(json|safetensors)"):
            read_store(store)
        (store / name).write_bytes(content)


# --- tricks ----------------------------------------------------------------------------------------------------------


def forge(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrites the manifest with a right digest, as whoever wants to deceive would."""
    document = json.loads((store / "manifest.json").read_text())
    change(document)
    document.pop("digest")
    digest = hashlib.sha256(json.dumps(document).encode()).hexdigest()
    (store / "manifest.json").write_text(json.dumps({**document, "digest": digest}, indent=1))


def weight(document: dict[str, Any]) -> dict[str, Any]:
    return document["files"]["model"]["tensors"]["embed.weight"]


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a name that leaves the folder": lambda d: d["files"].update({"../../etc/passwd": d["files"].pop("model")}),
    "an absolute name": lambda d: d["files"].update({"/etc/passwd": d["files"].pop("model")}),
    "a backslash": lambda d: d["files"].update({"a\\..\\b": d["files"].pop("model")}),
    "another file's entries": lambda d: d["files"].update(model=d["files"]["optimizer"]),
    "a huge shape": lambda d: weight(d).update(shape=[2**32] * 3),
    "a huge empty shape": lambda d: weight(d).update(shape=[0, 2**48, 2**48]),
    "a huge number": lambda d: weight(d).update(shape=[10**1000]),
    "a negative shape": lambda d: weight(d).update(shape=[-5, -3]),
    "a fractional shape": lambda d: weight(d).update(shape=[5.0, 3]),
    "a true shape": lambda d: weight(d).update(shape=[True, 15]),
    "a text for a shape": lambda d: weight(d).update(shape="53"),
    "another shape": lambda d: weight(d).update(shape=[3, 5]),
    "another type": lambda d: weight(d).update(dtype="I32"),
    "an unknown type": lambda d: weight(d).update(dtype="os:system"),
    "a list for a type": lambda d: weight(d).update(dtype=[]),
    "no hash": lambda d: weight(d).pop("sha256"),
    "another hash": lambda d: weight(d).update(sha256=None),
    "sizes that do not add up": lambda d: d["files"]["model"].update(bytes=d["files"]["model"]["bytes"] + 1),
    "a tensor less": lambda d: d["files"]["model"]["tensors"].pop("half"),
    "a tensor more": lambda d: d["files"]["model"]["tensors"].update(more={"dtype": "F32", "shape": [0], "sha256": ""}),
    "an alias of nothing": lambda d: d["files"]["model"]["aliases"].update({"x": "y"}),
    "an alias over a tensor": lambda d: d["files"]["model"]["aliases"].update({"half": "mask"}),
    "files as a list": lambda d: d.update(files=[]),
    "no state": lambda d: d.pop("state"),
    "a huge state": lambda d: d["state"].update(bytes=2**62),
    "a state of text": lambda d: d["state"].update(bytes="12"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_manifests_are_refused(name: str, store: Path) -> None:
    forge(store, FORGERIES[name])
    for read in (read_store, verify_store):
        with pytest.raises(Damaged, match=r"step-7/\w+\.(json|safetensors)"):
            read(store)


def test_the_forger_of_the_tests_can_forge(store: Path) -> None:
    forge(store, lambda document: None)
    read_store(store)


def test_another_version_says_so(store: Path) -> None:
    forge(store, lambda document: document.update(version=2))
    with pytest.raises(UserError, match="another version of torchstone") as error:
        read_store(store)
    assert not isinstance(error.value, Damaged)


def test_booleans_are_booleans(store: Path) -> None:
    path = store / "model.safetensors"
    content = bytearray(path.read_bytes())
    assert content[-3:] == b"\1\0\1"
    content[-1] = 7
    path.write_bytes(content)
    forge(store, lambda d: d["files"]["model"]["tensors"]["mask"].update(sha256=hashlib.sha256(b"\1\0\7").hexdigest()))
    with pytest.raises(Damaged, match="'mask' holds bytes that are no booleans"):
        read_store(store)


def test_links_and_pipes_are_refused(store: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "state.json", "manifest.json"):
        (store / name).rename(tmp_path / name)
        (store / name).symlink_to(tmp_path / name)
        with pytest.raises(Damaged, match=f"step-7/{name}: not a .*plain file"):
            read_store(store)
        (store / name).unlink()
        os.mkfifo(store / name)
        with pytest.raises(Damaged, match=f"step-7/{name}: not a plain file"):
            read_store(store)
        (store / name).unlink()
        (tmp_path / name).rename(store / name)
    (tmp_path / "step-8").symlink_to(store)
    with pytest.raises(Damaged, match="not a plain folder"):
        read_store(tmp_path / "step-8")
    with pytest.raises(UserError, match="no such checkpoint"):
        read_store(tmp_path / "step-9")


def test_manifests_that_are_no_manifests(store: Path) -> None:
    deep = "[" * 200_000
    for text in ("", "null", "[]", "{}", '{"digest": 1}', deep, '{"files": {}, "files": {}}', '{"version": NaN}', "\x80\x04K*."):
        (store / "manifest.json").write_text(text)
        with pytest.raises(Damaged, match=r"manifest\.json"):
            read_store(store)
    with open(store / "manifest.json", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(Damaged, match="too large"):
        read_store(store)


def test_a_huge_sparse_file_is_refused_before_memory_is_taken(store: Path) -> None:
    with open(store / "model.safetensors", "r+b") as file:
        file.truncate(2**40)
    with pytest.raises(Damaged, match="1099511627776 bytes where its manifest says"):
        read_store(store)


def test_names_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    write_store(tmp_path / "s", {"m": {"a\x1b[31m\x07b": torch.ones(4)}}, {})
    path = tmp_path / "s" / "m.safetensors"
    message = flip_and_read(tmp_path / "s", path, 8 * path.stat().st_size - 1)
    assert "'ab'" in message and "\x1b" not in message
