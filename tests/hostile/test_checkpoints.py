"""Hostile checkpoints, through every verb that reads one: `train --resume`, `eval`, `predict`."""

import math
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hostile.child import command, forge, require_refusal
from torchstone.core import store
from train.small import MLP, flip, train


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint, killed before its end. Not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, "averaging=ema", "run.epochs=1", "run.keep=1", base=(*MLP[:1], *MLP[2:]))
    (folder / "metrics.json").unlink()
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def resume(run: Path) -> tuple[str | Path, ...]:
    return "train", run / "experiment.toml", "--out", run, "--resume"


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> Any:
        return Path.touch, (self.where,)


def weight(document: dict[str, Any]) -> dict[str, Any]:
    return document["files"]["average"]["tensors"]["head.weight"]


def replaced_by_link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def replaced_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def grown_to(path: Path, size: int) -> None:
    with open(path, "r+b") as file:
        file.truncate(size)


def overwritten(path: Path, start: bytes) -> None:
    path.write_bytes(start + path.read_bytes()[len(start) :])


def many_tensors(document: dict[str, Any], count: int) -> None:
    entry = {"dtype": "F32", "shape": [0], "sha256": ""}
    document["files"]["average"]["tensors"] = {f"t{number}": entry for number in range(count)}


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    # what is done to the folder of the checkpoint -> the file that the refusal names
    "a pickle": ("average.safetensors", lambda s: (s / "average.safetensors").write_bytes(pickle.dumps(Bomb(s.parent / "boom")))),
    "a pickle of the right size": ("average.safetensors", lambda s: overwritten(s / "average.safetensors", pickle.dumps(Bomb(s / "boom")))),
    "a pickle for a state": ("state.json", lambda s: (s / "state.json").write_bytes(pickle.dumps(Bomb(s.parent / "boom")))),
    "a header of 2^63 bytes": ("average.safetensors", lambda s: overwritten(s / "average.safetensors", (1 << 63).to_bytes(8, "little"))),
    "a header of 90 MB in 10 bytes": (
        "average.safetensors",
        lambda s: (s / "average.safetensors").write_bytes((90 << 20).to_bytes(8, "little") + b"{}"),
    ),
    "a link out of the folder": ("average.safetensors", lambda s: replaced_by_link(s / "average.safetensors", "/etc/passwd")),
    "an endless device": ("average.safetensors", lambda s: replaced_by_link(s / "average.safetensors", "/dev/zero")),
    "a pipe": ("average.safetensors", lambda s: replaced_by_pipe(s / "average.safetensors")),
    "a pipe for a manifest": ("manifest.json", lambda s: replaced_by_pipe(s / "manifest.json")),
    "a terabyte of holes": ("average.safetensors", lambda s: grown_to(s / "average.safetensors", 1 << 40)),
    "a terabyte of manifest": ("manifest.json", lambda s: grown_to(s / "manifest.json", 1 << 40)),
    "no manifest": ("manifest.json", lambda s: (s / "manifest.json").unlink()),
    "a manifest nested 100,000 deep": ("manifest.json", lambda s: (s / "manifest.json").write_text("[" * 100_000)),
    "a repeated key": ("manifest.json", lambda s: (s / "manifest.json").write_text('{"files": {}, "files": {}, "digest": ""}')),
    "an integer of a million digits": ("manifest.json", lambda s: (s / "manifest.json").write_text('{"version": ' + "9" * 10**6 + "}")),
    "another file's content": ("average.safetensors", lambda s: shutil.copy(s / "optimizer.safetensors", s / "average.safetensors")),
    "a name that leaves": (
        "manifest.json",
        lambda s: forge(s, lambda d: d["files"].update({"../../../etc/passwd": d["files"].pop("average")})),
    ),
    "an absolute name": ("manifest.json", lambda s: forge(s, lambda d: d["files"].update({"/etc/passwd": d["files"].pop("average")}))),
    "a backslash": ("manifest.json", lambda s: forge(s, lambda d: d["files"].update({"a\\..\\b": d["files"].pop("average")}))),
    "a device of DOS": ("manifest.json", lambda s: forge(s, lambda d: d["files"].update({"CON": d["files"].pop("average")}))),
    "a shape of 2^96": ("manifest.json", lambda s: forge(s, lambda d: weight(d).update(shape=[2**32] * 3))),
    "another type": ("average.safetensors", lambda s: forge(s, lambda d: weight(d).update(dtype="I32"))),
    "another hash": ("average.safetensors", lambda s: forge(s, lambda d: weight(d).update(sha256="0" * 64))),
    "a million tensors": ("manifest.json", lambda s: forge(s, lambda d: many_tensors(d, 1_000_000))),
    # 40 µs a tensor, and 150 µs with every annotation checked, as here.
    "ten thousand tensors": ("manifest.json", lambda s: forge(s, lambda d: many_tensors(d, 10_000))),
    "another version": ("manifest.json", lambda s: forge(s, lambda d: d.update(version=0))),
    "a link for a folder": ("step-5", lambda s: (s.rename(s.with_name("moved")), s.symlink_to(s.with_name("moved")))),
    "a file for a folder": ("step-5", lambda s: (shutil.rmtree(s), s.write_text("step-5"))),
}


LARGE = {"a million tensors", "ten thousand tensors"}
EVALUATED = {"a pickle", "a pipe", "no manifest", "a name that leaves", "another hash", "a link for a folder"}
"""Those that `eval` is plainly tested on as well: one of each kind."""


