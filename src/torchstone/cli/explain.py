"""`torchstone explain`: one part or one named function: what it is, the paper, its fields, who takes it, its curve, an edit to try."""

import argparse
import difflib
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_json
from torchstone.core.errors import UserError

if TYPE_CHECKING:
    from torchstone.cli.catalog import Seat
    from torchstone.report.figure import Figure

HELP = "one part or activation: what it is, the paper, its fields, its curve, an edit to try"
EXAMPLES = """  torchstone explain focal
  torchstone explain gelu             an activation: its curve, and the models that take it
  torchstone explain cosine --picture cosine.png
  torchstone explain penalties.l1     where two parts have one name
  torchstone explain optimizer        a seat: what it takes"""
NARROW, WIDE = 60, 110


def add(parser: Parser) -> None:
    parser.add_argument("part", metavar="PART", help="a name from `torchstone list`, or a seat")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="write its curve as a picture too; an existing file is left alone")
    add_json(parser, "it, with the points of its curve,")


def run(arguments: argparse.Namespace) -> int:
    from torchstone.cli import catalog
    from torchstone.cli.curves import activation_figure, figures
    from torchstone.cli.explained import explained, explained_family, explained_name, explained_seat
    from torchstone.cli.pictures import write_new_picture

    seats = catalog.seats()
    family, _, word = arguments.part.rpartition(".")
    found = named(word, family.removeprefix("method."), seats)
    drawn: Sequence[Figure] = ()
    if found:
        place, thing = found[0]
        document = explained_name(place, thing) if isinstance(thing, str) else explained(seats[place], thing)
        drawn = figures(place, thing) if isinstance(thing, type) else (activation_figure(thing),) if document["figures"] else ()
        document["also"] = [f"{other}.{word}" for other, _ in found[1:]]
    else:
        document = explained_seat(seats[name]) if (name := seat_named(arguments.part, seats)) in seats else explained_family(name)
    if arguments.picture is not None:
        if not drawn:
            raise UserError(f"--picture {arguments.picture}: {arguments.part} has no curve to draw")
        write_new_picture(arguments.picture, drawn, "--picture")
    if arguments.json:
        output.say_json(document)
        return output.DONE
    for line in told(document, drawn) if found else told_seat(document):
        output.say(line)
    if arguments.picture is not None:
        output.say(f"\npicture: {output.short(arguments.picture)}")
    return output.DONE


def named(word: str, family: str, seats: dict[str, "Seat"]) -> list[tuple[str, Any]]:
    """(seat, class) of every part and (family, name) of every function of this name; of one seat or family where it is said."""
    from torchstone.cli.explained import FAMILIES

    found: list[tuple[str, Any]] = [(s.name, cls) for s in seats.values() for kind, cls in s.parts.items() if word in (kind, cls.__name__)]
    found += [(name, word) for name, (_, table) in FAMILIES.items() if word in table]
    return [each for each in found if family in ("", each[0], f"model.{each[0]}")]


def seat_named(word: str, seats: dict[str, "Seat"]) -> str:
    """The seat or family that a word means.

    Raises UserError, with the nearest name, for what is nothing.
    """
    from torchstone.cli.explained import FAMILIES
    from torchstone.cli.list_ import matching

    name = matching(word, [*seats, *FAMILIES])
    if name is not None:
        return name
    kinds = [kind for seat in seats.values() for kind in seat.parts] + [name for _, table in FAMILIES.values() for name in table]
    near = difflib.get_close_matches(word[:100], [*kinds, *seats, *FAMILIES], n=1)
    guess = f", did you mean {near[0]!r}?" if near else ""
    raise UserError(f"there is no part or seat {word!r}{guess} (`torchstone list` has them all)")


def told(document: dict[str, Any], drawn: Sequence["Figure"]) -> list[str]:
    head = f"{document['kind']}: " + (f"a part of {document['seat']}" if "fields" in document else document["seat"])
    lines = [head, "", document["doc"]]
    if document.get("formula"):
        lines += ["", f"  {document['formula']}"]
    if document["source"]:
        lines += ["", document["source"]]
    if drawn:
        lines += ["", *pictured(drawn)]
    if document.get("fields"):
        lines += ["", "fields:"]
        for field in document["fields"]:
            lines += [
                f"  {field['name']} = {field['default']}    ({field['takes']})",
                *(f"      {text}" for text in field["doc"].split("\n") if text),
            ]
    if document.get("models"):
        taken = ", ".join(f"{each['model']}{' (default)' if each['default'] else ''}" for each in document["models"])
        lines += ["", f"models that take it: {taken}"]
    if document.get("neutral") is not None:
        usual = {field["name"]: field["default"] for field in document["fields"]}
        off = [f"{name}={value}" for name, value in document["neutral"].items() if value != usual[name]]
        lines += ["", f"off: {', '.join(off) or 'as it is by default'}"]
    elif document.get("no_neutral_because"):
        lines += ["", f"no setting turns it off: {document['no_neutral_because']}"]
    if document["edits"]:
        lines += [
            "",
            "try:",
            *(f"  torchstone train RECIPE {shlex.join(document['edits'][: end + 1])}" for end in range(len(document["edits"]))),
        ]
    if document["also"]:
        lines += ["", f"the same name elsewhere: {', '.join(f'torchstone explain {name}' for name in document['also'])}"]
    return lines


def pictured(drawn: Sequence["Figure"], columns: int | None = None) -> list[str]:
    """The figures in characters, two beside each other where the terminal is wide enough."""
    from shutil import get_terminal_size

    from torchstone.report import terminal

    width = columns or get_terminal_size((80, 24)).columns
    braille = terminal.can_show(getattr(sys.stdout, "encoding", None))
    draw: Callable[[Figure, int], list[str]] = lambda figure, width: terminal.draw(figure, width, braille=braille)  # noqa: E731
    if len(drawn) == 2 and width >= WIDE:
        return terminal.beside(draw(drawn[0], width // 2 - 2), draw(drawn[1], width // 2 - 2))
    made: list[str] = []
    for figure in drawn:
        made += [*([""] if made else []), *draw(figure, max(NARROW, min(width, 88)))]
    return made


def told_seat(document: dict[str, Any]) -> list[str]:
    lines = [f"{document['seat']}: {document['doc']}", f"default: {document['default']}", ""]
    return lines + output.wrapped([(part["kind"], part["doc"]) for part in document["parts"]], indent="  ")
