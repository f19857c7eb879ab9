"""`torchstone report`: a run as one self-contained HTML page."""

import argparse
from pathlib import Path

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_json
from torchstone.core.errors import UserError

HELP = "a run as one HTML page: curves, mistakes, classes, the experiment and its edits"
EXAMPLES = """  torchstone report runs/digits/run                       writes runs/digits/run/report.html
  torchstone report runs/digits/run --out digits.html     the same page somewhere else"""


def add(parser: Parser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the page goes; else report.html in the run folder")
    add_json(parser, "where the page is and how large")


def run(arguments: argparse.Namespace) -> int:
    from torchstone.core.files import write_text
    from torchstone.report import page

    html = page(arguments.run)
    path: Path = arguments.out or arguments.run / "report.html"
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
