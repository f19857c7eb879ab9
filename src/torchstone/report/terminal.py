"""A figure in the characters of a terminal: braille dots, eight to a character, or plain ASCII where braille cannot be shown."""

import math
from collections.abc import Iterator

from torchstone.report.charts import axis, nice
from torchstone.report.figure import Figure, Line

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a braille character: four rows of two."""
PATTERNS = ((1, 0), (2, 3), (4, 6))
"""(dots drawn, dots left out) along each line: solid, dotted, dashed."""
SIGNS = ("───", "· ·", "- -")
MARGIN = 8
"""Characters left of the picture, for the scale."""


def draw(figure: Figure, width: int = 72, height: int = 12, *, braille: bool = True) -> list[str]:
    """The picture as lines of text: title, curves with their scale, x axis, and what each curve is. `width` counts all characters."""
    across = figure.across()
    canvas = Canvas(max(8, width - MARGIN - 1), height, braille=braille)
    low, high = figure.y_range()
    if low < 0 < high:
        canvas.rule((0 - low) / (high - low))
    for number, line in reversed(list(enumerate(figure.lines))):  # the first comes last, on top of the others
        canvas.curve([(across(x), (y - low) / (high - low)) for x, y in line.points()], PATTERNS[number % len(PATTERNS)], number)
    ticks = dict(_ticks(low, high, height))
    rows = [f"{ticks.get(row, ''):>{MARGIN - 1}} {'┤' if row in ticks else '│'}{text}" for row, text in enumerate(canvas.rows())]
    lines = [figure.title, *rows, *_x_axis(figure, canvas.width), *_legend(figure.lines, braille)]
    return [line.rstrip() if braille else line.rstrip().translate(PLAIN) for line in lines]


def beside(left: list[str], right: list[str], gap: int = 3) -> list[str]:
    """Two pictures next to each other."""
    width = max((len(line) for line in left), default=0) + gap
    height = max(len(left), len(right))
    left, right = [*left, *[""] * (height - len(left))], [*right, *[""] * (height - len(right))]
    return [f"{a:<{width}}{b}".rstrip() for a, b in zip(left, right, strict=True)]


def can_show(encoding: str | None) -> bool:
    """Whether a terminal of this encoding has braille characters."""
    try:
        "\u28ff·─".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


PLAIN = str.maketrans({"│": "|", "┤": "+", "└": "+", "─": "-", "┬": "+", "·": ".", "▲": "^"})


class Canvas:
    """Dots on a grid of `width` x `height` characters; shares 0 … 1 go from the lower left corner to the upper right one."""

    def __init__(self, width: int, height: int, *, braille: bool) -> None:
        self.width, self.height, self.braille = width, height, braille
        self.across, self.down = (2 * width, 4 * height) if braille else (width, height)
        self.cells: dict[tuple[int, int], int | str] = {}

    def curve(self, points: list[tuple[float, float]], pattern: tuple[int, int], number: int) -> None:
        """Straight lines between the points, clipped to the picture above and below."""
        drawn, left_out = pattern if self.braille else (1, 0)
        for i, (column, row) in enumerate(self._dots(points)):
            if i % (drawn + left_out) < drawn and 0 <= row < self.down:
                self._set(column, row, "*o+"[number % 3])

    def rule(self, share: float) -> None:
        """A faint horizontal line."""
        row = self._row(share)
        for column in range(0, self.across, 6 if self.braille else 2):
            self._set(column, row, ".")

    def rows(self) -> Iterator[str]:
        for row in range(self.height):
            cells = (self.cells.get((column, row), 0) for column in range(self.width))
            yield "".join(cell if isinstance(cell, str) else chr(0x2800 + cell) if cell else " " for cell in cells)

    def _row(self, share: float) -> int:
        return round((1 - share) * (self.down - 1))

    def _dots(self, points: list[tuple[float, float]]) -> Iterator[tuple[int, int]]:
        """Every dot on the way, once, from left to right."""
        places = [(round(x * (self.across - 1)), (1 - y) * (self.down - 1)) for x, y in points]
        last = None
        for (x0, y0), (x1, y1) in zip(places, places[1:] or places, strict=False):
            top = max(abs(y0), abs(y1), 1.0)
            steps = min(max(abs(x1 - x0), round(abs(y1 - y0)), 1), 4 * (self.across + self.down)) if top < 1e6 else 1
            for step in range(steps + 1):
                dot = round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps)
                if dot != last:
                    yield dot
                last = dot

    def _set(self, column: int, row: int, sign: str) -> None:
        if not self.braille:
            self.cells[column, row] = sign
            return
        cell = self.cells.get((column // 2, row // 4), 0)
        assert isinstance(cell, int)
        self.cells[column // 2, row // 4] = cell | DOTS[row % 4][column % 2]


def _ticks(low: float, high: float, height: int) -> Iterator[tuple[int, str]]:
    """(row, text) of the scale."""
    values = nice(low, high, max(2, height // 3))
    for value in values:
        yield round((1 - (value - low) / (high - low)) * (height - 1)), axis(value)


def _x_axis(figure: Figure, width: int) -> list[str]:
    """The line below, the ticks, and the marks."""
    (low, high), across = figure.x_range(), figure.across()
    values = log_ticks(low, high, width // 8) if figure.log_x else nice(low, high, max(2, width // 12))
    texts = [(round(across(value) * (width - 1)), axis(value) if not figure.log_x else f"{value:g}") for value in values]
    at = {place for place, _ in texts}
    indent = " " * (MARGIN + 1)
    lines = [" " * MARGIN + "└" + "".join("┬" if i in at else "─" for i in range(width))]
    scale = _placed(texts, width)
    fits = len(scale) + len(figure.x_name) < width
    lines.append(indent + (scale.ljust(width - len(figure.x_name)) + figure.x_name if fits else scale))
    # A mark has a line of its own: two may be close to each other.
    for mark in figure.marks:
        place = round(across(mark.x) * (width - 1))
        text = f"▲ {mark.name}" if place + len(mark.name) + 2 <= width else f"{mark.name} ▲"
        lines.append(indent + text.rjust(place + 1) if text.endswith("▲") else indent + " " * place + text)
    return lines if fits else [*lines, indent + figure.x_name.rjust(width)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten inside."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, -(-(last - first + 1) // max(1, most)))
    return [10.0**power for power in range(first, last + 1, every)]


def _placed(texts: list[tuple[int, str]], width: int) -> str:
    """Texts centered on their places; one that would touch the one before is left out."""
    line = ""
    for place, text in sorted(texts):
        start = max(0, min(place - len(text) // 2, width - len(text)))
        if start >= len(line) + (1 if line else 0):
            line = line.ljust(start) + text
    return line


def _legend(lines: tuple[Line, ...], braille: bool) -> list[str]:
    signs = SIGNS if braille else ("*", "o", "+")
    named = [f"{signs[number % len(signs)]} {line.name}" for number, line in enumerate(lines) if line.name]
    return [" " * (MARGIN + 1) + "    ".join(named)] if named else []
