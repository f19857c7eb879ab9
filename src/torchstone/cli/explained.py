"""What there is to say of a part, a seat, or a named function (an activation, a norm, an initialization), as a document.

`explain` prints it, and the pages of docs/canon are made from it.
"""

import inspect
import re
import sys
from typing import Any

from torchstone import models
from torchstone.cli.catalog import Seat, first_sentence, spelled
from torchstone.cli.curves import activation_figure, figures
from torchstone.core.parts import FieldFacts, Slot, choices, fields_of, kind_of, needed, slot_of
from torchstone.nn import activation, init, norm
from torchstone.nn.about import About
from torchstone.report.figure import Figure

_ADDRESS = re.compile(r"https?://[^\s,;)\"'`]+[^\s,;)\"'`.]")

FAMILIES: dict[str, tuple[str, dict[str, About]]] = {
    "activation": ("A function between two layers, by name, wherever a model has the field.", getattr(activation, "ABOUT", {})),
    "norm": ("A normalization, by name, wherever a model has the field.", getattr(norm, "ABOUT", {})),
    "init": ("How the first weights are drawn, by name, wherever a model has the field.", getattr(init, "ABOUT", {})),
}
"""What is chosen by name and is no part: family -> what it is, and each name with what it says of itself."""


DULL = ("ignore_index", "given")
"""Fields whose other values say something of the data or the model, and try nothing."""


def explained(seat: Seat, cls: type) -> dict[str, Any]:
    """All about a part."""
    fields = [
        {"name": name, "takes": str(slot_of(facts.annotation)), "default": spelled(facts.default), "doc": facts.doc}
        for name, facts in fields_of(cls).items()
    ]
    neutral = getattr(cls, "neutral", None)
    off = None if neutral is None else {name: spelled(getattr(neutral, name)) for name in fields_of(cls)}
    doc, source = inspect.getdoc(cls) or "", inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")
    return {
        "kind": kind_of(cls),
        "seat": seat.path or seat.name,
        "doc": doc,
        "source": source,
        "papers": papers(doc) or papers(source),
        "fields": fields,
        "neutral": off,
        "no_neutral_because": getattr(cls, "neutral_reason", None) if neutral is None else None,
        "edits": edits(seat, cls),
        "figures": [data(figure) for figure in figures(seat.name, cls)],
    }


def explained_seat(seat: Seat) -> dict[str, Any]:
    parts = [{"kind": kind, "doc": first_sentence(cls)} for kind, cls in seat.parts.items()]
    return {"seat": seat.path or seat.name, "doc": seat.doc, "default": seat.default, "parts": parts}


def explained_family(name: str) -> dict[str, Any]:
    """As a seat: what there is to choose from."""
    doc, table = FAMILIES[name]
    return {
        "seat": f"model.{name}",
        "doc": doc,
        "default": "the model's own",
        "parts": [{"kind": k, "doc": a.doc} for k, a in table.items()],
    }


def explained_name(family: str, name: str) -> dict[str, Any]:
    """All about an activation, a norm or an initialization."""
    about = FAMILIES[family][1][name]
    taken = takers(family, name)
    return {
        "kind": name,
        "seat": f"model.{family}",
        "doc": about.doc,
        "formula": about.formula,
        "source": about.source,
        "papers": papers(about.source),
        "models": taken,
        "edits": [f"model.{family}={name}"] if taken else [],
        "figures": [data(activation_figure(name))] if family == "activation" else [],
    }


def takers(family: str, name: str) -> list[dict[str, Any]]:
    """The models whose field `family` takes the name, and whether it is what they take by default."""
    found = []
    for kind, cls in choices(models.Model).items():
        for field, facts in fields_of(cls).items():
            slot = slot_of(facts.annotation)
            if field == family and name in slot.words:
                found.append({"model": kind, "default": facts.default == name})
    return found


def papers(text: str) -> list[str]:
    """The addresses in a text, each once."""
    return list(dict.fromkeys(_ADDRESS.findall(text)))


def data(figure: Figure) -> dict[str, Any]:
    """A figure as plain data, in four digits."""

    def short(values: Any) -> list[float]:
        return [float(f"{value:.6g}") for value in values]

    return {
        "title": figure.title,
        "x_name": figure.x_name,
        "lines": [{"name": line.name, "x": short(line.x), "y": short(line.y)} for line in figure.lines],
    }


def edits(seat: Seat, cls: type) -> list[str]:
    """Edits that put the part in its seat and change its first plain number or word to another value that it takes."""
    if not seat.path:
        return []
    kind, facts = kind_of(cls), fields_of(cls)
    required = "".join(f",{name}={placeholder(slot_of(facts[name].annotation))}" for name in needed(cls))
    value = f"{{kind={kind}{required}}}" if required else kind
    made = [f"{seat.path}+={value}" if seat.many else f"{seat.path}={value}"]
    own = inspect.get_annotations(cls)
    for name, field in sorted(facts.items(), key=lambda each: each[0] not in own):  # what it shares with its kin says least
        value = None if name in needed(cls) or name in DULL else another(cls, name, field)
        if value is not None:
            made.append(f"{seat.path}.{f'{kind}.' if seat.many else ''}{name}={spelled(value)}")
            break
    return made


def another(cls: type, name: str, field: FieldFacts) -> bool | int | float | str | None:
    """A value of a field that is not its default and that the part takes; None where none is found."""
    usual, slot = field.default, slot_of(field.annotation)
    tried: list[bool | int | float | str] = []
    match usual:
        case bool():
            tried = [not usual]
        case int():
            tried = [2 * usual, usual + 1, usual - 1]
        case float():
            near_one = [round(1 - 2 * (1 - usual), 6)] if 0.9 < usual < 1 else []  # a decay: half of it is another thing
            tried = [*near_one, *(float(f"{value:.2g}") for value in (usual / 2, 2 * usual, 0.1, 0.5))]
        case str():
            tried = list(slot.words)
    given = {other: sample(slot_of(fields_of(cls)[other].annotation)) for other in needed(cls)}
    return next((value for value in tried if value != usual and type(value) is type(usual) and builds(cls, given | {name: value})), None)


def builds(cls: type, values: dict[str, Any]) -> bool:
    try:
        cls(**values)
    except (ValueError, TypeError):
        return False
    return True


def placeholder(slot: Slot) -> str:
    """A value of the right type for a field that has no default."""
    value = sample(slot)
    return '"FILE"' if slot.file else "…" if value is None else spelled(value)


def sample(slot: Slot) -> bool | int | float | str | None:
    """The same as a value; None for what is no plain one."""
    if slot.words:
        return slot.words[0]
    return {bool: True, int: 32, float: 0.1, str: "TEXT"}[slot.scalars[0]] if slot.scalars else None
