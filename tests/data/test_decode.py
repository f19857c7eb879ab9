"""Picture files: decoded as they are seen, in a few formats only, never huge, never half; at another size, as torch's own resampling."""

import io
import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from torchstone.core.errors import UserError
from torchstone.data.decode import BORDER, EXIF_ORIENTATION, MOST_PIXELS, fitted, picture_size, read_fitted, read_header, read_picture

RNG = np.random.default_rng(0)


@pytest.fixture
def levels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)


def saved(folder: Path, image: Image.Image, name: str = "a.png", **options) -> Path:
    image.save(folder / name, **options)
    return folder / name


def bomb(side: int) -> bytes:
    """A PNG whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


# --- what comes out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tiff", "webp", "pgm"])
def test_lossless_formats_come_back_exactly(levels: np.ndarray, tmp_path: Path, ending: str) -> None:
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    path = saved(tmp_path, Image.fromarray(levels), f"a.{ending}", **options)
    assert torch.equal(read_picture(path, 1)[0], torch.from_numpy(levels))
    assert torch.equal(read_picture(path, 3), torch.from_numpy(levels).expand(3, -1, -1))


def test_jpeg_is_what_pillow_says(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)), "a.jpg")
    assert torch.equal(read_picture(path, 3).permute(1, 2, 0), torch.from_numpy(np.array(Image.open(path))))


def test_bytes_are_read_as_the_file_is(levels: np.ndarray, tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(levels))
    content = path.read_bytes()
    for source in (content, bytearray(content), memoryview(content)):
        assert torch.equal(read_picture(source, 3, name="member 3"), read_picture(path, 3))
    with pytest.raises(UserError, match=r"^member 3: not a whole picture"):
        read_picture(content[:60], 3, name="member 3")


def test_color_to_gray_is_rec_601(tmp_path: Path) -> None:
    color = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(color))
    assert torch.equal(read_picture(path, 3).permute(1, 2, 0), torch.from_numpy(color))
    expected = color.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(read_picture(path, 1)[0].numpy() - expected).max() <= 0.51
    assert read_picture(path, 4)[3].eq(255).all()


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    rgba = RNG.integers(0, 256, (9, 7, 4), dtype=np.uint8)
    rgba[0, 0, 3], rgba[0, 1, 3] = 0, 255
    path = saved(tmp_path, Image.fromarray(rgba))
    alpha = rgba[..., 3:].astype(float) / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    found = read_picture(path, 3).permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 0.51
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 1].tolist() == rgba[0, 1, :3].tolist()
    assert torch.equal(read_picture(path, 4).permute(1, 2, 0), torch.from_numpy(rgba))
    gray = saved(tmp_path, Image.fromarray(rgba[..., [0, 3]], mode="LA"), "la.png")
    assert np.abs(read_picture(gray, 1)[0].numpy() - expected[..., 0]).max() <= 1


def test_palettes_with_and_without_a_transparent_color(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), mode="P")
    image.putpalette([255, 0, 0, 0, 200, 0, 0, 0, 100])
    plain = saved(tmp_path, image, "plain.png")
    assert read_picture(plain, 3)[:, 1, 0].tolist() == [0, 0, 100]
    clear = saved(tmp_path, image, "clear.png", transparency=1)
    assert read_picture(clear, 3)[:, 0, 1].tolist() == [255, 255, 255]
    assert read_picture(clear, 3)[:, 0, 0].tolist() == [255, 0, 0]
    gif = saved(tmp_path, image, "clear.gif", transparency=1)
    assert read_picture(gif, 3)[:, 0, 1].tolist() == [255, 255, 255]


def test_one_bit_cmyk_and_sixteen_bits(tmp_path: Path) -> None:
    bits = RNG.integers(0, 2, (8, 8)).astype(bool)
    assert torch.equal(read_picture(saved(tmp_path, Image.fromarray(bits), "bits.png"), 1)[0], torch.from_numpy(bits * np.uint8(255)))
    cmyk = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "cmyk.jpg", quality=100)
    assert (read_picture(cmyk, 3)[:, 4, 4] - torch.tensor([255, 0, 0])).abs().max() <= 2
    deep = np.array([[0, 128, 129, 257], [32768, 65279, 65407, 65535]], dtype=np.uint16)
    for name in ("deep.png", "deep.tiff", "deep.pgm"):
        found = read_picture(saved(tmp_path, Image.fromarray(deep), name), 3)
        assert torch.equal(found[1], torch.from_numpy(np.round(deep / 257).astype(np.uint8))), name


def test_of_an_animation_the_first_frame(levels: np.ndarray, tmp_path: Path) -> None:
    others = [Image.fromarray(255 - levels)]
    for name in ("a.gif", "a.webp", "a.tiff", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        path = saved(tmp_path, Image.fromarray(levels), name, save_all=True, append_images=others, **options)
        assert torch.equal(read_picture(path, 1)[0], torch.from_numpy(levels)), name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff"])
def test_pictures_are_upright(tmp_path: Path, orientation: int, name: str) -> None:
    picture = Image.fromarray(np.kron(RNG.integers(0, 256, (4, 2, 3), dtype=np.uint8), np.ones((8, 8, 1), dtype=np.uint8)))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = saved(tmp_path, picture, name, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    assert picture_size(path) == upright.size == ((16, 32) if orientation < 5 else (32, 16))
    assert torch.equal(read_picture(path, 3).permute(1, 2, 0), torch.from_numpy(np.array(upright)))


def test_broken_exif_costs_no_picture(levels: np.ndarray, tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(levels), "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20))
    assert read_picture(path, 1).shape == (1, 8, 8)
    assert picture_size(path) == (8, 8)


def test_gray_is_known_by_the_header(levels: np.ndarray, tmp_path: Path) -> None:
    gray = Image.fromarray(levels)
    deep = Image.fromarray(levels.astype(np.uint16) * 257)
    for name, image, expected in (
        ("g.png", gray, True),
        ("g.jpg", gray, True),
        ("d.png", deep, True),
        ("c.png", gray.convert("RGB"), False),
    ):
        assert read_header(saved(tmp_path, image, name)).gray == expected, name


# --- at another size ---------------------------------------------------------------------------------------------------


def resampled(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(picture[None].double(), (height, width), mode="bilinear", antialias=True)[0]


def smooth(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(RNG.integers(0, 256, (channels, height, width), dtype=np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("height,width", [(61, 40), (40, 61), (17, 16), (200, 33), (5, 3)])
def test_stretch_is_the_antialiased_bilinear_of_torch(channels: int, height: int, width: int) -> None:
    picture = smooth(channels, height, width)
    found = fitted(picture, 16, 24, "stretch")
    assert (found.double() - resampled(picture, 16, 24)).abs().max() <= 1.6  # Pillow rounds to bytes between its two passes


def test_clear_pixels_do_not_bleed_when_alpha_is_kept() -> None:
    picture = smooth(4, 40, 30)
    opaque = picture.clone()
    opaque[3] = 255
    assert torch.equal(fitted(opaque, 16, 24, "stretch")[:3], fitted(picture[:3].clone(), 16, 24, "stretch"))
    picture[:, :, 15:], picture[3, :, :15] = 0, 255
    picture[0, :, :15] = 200
    found = fitted(picture, 40, 15, "stretch")
    assert (found[0].int()[found[3] > 20] - 200).abs().max() <= 4  # beside black that cannot be seen, red stays as red as it was


@pytest.mark.parametrize(
    "height,width,box", [(60, 40, (10, 50, 0, 40)), (40, 61, (0, 40, 10, 50)), (30, 30, (0, 30, 0, 30)), (1, 999, (0, 1, 499, 500))]
)
def test_crop_takes_the_central_square(height: int, width: int, box: tuple[int, int, int, int]) -> None:
    picture = smooth(3, height, width)
    top, bottom, left, right = box
    middle = picture[:, top:bottom, left:right]
    assert torch.equal(fitted(picture, 16, 16, "crop"), fitted(middle, 16, 16, "stretch"))


def test_crop_at_the_same_scale_blurs_nothing() -> None:
    picture = smooth(3, 33, 32)
    assert torch.equal(fitted(picture, 32, 32, "crop"), picture[:, :32])
    for fit in ("crop", "stretch", "pad"):
        assert torch.equal(fitted(picture, 33, 32, fit), picture)


def test_pad_keeps_everything_between_gray_borders() -> None:
    picture = smooth(3, 40, 20)
    found = fitted(picture, 32, 32, "pad")
    assert torch.equal(found[:, :, 8:24], fitted(picture, 32, 16, "stretch"))
    assert found[:, :, :8].eq(BORDER).all() and found[:, :, 24:].eq(BORDER).all()
    assert fitted(smooth(1, 1, 5000), 32, 32, "pad").shape == (1, 32, 32)


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_reading_at_a_size_is_reading_and_fitting(tmp_path: Path, fit) -> None:
    path = saved(tmp_path, Image.fromarray(RNG.integers(0, 256, (50, 31, 3), dtype=np.uint8)))
    for channels in (1, 3, 4):
        assert torch.equal(read_fitted(path, channels, 24, 24, fit), fitted(read_picture(path, channels), 24, 24, fit))


@pytest.mark.parametrize("size", [(1, 1), (65535, 1), (1, 65535)])
def test_long_or_tiny_pictures_are_fine(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(tmp_path, Image.new("L", size, 77))
    assert picture_size(path) == size
    for fit in ("crop", "stretch"):
        assert read_fitted(path, 1, 8, 8, fit).eq(77).all()
    assert read_fitted(path, 1, 8, 8, "pad").eq(77).any()


# --- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [8_900, 9_400, 12_000, 60_000])
@pytest.mark.filterwarnings("error")
def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side))
    if side * side > MOST_PIXELS:
        for read in (picture_size, lambda path: read_picture(path, 1)):
            with pytest.raises(UserError, match=r"bomb.png: has more than 80 million pixels"):
                read(path)
    else:
        assert picture_size(path) == (side, side)


def test_what_is_no_picture_is_refused(levels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "evil.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    for name in ("text.png", "empty.png", "evil.eps"):
        with pytest.raises(UserError, match=f"{name}: not a picture"):
            read_picture(tmp_path / name, 1)
    whole = saved(tmp_path, Image.fromarray(levels), "whole.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2 + 8])
    jpeg = saved(tmp_path, Image.fromarray(np.kron(levels, np.ones((9, 9), dtype=np.uint8))), "whole.jpg").read_bytes()
    (tmp_path / "torn.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    for name in ("torn.png", "torn.jpg"):
        with pytest.raises(UserError, match=f"{name}: not a whole picture"):
            read_picture(tmp_path / name, 1)
    with pytest.raises(UserError, match="no such file"):
        read_picture(tmp_path / "none.png", 1)
    with pytest.raises(UserError, match="is a folder"):
        read_picture(tmp_path, 1)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="no regular file"):
        read_picture(tmp_path / "pipe.png", 1)


def test_floats_and_wide_integers_are_refused(tmp_path: Path) -> None:
    real = saved(tmp_path, Image.fromarray(np.ones((4, 4), dtype=np.float32)), "real.tiff")
    with pytest.raises(UserError, match="real.tiff: holds floating-point pixels"):
        read_picture(real, 1)
    wide = saved(tmp_path, Image.fromarray(np.full((4, 4), 70_000, dtype=np.int32)), "wide.tiff")
    with pytest.raises(UserError, match="wide.tiff: holds 32-bit pixels"):
        read_picture(wide, 1)


def test_damage_anywhere_is_a_clear_error_or_a_picture(tmp_path: Path) -> None:
    """Bytes changed at random: a UserError that names it, or pixels; never another exception, never a hang."""
    image = Image.fromarray(RNG.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        buffer = io.BytesIO()
        image.save(buffer, form)
        whole = buffer.getvalue()
        for _ in range(60):
            damaged = bytearray(whole)
            for place in RNG.integers(0, min(len(whole), 200), 3):
                damaged[place] = RNG.integers(0, 256)
            try:
                assert read_fitted(bytes(damaged), 3, 8, 8, "crop", name="it").shape == (3, 8, 8)
            except UserError as error:
                assert str(error).startswith("it: ") and "\n" not in str(error)


def test_reading_in_many_threads_leaves_the_warnings_alone(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    import warnings

    path = saved(tmp_path, Image.fromarray(RNG.integers(0, 256, (9, 9), dtype=np.uint8)))
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [read_picture(path, 3) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
