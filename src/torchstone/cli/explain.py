"""`torchstone explain`: one part, from its own documentation: what it is, the paper, its fields, and an edit to try."""

import argparse
import difflib
import inspect
import shlex
import sys
from typing import TYPE_CHECKING, Any

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_json
from torchstone.core.errors import UserError
from torchstone.core.parts import Slot, fields_of, slot_of

if TYPE_CHECKING:
    from torchstone.cli.catalog import Seat

HELP = "one part: what it is, the paper, its fields and defaults, an edit to try"
EXAMPLES = """  torchstone explain focal
  torchstone explain muon
  torchstone explain optimizer        a seat: what it takes"""


def add(parser: Parser) -> None:
    parser.add_argument("part", metavar="PART", help="a kind from `torchstone list`, or a seat")
    add_json(parser, "it")


def run(arguments: argparse.Namespace) -> int:
    from torchstone.cli import catalog
    from torchstone.cli.list_ import matching

    seats = catalog.seats()
    found = [(seat, cls) for seat in seats.values() for kind, cls in seat.parts.items() if arguments.part in (kind, cls.__name__)]
    name = matching(arguments.part, list(seats))
    if found:
        document = explained(*found[0])
    elif name is not None:
        document = explained_seat(seats[name])
    else:
        kinds = [kind for seat in seats.values() for kind in seat.parts]
        near = difflib.get_close_matches(arguments.part[:100], [*kinds, *seats], n=1)
        guess = f", did you mean {near[0]!r}?" if near else ""
        raise UserError(f"there is no part or seat {arguments.part!r}{guess} (`torchstone list` has them all)")
    if arguments.json:
        output.say_json(document)
        return output.DONE
    for line in told(document) if found else told_seat(document):
        output.say(line)
    return output.DONE


def explained(seat: "Seat", cls: type) -> dict[str, Any]:
    from torchstone.cli.catalog import spelled
    from torchstone.core.parts import kind_of

    fields = [
        {"name": name, "takes": str(slot_of(facts.annotation)), "default": spelled(facts.default), "doc": facts.doc}
        for name, facts in fields_of(cls).items()
    ]
    neutral = getattr(cls, "neutral", None)
    off = None if neutral is None else {name: spelled(getattr(neutral, name)) for name in fields_of(cls)}
    return {
        "kind": kind_of(cls),
        "seat": seat.path or seat.name,
        "doc": inspect.getdoc(cls) or "",
        "source": inspect.cleandoc(sys.modules[cls.__module__].__doc__ or ""),
        "fields": fields,
        "neutral": off,
        "no_neutral_because": getattr(cls, "neutral_reason", None) if neutral is None else None,
        "edits": edits(seat, cls),
    }


def explained_seat(seat: "Seat") -> dict[str, Any]:
    from torchstone.cli.catalog import first_line

    parts = [{"kind": kind, "doc": first_line(cls)} for kind, cls in seat.parts.items()]
    return {"seat": seat.path or seat.name, "doc": seat.doc, "default": seat.default, "parts": parts}


def edits(seat: "Seat", cls: type) -> list[str]:
    """Edits that put the part in its seat and change its first plain number or word."""
    from torchstone.cli.catalog import spelled
    from torchstone.core.parts import kind_of, needed

    if not seat.path:
        return []
    kind, facts = kind_of(cls), fields_of(cls)
    required = "".join(f",{name}={placeholder(slot_of(facts[name].annotation))}" for name in needed(cls))
    value = f"{{kind={kind}{required}}}" if required else kind
    made = [f"{seat.path}+={value}" if seat.many else f"{seat.path}={value}"]
    for name, field in facts.items():
        if name not in needed(cls) and isinstance(field.default, int | float | str) and field.default != "":
            made.append(f"{seat.path}.{f'{kind}.' if seat.many else ''}{name}={spelled(field.default)}")
            break
    return made


def placeholder(slot: Slot) -> str:
    """A value of the right type for a field that has no default."""
    if slot.file:
        return '"FILE"'
    if slot.words:
        return str(slot.words[0])
    return {bool: "true", int: "32", float: "0.1", str: "TEXT"}[slot.scalars[0]] if slot.scalars else "…"


def told(document: dict[str, Any]) -> list[str]:
    lines = [f"{document['kind']}: a part of {document['seat']}", "", document["doc"]]
    if document["source"]:
        lines += ["", document["source"]]
    if document["fields"]:
        lines += ["", "fields:"]
        for field in document["fields"]:
            lines += [
                f"  {field['name']} = {field['default']}    ({field['takes']})",
                *(f"      {text}" for text in field["doc"].split("\n") if text),
            ]
    if document["neutral"] is not None:
        lines += ["", f"off: {', '.join(f'{name}={value}' for name, value in document['neutral'].items()) or 'its only setting'}"]
    elif document["no_neutral_because"]:
        lines += ["", f"no setting turns it off: {document['no_neutral_because']}"]
    if document["edits"]:
        lines += [
            "",
            "try:",
            *(f"  torchstone train RECIPE {shlex.join(document['edits'][: end + 1])}" for end in range(len(document["edits"]))),
        ]
    return lines


def told_seat(document: dict[str, Any]) -> list[str]:
    lines = [f"{document['seat']}: {document['doc']}", f"default: {document['default']}", ""]
    return lines + output.table([(part["kind"], part["doc"]) for part in document["parts"]], indent="  ")
