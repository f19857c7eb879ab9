"""A figure as a small SVG for the docs: a few hundred numbers, the same bytes wherever it is made, readable on light and dark pages."""

import math
from html import escape

from torchstone.report.charts import axis, nice
from torchstone.report.figure import Figure
from torchstone.report.terminal import log_ticks

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 26, 40
COLORS = ("#3b82c4", "#d9782d", "#8a8f98")
DASHES = ("", ' stroke-dasharray="6 4"', ' stroke-dasharray="2 4"')
GRAY = "#8a8f98"


def svg(figure: Figure) -> str:
    """The picture as text of an SVG file."""
    low, high = figure.y_range()
    x_low, x_high = figure.x_range()
    across, down, share = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, figure.across()

    def x(value: float) -> str:
        return f"{LEFT + across * share(value):.1f}"

    def y(value: float) -> str:
        return f"{TOP + down * (1 - (value - low) / (high - low)):.1f}"

    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11" fill="{GRAY}">',
        f"<title>{escape(figure.title)}</title>",
        f'<text x="{LEFT}" y="15" font-size="12">{escape(figure.title)}</text>',
    ]
    grid = []
    for value in nice(low, high, 4):
        grid.append(f"M{LEFT} {y(value)}h{across}")
        out.append(f'<text x="{LEFT - 5}" y="{float(y(value)) + 4:.1f}" text-anchor="end">{axis(value)}</text>')
    for value in log_ticks(x_low, x_high, 8) if figure.log_x else nice(x_low, x_high, 5):
        text = f"{value:g}" if figure.log_x else axis(value)
        grid.append(f"M{x(value)} {TOP}v{down}")
        out.append(f'<text x="{x(value)}" y="{TOP + down + 14}" text-anchor="middle">{text}</text>')
    out.append(f'<path d="{"".join(grid)}" stroke="{GRAY}" stroke-opacity=".25" fill="none"/>')
    if low < 0 < high:
        out.append(f'<path d="M{LEFT} {y(0)}h{across}" stroke="{GRAY}" stroke-opacity=".7" fill="none"/>')
    out.append(f'<clipPath id="p"><rect x="{LEFT}" y="{TOP - 2}" width="{across}" height="{down + 4}"/></clipPath>')
    for number, line in reversed(list(enumerate(figure.lines))):
        points = [f"{a:g} {b:g}" for a, b in thinned([(float(x(a)), float(y(b))) for a, b in line.points()])]
        look = f'stroke="{COLORS[number % 3]}" stroke-width="{2 if number == 0 else 1.6}"{DASHES[number % 3]}'
        out.append(f'<path d="M{"L".join(points)}" fill="none" clip-path="url(#p)" {look}/>')
    named = "  ".join(
        f'<tspan fill="{COLORS[i % 3]}">{"━╍┅"[i % 3]} {escape(line.name)}</tspan>' for i, line in enumerate(figure.lines) if line.name
    )
    out.append(f'<text x="{LEFT}" y="{HEIGHT - 7}">{named}</text>')
    out.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 7}" text-anchor="end">{escape(figure.x_name)}</text></svg>')
    return "\n".join(out) + "\n"


def thinned(points: list[tuple[float, float]], tolerance: float = 0.1) -> list[tuple[float, float]]:
    """The points without those that a straight line through the others passes by less than `tolerance`.

    Douglas and Peucker, "Algorithms for the Reduction of the Number of Points Required to Represent a Digitized Line", 1973.
    """
    kept, todo = {0, len(points) - 1}, [(0, len(points) - 1)]
    while todo:
        first, last = todo.pop()
        (ax, ay), (bx, by) = points[first], points[last]
        length = math.hypot(bx - ax, by - ay) or 1.0
        far = [abs((bx - ax) * (ay - y) - (ax - x) * (by - ay)) / length for x, y in points[first + 1 : last]]
        if far and max(far) > tolerance:
            middle = first + 1 + far.index(max(far))
            kept.add(middle)
            todo += [(first, middle), (middle, last)]
    return [points[i] for i in sorted(kept)]
