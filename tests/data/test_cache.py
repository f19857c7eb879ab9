"""The cache of decoded pictures: the bytes that decoding gives, made once, by one, whole or not at all, whatever kills or damages it."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from core.faults import armed, dies, operations
from data.folder_of_pictures import fill, picture, save
from torchstone.core import errors
from torchstone.core.errors import UserError
from torchstone.core.lock import Lock
from torchstone.data import cache, decode
from torchstone.data.cache import cache_root, folder_of, pictures_of
from torchstone.data.decode import read_fitted
from torchstone.data.pictures import Collection, Form, Pictures

FORM = Form(3, 8, "crop")


def collection(root: Path) -> Collection:
    paths = sorted(root.rglob("*.png"))

    def read(position: int, form: Form) -> torch.Tensor:
        READS.append(position)
        return read_fitted(paths[position], form.channels, form.side, form.side, form.fit)

    stamps = tuple(f"{path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths)
    return Collection(str(root), tuple(path.relative_to(root).as_posix() for path in paths), stamps, read)


READS: list[int] = []


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four pictures a chunk, so that 28 of them are several; and the warnings of other tests do not silence these."""
    monkeypatch.setattr(cache, "CHUNK_PICTURES", 4)
    errors._warned.clear()
    READS.clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures")


def made(root: Path, at: Path, form: Form = FORM) -> Pictures:
    return pictures_of(collection(root), form, cache=True, cache_dir=str(at))


def require_right(pictures: Pictures, root: Path, form: Form = FORM) -> None:
    """Every byte and every number as decoding them one by one gives."""
    paths = sorted(root.rglob("*.png"))
    expected = torch.stack([read_fitted(path, form.channels, form.side, form.side, form.fit) for path in paths])
    assert pictures.images is not None and torch.equal(pictures.images, expected)
    assert pictures.records["position"].tolist() == list(range(len(paths)))
    assert np.array_equal(pictures.records["sums"], expected.long().sum((2, 3)).numpy())
    assert np.array_equal(pictures.records["squares"], expected.long().square().sum((2, 3)).numpy())
    assert pictures.bad == ()


def test_it_is_made_once_and_said(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = made(root, tmp_path / "cache")
    require_right(first, root)
    assert len(READS) == 28
    folder = folder_of(collection(root), FORM, tmp_path / "cache")
    said = capsys.readouterr().err
    assert said == f"decoding 28 pictures to 8x8 color: 0.1 MiB in {folder}\n"
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "manifest.json", "pixels.bin", "records.bin"]
    assert (folder / "pixels.bin").stat().st_size == 28 * 3 * 8 * 8
    require_right(made(root, tmp_path / "cache"), root)
    assert len(READS) == 28 and capsys.readouterr().err == ""


def test_without_a_cache_only_what_is_known_stays(root: Path, tmp_path: Path) -> None:
    with_one = made(root, tmp_path / "cache")
    without = pictures_of(collection(root), FORM, cache=False, cache_dir=str(tmp_path / "none"))
    assert without.images is None and np.array_equal(without.records, with_one.records)
    assert not (tmp_path / "none").exists()


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHSTONE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_root("") == Path("/home/somebody/.cache/torchstone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root("") == Path("/xdg/torchstone")
    monkeypatch.setenv("TORCHSTONE_CACHE", "/mine")
    assert cache_root("") == Path("/mine")
    assert cache_root("/given") == Path("/given")


def test_another_listing_replaces_it_and_other_forms_stay(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = tmp_path / "cache"
    for side in (8, 6, 7, 9, 10):
        made(root, at, Form(3, side, "crop"))
    folder = folder_of(collection(root), FORM, at)
    names = {path.name.split("-")[2] for path in folder.parent.iterdir()}
    assert names == {"10", "9", "7", "6"}  # the newest three beside the last one
    old = folder_of(collection(root), Form(3, 9, "crop"), at)
    save(root / "ant" / "000.png", picture(77))
    require_right(made(root, at, Form(3, 9, "crop")), root, Form(3, 9, "crop"))
    assert not old.exists() and len(list(folder.parent.iterdir())) == 4
    monkeypatch.setattr(decode, "VERSION", 2)
    made(root, at)
    assert [path.name[:10] for path in folder.parent.iterdir()] == ["v2-crop-8-"]


def test_what_is_being_made_elsewhere_is_not_removed(root: Path, tmp_path: Path) -> None:
    at = tmp_path / "cache"
    made(root, at)
    old = folder_of(collection(root), FORM, at)
    save(root / "ant" / "000.png", picture(77))
    with Lock(old):
        made(root, at)
        assert (old / "pixels.bin").exists()


def test_what_was_removed_can_still_be_read_where_it_is_open(root: Path, tmp_path: Path) -> None:
    before = made(root, tmp_path / "cache")
    assert before.images is not None
    copy = before.images.clone()
    save(root / "ant" / "000.png", picture(77))
    made(root, tmp_path / "cache")
    assert torch.equal(before.images, copy)


@pytest.mark.parametrize("what", ["a byte of a picture", "the end of a file", "the records", "the manifest", "a file"])
def test_damage_is_seen_and_healed(root: Path, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    made(root, tmp_path / "cache")
    folder = folder_of(collection(root), FORM, tmp_path / "cache")
    pixels, records, manifest = folder / "pixels.bin", folder / "records.bin", folder / "manifest.json"
    if what == "a byte of a picture":
        content = bytearray(pixels.read_bytes())
        content[1000] ^= 1
        pixels.write_bytes(content)
    elif what == "the end of a file":
        os.truncate(pixels, 1000)
    elif what == "the records":
        records.write_bytes(records.read_bytes()[:-1] + b"\xff")
    elif what == "the manifest":
        document = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**document, "pictures": 27}))
    else:
        records.unlink()
    capsys.readouterr()
    require_right(made(root, tmp_path / "cache"), root)
    assert "warning: the cache of decoded pictures is damaged" in capsys.readouterr().err
    READS.clear()
    require_right(made(root, tmp_path / "cache"), root)
    assert not READS  # nothing was decoded again


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_operation_leaves_nothing_half(root: Path, tmp_path: Path, stride: int) -> None:
    """Whatever operation on the disk a kill (or a torn write) hits: the next one gives the right bytes, and mostly goes on from there."""
    total = operations(lambda: made(root, tmp_path / "whole"))
    assert total > 30
    kept = 0
    for number in range(1, total + 1, stride):
        at = tmp_path / f"cache-{number}"
        assert dies(lambda at=at: made(root, at), "torn", number), number
        READS.clear()
        pictures = made(root, at)
        kept += len(READS) < 28
        require_right(pictures, root)
    assert kept > total // stride // 3


