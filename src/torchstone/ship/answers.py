"""A predictor's answers as text: a line for a person, rows for a program."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torchstone.core.json_text import to_json

Answer = dict[str, Any]

ENDINGS = (".jsonl", ".json", ".csv")
"""What a file of answers may be: an object a line, one list, or a table."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so may be run by a spreadsheet."""


def shortened(answer: Answer, top: int | None) -> Answer:
    """The answer with its `top` likeliest classes, the likeliest first; None: all of them, in the order of the classes."""
    if top is None:
        return answer
    return {**answer, "probabilities": dict(likeliest(answer, top))}


def likeliest(answer: Answer, count: int) -> list[tuple[str, float]]:
    """(class, probability), of equal ones the first class first: as the label is chosen."""
    return sorted(answer["probabilities"].items(), key=lambda pair: -pair[1])[:count]


def line(answer: Answer, top: int | None = None) -> str:
    """As a person reads it: the text, or the label with the likeliest classes."""
    if "text" in answer:
        return f"{answer['input']}{answer['text']}"
    shares = [f"{name} {share:.1%}" for name, share in likeliest(answer, top or 3)]
    return f"{answer['input']}: {answer['label']}  ({', '.join(shares)})"


def encoded(answers: Iterable[Answer], ending: str, columns: Sequence[str], top: int | None = None) -> Iterator[bytes]:
    """The content of a file called so, piece by piece. `columns`: the classes, or nothing where the answers are texts."""
    match ending:
        case ".jsonl":
            return (f"{to_json(shortened(answer, top))}\n".encode() for answer in answers)
        case ".json":
            return _json_list(shortened(answer, top) for answer in answers)
        case _:
            return _table(answers, columns, top)


def _json_list(answers: Iterable[Answer]) -> Iterator[bytes]:
    before = "["
    for answer in answers:
        yield f"{before}\n{to_json(answer)}".encode()
        before = ","
    yield b"\n]\n" if before == "," else b"[]\n"


def _table(answers: Iterable[Answer], classes: Sequence[str], top: int | None) -> Iterator[bytes]:
    """input, label, probability, and a column a class; with `top` its K likeliest instead, the others as label_2, probability_2 ..."""
    if not classes:
        yield _row(["input", "text"])
        yield from (_row([answer["input"], answer["text"]]) for answer in answers)
        return
    shown = len(classes) if top is None else min(top, len(classes))
    more = [f"{column}_{rank}" for rank in range(2, shown + 1) for column in ("label", "probability")]
    yield _row(["input", "label", "probability", *(map(_column, classes) if top is None else more)])
    for answer in answers:
        (label, share), *others = likeliest(answer, shown)
        rest = answer["probabilities"].values() if top is None else [cell for pair in others for cell in pair]
        yield _row([answer["input"], label, share, *rest])


def _column(name: str) -> str:
    """No two columns are called alike, whatever a class is called."""
    return f"{name} (class)" if name in ("input", "label", "probability") else name


def _row(cells: Iterable[Any]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([_cell(cell) for cell in cells])
    return buffer.getvalue().encode(errors="surrogateescape")


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
