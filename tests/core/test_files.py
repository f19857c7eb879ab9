"""Durable writes, journals and locks, with every operation made to fail in every way."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from core.faults import DEATHS, ERRORS, armed, dies, operations
from torchstone.core import fault, files
from torchstone.core.errors import Damaged, UserError
from torchstone.core.fault import Kind
from torchstone.core.journal import CsvRows, Journal, read_journal
from torchstone.core.json_text import from_exact_json, from_json, to_exact_json, to_json
from torchstone.core.lock import Lock

SRC = Path(__file__).resolve().parents[2] / "src"


def names(folder: Path) -> set[str]:
    return {entry.name for entry in os.scandir(folder)}


# --- whole files and folders -----------------------------------------------------------------------------------------


def test_a_durable_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last"
    files.write_text(path, "step-1\n")
    files.write_durable(path, (piece for piece in (b"ab", b"", b"c" * (3 << 20), b"d")))
    assert path.read_bytes() == b"ab" + b"c" * (3 << 20) + b"d"
    files.write_text(path, "")
    assert path.read_bytes() == b"" and names(tmp_path) == {"last"}


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    for umask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(umask)
        try:
            files.write_text(tmp_path / "file", "x")
        finally:
            os.umask(before)
        assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_the_order_of_a_durable_write(tmp_path: Path) -> None:
    seen: list[fault.Operation] = []
    fault.trace(seen.append)
    try:
        files.write_text(tmp_path / "last", "step-1")
    finally:
        fault.trace(None)
    assert [operation.name for operation in seen] == ["create", "write", "fsync", "rename", "fsync_folder"]
    assert seen[1].detail == b"step-1" and seen[3].detail == str(tmp_path / "last") and seen[4].path == str(tmp_path)


def write_pointer(folder: Path) -> None:
    files.write_text(folder / "last", "new" * 10)


def make_new(folder: Path) -> None:
    def fill(partial: Path) -> None:
        files.write_new(partial / "a", b"new")
        files.make_folder(partial / "inside")
        files.write_new(partial / "inside" / "b", b"new")

    files.new_folder(folder / "made", fill)


@pytest.mark.parametrize("work", [write_pointer, make_new])
def test_whatever_fails_the_target_is_old_or_new(work: Callable[[Path], None], tmp_path: Path) -> None:
    def fresh(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "last").write_text("old")
        return folder

    def state(folder: Path) -> tuple[str, list[str]]:
        made = sorted(str(path.relative_to(folder)) for path in folder.glob("made/**/*") if path.is_file())
        return (folder / "last").read_text(), made

    total = operations(lambda: work(fresh("count")))
    before, after = ("old", []), state(tmp_path / "count")
    for number in range(1, total + 1):
        for kind in ERRORS:
            folder = fresh(f"{kind}{number}")
            with armed(kind, number), pytest.raises(OSError, match="No space|Input/output"):
                work(folder)
            # The last operation, fsync of the parent, comes after the rename: whole, though perhaps not on the disk.
            assert state(folder) == (after if number == total else before)
            assert not [name for name in names(folder) if name.startswith(files.PARTIAL)]
        for kind in DEATHS:
            folder = fresh(f"{kind}{number}")
            assert dies(lambda folder=folder: work(folder), kind, number)
            assert state(folder) in (before, after)
            files.remove_partial(folder)
            assert not [name for name in names(folder) if name.startswith(files.PARTIAL)]
        folder = fresh(f"short{number}")
        with armed("short", number):
            work(folder)
        assert state(folder) == after


def test_new_folder_never_overwrites_and_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with pytest.raises(UserError, match="exists"):
        make_new(tmp_path)
    (tmp_path / "made").rmdir()
    (tmp_path / "made").symlink_to("nowhere")
    with pytest.raises(UserError, match="exists"):
        make_new(tmp_path)
    (tmp_path / "made").unlink()

    def fails(partial: Path) -> None:
        files.write_new(partial / "a", b"half")
        raise KeyError("in fill")

    with pytest.raises(KeyError):
        files.new_folder(tmp_path / "made", fails)
    assert names(tmp_path) == set()
    make_new(tmp_path / "deep" / "er")
    assert names(tmp_path / "deep" / "er" / "made") == {"a", "inside"}


def test_removal_hides_first_and_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    folder = tmp_path / "run"
    folder.mkdir()

    def victim() -> None:
        (folder / "old" / "in").mkdir(parents=True)
        (folder / "old" / "in" / "f").write_text("x")
        (folder / "old" / "link").symlink_to(outside)

    victim()
    total = operations(lambda: files.remove_folder(folder / "old"))
    for number in range(1, total + 1):
        victim()
        assert dies(lambda: files.remove_folder(folder / "old"), "kill", number)
        assert ("old" in names(folder)) == (number == 1)
        if number == 1:
            files.remove_folder(folder / "old")
        files.remove_partial(folder)
        assert names(folder) == set()
    assert (outside / "kept").read_text() == "x"
    files.remove_file(folder / "none")


def test_reading_is_bounded_and_meets_plain_files_only(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert files.read_bytes(tmp_path / "f", 5) == b"12345" and files.read_text(tmp_path / "f") == "12345"
    with pytest.raises(UserError, match="5 bytes"):
        files.read_bytes(tmp_path / "f", 4)
    (tmp_path / "link").symlink_to("f")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "."):
        with pytest.raises(Damaged, match="plain file"):
            files.read_bytes(tmp_path / name, 100)
    with pytest.raises(FileNotFoundError):
        files.read_bytes(tmp_path / "none", 100)
    (tmp_path / "f").write_bytes(b"\xff")
    with pytest.raises(UserError, match="UTF-8"):
        files.read_text(tmp_path / "f")


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder", "device"])
def test_locks_and_journals_are_plain_files(kind: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("precious")
    for name, work in ((".lock", lambda: Lock(tmp_path)), ("log.jsonl", lambda: Journal(tmp_path / "log.jsonl"))):
        path = tmp_path / name
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to({"link": "other", "dangling link": "nowhere", "device": "/dev/null"}[kind])
        with pytest.raises(Damaged, match=rf"{name}: not a plain file"):
            work()
    assert (tmp_path / "other").read_text() == "precious" and not (tmp_path / "nowhere").exists()


def test_errors_of_the_system_name_the_file(tmp_path: Path) -> None:
    """Not only injected ones: a descriptor that is open for reading takes nothing."""
    path = tmp_path / "a"
    path.touch()
    with files.opened(path, os.O_RDONLY) as fd:
        for work in (lambda: files.write_all(fd, b"x", path), lambda: files.truncate(fd, 0, path)):
            with pytest.raises(OSError) as failed:
                work()
            assert failed.value.filename == str(path) and str(path) in str(failed.value)


def test_free_bytes_of_a_folder_to_come(tmp_path: Path) -> None:
    assert files.free_bytes(tmp_path / "a" / "b") == pytest.approx(files.free_bytes(tmp_path), rel=0.1)


def test_a_fault_by_the_environment(tmp_path: Path) -> None:
    program = "import pathlib; from torchstone.core import files; files.write_text(pathlib.Path('last'), 'x'); print('done')"

    def run(value: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(SRC), "TORCHSTONE_FAULT": value}
        return subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert run("kill@4").returncode == -signal.SIGKILL and not (tmp_path / "last").exists()
    assert "No space left" in run("enospc@2").stderr
    assert "TORCHSTONE_FAULT must be" in run("kill@0").stderr
    assert run("kill@6").stdout == "done\n" and (tmp_path / "last").read_text() == "x"


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_json_for_people_has_no_nan() -> None:
    value = {"a": math.nan, "b": [math.inf, -0.0, np.float32(0.5), np.int64(3), torch.tensor(2.0)], "c": None, "d": True}
    assert to_json(value) == '{"a": null, "b": [null, -0.0, 0.5, 3, 2.0], "c": null, "d": true}'
    for bad in ({1: 2}, {"x": object()}, {"x": {1, 2}}):
        with pytest.raises(TypeError):
            to_json(bad)


def test_json_for_resume_is_exact() -> None:
    value = {"loss": [0.1 + 0.2, 5e-324, -0.0, math.inf, -math.inf, 2**70, True, None, "é\ud800\x1b"], "nan": math.nan}
    back = from_exact_json(to_exact_json(value), "test")
    assert repr(back) == repr(value)
    with pytest.raises(TypeError, match=r"\$float"):
        to_exact_json({"$float": "nan"})


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": 1, "a": 2}', "NaN", "[Infinity]", "[" * 100_000, "1" * 10_000, '{"$float": "x"}', b"\xff\xfe{"]
)
def test_bad_json_is_one_error(text: str | bytes) -> None:
    with pytest.raises(UserError, match="here: not JSON"):
        from_exact_json(text, "here")
    if text != '{"$float": "x"}':
        with pytest.raises(UserError, match="here: not JSON"):
            from_json(text, "here")


# --- journals --------------------------------------------------------------------------------------------------------


def test_a_journal_appends_plain_lines_and_rewinds(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    journal = Journal(path)
    for step in range(5):
        journal.append({"step": step, "loss": math.nan if step == 3 else 0.5})
    journal.sync()
    assert [json.loads(line) for line in path.read_text().splitlines()][3] == {"step": 3, "loss": None}
    journal.rewind(lambda record: record["step"] <= 2)
    journal.append({"step": 3, "text": "two\nlines"})
    journal.close()
    assert [record["step"] for record in read_journal(path)] == [0, 1, 2, 3]
    assert list(read_journal(tmp_path / "none")) == []


@pytest.mark.parametrize(
    "tail", [b'{"step": 3', b'{"step": 3}', b"\x00" * 500 + b"\n", b"[1]\n", b"{]\n", b"\xff\n", b'{"a": NaN}\n', b"x" * 3_000_000]
)
def test_a_torn_tail_is_ignored_by_readers_and_cut_by_the_writer(tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + tail)
    assert [record["step"] for record in read_journal(path)] == [1, 2]
    journal = Journal(path)
    journal.append({"step": 3})
    journal.close()
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_rows_for_spreadsheets(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    rows = CsvRows(("step", "name", "accuracy"))
    journal = Journal(path, rows)
    journal.append({"step": 1, "name": "=cmd()", "accuracy": 0.5})
    journal.append({"step": 2, "name": 'a "b", c\nd', "accuracy": math.nan})
    journal.append({"step": 3, "accuracy": torch.tensor(-1e-3, dtype=torch.float64)})
    with pytest.raises(ValueError, match="extra"):
        journal.append({"extra": 1})
    journal.close()
    assert path.read_text() == 'step,name,accuracy\n1,\'=cmd(),0.5\n2,"a ""b"", c d",\n3,,-0.001\n'
    Journal(path, rows).rewind(lambda row: row["step"] < 3)
    assert [row["accuracy"] for row in read_journal(path, rows)] == [0.5, None]
    Journal(path, rows).rewind(lambda row: False)
    assert path.read_text() == "step,name,accuracy\n"
    path.write_text("step,na")
    Journal(path, rows).close()
    assert path.read_text() == "step,name,accuracy\n"
    with pytest.raises(UserError, match="columns"):
        Journal(path, CsvRows(("step", "loss")))


def journal_work(path: Path) -> None:
    journal = Journal(path)
    for step in range(3, 6):
        journal.append({"step": step})
        journal.sync()
    journal.rewind(lambda record: record["step"] < 5)
    journal.append({"step": 55})
    journal.close()


@pytest.mark.parametrize("kind", ["kill", "torn", "enospc", "eio", "short"])
def test_whatever_fails_a_journal_is_a_prefix(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    start = b'{"step": 1}\n{"step": 2}\n{"st'
    path.write_bytes(start)
    total = operations(lambda: journal_work(path))
    for number in range(1, total + 1):
        path.write_bytes(start)
        if kind in DEATHS:
            assert dies(lambda: journal_work(path), kind, number)
        elif kind == "short":
            with armed(kind, number):
                journal_work(path)
        else:
            with armed(kind, number), pytest.raises(OSError):
                journal_work(path)
        steps = [record["step"] for record in read_journal(path)]
        longest = [1, 2, 3, 4, 5] if 5 in steps else [1, 2, 3, 4, 55]
        assert steps == longest[: len(steps)] and len(steps) >= 2
        journal = Journal(path)
        journal.append({"step": 99})
        journal.close()
        assert [record["step"] for record in read_journal(path)] == [*steps, 99]


def test_a_failed_append_leaves_the_journal_usable(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log.jsonl")
    journal.append({"step": 1})
    with armed("enospc", 1), pytest.raises(OSError, match="No space"):
        journal.append({"step": 2})
    journal.append({"step": 3})
    assert [record["step"] for record in read_journal(journal.path)] == [1, 3]
    with pytest.raises(ValueError, match="fit a line"):
        journal.append({"text": "x" * 2_000_000})
    journal.close()


def test_acknowledged_rows_survive_a_kill(tmp_path: Path) -> None:
    """A child appends and tells each row; killed at random instants, no told row is lost."""
    path = tmp_path / "log.jsonl"
    for attempt in range(20):
        first = len(list(read_journal(path)))
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            journal = Journal(path)
            for row in range(first, 10**9):
                journal.append({"row": row})
                os.write(write, b".")
        os.close(write)
        time.sleep(0.002 + attempt * 0.001)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        told = 0
        while piece := os.read(read, 1 << 16):
            told += len(piece)
        os.close(read)
        rows = [record["row"] for record in read_journal(path)]
        assert rows == list(range(len(rows))) and len(rows) >= first + told


# --- the lock --------------------------------------------------------------------------------------------------------


def test_the_second_holder_is_told_who_has_it(tmp_path: Path) -> None:
    with Lock(tmp_path), pytest.raises(UserError, match=rf"in use by process {os.getpid()} on .+ since \d{{4}}-"):
        Lock(tmp_path)
    lock = Lock(tmp_path)
    lock.release()
    lock.release()
    assert (tmp_path / ".lock").read_bytes() == b""


def test_a_lock_dies_with_its_holder_and_not_with_a_child(tmp_path: Path) -> None:
    def takes() -> bool:
        try:
            Lock(tmp_path).release()
        except UserError:
            return False
        return True

    with Lock(tmp_path):
        # A forked child (a data worker) neither frees the lock at its end, nor by releasing, nor holds it.
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        assert not takes()
        if (child := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
    assert takes()

    read, write = os.pipe()
    if (holder := os.fork()) == 0:
        lock = Lock(tmp_path)
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        os.write(write, b"1")
        time.sleep(60)
        lock.release()
    os.read(read, 1)
    assert not takes()
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    assert takes()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_race_has_one_winner(tmp_path: Path) -> None:
    for _ in range(20):
        read, write = os.pipe()
        go_read, go_write = os.pipe()
        children = []
        for _ in range(4):
            if (pid := os.fork()) == 0:
                os.read(go_read, 1)
                try:
                    Lock(tmp_path)
                    os.write(write, b"1")
                    time.sleep(0.05)
                except UserError:
                    pass
                os._exit(0)
            children.append(pid)
        os.write(go_write, b"gggg")
        for pid in children:
            os.waitpid(pid, 0)
        os.close(write)
        assert os.read(read, 9) == b"1"
        for fd in (read, go_read, go_write):
            os.close(fd)
