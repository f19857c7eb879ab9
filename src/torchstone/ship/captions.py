"""Pictures with their answer written below, one PNG each.

Shapes: H x W pixels.
"""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from torchstone.core.errors import clean

FONT_SIZE = 14
MARGIN = 4
LONGEST_NAME = 80
"""Bytes of the label and of the input in a file's name, which may have 255 in all."""
LONGEST_CAPTION = 80


def captioned(picture: UInt8[np.ndarray, "H W 3"], caption: str) -> bytes:
    """A PNG: the picture, and below it the caption in black on white. The page is widened for a long caption."""
    image = Image.fromarray(picture)
    font = ImageFont.load_default(FONT_SIZE)
    words = " ".join(clean(caption).split())[:LONGEST_CAPTION]
    left, _, right, bottom = font.getbbox(words)
    page = Image.new("RGB", (max(image.width, round(right - left) + 2 * MARGIN), image.height + round(bottom) + 2 * MARGIN), "white")
    page.paste(image, ((page.width - image.width) // 2, 0))
    ImageDraw.Draw(page).text(((page.width - (right - left)) / 2, image.height + MARGIN), words, font=font, fill="black")
    buffer = io.BytesIO()
    page.save(buffer, format="PNG")
    return buffer.getvalue()


def file_name(position: int, answer: dict[str, Any]) -> str:
    """000017-coat-98-x.png: where in the order, the label, its share in percent, and what the input is called."""
    share = answer["probabilities"][answer["label"]]
    percent = "nan" if share != share else f"{100 * share:.0f}"
    return f"{position:06d}-{_slug(answer['label'])}-{percent}-{_slug(Path(str(answer['input'])).stem)}.png"


def _slug(text: str) -> str:
    plain = re.sub(r"[^\w.-]+", "_", text).encode()[:LONGEST_NAME].decode(errors="ignore")
    return plain.strip("._") or "_"
