"""docs/canon is what docs/make_canon.py makes. Where this fails: python docs/make_canon.py."""

import re
import runpy
from functools import cache
from pathlib import Path

import pytest

from torchstone.cli import catalog

DOCS = Path(__file__).resolve().parents[2] / "docs"


@cache
def generator() -> dict:
    return runpy.run_path(str(DOCS / "make_canon.py"))


@cache
def made() -> dict[str, str]:
    return generator()["pages"]()


def test_the_pages_are_the_generators() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "canon").iterdir()}
    assert sorted(there) == sorted(made())
    assert [name for name, text in made().items() if there[name] != text] == [], "run python docs/make_canon.py"


def test_every_part_is_on_a_page_and_every_link_leads_somewhere() -> None:
    for seat in catalog.seats().values():
        for kind in seat.parts:
            assert f"\n## {kind}\n" in made()[f"{seat.name}.md"]
    for name, text in made().items():
        if name.endswith(".md"):
            for file in re.findall(r"\]\(([\w.-]+)[#)]", text):
                assert file in made(), (name, file)


def test_curves_are_small() -> None:
    assert max(len(text) for name, text in made().items() if name.endswith(".svg")) < 12_000


@pytest.mark.parametrize(
    "text, lines",
    [
        ("One.\n\nTwo, and\nmore.", ["One.", "", "Two, and", "more."]),
        (">>> 1 + 1\n2", ["```", ">>> 1 + 1", "2", "```"]),
        ("a     first\nbb    second", ["```", "a     first", "bb    second", "```"]),
    ],
)
def test_prose(text: str, lines: list[str]) -> None:
    assert generator()["prose"](text) == lines
