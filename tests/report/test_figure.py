"""Figures drawn in characters, as SVG and as PNG: every curve goes where its numbers say."""

import math
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from torchstone.report import drawings, terminal
from torchstone.report.figure import Figure, Line, Mark
from torchstone.report.svg import svg, thinned

X = [i / 100 for i in range(101)]
RISING = Figure("a title", "time", (Line("up", X, X),), marks=(Mark("half", 0.5),))
TWO = Figure("two", "x", (Line("up", X, X), Line("down", X, [-x for x in X])))
LOG = Figure("rates", "rate", (Line("", [10.0 ** (i / 10) for i in range(-50, 1)], list(range(51))),), log_x=True)


def inside(lines: list[str]) -> list[str]:
    """What is right of the scale."""
    return [line[terminal.MARGIN + 1 :] for line in lines[1:] if len(line) > terminal.MARGIN and line[terminal.MARGIN] in "│┤|+"]


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    lines = terminal.draw(RISING, width=49, height=8, braille=False)
    assert lines[0] == "a title" and "* up" in lines[-1] and any("^ half" in line for line in lines)
    rows = inside(lines)[:8]
    places = [(row, column) for row, text in enumerate(rows) for column, sign in enumerate(text) if sign == "*"]
    for row, column in places:
        assert abs((7 - row) / 7 - column / 39) <= 1 / 7
    assert (7, 0) in places and (0, 39) in places
    assert all(len(line) <= 49 for line in lines)
    assert all(line.isascii() for line in lines)


def test_braille_has_eight_dots_a_character() -> None:
    rows = inside(terminal.draw(RISING, width=49, height=8))[:8]
    dots = sum((ord(sign) - 0x2800).bit_count() for row in rows for sign in row if "\u2800" <= sign <= "\u28ff")
    assert 80 <= dots <= 112  # one a column, and one for each of the 32 rows between two columns
    assert rows[0].rstrip()[-1] > "\u2800" and rows[-1][0] > "\u2800"


def test_a_second_line_is_dotted() -> None:
    solid = terminal.draw(Figure("", "", TWO.lines[:1]), width=60, height=10)
    both = terminal.draw(TWO, width=60, height=10)
    assert "───" in both[-1] and "· ·" in both[-1] and solid != both


@pytest.mark.parametrize("width", [12, 30, 100])
@pytest.mark.parametrize(
    "figure", [RISING, TWO, LOG, Figure("flat", "x", (Line("", X, [1.0] * 101),)), Figure("none", "x", (Line("", [], []),))]
)
def test_any_figure_is_drawn_at_any_width(figure: Figure, width: int) -> None:
    lines = terminal.draw(figure, width=width)
    assert len(lines) >= 14 and ElementTree.fromstring(svg(figure)) is not None if figure.lines[0].x else lines


def test_what_is_not_finite_is_left_out() -> None:
    broken = Figure("", "x", (Line("", [0, 1, 2, 3], [0.0, math.inf, math.nan, 1.0]),))
    assert broken.y_range() == (0.0, 1.0) and terminal.draw(broken)


def test_powers_of_ten() -> None:
    assert terminal.log_ticks(1e-5, 1.0, 8) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0])
    assert any("0.001" in line for line in terminal.draw(LOG, 80))


def test_a_terminal_without_braille() -> None:
    assert (
        terminal.can_show("utf-8") and not terminal.can_show("ascii") and not terminal.can_show("latin-1") and not terminal.can_show(None)
    )


def test_beside() -> None:
    assert terminal.beside(["a", "bbb"], ["1"], gap=1) == ["a   1", "bbb"]


def test_svg_points_are_those_of_the_line() -> None:
    root = ElementTree.fromstring(svg(RISING))
    paths = [element.attrib["d"] for element in root.iter() if element.tag.endswith("path")]
    assert paths[-1] == "M48 210L408 26"  # a straight line needs no point between its ends
    assert [element.text for element in root.iter() if element.tag.endswith("title")] == ["a title"]


def test_thinned_stays_within_the_tolerance() -> None:
    points = [(x, 50 * math.sin(x / 20)) for x in np.linspace(0, 400, 1000)]
    kept = thinned(points, 0.1)
    again = np.interp([x for x, _ in points], [x for x, _ in kept], [y for _, y in kept])
    assert len(kept) < 200 and np.abs(again - [y for _, y in points]).max() < 0.3
    assert kept[0] == points[0] and kept[-1] == points[-1]


def test_png_shows_the_curves() -> None:
    image = Image.open(BytesIO(drawings.png(TWO, LOG)))
    assert image.format == "PNG" and image.width > 1.8 * image.height
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for color in drawings.COLORS[:2]:
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels.astype(int) - wanted).sum(1) < 30).sum() > 100
