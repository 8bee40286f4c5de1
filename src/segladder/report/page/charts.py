"""Where the lines and ticks of a small chart lie, for a template to draw as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 60, 26, 16, 48  # room around the plot for ticks and labels
LONGEST_LINE = 250  # points of one line; more cannot be told apart at this width


@dataclass(frozen=True)
class Series:
    """Values that a line joins.

    Args:
        name: for the legend.
        points: x and y of each, at least one.
        style: number of the line's colour and dashes.
        link: the id of what the legend's entry leads to.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0
    link: str = ""


@dataclass(frozen=True)
class Drawn:
    """A series and its path in the chart's pixels."""

    series: Series
    path: str


@dataclass(frozen=True)
class Chart:
    """A chart in its pixels; ticks are positions with their text."""

    title: str
    x_label: str
    y_label: str
    drawn: list[Drawn]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(title: str, series: Sequence[Series], x_label: str, y_label: str) -> Chart:
    """Lay out series on common axes; the y axis starts at 0 unless values are negative.

    Args:
        title: what the chart shows, for those who cannot see it too.
        series: at least one.
        x_label: with its unit.
        y_label: with its unit.
    """
    points = [point for one in series for point in one.points]
    heights = [y for _, y in points]
    x_ticks = round_ticks(*_range([x for x, _ in points]))
    y_ticks = round_ticks(min(0.0, *heights), max(*heights, min(0.0, *heights) + 1e-9))
    x_scale = _Scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    y_scale = _Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    return Chart(
        title,
        x_label,
        y_label,
        [_drawn(one, x_scale, y_scale) for one in series],
        [(x_scale(x), f"{x:.6g}") for x in x_ticks],
        [(y_scale(y), f"{y:.6g}") for y in y_ticks],
    )


@dataclass(frozen=True)
class _Scale:
    first: float
    last: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (self.end - self.start) * (value - self.first) / (self.last - self.first), 1)


def _drawn(series: Series, x: _Scale, y: _Scale) -> Drawn:
    every = math.ceil(len(series.points) / LONGEST_LINE)
    kept = [*series.points[:-1:every], series.points[-1]]
    return Drawn(series, "M" + "L".join(f"{x(a)} {y(b)}" for a, b in kept))


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1)


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that enclose a range."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]
