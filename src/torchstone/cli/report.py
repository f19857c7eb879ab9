"""`torchstone report`: a run, several runs side by side, or a study as one self-contained HTML page."""

import argparse
import os
from pathlib import Path

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_json
from torchstone.core.errors import UserError

HELP = "a run, several runs or a study as one HTML page: curves, mistakes, effects with their intervals, findings"
EXAMPLES = """  torchstone report runs/digits/run                       writes runs/digits/run/report.html
  torchstone report runs/digits/run --out digits.html     the same page somewhere else
  torchstone report runs/digits/run runs/digits/run-2     both side by side: runs/digits/side-by-side.html
  torchstone report studies/digits                        a study that `torchstone compare` made"""

BESIDE = "side-by-side.html"


def add(parser: Parser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN|STUDY", help="a run folder, several of them, or a study folder")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"where the page goes; else report.html in the folder, of several runs {BESIDE} beside them",
    )
    add_json(parser, "where the page is and how large")


def run(arguments: argparse.Namespace) -> int:
    from torchstone.core.files import write_text

    folders: list[Path] = arguments.folders
    html = drawn(folders)
    path: Path = arguments.out or (folders[0] / "report.html" if len(folders) == 1 else shared(folders) / BESIDE)
    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; name the file to write, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: there is no folder {path.parent}")
    if output.prints():
        write_text(path, html)
    if arguments.json:
        output.say_json({"report": str(path), "bytes": len(html.encode())})
    else:
        output.say(output.short(path))
    return output.DONE


def drawn(folders: list[Path]) -> str:
    """The page of what the folders are."""
    from torchstone.report import page, side_by_side, study

    studies = [folder for folder in folders if study.is_study(folder)]
    if studies and len(folders) > 1:
        raise UserError(f"{studies[0]}: a study has a page of its own; side by side stand runs")
    if studies:
        return study.page(folders[0])
    return page(folders[0]) if len(folders) == 1 else side_by_side.page(folders)


def shared(folders: list[Path]) -> Path:
    """The nearest folder that holds all of them."""
    return Path(os.path.commonpath([folder.absolute().parent for folder in folders]))
