"""The large figure of a ladder: what ranks against hours of work, each point named beside it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from segladder.metrics.scores import Score
from segladder.report.ladder import Rung, frontier
from segladder.report.page.charts import round_ticks
from segladder.report.page.naming import Shown
from segladder.report.pictures.cost_curve import ticks_between
from segladder.report.rendering import duration

WIDTH, HEIGHT = 1100, 520
LEFT, RIGHT, TOP, BOTTOM = 56, 36, 18, 52
FREE = 70  # pixels from what costs nothing to the axis of what costs something
LETTER, LINE = 6.7, 15  # pixels of a label's letter and of its line
RADIUS = 9
Box = tuple[float, float, float, float]
Scale = Callable[[float], float]


class Label(NamedTuple):
    """A text beside a point, empty where it found no room; `anchor` is SVG's."""

    text: str
    x: float
    y: float
    anchor: str


@dataclass(frozen=True)
class Point:
    """A rung in the figure's pixels; `told` says whether its name stands beside it, or that of its curve does."""

    x: float
    y: float
    low: float | None
    high: float | None
    number: int
    style: int
    hollow: bool
    name: str
    says: str
    link: str
    told: bool
    label: Label


@dataclass(frozen=True)
class LadderFigure:
    """The figure in its pixels."""

    title: str
    x_label: str
    y_label: str
    points: list[Point]
    lines: list[tuple[str, int]]
    frontier: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    free: float | None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Step:
    """A rung, and how the page shows its row."""

    rung: Rung
    shown: Shown


def ladder_figure(steps: Sequence[Step], score: Score, of_what: str) -> LadderFigure | None:
    """Lay rungs out; None where they do not differ in cost, or not in score.

    Args:
        steps: of one table, the cheapest first.
        score: what ranks.
        of_what: whose labels cost.
    """
    ladder = [step.rung for step in steps]
    if len({rung.work for rung in ladder}) < 2 or len({rung.value for rung in ladder}) < 2:
        return None
    x, x_ticks, free = _x_axis([rung.work for rung in ladder])
    ends = [score.scale * end for r in ladder for end in (r.value, r.low, r.high) if end is not None]
    y_ticks = round_ticks(min(0.0, *ends), max(ends))

    def y(value: float) -> float:
        share = (score.scale * value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    best_first = sorted(steps, key=lambda step: -score.sign * step.rung.value)
    places = [(x(step.rung.work), y(step.rung.value)) for step in best_first]
    curves = _curves(steps)
    texts = [_text(step, curves[step.rung.curve]) for step in best_first]
    labels = _labels(texts, places)
    told = zip(best_first, places, texts, labels, strict=True)
    points = [_point(n, step, place, text, label, y, score) for n, (step, place, text, label) in enumerate(told, 1)]
    bends = [(x(rung.work), y(rung.value)) for rung in frontier(ladder, score)]
    path = f"M{bends[0][0]} {bends[0][1]}" + "".join(f"H{a}V{b}" for a, b in bends[1:]) + f"H{WIDTH - RIGHT}"
    return LadderFigure(
        f"What labels{of_what} buy: {score.title} against the work of annotators",
        f"work on labels{of_what} (logarithmic)",
        score.axis,
        points,
        _lines(curves.values(), x, y),
        path,
        x_ticks,
        [(y(tick / score.scale), f"{tick:.6g}") for tick in y_ticks],
        free,
    )


def _x_axis(work: Sequence[float]) -> tuple[Scale, list[tuple[float, str]], float | None]:
    """Seconds to pixels on a logarithmic axis, its ticks, and where what costs nothing ends (None without that)."""
    known = [seconds for seconds in work if seconds > 0]
    low, high = math.log10(min(known)) - 0.15, math.log10(max(known)) + 0.35
    start = LEFT + (2 * FREE if min(work) <= 0 else 20)

    def x(seconds: float) -> float:
        if seconds <= 0:
            return LEFT + FREE / 2
        return round(start + (WIDTH - RIGHT - start) * (math.log10(seconds) - low) / (high - low), 1)

    ticks = [(x(tick), name) for tick, name in ticks_between(10**low, 10**high, known).items()]
    free = LEFT + 1.5 * FREE if min(work) <= 0 else None
    return x, ([(x(0), "nothing")] if free else []) + ticks, free


def _point(
    number: int, step: Step, place: tuple[float, float], text: str, label: Label, y: Scale, score: Score
) -> Point:
    """The point of the `number`-th best step, with what of its text found room."""
    rung = step.rung
    return Point(
        *place,
        None if rung.low is None else y(rung.low),
        None if rung.high is None else y(rung.high),
        number,
        rung.row.standing.style,
        not rung.row.standing.all,
        step.shown.name.text,
        f"{score.text(rung.value)}{score.percent} for {duration(rung.work)}",
        step.shown.anchor,
        label.text == text,
        label,
    )


def _curves(steps: Sequence[Step]) -> dict[str, list[Step]]:
    """Steps that differ in nothing but how many labels they have, the cheapest first."""
    curves: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        curves[step.rung.curve].append(step)
    return curves


def _text(step: Step, curve: Sequence[Step]) -> str:
    """What stands beside a point: the name of its row; of a line that of the line, at its dear end."""
    if len(curve) == 1:
        return step.shown.name.short
    return step.shown.name.curve if step is curve[-1] else ""


def _lines(curves: Iterable[Sequence[Step]], x: Scale, y: Scale) -> list[tuple[str, int]]:
    """A line for the rungs of each curve, with its style."""
    return [
        (
            "M" + "L".join(f"{x(step.rung.work)} {y(step.rung.value)}" for step in curve),
            curve[0].rung.row.standing.style,
        )
        for curve in curves
        if len(curve) > 1
    ]


def _labels(texts: Sequence[str], points: Sequence[tuple[float, float]]) -> list[Label]:
    """Each text at the first spot around its point where it covers no point and no other text; empty without one."""
    taken: list[Box] = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in points]
    placed = []
    for text, (x, y) in zip(texts, points, strict=True):
        width = LETTER * len(text)
        spots = [(side, y + 4 + up) for side in (1, -1) for up in (0, -8, 8)]
        free = [(side, base) for side, base in spots if _is_free(_box(_left(x, side, width), base, width), taken)]
        if not text or not free:
            placed.append(Label("", 0.0, 0.0, "start"))
            continue
        side, base = free[0]
        taken.append(_box(_left(x, side, width), base, width))
        placed.append(Label(text, round(x + side * (RADIUS + 5), 1), round(base, 1), "start" if side > 0 else "end"))
    return placed


def _left(x: float, side: int, width: float) -> float:
    """Where a text begins that stands right (1) or left (-1) of a point."""
    return x + RADIUS + 5 if side > 0 else x - RADIUS - 5 - width


def _box(left: float, base: float, width: float) -> Box:
    return left, base - LINE + 4, left + width, base + 3


def _is_free(box: Box, taken: Sequence[Box]) -> bool:
    inside = box[0] > LEFT and box[2] < WIDTH - 4 and box[1] > 0 and box[3] < HEIGHT - BOTTOM
    return inside and all(box[2] < t[0] or t[2] < box[0] or box[3] < t[1] or t[3] < box[1] for t in taken)
