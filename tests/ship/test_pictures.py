"""Picture files: decoded as they are seen, in a few formats only, never huge, never half."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torchstone.core import errors
from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape
from torchstone.ship.pictures import EXIF_ORIENTATION, MOST_PIXELS, open_pictures, picture_size, read_picture

GRAY = ImageShape(1, 8, 8)


@pytest.fixture
def levels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)


def scaled(levels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(levels).to(torch.float32).div_(255)


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tiff", "webp", "pgm"])
def test_lossless_formats_come_back_exactly(levels: np.ndarray, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    Image.fromarray(levels).save(path, **options)
    assert torch.equal(read_picture(path, 1)[0], scaled(levels))
    assert torch.equal(read_picture(path, 3), scaled(levels).expand(3, -1, -1))


def test_channels_are_converted(tmp_path: Path) -> None:
    color = np.zeros((8, 8, 3), dtype=np.uint8)
    color[..., 0] = 200
    Image.fromarray(color).save(tmp_path / "red.png")
    assert torch.equal(read_picture(tmp_path / "red.png", 3), scaled(color).permute(2, 0, 1))
    assert read_picture(tmp_path / "red.png", 1).shape == (1, 8, 8)
    assert read_picture(tmp_path / "red.png", 4)[3].eq(1).all()
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert torch.allclose(read_picture(tmp_path / "deep.png", 1)[0], torch.from_numpy(deep.astype(np.float32)) / 65535)


def test_pictures_are_upright(levels: np.ndarray, tmp_path: Path) -> None:
    levels = levels[:, :4].copy()
    picture = Image.fromarray(levels)
    exif = picture.getexif()
    exif[EXIF_ORIENTATION] = 6  # turned: a viewer shows it rotated by 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    assert picture_size(tmp_path / "turned.png") == (8, 4)
    assert torch.equal(read_picture(tmp_path / "turned.png", 1)[0], scaled(np.rot90(levels, -1).copy()))


def test_other_sizes_are_resized_and_said_once(levels: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    errors._warned.clear()
    paths = [tmp_path / f"{side}.png" for side in (8, 16, 24)]
    for side, path in zip((8, 16, 24), paths, strict=True):
        Image.fromarray(np.full((side, side), 51, dtype=np.uint8)).save(path)
    split = open_pictures(paths, GRAY)
    inputs, _ = split.fetch(np.arange(3))
    assert inputs.shape == (3, 1, 8, 8)
    assert torch.allclose(inputs, torch.tensor(0.2))
    assert capsys.readouterr().err == "warning: the model reads pictures of 8x8: 16.png is 16x16 and 1 more, resized to that\n"


def bomb(path: Path, side: int) -> None:
    """A PNG whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("side", [8_900, 9_400, 12_000, 60_000])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    bomb(tmp_path / "bomb.png", side)
    if side * side > MOST_PIXELS:
        with pytest.raises(UserError, match="million pixels"):
            open_pictures([tmp_path / "bomb.png"], GRAY)
    else:
        assert picture_size(tmp_path / "bomb.png") == (side, side)


def test_what_is_no_picture_is_refused(levels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "evil.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    for name in ("text.png", "empty.png", "evil.eps"):
        with pytest.raises(UserError, match=f"{name}: not a picture"):
            open_pictures([tmp_path / name], GRAY)
    Image.fromarray(levels).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(content[: len(content) // 2 + 8])
    with pytest.raises(UserError, match=r"torn.png: not a whole picture"):
        read_picture(tmp_path / "torn.png", 1)
    with pytest.raises(UserError, match="no such file"):
        read_picture(tmp_path / "none.png", 1)
    with pytest.raises(UserError, match="is a folder"):
        read_picture(tmp_path, 1)
    with pytest.raises(UserError, match="2 channels"):
        open_pictures([tmp_path / "whole.png"], ImageShape(2, 8, 8))
