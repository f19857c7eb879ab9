"""Folders of pictures that nobody vouches for: one error that names the files, no memory taken, no hang, nothing half in the cache."""

import gzip
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from data.folder_of_pictures import fill, save
from hostile.child import Outcome, in_child
from torchstone.core.errors import UserError
from torchstone.data.sources import IDX, ImageFolder


def opening(part: ImageFolder | IDX) -> Outcome:
    """Opens it in a child with little memory and time; the message on stderr, exit code 2 for a UserError."""

    def work() -> int:
        try:
            facts = part.open().facts
        except UserError as error:
            os.write(2, f"error: {error}\n".encode())
            return 2
        os.write(1, repr(facts).encode())
        return 0

    return in_child(work)


def require_refused(root: Path, *names: str, **fields) -> str:
    outcome = opening(ImageFolder(path=str(root), cache_dir=str(root.parent / "cache"), **fields))
    assert outcome.code == 2, (outcome.code, outcome.stderr[-2000:])
    message = outcome.stderr.splitlines()[-1]
    assert message.startswith("error: ") and message.isprintable() and len(message) < 6000
    assert all(name in message for name in names), message
    assert outcome.grown < 100 << 20 and not outcome.children
    assert not [line for line in outcome.stderr.splitlines() if "Warning" in line]  # Pillow's own
    return message


def png(width: int, height: int, pixels: bytes, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures", {"a": 6, "b": 6})


def test_bombs_are_named_and_never_unpacked(root: Path) -> None:
    (root / "a" / "square.png").write_bytes(png(60_000, 60_000, bytes(1000)))
    (root / "a" / "wide.png").write_bytes(png(2**31 - 1, 1, bytes(1000)))
    (root / "b" / "huge.tiff").write_bytes(
        b"II*\0\x08\0\0\0\x02\0\0\x01\x04\0\x01\0\0\0\xff\xff\xff\x7f\x01\x01\x04\0\x01\0\0\0\xff\xff\xff\x7f" + bytes(50)
    )
    (root / "b" / "huge.bmp").write_bytes(b"BM" + struct.pack("<IIIIiiHHIIiiII", 100, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0))
    (root / "b" / "huge.ppm").write_bytes(b"P6 999999999 999999999 255\n" + bytes(100))
    require_refused(
        root, "a/square.png: has more than 80 million pixels", "a/wide.png: has more", "b/huge.tiff", "b/huge.bmp", "b/huge.ppm"
    )


def test_a_long_thin_picture_is_no_bomb(root: Path) -> None:
    (root / "a" / "long.png").write_bytes(png(65_535, 1, bytes(65_536)))
    (root / "a" / "tall.png").write_bytes(png(1, 65_535, bytes(2 * 65_535)))
    (root / "b" / "one.png").write_bytes(png(1, 1, bytes(2)))
    outcome = opening(ImageFolder(path=str(root), cache_dir=str(root.parent / "cache")))
    assert outcome.code == 0, outcome.stderr
    assert "12x12" in outcome.stderr.splitlines()[0]


def test_compressed_text_and_profiles_are_not_unpacked_at_will(root: Path) -> None:
    bomb = zlib.compress(bytes(200 << 20))
    chunk = b"zTXt" + b"Comment\0\0" + bomb
    extra = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (root / "a" / "text.png").write_bytes(png(8, 8, bytes(72), extra))
    require_refused(root, "a/text.png: not a whole picture")


def test_names_cannot_write_to_the_terminal(root: Path) -> None:
    (root / "a" / "\x1b[31mred\nerror: no.png").write_text("hello")
    require_refused(root, "a/red")
    fill(root / "\x1b]0;title\x07", {".": 1})
    require_refused(root, "too few pictures")


def test_folders_that_do_not_end(root: Path) -> None:
    for name in ("a", "b"):
        for number in range(12):  # each leads to both: as many paths as there are stars, if one followed them all
            (root / name / f"link{number}").symlink_to(root / ("a" if number % 2 else "b"))
    (root / "c").symlink_to(root / "c")
    depths = [f"{root}/b" + "/d" * depth for depth in range(1, 1500)]
    for folder in depths:
        os.mkdir(folder)
    try:
        outcome = opening(ImageFolder(path=str(root), cache_dir=str(root.parent / "cache")))
    finally:
        for folder in reversed(depths):  # too deep for what clears up after tests
            os.rmdir(folder)
    assert outcome.code == 0, outcome.stderr[-2000:]


def test_many_bad_files_are_one_line(root: Path) -> None:
    for number in range(3000):
        (root / "a" / f"{number:04}-{'x' * 200}.jpg").touch()
    require_refused(root, "3000 of 3012 files", "and 2990 more")


def test_a_cache_that_somebody_else_wrote(root: Path) -> None:
    """Whatever lies where the cache is kept: it is made again, or refused; never followed, never read half."""
    at = root.parent / "cache"
    part = ImageFolder(path=str(root), cache_dir=str(at), cache_side=8)
    right = opening(part).stdout
    folder = next((at / "pictures").glob("*/v*"))
    secret = save(root.parent / "secret" / "x.png", np.zeros((4, 4), dtype=np.uint8))
    for name in ("pixels.bin", "records.bin", "manifest.json"):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).symlink_to(secret)
        outcome = opening(part)
        assert outcome.code in (0, 2) and (outcome.code == 2 or outcome.stdout == right), outcome.stderr
        assert secret.read_bytes()[:4] == b"\x89PNG"
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(kept)
    for content in (b"", b"{}", b"[" * 100_000, b'{"pictures": 99999999999999, "sha256": "x"}', bytes(1000)):
        (folder / "manifest.json").write_bytes(content)
        outcome = opening(part)
        assert outcome.code == 0 and outcome.stdout == right, outcome.stderr


def test_idx_promises_take_no_memory(tmp_path: Path) -> None:
    """A header of 4 GiB in a gzip file of a few bytes, and a gzip bomb behind an honest header."""
    for name, content in (
        ("promise", struct.pack(">iiii", 0x803, 2**20, 64, 64)),
        ("bomb", struct.pack(">iiii", 0x803, 2, 2, 2) + bytes(300 << 20)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
            (folder / file).write_bytes(gzip.compress(content, 1))
        outcome = opening(IDX(path=str(folder)))
        assert outcome.code == 2 and "train-images-idx3-ubyte.gz: promises" in outcome.stderr
        assert outcome.grown < 100 << 20
