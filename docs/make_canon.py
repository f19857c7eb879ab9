"""Makes docs/canon: a page for each family of parts, from what the parts say of themselves, with their curves.

    python docs/make_canon.py          writes the pages; those of families that are gone are removed

`torchstone explain` tells the same. A test fails while the pages are not what this makes.
"""

import textwrap
from pathlib import Path
from typing import Any

from torchstone.cli import catalog, curves, explained
from torchstone.report.svg import svg

HERE = Path(__file__).resolve().parent / "canon"


def pages() -> dict[str, str]:
    """File name -> text, of every page and curve."""
    made: dict[str, str] = {}
    index = []
    for seat in catalog.seats().values():
        documents = [(explained.explained(seat, cls), curves.figures(seat.name, cls)) for cls in seat.parts.values()]
        where = f"`{seat.path}`, {'a list; ' if seat.many else ''}default {seat.default}" if seat.path else "in no seat"
        made |= page(seat.name, seat.doc, where, documents)
        index.append((seat.name, seat.doc, [document["kind"] for document, _ in documents]))
    for family, (doc, table) in explained.FAMILIES.items():
        if not table:
            continue
        documents = [
            (explained.explained_name(family, name), (curves.activation_figure(name),) if family == "activation" else ()) for name in table
        ]
        made |= page(family, doc, f"`model.{family}`", documents)
        index.append((family, doc, list(table)))
    lines = [
        "# The canon",
        "",
        "Every technique, by the place it has in an experiment. Made by `docs/make_canon.py` from the code; not written by hand.",
        "",
    ]
    lines += ["| | what sits there | names |", "|---|---|---|"]
    for name, doc, kinds in index:
        links = ", ".join(f"[{kind}]({name}.md#{kind})" for kind in kinds)
        lines.append(f"| [{name}]({name}.md) | {cell(doc)} | {links} |")
    made["README.md"] = "\n".join(lines) + "\n"
    return made


def page(name: str, doc: str, where: str, documents: list[tuple[dict[str, Any], tuple]]) -> dict[str, str]:
    """One page, and the curves it shows."""
    made: dict[str, str] = {}
    lines = [f"# {name}", "", f"{doc} ({where})", ""]
    for document, figures in documents:
        kind = document["kind"]
        lines += [f"## {kind}", "", *prose(document["doc"]), ""]
        if document.get("formula"):
            lines += [f"    {document['formula']}", ""]
        names = [f"{name}-{kind}{f'-{number}' if number else ''}.svg" for number in range(len(figures))]
        made |= {file: svg(figure) for file, figure in zip(names, figures, strict=True)}
        if figures:
            shown = (f"![{figure.title}, over {figure.x_name}]({file})" for file, figure in zip(names, figures, strict=True))
            lines += [" ".join(shown), ""]
        if document.get("fields"):
            lines += ["| field | default | takes | |", "|---|---|---|---|"]
            lines += [f"| `{f['name']}` | {cell(f['default'])} | {cell(f['takes'])} | {cell(f['doc'])} |" for f in document["fields"]]
            lines.append("")
        if document.get("models"):
            taken = ", ".join(f"{each['model']}{' (its default)' if each['default'] else ''}" for each in document["models"])
            lines += [f"Models that take it: {taken}.", ""]
        lines += said_last(document)
    made[f"{name}.md"] = "\n".join(lines).rstrip() + "\n"
    return made


def said_last(document: dict[str, Any]) -> list[str]:
    """How it is turned off, where it comes from, an edit."""
    lines = []
    if document.get("neutral"):
        usual = {field["name"]: field["default"] for field in document["fields"]}
        off = [f"{name}={value}" for name, value in document["neutral"].items() if value != usual[name]]
        lines += [f"Off at `{' '.join(off)}`." if off else "Off as it is by default.", ""]
    elif document.get("no_neutral_because"):
        lines += [f"No setting turns it off: {document['no_neutral_because']}.", ""]
    if document["source"]:
        lines += ["<details><summary>source</summary>", "", *prose(document["source"]), "", "</details>", ""]
    if document["edits"]:
        lines += [f"    torchstone train RECIPE {document['edits'][0]}", ""]
    return lines


def prose(text: str) -> list[str]:
    """A docstring as Markdown: what is laid out by hand (examples, indented lines, columns) stays as it is, in a fence."""
    lines: list[str] = []
    for block in text.strip().split("\n\n"):
        rows = block.split("\n")
        laid_out = rows[0].startswith(">>>") or any(row.startswith(" ") or "   " in row.strip() for row in rows)
        lines += [*([""] if lines else []), *(["```", *textwrap.dedent(block).split("\n"), "```"] if laid_out else rows)]
    return lines


def cell(text: str) -> str:
    """A text in a row of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    HERE.mkdir(exist_ok=True)
    made = pages()
    for path in HERE.iterdir():
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (HERE / name).write_text(text, encoding="utf-8")
    size = sum(len(text.encode()) for text in made.values())
    print(f"{HERE}: {len(made)} files, {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
