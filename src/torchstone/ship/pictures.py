"""Samples that are picture files: decoded by Pillow, a few formats only, and never more pixels than a sane picture has.

Shapes: N pictures, C channels, H x W pixels.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image, ImageOps
from torch import Tensor

from torchstone.core.errors import UserError, warn
from torchstone.core.protocols import ImageShape
from torchstone.data import Resize

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What is decoded; Pillow's other readers (some start programs) are never tried."""
MOST_PIXELS = 80_000_000
"""A larger picture is refused by its header, before anything is decoded."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name of an 8-bit picture with that many channels."""
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class PictureSplit:
    """Picture files as a split: decoded batch by batch when they are fetched. The target is 0, which prediction ignores."""

    paths: tuple[Path, ...]
    shape: ImageShape
    any_size: bool = False
    """The pictures keep their size: a transform resizes them."""

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, indices: np.ndarray) -> tuple[Float[Tensor, "N C H W"], Int64[Tensor, " N"]]:
        """Pictures in [0, 1]. With `any_size`, those fetched together must be of one size. Raises UserError naming the file."""
        pictures = [read_picture(self.paths[i], self.shape.channels) for i in indices.tolist()]
        if not self.any_size:
            to_size = Resize(height=self.shape.height, width=self.shape.width)
            pictures = [to_size((picture, None), 0)[0] for picture in pictures]
        return torch.stack(pictures), torch.zeros(len(indices), dtype=torch.int64)


def open_pictures(paths: Sequence[Path], shape: ImageShape, *, any_size: bool = False) -> PictureSplit:
    """Looks at every header, and says once if some have to be resized.

    Raises UserError naming the first file that is missing, no picture, too large, or of channels this model has no use for.
    """
    if shape.channels not in MODES:
        raise UserError(
            f"{paths[0]}: the model reads {shape.channels} channels, a picture has 1, 3 or 4; hand the samples over as .npy or .npz"
        )
    others = []
    for path in paths:
        width, height = picture_size(path)
        if (height, width) != (shape.height, shape.width):
            others.append(f"{path.name} is {width}x{height}")
    if others and not any_size:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        warn(f"the model reads pictures of {shape.width}x{shape.height}: {others[0]}{more}, resized to that")
    return PictureSplit(tuple(paths), shape, any_size)


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) as seen, read from the header."""
    with opened(path) as image:
        # The base class: PNG's own way to ask decodes the picture.
        turned = Image.Image.getexif(image).get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else (image.width, image.height)


def read_picture(path: Path, channels: int) -> Float[Tensor, "C H W"]:
    """A picture in [0, 1], upright as its EXIF orientation says, made to gray (1), RGB (3) or RGBA (4). An animation: its first frame."""
    with opened(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow's own conversion to 8 bits would clip
            levels = torch.from_numpy(np.asarray(image).astype(np.float32)).div_(65535).clamp_(0, 1)
            return levels.expand(channels, -1, -1).clone()
        if image.mode == "F":
            raise UserError(f"{path}: holds floating-point pixels; hand such samples over as .npy or .npz")
        pixels = np.array(image.convert(MODES[channels]))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1).to(torch.float32).div_(255).contiguous()


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An open picture whose header has been checked. Whatever decoding raises becomes a UserError that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
                yield image
    except (UserError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{path}: has more than {MOST_PIXELS // 10**6} million pixels; make it smaller first") from None
    except Image.UnidentifiedImageError:
        raise UserError(f"{path}: not a picture ({', '.join(FORMATS)} are read)") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name the files in it") from None
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged file may make a decoder raise nearly anything
        raise UserError(f"{path}: not a whole picture ({(str(error).splitlines() or [type(error).__name__])[0]})") from None
