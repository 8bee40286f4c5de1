"""Where the lines, dots and ticks of a chart lie, for a template to draw as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 60, 26, 16, 48  # room around the plot for ticks and labels
LONGEST_LINE = 250  # points of one line; more cannot be told apart at this width

Span = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Values to draw.

    Args:
        name: for the legend.
        points: x and y of each.
        spans: low and high y of each point, None where there is no interval; empty for none at all.
        style: number of the colour and dashes; series of one style look alike.
        mark: text on the dots; without one the points are joined by a line.
        link: the id of what the legend's entry leads to.
    """

    name: str
    points: Sequence[tuple[float, float]]
    spans: Sequence[Span | None] = ()
    style: int = 0
    mark: str = ""
    link: str = ""


@dataclass(frozen=True)
class Dot:
    """A marked point and its interval, in the chart's pixels; `low` and `high` are None without one."""

    x: float
    y: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Drawn:
    """A series in the chart's pixels: either a path or dots."""

    series: Series
    path: str = ""
    dots: list[Dot] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """A chart in its pixels; ticks are positions with their text."""

    title: str
    x_label: str
    y_label: str
    drawn: list[Drawn]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    frontier: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(
    title: str, series: Sequence[Series], x_label: str, y_label: str, log_x: bool = False, frontier: int = 0
) -> Chart:
    """Lay out series on common axes; the y axis starts at 0 unless values are negative.

    Args:
        title: what the chart shows, for those who cannot see it too.
        series: with at least one point in all.
        x_label: with its unit.
        y_label: with its unit.
        log_x: logarithmic x axis; 0 stands at its left end.
        frontier: also a step along the best y that any x up to there reaches, the highest for 1, the lowest for -1.
    """
    points = [point for one in series for point in one.points]
    heights = [y for _, y in points] + [end for one in series for span in one.spans if span for end in span]
    x_ticks = _decades([x for x, _ in points]) if log_x else round_ticks(*_range([x for x, _ in points]))
    y_ticks = round_ticks(min(0.0, *heights), max(*heights, min(0.0, *heights) + 1e-9))
    no_x = x_ticks[0] if log_x and any(x <= 0 for x, _ in points) else -math.inf
    x_scale = _Scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT, log_x)
    y_scale = _Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    return Chart(
        title,
        x_label,
        y_label,
        [_drawn(one, x_scale, y_scale) for one in series],
        [(x_scale(x), _tick_text(x if x > no_x else 0.0, log_x)) for x in x_ticks],
        [(y_scale(y), _tick_text(y, False)) for y in y_ticks],
        _steps(points, x_scale, y_scale, frontier) if frontier else "",
    )


@dataclass(frozen=True)
class _Scale:
    first: float
    last: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        shown = max(value, self.first) if self.log else value
        first, last, at = (math.log10(v) if self.log else v for v in (self.first, self.last, shown))
        return round(self.start + (self.end - self.start) * (at - first) / (last - first), 1)


def _drawn(series: Series, x: _Scale, y: _Scale) -> Drawn:
    if not series.mark:
        every = math.ceil(len(series.points) / LONGEST_LINE)
        kept = [*series.points[:-1:every], series.points[-1]]
        return Drawn(series, "M" + "L".join(f"{x(a)} {y(b)}" for a, b in kept))
    spans = series.spans or [None] * len(series.points)
    dots = [
        Dot(x(a), y(b), *((y(span[0]), y(span[1])) if span else (None, None)))
        for (a, b), span in zip(series.points, spans, strict=True)
    ]
    return Drawn(series, dots=dots)


def _steps(points: Sequence[tuple[float, float]], x: _Scale, y: _Scale, sign: int) -> str:
    """A path that goes right until a point beats all before it, then there; times `sign` higher is better."""
    best = -math.inf
    path = ""
    for a, b in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if sign * b > best:
            path += f"H{x(a)}V{y(b)}" if path else f"M{x(a)} {y(b)}"
            best = sign * b
    return f"{path}H{x.end}"


def _range(values: Sequence[float]) -> Span:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1)


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that enclose a range."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def _decades(values: Sequence[float]) -> list[float]:
    """Powers of ten that enclose values; one more before them where there are zeros."""
    known = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    return [10.0**k for k in range(low - (min(values) <= 0), max(high, low + 1) + 1)]


def _tick_text(value: float, thousands: bool) -> str:
    return f"{value:,.0f}" if thousands and value >= 1 else f"{value:.6g}"
