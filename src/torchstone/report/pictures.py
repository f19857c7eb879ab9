"""The pictures of a run, decoded and encoded anew: what the page embeds are pixels and nothing else, small ones, and not too many."""

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from torchstone.core.errors import UserError
from torchstone.core.files import read_bytes
from torchstone.core.json_text import from_json
from torchstone.report.reading import rows, share, table, words

FOLDER, INDEX = "pictures", "pictures/index.json"
LARGEST_FILE = 1 << 23
MOST_PIXELS = 16_000_000
"""Refused by the header, before anything is decoded."""
MOST_SIDE = 224
"""Pixels of the longer side of an embedded picture."""
SHARP_SIDE = 96
"""Up to here the pixels are shown as they are: kept exactly, drawn as squares."""
BUDGET = 3_000_000
"""Characters of all embedded pictures."""
MOST = {"mistakes": 24, "augmented": 16, "originals": 16}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture on the page with what is said of it."""

    source: str
    """data: URI."""
    width: int
    height: int
    sharp: bool
    label: str = ""
    truth: str = ""
    probability: float | None = None
    truth_probability: float | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Pictures:
    mistakes: tuple[Picture, ...] = ()
    pairs: tuple[tuple[Picture, Picture], ...] = ()
    """(original, augmented)."""
    augmented: tuple[Picture, ...] = ()
    """Augmented ones whose originals are not there."""
    problem: str = ""


def read_pictures(run: Path) -> Pictures:
    """What is in the run's pictures folder; a line of what could not be read."""
    folder, index = run / FOLDER, run / INDEX
    try:
        if folder.is_symlink():
            raise UserError(f"{FOLDER} is a link")
        document = table(from_json(read_bytes(index, 1 << 22), INDEX))
    except FileNotFoundError:
        return Pictures()
    except (OSError, UserError) as error:
        return Pictures(problem=words(f"the pictures cannot be read: {error}", 200))
    shelf = Shelf(folder)
    # Pairs first take what they need of the budget's half: mistakes are what a reader looks for.
    mistakes = shelf.take(document.get("mistakes"), MOST["mistakes"])
    augmented = shelf.take(document.get("augmented"), MOST["augmented"])
    originals = shelf.take(document.get("originals"), MOST["originals"])
    paired = [(original, after) for original, after in zip(originals, augmented, strict=False) if original and after]
    alone = [] if paired else [picture for picture in augmented if picture]
    return Pictures(tuple(picture for picture in mistakes if picture), tuple(paired), tuple(alone), shelf.problem)


class Shelf:
    """Takes pictures from a folder until the budget is spent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._left = BUDGET
        self.problem = ""

    def take(self, entries: Any, most: int) -> list[Picture | None]:
        """One for each entry, None where it could not be read."""
        return [self._picture(table(entry)) for entry in rows(entries)[:most]]

    def _picture(self, entry: dict[str, Any]) -> Picture | None:
        name = entry.get("file")
        # A plain name of this folder; anything else is not asked for.
        if not isinstance(name, str) or Path(name).name != name or name.startswith(".") or "\0" in name:
            self.problem = self.problem or "a picture's file is no plain name"
            return None
        try:
            source, width, height = embedded(read_bytes(self._folder / name, LARGEST_FILE))
        except (OSError, UserError) as error:
            self.problem = self.problem or words(f"{FOLDER}/{name}: {error}".replace(f"{self._folder}/", ""), 200)
            return None
        if len(source) > self._left:
            self.problem = self.problem or "some pictures were left out, for the page's size"
            return None
        self._left -= len(source)
        return Picture(
            source=source,
            width=width,
            height=height,
            sharp=max(width, height) <= SHARP_SIDE,
            label=words(entry.get("label"), 80),
            truth=words(entry.get("truth"), 80),
            probability=share(entry.get("probability")),
            truth_probability=share(entry.get("truth_probability")),
            name=words(entry.get("name"), 160),
        )


def embedded(content: bytes) -> tuple[str, int, int]:
    """(data: URI, width, height) of a PNG, made smaller if it is large.

    Raises UserError for what is no picture, or one of too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            image = Image.open(io.BytesIO(content), formats=("PNG",))
        if image.width * image.height > MOST_PIXELS:
            raise UserError(f"{image.width} x {image.height} pixels are too many for a report")
        small = image.convert("L" if image.mode in ("1", "L") else "RGB")
    except UserError:
        raise
    except Exception as error:  # a damaged file may make a decoder raise nearly anything
        raise UserError(f"not a whole PNG ({type(error).__name__})") from None
    small.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    exact = max(small.size) <= SHARP_SIDE
    small.save(out, "PNG", optimize=True) if exact else small.save(out, "JPEG", quality=84, optimize=True)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}", small.width, small.height