def verbs_on_damage() -> list[Any]:
    quick = {("resume", name) for name in DAMAGE.keys() - LARGE} | {("eval", name) for name in EVALUATED}
    pairs = [(verb, name) for verb in ("resume", "eval") for name in DAMAGE]
    return [pytest.param(*pair, marks=() if pair in quick else pytest.mark.slow) for pair in pairs]


@pytest.mark.parametrize("verb, name", verbs_on_damage())
def test_a_damaged_checkpoint_is_refused(verb: str, name: str, run: Path) -> None:
    file, damage = DAMAGE[name]
    damage(run / "checkpoints" / "step-5")
    require_refusal(run, *(resume(run) if verb == "resume" else ("eval", run)), names=file)
    assert not list(run.rglob("boom"))


def test_the_same_run_undamaged_is_read(run: Path) -> None:
    for words in (("eval", run), resume(run)):
        outcome = command(*words)
        assert outcome.code == 0, outcome.stderr


def test_what_lies_beside_is_not_opened(run: Path) -> None:
    step = run / "checkpoints" / "step-5"
    for name in ("model.pt", "pytorch_model.bin", "optimizer.pkl", "__init__.py", "extra.safetensors"):
        (step / name).write_bytes(pickle.dumps(Bomb(run / "boom")))
    os.mkfifo(step / "pipe")
    assert command("eval", run).code == 0
    assert command(*resume(run)).code == 0
    assert not (run / "boom").exists()


# --- forged by a writer of stores: every hash is right, the content is not ------------------------------------------------

Tensors = dict[str, dict[str, torch.Tensor]]
State = dict[str, Any]

FORGED: dict[str, tuple[str, Callable[[Tensors, State], object]]] = {
    "NaN weights": ("head.weight", lambda t, s: t["model"]["head.weight"].fill_(math.nan)),
    "NaN averages": ("head.weight", lambda t, s: t["average"]["head.weight"].fill_(math.nan)),
    "infinite moments": ("optimizer.safetensors", lambda t, s: next(iter(t["optimizer"].values())).fill_(math.inf)),
    "a tensor less": ("head.weight", lambda t, s: [t[name].pop("head.weight") for name in ("model", "average")]),
    "a tensor more": ("evil", lambda t, s: [t[name].update(evil=torch.ones(3)) for name in ("model", "average")]),
    "another shape": ("head.weight", lambda t, s: [t[name].update({"head.weight": torch.ones(1, 8)}) for name in ("model", "average")]),
    "another type": (
        "head.weight",
        lambda t, s: [t[name].update({"head.weight": t[name]["head.weight"].to(torch.int8)}) for name in ("model", "average")],
    ),
    "no optimizer": ("optimizer.safetensors", lambda t, s: t.pop("optimizer")),
    "an empty state": ("state.json", lambda t, s: s.clear()),
    "no step": ("state.json", lambda t, s: s.pop("step")),
    "a step of text": ("state.json", lambda t, s: s.update(step="5")),
    "a step before 0": ("state.json", lambda t, s: s.update(step=-5)),
    "a step after the end": ("state.json", lambda t, s: s.update(step=10**15)),
    "no fingerprint": ("state.json", lambda t, s: s.pop("fingerprint")),
    "a fingerprint of 5": ("state.json", lambda t, s: s.update(fingerprint=5)),
    "an exactness key of text": ("state.json", lambda t, s: s.update(exactness="key")),
    "evaluations of nothing": ("state.json", lambda t, s: s.update(evaluations=[{}])),
    "evaluations of numbers": ("state.json", lambda t, s: s.update(evaluations=5)),
    "a best of text": ("state.json", lambda t, s: s.update(best="step-5")),
    "a scale with more in it": ("state.json", lambda t, s: s.update(scale={"scale": 1.0, "good": 0, "__class__": "os"})),
    "endless seconds": ("state.json", lambda t, s: s.update(seconds="long")),
}
READ_BY_EVAL = {"NaN averages", "a tensor less", "a tensor more", "another shape", "another type"}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_checkpoint_is_refused(name: str, run: Path) -> None:
    """Predictions read the weights alone; a resumed training all of it."""
    names, change = FORGED[name]
    step = run / "checkpoints" / "step-5"
    tensors, state = store.read_store(step)
    change(tensors, state)
    shutil.rmtree(step)
    store.write_store(step, tensors, state)
    message = require_refusal(run, *resume(run), names=names)
    assert "step-5" in message
    if name in READ_BY_EVAL:
        require_refusal(run, "eval", run, names=names)


# --- a thousand flipped bits ----------------------------------------------------------------------------------------------


def refuse_flips(run: Path, count: int) -> None:
    draw, step = torch.Generator().manual_seed(count), run / "checkpoints" / "step-5"
    paths = sorted(step.iterdir())
    for number in range(count):
        path = paths[number % len(paths)]
        bit = int(torch.randint(8 * path.stat().st_size, (), generator=draw))
        flip(path, bit)
        with pytest.raises(store.Damaged, match=f"step-5/{path.name}") as refused:
            store.read_store(step)
        assert not path.suffix == ".safetensors" or "tensor '" in str(refused.value) or "header" in str(refused.value)
        flip(path, bit)
    store.read_store(step)


def test_60_flipped_bits_are_refused(run: Path) -> None:
    refuse_flips(run, 60)


@pytest.mark.slow
def test_1000_flipped_bits_are_refused(run: Path) -> None:
    refuse_flips(run, 1000)
