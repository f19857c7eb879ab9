"""From the bytes of a picture file to pixels: by Pillow, a few formats only, and never more pixels than a sane picture has.

Everything that reads pictures (training, prediction, evaluation) reads them here, so that a model meets the same bytes everywhere.
A picture is decoded as a viewer shows it: upright (EXIF), alpha and transparent colors over white, CMYK and palettes as RGB, 16 bits
a channel rounded to 8, one bit as black and white, an animation by its first frame. Color profiles are not applied.
Shapes: C channels (1 gray, 3 RGB, 4 RGBA: alpha kept), H x W pixels, h x w pixels asked for.
"""

import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from torchstone.core.errors import UserError, clean

Bytes = bytes | bytearray | memoryview
Fit = Literal["crop", "stretch", "pad"]
"""How a picture gets another shape: "crop" cuts the middle out, "stretch" changes the aspect, "pad" keeps all and adds gray borders."""

VERSION = 1
"""Raised whenever the same file would give other pixels: caches made before are then not used."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What is decoded; Pillow's other readers (some start programs) are never tried."""
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"))
"""Endings (lower case) by which a file in a folder counts as a picture; one that is named outright may be called anything."""
MOST_PIXELS = 80_000_000
"""A larger picture is refused by its header, before anything is decoded. Length alone is no sin: 65,535 x 1 is read."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name of an 8-bit picture with that many channels."""
EXIF_ORIENTATION = 0x0112
BORDER = 128
"""What "pad" adds: after normalization near zero."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the picture upright; 1 and what is not in the standard: nothing."""


def read_picture(source: Path | Bytes, channels: int, *, name: str = "") -> UInt8[Tensor, "C H W"]:
    """The picture in a file, or in the bytes of one (then `name` is for messages). Raises UserError naming it."""
    return _tensor(_decoded(source, channels, name))


def fitted(picture: UInt8[Tensor, "C H W"], side_h: int, side_w: int, fit: Fit) -> UInt8[Tensor, "C h w"]:
    """The picture at another size, antialiased (bilinear; Pillow's). Of the right size already: the same pixels."""
    pixels = picture.permute(1, 2, 0).contiguous().numpy()
    return _tensor(_fitted(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), side_h, side_w, fit))


def read_fitted(source: Path | Bytes, channels: int, side_h: int, side_w: int, fit: Fit, *, name: str = "") -> UInt8[Tensor, "C h w"]:
    """`fitted(read_picture(...))`, without a full-sized tensor in between."""
    return _tensor(_fitted(_decoded(source, channels, name), side_h, side_w, fit))


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture file says of itself before anything is decoded."""

    width: int
    """Pixels, as seen: after the turn that EXIF asks for."""
    height: int
    gray: bool
    """It stores gray levels: 1, 8 or 16 bits, with alpha or without. A palette of colors counts as color."""


def read_header(source: Path | Bytes, *, name: str = "") -> Header:
    """Raises UserError naming the file for what is no picture, or too large."""
    with opened(source, name) as image:
        gray = image.mode in ("1", "L", "LA", "La", "I") or image.mode.startswith("I;16")
        # Pillow gives the size of a TIFF as seen already.
        turned = _orientation(image) >= 5 and image.format != "TIFF"
        width, height = (image.height, image.width) if turned else image.size
        return Header(width, height, gray)


def picture_size(source: Path | Bytes, *, name: str = "") -> tuple[int, int]:
    """(width, height) as seen, read from the header. Raises UserError naming the file."""
    header = read_header(source, name=name)
    return header.width, header.height


@contextmanager
def opened(source: Path | Bytes, name: str = "") -> Iterator[Image.Image]:
    """An open picture whose header has been checked. Whatever decoding raises becomes a UserError that names the file."""
    where = _name(source, name)
    try:
        if isinstance(source, Path) and not stat.S_ISREG(mode := os.stat(source).st_mode):
            kind = "a folder; name the files in it" if stat.S_ISDIR(mode) else "no regular file"
            raise UserError(f"{where}: is {kind}")
        with _quiet, Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except (UserError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{where}: has more than {MOST_PIXELS // 10**6} million pixels; make it smaller first") from None
    except Image.UnidentifiedImageError:
        raise UserError(f"{where}: not a picture ({', '.join(FORMATS)} are read)") from None
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except PermissionError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged file may make a decoder raise nearly anything
        lines = clean(str(error)).splitlines() or [type(error).__name__]
        raise UserError(f"{where}: not a whole picture ({lines[0][:200]})") from None


def _name(source: Path | Bytes, name: str) -> str:
    return name or (str(source) if isinstance(source, Path) else "the picture")


class _Quiet:
    """No warnings of Pillow's about odd files while any thread reads one: the filters belong to the whole process, so the first
    thread in changes them and the last one out puts them back. A picture of too many pixels is an error, not a warning."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


_quiet = _Quiet()


def _fresh() -> None:
    """In a forked child: a thread of the parent that was inside will never come out."""
    global _quiet
    _quiet = _Quiet()


os.register_at_fork(after_in_child=_fresh)


def _decoded(source: Path | Bytes, channels: int, name: str) -> Image.Image:
    with opened(source, name) as image:
        image.load()
        turn = _TURNS.get(_orientation(image))
        image = _eight_bits(image, _name(source, name))
        if image.has_transparency_data and channels != 4:
            image = _over_white(image.convert("RGBA"))
        image = image.convert(MODES[channels])
        return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """1 to 8. Broken EXIF is no reason to lose a picture: it is upright."""
    with suppress(Exception):
        # The base class: PNG's own way to ask decodes the picture.
        turn = Image.Image.getexif(image).get(EXIF_ORIENTATION, 1)
        return turn if turn in _TURNS else 1
    return 1


def _eight_bits(image: Image.Image, where: str) -> Image.Image:
    """Gray of 16 bits as 8: v / 257, rounded. Pillow's own conversion would clip at 255."""
    if image.mode == "F":
        raise UserError(f"{where}: holds floating-point pixels; hand such samples over as .npy or .npz")
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise UserError(f"{where}: holds 32-bit pixels beyond 0 to 65535; hand such samples over as .npy or .npz")
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    return page


def _fitted(image: Image.Image, height: int, width: int, fit: Fit) -> Image.Image:
    if fit == "pad":
        return _padded(image, height, width)
    if fit == "crop":
        image = image.crop(_middle(image, height, width))
    return _resized(image, height, width)


def _resized(image: Image.Image, height: int, width: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def _middle(image: Image.Image, height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest central box with the aspect asked for, in whole pixels: nothing blurs by half of one."""
    shrink = min(image.width / width, image.height / height)
    box_w, box_h = max(1, min(image.width, round(width * shrink))), max(1, min(image.height, round(height * shrink)))
    left, top = (image.width - box_w) // 2, (image.height - box_h) // 2
    return left, top, left + box_w, top + box_h


def _padded(image: Image.Image, height: int, width: int) -> Image.Image:
    shrink = max(image.width / width, image.height / height)
    inner = max(1, min(width, round(image.width / shrink))), max(1, min(height, round(image.height / shrink)))
    page = Image.new(image.mode, (width, height), (BORDER,) * len(image.getbands()))
    page.paste(_resized(image, inner[1], inner[0]), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return page


def _tensor(image: Image.Image) -> UInt8[Tensor, "C H W"]:
    pixels = np.array(image)
    return torch.from_numpy(pixels.reshape(image.height, image.width, -1)).permute(2, 0, 1).contiguous()
