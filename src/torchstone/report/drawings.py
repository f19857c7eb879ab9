"""A figure as a picture file by matplotlib: what `explain --picture` and `doctor --rate` write."""

from io import BytesIO

from torchstone.report.figure import Figure

COLORS = ("#1f5fa8", "#c2571a", "#5d6b78")
STYLES = ("-", "--", ":")


def png(*figures: Figure) -> bytes:
    """The figures side by side, as the bytes of a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Sheet

    sheet = Sheet(figsize=(6.4 * len(figures), 4.2), layout="constrained", dpi=110)
    for axes, figure in zip(sheet.subplots(1, len(figures), squeeze=False)[0], figures, strict=True):
        _fill(axes, figure)
    file = BytesIO()
    FigureCanvasAgg(sheet).print_png(file, metadata={"Software": None})
    return file.getvalue()


def _fill(axes, figure: Figure) -> None:
    low, high = figure.y_range()
    reach = 0.05 * (high - low)
    for number, line in enumerate(figure.lines):
        style = {
            "color": COLORS[number % 3],
            "linestyle": STYLES[number % 3],
            "linewidth": 2.0 - 0.4 * min(number, 2),
            "zorder": 3 - min(number, 2),
        }
        axes.plot(list(line.x), list(line.y), label=line.name or None, **style)
    if figure.log_x:
        axes.set_xscale("log")
    if low < 0 < high:
        axes.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    for number, mark in enumerate(figure.marks):
        axes.axvline(mark.x, color="#444444", linewidth=1.0, linestyle=STYLES[1 + number % 2], zorder=1)
        axes.annotate(mark.name, (mark.x, high), xytext=(4, -12 - 14 * number), textcoords="offset points", fontsize=9, color="#444444")
    axes.set_title(figure.title, fontsize=11, loc="left")
    axes.set_xlabel(figure.x_name)
    axes.set_ylabel(figure.y_name)
    axes.set_ylim(low - reach, high + reach)
    axes.margins(x=0.01)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if any(line.name for line in figure.lines) and len(figure.lines) > 1:
        axes.legend(frameon=False, fontsize=9)
