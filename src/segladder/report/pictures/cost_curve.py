"""What annotation buys, as a picture: a ladder's scores against hours of work on labels of the novel classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segladder.files import written
from segladder.metrics.scores import Score
from segladder.report.ladder import HOUR, Rung, frontier
from segladder.report.leaderboard import Table

MARKER = 5  # half of a marker's width in pixels
LEADER = {"arrowstyle": "-", "color": "0.7", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}  # from a label to its point

Place = tuple[float, str, float]  # how far right of a point a text stands in points, aligned to which side, how far up


def save_cost_curve(path: Path, ladder: Sequence[Rung], table: Table) -> Path:
    """Draw scores with intervals against hours of work on novel classes (log axis, 0 at its left end) as a PNG.

    Args:
        path: the file, written atomically.
        ladder: at least one rung.
        table: whose rungs they are.
    """
    from matplotlib.figure import Figure  # half a second, only where something is drawn

    free = min((rung.novel_seconds / HOUR for rung in ladder if rung.novel_seconds), default=1) / 4  # where 0 stands
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    _draw_rungs(axes, ladder, table.score, free)
    _draw_frontier(axes, frontier(ladder, table.score), table.score, free)
    label = "hours of annotation of the novel classes (left of the line: none)"
    title = f"What labels of novel classes buy on {table.data}"
    axes.set(xlabel=label, ylabel=table.score.axis, title=title)
    axes.margins(x=0.2, y=0.08)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.draw_without_rendering()  # settles the layout
    _write_labels(axes, [(rung.label, _hours(rung, free), table.score.scale * rung.value) for rung in ladder])
    with written(path) as partial:
        figure.savefig(partial, dpi=130)
    return path


def _hours(rung: Rung, free: float) -> float:
    return rung.novel_seconds / HOUR or free


def _draw_rungs(axes: Any, ladder: Sequence[Rung], score: Score, free: float) -> None:
    """Dots with intervals, those of each kind of label alike; hollow where a class has few labels."""
    for place in sorted({rung.row.rung for rung in ladder}):
        drawn = [rung for rung in ladder if rung.row.rung == place]
        below = [rung.value - (rung.value if rung.low is None else rung.low) for rung in drawn]
        above = [(rung.value if rung.high is None else rung.high) - rung.value for rung in drawn]
        axes.errorbar(
            [_hours(rung, free) for rung in drawn],
            [score.scale * rung.value for rung in drawn],
            yerr=[[max(0.0, score.scale * end) for end in side] for side in (below, above)],
            fmt=place.marker,
            color=place.colour,
            mfc=place.colour if place.all else "none",
            label=place.labels if place.all else f"few {place.labels}",
            capsize=3,
        )


def _draw_frontier(axes: Any, steps: Sequence[Rung], score: Score, free: float) -> None:
    """The best that any work up to there reaches, and the line that parts work from none."""
    hours, scores = [_hours(rung, free) for rung in steps], [score.scale * rung.value for rung in steps]
    axes.step(hours, scores, where="post", color="0.6", linewidth=1, zorder=0)
    axes.axvline(free * 2, color="0.85", linestyle=":")


def _write_labels(axes: Any, labels: Sequence[tuple[str, float, float]]) -> None:
    """Write texts beside points (text, x, y), each at the nearest place where it covers no other and no point."""
    from matplotlib.transforms import Bbox

    heights = (3, -9, 13, -19, 23, -29, 33)
    places = [(side * 9, "left" if side > 0 else "right", up) for up in heights for side in (1, -1)]
    points = [axes.transData.transform((x, y)) for _, x, y in labels]
    taken: list[Any] = [Bbox.from_bounds(x - MARKER, y - MARKER, 2 * MARKER, 2 * MARKER) for x, y in points]
    for text, x, y in labels:
        box, place = _free_place(axes, text, (x, y), places, taken)
        _annotated(axes, text, (x, y), place, arrowprops=LEADER)
        taken.append(box)


def _free_place(
    axes: Any, text: str, point: tuple[float, float], places: Sequence[Place], taken: Sequence[Any]
) -> tuple[Any, Place]:
    """Box and place of a text inside the axes that covers nothing; the first place where there is none."""
    inside, boxes = axes.get_window_extent(), []
    for place in places:
        tried = _annotated(axes, text, point, place)
        boxes.append(tried.get_window_extent())
        tried.remove()
        fits = inside.contains(boxes[-1].x0, boxes[-1].y0) and inside.contains(boxes[-1].x1, boxes[-1].y1)
        if fits and not any(boxes[-1].overlaps(other) for other in taken):
            return boxes[-1], place
    return boxes[0], places[0]


def _annotated(axes: Any, text: str, point: tuple[float, float], place: Place, **more: Any) -> Any:
    right, side, up = place
    return axes.annotate(text, point, (right, up), textcoords="offset points", ha=side, fontsize=7, **more)
