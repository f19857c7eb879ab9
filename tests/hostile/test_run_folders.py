"""Hostile run folders, through `runs`, `eval`, `predict` and `train --resume`: what is beside the checkpoints."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from hostile.child import command, contents, require_refusal
from hostile.test_checkpoints import resume
from train.small import MLP, train

ESCAPES = "\x1b[2J\x1b]0;owned\x07\u202egnp\n\rerror: fake"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "digits" / "run"
    train(folder, "run.epochs=2", base=(*MLP[:1], *MLP[2:]))
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "runs" / "digits" / "run")


def unfinished(run: Path) -> Path:
    (run / "metrics.json").unlink()
    shutil.rmtree(run / "checkpoints" / "step-10")
    return run


def killed_after_5(run: Path) -> Path:
    """As `unfinished`, with nothing left that a resumed run would mend before it reads on."""
    for pointer in ("last", "best"):
        (run / "checkpoints" / pointer).write_text("step-5\n")
    return unfinished(run)


# --- the files that say what the run is ---------------------------------------------------------------------------------

TEXTS = {
    "nothing": b"",
    "zeros": bytes(100),
    "no text": b"\xff\xfe\x00\x01",
    "a list": b"[1, 2]",
    "a number": b"5",
    "nested 100,000 deep": b"[" * 100_000,
    "an integer of a million digits": b'{"version": ' + b"9" * 10**6 + b"}",
    "half": b'{"version": 1, "task": {',
    "escapes": json.dumps({"version": ESCAPES}).encode(),
    "of another version": b'{"version": 99}',
}


def slow_but(plain: set[str], all_of: Iterable[str]) -> list[Any]:
    """Parameters, of which only those in `plain` are not slow."""
    return [pytest.param(name, marks=() if name in plain else pytest.mark.slow) for name in all_of]


@pytest.mark.parametrize("text", TEXTS)
def test_an_artifact_that_is_none(text: str, run: Path) -> None:
    (run / "artifact.json").write_bytes(TEXTS[text])
    require_refusal(run, "eval", run, names=str(run))


@pytest.mark.parametrize("text", slow_but({"half", "escapes"}, TEXTS))
def test_an_artifact_that_is_none_for_the_other_verbs(text: str, run: Path) -> None:
    (run / "artifact.json").write_bytes(TEXTS[text])
    require_refusal(run, "predict", run, run / "x.npy", names=str(run))
    unfinished(run)
    require_refusal(run, *resume(run), names=str(run))


ARTIFACTS: dict[str, Callable[[dict], object]] = {
    "a class by its name": lambda d: d["model"].update(kind="os:system"),
    "a custom class": lambda d: d.update(model={"kind": "custom", "class": "os:system"}),
    "a part of another union": lambda d: d["model"].update(kind="adamw"),
    "an unknown field": lambda d: d["model"].update(evil=1),
    "a magic field": lambda d: d["model"].update(__class__="x"),
    "a huge layer": lambda d: d["model"].update(hidden=[10**15]),
    "a layer before 0": lambda d: d["model"].update(hidden=[-1]),
    "100,000 layers": lambda d: d["model"].update(hidden=[1] * 100_000),
    "another width": lambda d: d["model"].update(hidden=[9]),
    "a checkpoint by its path": lambda d: d["weights"].update(checkpoint="../../x"),
    "a file by its path": lambda d: d["weights"].update(file="../../x"),
    "an average there is not": lambda d: d["weights"].update(file="average"),
    "no facts": lambda d: d.pop("facts"),
    "tasks in a list": lambda d: d.update(task=[]),
}


@pytest.mark.parametrize("name", ARTIFACTS)
def test_an_artifact_that_lies(name: str, run: Path) -> None:
    document = json.loads((run / "artifact.json").read_text())
    ARTIFACTS[name](document)
    (run / "artifact.json").write_text(json.dumps(document))
    require_refusal(run, "eval", run, names=str(run))


@pytest.mark.parametrize("name", ["experiment.toml", "artifact.json"])
@pytest.mark.parametrize("kind", slow_but({"link", "pipe", "missing"}, ["link", "pipe", "folder", "device", "holes", "missing"]))
def test_files_that_are_no_files(kind: str, name: str, run: Path, tmp_path: Path) -> None:
    path = run / name
    path.rename(tmp_path / "moved")
    if kind == "link":
        path.symlink_to(tmp_path / "moved")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "holes":
        path.touch()
        os.truncate(path, 1 << 40)
    require_refusal(run, "eval", run, names=name)
    unfinished(run)
    require_refusal(run, "train", "digits-mini", *MLP, "run.epochs=2", "--out", run, "--resume", names=name)


POINTERS = {
    "relative": b"../../../elsewhere",
    "absolute": b"/etc",
    "empty": b"",
    "no text": b"\xff\xfe",
    "two lines": b"step-5\nstep-6",
    "escapes": ESCAPES.encode(),
    "long": b"x" * 10**6,
}


@pytest.mark.parametrize("content", slow_but({"relative", "no text", "escapes"}, POINTERS))
def test_pointers_are_no_paths(content: str, run: Path) -> None:
    """A reader of the result takes the newest good checkpoint instead, or refuses; it never follows the pointer. A resumed run mends it."""
    (run / "checkpoints" / "last").write_bytes(POINTERS[content])
    outcome = command("eval", run)
    assert outcome.code in (0, 2) and "Traceback" not in outcome.stderr, outcome.stderr
    assert outcome.code == 0 or (outcome.stderr.count("\n") == 1 and "last" in outcome.stderr)
    assert "\x1b" not in outcome.stderr + outcome.stdout
    unfinished(run)
    outcome = command(*resume(run))
    assert outcome.code == 0, outcome.stderr
    assert (run / "checkpoints" / "last").read_text() == "step-10\n"


@pytest.mark.parametrize("pointer", ["last", "best"])
@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_pointers_that_are_no_files(kind: str, pointer: str, run: Path, tmp_path: Path) -> None:
    path = run / "checkpoints" / pointer
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        (tmp_path / "elsewhere").write_text("../../../elsewhere\n")
        path.symlink_to(tmp_path / "elsewhere")
    for prepare, words in ((lambda run: run, ("eval", run)), (unfinished, resume(run))):
        prepare(run)
        outcome = command(*words)
        assert outcome.code in (0, 2) and "Traceback" not in outcome.stderr, outcome.stderr
        assert outcome.code == 0 or pointer in outcome.stderr


# --- what a resumed run appends to ----------------------------------------------------------------------------------------


TAILS = {
    "torn": b'{"step": 6, "lo',
    "zeros": b"\0" * 5000,
    "nan": b'{"step": NaN}\n',
    "deep": b"[" * 100_000 + b"\n",
    "empty": b"{}\n" * 1000,
    "one long line": b"x" * (3 << 20),
    "text for a step": b'{"step": "6"}\n',
    "a number": b"5\n",
}


@pytest.mark.parametrize("tail", slow_but({"torn", "zeros", "deep", "text for a step"}, TAILS))
def test_a_log_with_garbage_at_its_end_is_cut_and_gone_on_with(tail: str, whole: Path, run: Path) -> None:
    unfinished(run)
    with open(run / "log.jsonl", "ab") as file:
        file.write(TAILS[tail])
    outcome = command(*resume(run))
    assert outcome.code == 0, outcome.stderr
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [json.loads(line)["step"] for line in (whole / "log.jsonl").read_text().splitlines()]
    assert (run / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


@pytest.mark.parametrize("name", ["log.jsonl", "results.csv"])
@pytest.mark.parametrize("target", ["/etc/passwd", "pipe"])
def test_a_log_that_is_no_file_of_the_run_is_refused(target: str, name: str, run: Path) -> None:
    killed_after_5(run)
    (run / name).unlink()
    if target == "pipe":
        os.mkfifo(run / name)
    else:
        (run / name).symlink_to(target)
    require_refusal(run, *resume(run), names=name)


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_a_lock_that_is_no_file_is_refused(kind: str, run: Path) -> None:
    (run / ".lock").unlink()
    if kind == "pipe":
        os.mkfifo(run / ".lock")
    elif kind == "link":
        (run / ".lock").symlink_to(run / "experiment.toml")
    else:
        (run / ".lock").mkdir()
    unfinished(run)
    require_refusal(run, *resume(run), names=".lock")


# --- lists of runs --------------------------------------------------------------------------------------------------------

METRICS = {
    **TEXTS,
    "NaN": b'{"status": "done", "final": {"accuracy": NaN}}',
    "escapes everywhere": json.dumps(
        {"status": ESCAPES, "final": {ESCAPES: 0.5}, "best": {"selected_by": ESCAPES}, "steps": ESCAPES}
    ).encode(),
    "a long status": json.dumps({"status": "x" * 10**6}).encode(),
    "lists": b'{"status": [], "final": [], "best": [], "steps": []}',
    "huge": b'{"status": "done", "steps": 1e999, "final": {"accuracy": 1e308}}',
}


@pytest.mark.parametrize("text", METRICS)
def test_a_list_of_runs_survives_every_one(text: str, run: Path) -> None:
    (run / "metrics.json").write_bytes(METRICS[text])
    before = contents(run)
    for words in (("runs", run.parents[1]), ("runs", run.parents[1], "--json")):
        outcome = command(*words)
        assert outcome.code == 0, outcome.stderr
        assert "\x1b" not in outcome.stdout + outcome.stderr and len(outcome.stdout) < 5000
        if "--json" in words:
            assert len(json.loads(outcome.stdout)) == 1
    assert contents(run) == before


@pytest.mark.parametrize("text", slow_but({"nothing", "a list", "half", "escapes"}, TEXTS))
def test_metrics_that_cannot_be_read_stop_neither_a_resume_nor_hide(text: str, run: Path) -> None:
    """metrics.json is a result, not an input: a run whose result is damaged is done again from its last checkpoint, or named."""
    (run / "metrics.json").write_bytes(TEXTS[text])
    outcome = command(*resume(run))
    assert outcome.code in (0, 2), outcome.stderr
    assert "Traceback" not in outcome.stderr and (outcome.code == 0 or "metrics.json" in outcome.stderr)


def test_names_cannot_write_to_the_terminal(run: Path) -> None:
    run.rename(run.with_name("a\x1b[31mb\x07\nc"))
    outcome = command("runs", run.parent)
    assert outcome.code == 0 and "\x1b" not in outcome.stdout and "\x07" not in outcome.stdout


def test_links_are_not_followed_and_half_made_runs_not_listed(run: Path, tmp_path: Path) -> None:
    (run.parent / "loop").symlink_to(run.parent)
    (run.parent / "out").symlink_to("/")
    shutil.copytree(run, run.parent / ".partial-run-abcd")
    outcome = command("runs", tmp_path / "runs", "--json")
    assert [Path(row["run"]).name for row in json.loads(outcome.stdout)] == ["run"]
