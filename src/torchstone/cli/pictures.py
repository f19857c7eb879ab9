"""Picture files that a verb writes: never over something that is there."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from torchstone.cli import output
from torchstone.core.errors import UserError

if TYPE_CHECKING:
    from torchstone.report.figure import Figure


def check_new_picture(path: Path, option: str) -> None:
    """Raises UserError for a place where no picture can be written, before any work is done for it."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{option} {path}: a picture is a .png file")
    if path.exists():
        raise UserError(f"{option} {path}: it exists already; choose another name")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}")


def free_name(path: Path) -> Path:
    """`rate.png`, or `rate-2.png`, `rate-3.png` … where that is taken."""
    if not path.exists():
        return path
    return next(other for number in count(2) if not (other := path.with_stem(f"{path.stem}-{number}")).exists())


def write_new_picture(path: Path, figures: Sequence["Figure"], option: str) -> None:
    """The figures as a PNG file."""
    from torchstone.core.files import write_durable
    from torchstone.report.drawings import png

    check_new_picture(path, option)
    if output.prints():
        write_durable(path, png(*figures))
