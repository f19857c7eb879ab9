"""Stores: what goes in comes out."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from core.small_store import Files, example, same
from torchstone.core import files
from torchstone.core.errors import Damaged, UserError
from torchstone.core.store import list_stores, read_store, verify_store, write_store
from torchstone.core.tensor_file import DTYPES


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