def test_garbage_after_a_power_cut_is_decoded_again(root: Path, tmp_path: Path) -> None:
    """Notes of progress whose pictures never reached the disk: only what hashes as noted is kept."""
    at = tmp_path / "cache"
    assert dies(lambda: made(root, at), "kill", operations(lambda: made(root, tmp_path / "whole")) - 6)
    folder = folder_of(collection(root), FORM, at)
    assert not (folder / "manifest.json").exists()
    content = bytearray((folder / "pixels.bin").read_bytes())
    content[9 * FORM.nbytes] ^= 255  # in the third chunk
    (folder / "pixels.bin").write_bytes(content)
    READS.clear()
    pictures = made(root, at)
    assert READS[0] == 8
    require_right(pictures, root)


@pytest.mark.parametrize("kind", ["enospc", "eio"])
def test_a_disk_that_fails_means_memory(root: Path, tmp_path: Path, kind, capsys: pytest.CaptureFixture[str]) -> None:
    total = operations(lambda: made(root, tmp_path / "whole"))
    for number in range(1, total, 9):
        errors._warned.clear()
        with armed(kind, number):
            pictures = made(root, tmp_path / f"cache-{number}")
        require_right(pictures, root)
        require_right(made(root, tmp_path / f"cache-{number}"), root)
    assert "no cache can be kept there" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_means_memory(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    require_right(made(root, tmp_path / "file"), root)
    assert "file: no cache can be kept there (Not a directory); the decoded pictures (0.1 MiB) stay in memory" in capsys.readouterr().err


def test_too_much_for_disk_and_memory_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.files, "free_bytes", lambda path: 1000)
    monkeypatch.setattr(cache, "_memory", lambda: 2000)
    with pytest.raises(UserError, match=r"the disk has no room for them.*set data.cache=false"):
        made(root, tmp_path / "cache")


def test_of_two_at_once_one_decodes(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second waits for the lock, and finds the work done."""
    folder = folder_of(collection(root), FORM, tmp_path / "cache")
    folder.mkdir(parents=True)
    found: list[Pictures] = []
    with Lock(folder):
        thread = threading.Thread(target=lambda: found.append(made(root, tmp_path / "cache")))
        thread.start()
        time.sleep(0.3)
        assert not found and not READS
        cache._make(folder, collection(root), FORM)
        assert len(READS) == 28
    thread.join(120)
    assert len(READS) == 28
    require_right(found[0], root)
    assert "waiting for the pictures: " in capsys.readouterr().err


SCRIPT = """
import sys
from torchstone.data.sources import ImageFolder
splits = ImageFolder(path=sys.argv[1], cache_dir=sys.argv[2], cache_side=8).open()
print(splits.facts.fingerprint)
"""


@pytest.mark.slow
def test_processes_at_once_and_killed_ones(tmp_path: Path) -> None:
    """Four processes on one empty cache, one of them killed on the way: all others end with the same bytes."""
    root = fill(tmp_path / "pictures", {"a": 60, "b": 60}, height=120, width=120)
    words = [sys.executable, "-c", SCRIPT, str(root), str(tmp_path / "cache")]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    deadline = time.monotonic() + 240
    while not list((tmp_path / "cache").rglob("progress.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.005)
        if all(process.poll() is not None for process in running):
            break
    running[0].kill()
    ends = [process.communicate() for process in running]
    codes = [process.returncode for process in running]
    assert codes[1:] == [0, 0, 0], ends
    assert len({out for (out, _), code in zip(ends, codes, strict=True) if code == 0}) == 1
    assert sum("decoding" in err for _, err in ends) <= 2
