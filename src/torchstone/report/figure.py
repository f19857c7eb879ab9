"""What is drawn, as data: curves over one axis. `terminal` draws it in characters, `svg` for the docs, `drawings` with matplotlib."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One curve; a value that is not finite is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]

    def points(self) -> list[tuple[float, float]]:
        """Those that can be drawn."""
        return [(a, b) for a, b in zip(self.x, self.y, strict=True) if math.isfinite(a) and math.isfinite(b)]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on the x axis that matters."""

    name: str
    x: float


@dataclass(frozen=True, slots=True)
class Figure:
    """Curves that share their axes; the first is the one to look at."""

    title: str
    x_name: str
    lines: tuple[Line, ...]
    y_name: str = ""
    log_x: bool = False
    marks: tuple[Mark, ...] = ()
    highest: float | None = None
    """Where the picture ends above, for a curve that goes to infinity; none: all of it."""

    def across(self) -> Callable[[float], float]:
        """Where a value lies between the left (0) and the right (1) end."""
        low, high = self.x_range()
        if self.log_x:
            return lambda x: (math.log10(x) - math.log10(low)) / (math.log10(high) - math.log10(low))
        return lambda x: (x - low) / (high - low)

    def x_range(self) -> tuple[float, float]:
        xs = [x for line in self.lines for x, _ in line.points()]
        low, high = (min(xs), max(xs)) if xs else (0.0, 1.0)
        return (low, high) if high > low else (low, low + 1.0)

    def y_range(self) -> tuple[float, float]:
        """Around all values, with 0 in it where it is near."""
        ys = [y for line in self.lines for _, y in line.points()]
        low, high = (min(ys), max(ys)) if ys else (0.0, 1.0)
        if self.highest is not None:
            high = min(high, self.highest)
        if 0 < low < 0.5 * high:
            low = 0.0
        if high - low < 1e-12 * max(1.0, abs(high)):
            low, high = low - 0.5, high + 0.5
        return low, high
