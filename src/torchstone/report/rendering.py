"""Plain data through the templates: every text is escaped there."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from torchstone.core.errors import clean
from torchstone.report import numbers

TEMPLATES = Path(__file__).parent / "templates"


def rendered(template: str, **data: Any) -> str:
    """The page as text."""
    return templates().get_template(template).render(**data) + "\n"


@cache
def templates() -> Environment:
    # `finalize` also takes out what no page should hold, from wherever it came: terminal escapes, reordering marks, lone surrogates.
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    jinja.filters.update(percent=numbers.percent, count=numbers.count, number=numbers.number, plural=numbers.plural)
    return jinja
