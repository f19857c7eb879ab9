"""Options of a verb: argparse, with one-line errors and options between positional arguments."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from torchstone.core.errors import UserError


class Parser(argparse.ArgumentParser):
    """The arguments of one verb. A wrong one is a UserError, as any other wrong input."""

    def __init__(self, verb: str, description: str, examples: str) -> None:
        super().__init__(
            prog=f"torchstone {verb}",
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Options may stand anywhere; what follows `--` is no option."""
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return self.parse_intermixed_args(list(arguments))

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """The option of every verb that reports."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as one JSON document, and nothing else, on stdout")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto (the accelerator if there is one), cpu, cuda, cuda:1 …")
