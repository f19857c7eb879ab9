"""A study's pictures as small SVGs, for the docs and the page: its forest, and the means of a grid. The same bytes wherever they are made.

A shape is a verdict or a line's level, so they read without color; gray and two tones that hold on light and dark pages.
"""

from collections.abc import Callable
from html import escape

from torchstone.report.charts import labeled, nice
from torchstone.report.forest import Forest, Row
from torchstone.report.levels import Panel

GRAY = "#8a8f98"
COLORS = ("#3b82c4", "#d9782d", "#4a9a62", "#8a63b8", "#8a8f98", "#b8584a")
DASHES = ("", "6 4", "2 3", "8 3 2 3", "1 4", "12 4")
WIDTH = 640
NAMES, SAID = 210, 200
"""What a forest's names, and its numbers and verdicts, take of the width."""
LINE = 26
PANEL_WIDTH, PANEL_HEIGHT = 640, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 30, 44


def head(width: float, height: float, title: str) -> list[str]:
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" style="max-width:100%;height:auto"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size} font-family="sans-serif" font-size="12" fill="{GRAY}">',
        f"<title>{escape(title)}</title>",
    ]


# --- the forest ------------------------------------------------------------------------------------------------------


def forest_svg(forest: Forest, title: str) -> str:
    """The effects below each other; left of the line at zero is what `forest.left` says."""
    height = 44 + LINE * len(forest.rows) + 24
    across = WIDTH - NAMES - SAID

    def x(share: float) -> float:
        return NAMES + across * share / 100

    bottom = height - 24
    zero = x(forest.zero)
    out = head(WIDTH, height, title)
    out.append(f'<text x="{zero - 8:.1f}" y="16" text-anchor="end">← {forest.left}</text>')
    out.append(f'<text x="{zero + 8:.1f}" y="16">{forest.right} →</text>')
    grid = "".join(f"M{x(tick.at):.1f} 26V{bottom}" for tick in forest.ticks)
    out.append(f'<path d="{grid}" stroke="{GRAY}" stroke-opacity=".25"/>')
    out.append(f'<path d="M{zero:.1f} 26V{bottom}" stroke="{GRAY}"/>')
    for number, row in enumerate(forest.rows):
        out += forest_row(row, 26 + LINE * (number + 0.5), x)
    out += [f'<text x="{x(tick.at):.1f}" y="{height - 8}" text-anchor="middle">{escape(tick.text)}</text>' for tick in forest.ticks]
    unit = f", {forest.unit}" if forest.unit else ""
    out.append(f'<text x="{WIDTH}" y="{height - 8}" text-anchor="end">difference{escape(unit)}</text></svg>')
    return "\n".join(out) + "\n"


def forest_row(row: Row, y: float, x: Callable[[float], float]) -> list[str]:
    shade = COLORS[0] if row.kind == "helps" else COLORS[1] if row.kind == "hurts" else GRAY
    out = [f'<text x="{NAMES - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(clipped(row.name, 32))}</text>']
    strip = row.strip
    if strip and strip.beyond:
        edge, mark = (x(0), "◀") if strip.beyond == "left" else (x(100), "▶")
        out.append(f'<text x="{edge:.1f}" y="{y + 4:.1f}" text-anchor="middle" fill="{shade}">{mark}</text>')
    elif strip:
        if strip.low is not None and strip.high is not None:
            out.append(
                f'<path d="M{x(max(0.0, strip.low)):.1f} {y:.1f}H{x(min(100.0, strip.high)):.1f}" stroke="{shade}" stroke-width="2"/>'
            )
        out.append(marker(row.kind, x(strip.at), y, shade))
    said = " ".join(filter(None, [row.change if strip else "", row.ends if strip else "", short_verdict(row.verdict)]))
    out.append(f'<text x="{WIDTH - SAID + 10}" y="{y + 4:.1f}" font-size="11">{escape(said)}</text>')
    return out


def marker(kind: str, x: float, y: float, shade: str) -> str:
    """As on the page: helps is a triangle up, hurts down, no large effect a ring, undecided a disk, inert a square."""
    match kind:
        case "helps" | "hurts":
            tip = -6 if kind == "helps" else 6
            return f'<path d="M{x:.1f} {y + tip:.1f}l5.5 {-tip * 1.7:.1f}h-11z" fill="{shade}"/>'
        case "none":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="none" stroke="{shade}" stroke-width="2"/>'
        case "undecided":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{shade}"/>'
        case _:
            return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="none" stroke="{shade}" stroke-width="2"/>'


def short_verdict(text: str) -> str:
    """What fits beside a mark; the table below it has the sentence."""
    return "no large effect" if text.startswith("no effect") else "inert" if text.startswith("inert") else text


