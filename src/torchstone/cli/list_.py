"""`torchstone list`: what there is to choose from, a line each."""

import argparse

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_json
from torchstone.core.errors import UserError

HELP = "what there is to choose from: seats and the parts that fit in each, models, recipes, data"
EXAMPLES = """  torchstone list
  torchstone list optimizer
  torchstone list recipes
  torchstone list models --json"""


def add(parser: Parser) -> None:
    parser.add_argument(
        "what",
        metavar="SEAT",
        nargs="?",
        help="a seat (loss, optimizer, …), models, recipes, data, tasks, metrics, activation, norm or init; else all",
    )
    add_json(parser, "an object: seat -> list of parts")


def run(arguments: argparse.Namespace) -> int:
    from torchstone.cli import catalog
    from torchstone.cli.explained import FAMILIES
    from torchstone.core.parts import hint

    seats = catalog.seats()
    listed = {"recipes": ("Experiments to start from.", catalog.recipes())}
    listed |= {seat.name: (seat.doc, {kind: catalog.first_sentence(cls) for kind, cls in seat.parts.items()}) for seat in seats.values()}
    listed |= {name: (doc, {kind: about.doc for kind, about in table.items()}) for name, (doc, table) in FAMILIES.items() if table}
    if arguments.what is not None:
        name = matching(arguments.what, list(listed))
        if name is None:
            raise UserError(f"there is nothing called {arguments.what!r} to list{hint(arguments.what, listed)}")
        listed = {name: listed[name]}
    if arguments.json:
        output.say_json({name: [{"kind": kind, "doc": doc} for kind, doc in parts.items()] for name, (_, parts) in listed.items()})
        return output.DONE
    for number, (name, (doc, parts)) in enumerate(listed.items()):
        if number:
            output.say()
        output.say(f"{name}: {doc}")
        for line in output.wrapped(list(parts.items()), indent="  "):
            output.say(line)
    return output.DONE


def matching(word: str, names: list[str]) -> str | None:
    """The name that a word means: itself, its plural or its singular, with or without `method.` in front."""
    word = word.removeprefix("method.").removeprefix("run.").replace("-", "_")
    irregular = {"losses": "loss", "penalty": "penalties"}
    tried = (word, irregular.get(word, word), f"{word}s", word.removesuffix("s"))
    return next((name for name in tried if name in names), None)
