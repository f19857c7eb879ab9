"""Stores: what goes in comes out, and whatever damage, crash or trick there is, nothing else does."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from core.crash_states import every_state, load, save
from core.faults import DEATHS, ERRORS, armed, dies
from torchstone.core import fault, files
from torchstone.core.errors import Damaged, UserError
from torchstone.core.store import list_stores, read_store, verify_store, write_store
from torchstone.core.tensor_file import DTYPES

Files = dict[str, dict[str, Tensor]]


def example(seed: int = 0) -> tuple[Files, dict[str, Any]]:
    random = torch.Generator().manual_seed(seed)
    model = {
        "embed.weight": torch.randn(5, 3, generator=random),
        "steps": torch.tensor(seed),
        "mask": torch.tensor([True, False, True]),
        "half": torch.randn(7, generator=random).bfloat16(),
        "none": torch.empty(0, 4),
        "turned": torch.randn(3, 4, generator=random, dtype=torch.float64).t(),
    }
    model["head.weight"] = model["embed.weight"]
    optimizer = {"first/embed.weight": torch.randn(5, 3, generator=random), "count": torch.tensor(2**62 + seed)}
    return {"model": model, "optimizer": optimizer}, {"step": seed, "loss": math.nan, "history": [0.1, math.inf], "name": "é"}


def same(a: Files, b: Files) -> bool:
    """Whether names, types, shapes and bits are equal."""

    def bits(tensor: Tensor) -> tuple[Any, ...]:
        content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist() if tensor.numel() else []
        return tensor.dtype, tuple(tensor.shape), content

    first, second = ({file: {name: bits(t) for name, t in held.items()} for file, held in both.items()} for both in (a, b))
    return first == second


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_store(tmp_path / "step-7", *example(7))
    return tmp_path / "step-7"


# --- round trips -----------------------------------------------------------------------------------------------------


def test_what_goes_in_comes_out(store: Path) -> None:
    tensors, state = read_store(store)
    expected, expected_state = example(7)
    assert same(tensors, expected) and repr(state) == repr(expected_state)
    assert tensors["model"]["head.weight"] is tensors["model"]["embed.weight"]
    assert all(tensor.is_contiguous() for tensor in tensors["model"].values())
    verify_store(store)
    assert {path.name for path in store.iterdir()} == {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}


def test_any_safetensors_reader_reads_it(store: Path) -> None:
    tensors, _ = read_store(store)
    theirs = safetensors.torch.load_file(store / "model.safetensors")
    assert set(theirs) == set(tensors["model"]) - {"head.weight"}
    assert same({"model": theirs}, {"model": {name: tensors["model"][name] for name in theirs}})


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 0, 3)])
def test_every_type_and_shape(dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path) -> None:
    count = math.prod(shape) * dtype.itemsize
    content = np.random.Generator(np.random.Philox(key=1)).integers(0, 2 if dtype == torch.bool else 256, count, dtype=np.uint8)
    tensor = torch.tensor(content.tolist(), dtype=torch.uint8).view(dtype).reshape(shape)
    write_store(tmp_path / "s", {"a": {"x": tensor, "odd": torch.ones(3, dtype=torch.uint8)}}, {})
    assert same(read_store(tmp_path / "s")[0], {"a": {"x": tensor, "odd": torch.ones(3, dtype=torch.uint8)}})


def test_views_parameters_and_ties(tmp_path: Path) -> None:
    flat = torch.arange(12.0)
    weight = torch.nn.Parameter(flat[:6].view(2, 3))
    tensors = {
        "w": weight,
        "tied": weight,
        "t": weight.t(),
        "overlap": flat[3:9],
        "expanded": torch.ones(1).expand(4),
        "e1": flat[:0],
        "e2": flat[:0],
    }
    tensors["from numpy"] = torch.from_numpy(np.empty(0, np.int16))
    write_store(tmp_path / "s", {"m": tensors, "empty": {}}, {})
    back = read_store(tmp_path / "s")[0]
    assert same(back, {"m": tensors, "empty": {}})
    assert back["m"]["tied"] is back["m"]["w"] and back["m"]["e1"] is not back["m"]["e2"]
    assert back["m"]["t"].data_ptr() != back["m"]["w"].data_ptr()
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["files"]["m"]["aliases"] == {"tied": "w"}


def test_only_some_files_and_finite_ones(store: Path, tmp_path: Path) -> None:
    (store / "optimizer.safetensors").unlink()
    tensors, state = read_store(store, only=("model",), finite=("model",))
    assert set(tensors) == {"model"} and state["step"] == 7
    with pytest.raises(Damaged, match=r"optimizer\.safetensors: missing"):
        read_store(store)
    with pytest.raises(UserError, match="has no 'average'; it has model, optimizer"):
        read_store(store, only=("average",))
    write_store(tmp_path / "nan", {"model": {"w": torch.tensor([1.0, math.nan])}}, {})
    read_store(tmp_path / "nan")
    with pytest.raises(Damaged, match=r"model\.safetensors: tensor 'w' holds NaN"):
        read_store(tmp_path / "nan", finite=("model",))


def test_stores_are_listed_by_number(tmp_path: Path) -> None:
    for name in ("step-10", "step-9", "step-x", "step-", "other-3", files.PARTIAL + "step-8-ab"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-4").write_text("a file")
    (tmp_path / "step-5").symlink_to("step-9")
    assert list_stores(tmp_path, "step-") == {9: tmp_path / "step-9", 10: tmp_path / "step-10"}
    assert list(list_stores(tmp_path, "step-")) == [9, 10] and list_stores(tmp_path / "none", "step-") == {}


@pytest.mark.parametrize(
    ("tensors", "state", "error"),
    [
        ({"a": {"x": torch.ones(2).to_sparse()}}, {}, UserError),
        ({"a": {"x": torch.ones(2, dtype=torch.complex128)}}, {}, UserError),
        ({"a": {"x": torch.ones(2, device="meta")}}, {}, UserError),
        ({"a": {"__metadata__": torch.ones(2)}}, {}, UserError),
        ({"../a": {}}, {}, ValueError),
        ({}, {"x": object()}, TypeError),
        ({}, {"x": {1: 2}}, TypeError),
    ],
)
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(tensors: Files, state: dict[str, Any], error: type, tmp_path: Path) -> None:
    with pytest.raises(error):
        write_store(tmp_path / "s", tensors, state)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_never_overwritten(store: Path) -> None:
    with pytest.raises(UserError, match="exists"):
        write_store(store, *example(8))
    assert read_store(store)[1]["step"] == 7


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


# --- crashes ---------------------------------------------------------------------------------------------------------


def checkpoint(parent: Path, step: int) -> None:
    write_store(parent / f"step-{step}", *example(step))
    files.write_text(parent / "last", f"step-{step}\n")


def resumed(parent: Path) -> int:
    """The step that a resume would go on from, all checked."""
    step = int((parent / "last").read_text().removeprefix("step-"))
    tensors, state = read_store(parent / f"step-{step}")
    expected, expected_state = example(step)
    assert same(tensors, expected) and repr(state) == repr(expected_state)
    return step


def traced(work: Callable[[], object]) -> list[fault.Operation]:
    seen: list[fault.Operation] = []
    fault.disarm()
    fault.trace(seen.append)
    try:
        work()
    finally:
        fault.trace(None)
    return seen


def test_whatever_fails_the_previous_checkpoint_is_there(tmp_path: Path) -> None:
    first, run = tmp_path / "first", tmp_path / "run"
    first.mkdir()
    checkpoint(first, 1)

    def fresh() -> None:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(first, run)

    def partial() -> list[str]:
        return [name for name in os.listdir(run) if name.startswith(files.PARTIAL)]

    fresh()
    trace = traced(lambda: checkpoint(run, 2))
    assert resumed(run) == 2 and [operation.name for operation in trace].count("write") == 5
    for operation in trace:
        for kind in ERRORS:
            fresh()
            with armed(kind, operation.number), pytest.raises(OSError, match="No space|Input/output"):
                checkpoint(run, 2)
            assert resumed(run) == (2 if operation is trace[-1] else 1) and not partial()
        for kind in DEATHS if operation.name == "write" else ("kill",):
            fresh()
            assert dies(lambda: checkpoint(run, 2), kind, operation.number)
            assert resumed(run) == (2 if operation is trace[-1] else 1)
            files.remove_partial(run)
            assert not partial()
        fresh()
        with armed("short", operation.number):
            checkpoint(run, 2)
        assert resumed(run) == 2


def bad_states(tmp_path: Path, name: str, forgotten: str | None = None) -> tuple[int, int]:
    """(states that load neither the old nor the new checkpoint, all states) of a power cut while the second is made.

    forgotten: an operation whose effect is left out, as if the program did not do it.
    """
    run = tmp_path / name
    run.mkdir()
    checkpoint(run, 1)
    start = load(run)
    trace = traced(lambda: checkpoint(run, 2))
    states = every_state(run, start, [operation for operation in trace if operation.name != forgotten])
    bad = 0
    for i, state in enumerate(states):
        save(state, tmp_path / f"{name}-{i}")
        try:
            assert resumed(tmp_path / f"{name}-{i}") in (1, 2)
        except (UserError, OSError, ValueError):
            bad += 1
    return bad, len(states)


def test_no_power_cut_loses_the_checkpoint(tmp_path: Path) -> None:
    bad, total = bad_states(tmp_path, "run")
    assert bad == 0 and total > 50


@pytest.mark.parametrize("forgotten", ["fsync", "fsync_folder"])
def test_the_search_finds_what_a_careless_writer_would_lose(forgotten: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def smaller(seed: int = 0) -> tuple[Files, dict[str, Any]]:
        return {"m": {"w": torch.full((2,), float(seed))}}, {"step": seed}

    monkeypatch.setitem(globals(), "example", smaller)
    bad, _ = bad_states(tmp_path, "run", forgotten)
    assert bad > 0