def clipped(text: str, most: int) -> str:
    """At most so many letters; a long name keeps its end, where it differs from its neighbors.

    >>> clipped("optimizer={kind=adam,lr=0.1}", 16)
    'optim…am,lr=0.1}'
    """
    return text if len(text) <= most else f"{text[: most // 3]}…{text[most // 3 + 1 - most :]}"


# --- a grid's means --------------------------------------------------------------------------------------------------


def panel_svg(panel: Panel, metric: str, as_percent: bool) -> str:
    """Means with their intervals over the columns, one line a row; a cross at the bottom where runs have no value."""
    across, down = PANEL_WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM
    reach = panel.high - panel.low
    low, high = panel.low - 0.06 * reach, panel.high + 0.06 * reach

    def x(column: int, line: int) -> float:
        # Lines stand a little beside each other, so that their intervals do.
        return LEFT + across * (column + 0.5) / len(panel.columns) + 5 * (line - (len(panel.rows) - 1) / 2)

    def y(value: float) -> float:
        return TOP + down * (1 - (min(max(value, low), high) - low) / (high - low))

    out = head(PANEL_WIDTH, PANEL_HEIGHT, f"{metric} {panel.title}".strip())
    out.append(f'<text x="{LEFT}" y="16" font-size="13">{escape(f"{metric}, {panel.title}" if panel.title else metric)}</text>')
    ticks = [value for value in nice(low, high, 4) if low <= value <= high]
    out.append(f'<path d="{"".join(f"M{LEFT} {y(v):.1f}h{across}" for v in ticks)}" stroke="{GRAY}" stroke-opacity=".25" fill="none"/>')
    out += [f'<text x="{LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{escape(text)}</text>' for v, text in labeled(ticks, as_percent)]
    for column, name in enumerate(panel.columns):
        middle = LEFT + across * (column + 0.5) / len(panel.columns)
        out.append(f'<text x="{middle:.1f}" y="{TOP + down + 16}" text-anchor="middle">{escape(clipped(name, 18))}</text>')
    out.append(f'<text x="{LEFT + across / 2:.1f}" y="{PANEL_HEIGHT - 8}" text-anchor="middle">{escape(panel.across)}</text>')
    labels = []
    for line, row in enumerate(panel.rows):
        shade, dash = COLORS[line % len(COLORS)], DASHES[line % len(DASHES)]
        points, whiskers, last = [], [], None
        for column, place in enumerate(row.places):
            if place is None:
                continue
            here = x(column, line)
            if place.lost:
                floor = TOP + down - 4
                out.append(f'<path d="M{here - 4:.1f} {floor - 4:.1f}l8 8m0 -8l-8 8" stroke="{shade}" stroke-width="1.6"/>')
            if place.mean is None:
                continue
            last = y(place.mean)
            points.append((here, last))
            if place.low is not None and place.high is not None:
                whiskers.append(f"M{here:.1f} {y(place.low):.1f}V{y(place.high):.1f}")
        if not points:
            continue
        style = f' stroke-dasharray="{dash}"' if dash else ""
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        out.append(f'<path d="M{path}" stroke="{shade}" stroke-width="1.8" fill="none"{style}/>')
        out.append(f'<path d="{"".join(whiskers)}" stroke="{shade}" stroke-width="1.4" stroke-opacity=".8" fill="none"/>')
        out += [shape(line, a, b, shade) for a, b in points]
        labels.append((last or 0.0, row.name, line, shade))
    out += legend(labels, panel)
    return "\n".join([*out, "</svg>"]) + "\n"


def legend(labels: list[tuple[float, str, int, str]], panel: Panel) -> list[str]:
    """The lines' names at their right ends, in the order of their ends, apart from each other."""
    left, floor = PANEL_WIDTH - RIGHT + 6, float(TOP)
    out = [f'<text x="{left}" y="16">{escape(clipped(panel.down, 22))}</text>']
    for at, name, line, shade in sorted(labels):
        floor = max(at, floor)
        out.append(shape(line, left + 6, floor, shade))
        out.append(f'<text x="{left + 16}" y="{floor + 4:.1f}" fill="{shade}">{escape(clipped(name, 20))}</text>')
        floor += 16
    return out


def shape(line: int, x: float, y: float, shade: str) -> str:
    """A disk, a square, a triangle, a ring, a diamond, a bar: one for each line."""
    match line % 6:
        case 0:
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{shade}"/>'
        case 1:
            return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{shade}"/>'
        case 2:
            return f'<path d="M{x:.1f} {y - 5:.1f}l4.5 8h-9z" fill="{shade}"/>'
        case 3:
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="none" stroke="{shade}" stroke-width="1.8"/>'
        case 4:
            return f'<path d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z" fill="{shade}"/>'
        case _:
            return f'<rect x="{x - 5:.1f}" y="{y - 2:.1f}" width="10" height="4" fill="{shade}"/>'
