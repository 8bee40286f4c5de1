"""What annotation buys, as a picture: scores against hours of work, a line for each kind of label over its amounts.

On a ladder a smaller panel below shows what each rung has left of the base classes, which all of them had learnt.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from segladder.files import written
from segladder.metrics.scores import Score
from segladder.report.ladder import HOUR, Rung, frontier
from segladder.report.leaderboard import Table
from segladder.report.rendering import duration

BASE = ("base",)  # classes of what training had learnt before
MARKER = 5  # half of a marker's width in pixels
LONGEST = 40  # characters of a label
DASHES = ("-", "--", ":", "-.")  # of curves of one kind of label
LEADER = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}  # from a label to its point
TICKS: dict[float, str] = {
    1: "1 s",
    10: "10 s",
    60: "1 min",
    600: "10 min",
    3600: "1 h",
    36_000: "10 h",
    360_000: "100 h",
    3_600_000: "1000 h",
}
LIGHT: Any = {"text.parse_math": False}  # names are no formulas; all else is matplotlib's own
DARK: Any = {
    **LIGHT,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "#0d1117"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), "#c9d1d9"),
    "grid.color": "#8b949e",
    "legend.labelcolor": "#c9d1d9",
}

Place = tuple[float, str, float]  # how far right of a point a text stands in points, aligned to which side, how far up
HEIGHTS = (3, -9, 13, -19, 23, -29, 33, -39, 43, -49, 53)
PLACES: list[Place] = [(side * 9, "left" if side > 0 else "right", up) for up in HEIGHTS for side in (1, -1)]


def save_cost_curve(path: Path, ladder: Sequence[Rung], table: Table) -> Path:
    """Draw scores with intervals against hours of work (log axis, 0 at its left end) as two PNGs.

    Args:
        path: the file, written atomically; NAME-dark.png beside it is the same on a dark ground.
        ladder: at least one rung.
        table: whose rungs they are.
    """
    import matplotlib  # half a second, only where something is drawn

    for file, style in ((path, LIGHT), (path.with_stem(f"{path.stem}-dark"), DARK)):
        with matplotlib.rc_context(style), written(file) as partial:
            _drawn(ladder, table).savefig(partial, dpi=130)
    return path


def _drawn(ladder: Sequence[Rung], table: Table) -> Any:
    """The figure."""
    from matplotlib.figure import Figure

    beside = _base_scores(table)
    figure = Figure(figsize=(7.5, 4.5 + 1.3 * len(beside)), layout="constrained")
    ratios = (3, *(1 for _ in beside))
    axes, *below = panels = list(figure.subplots(len(ratios), sharex=True, height_ratios=ratios, squeeze=False)[:, 0])
    free = min((rung.work for rung in ladder if rung.work), default=HOUR) / 4  # where 0 stands
    curves = _curves(ladder)
    dashes = _dashes(curves)
    _draw_curves(axes, curves, dashes, table.score, free)
    if len(curves) == len(ladder):
        _draw_frontier(axes, frontier(ladder, table.score), table.score, free)
    _set_axes(panels, ladder, table, free)
    for panel, score in zip(below, beside, strict=True):
        _draw_curves(panel, _scored_by(score, curves), dashes, score, free)
        panel.set(ylabel=replace(score, label=score.heading).axis)
        panel.margins(y=0.15)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # one for each kind of label
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False)
    figure.draw_without_rendering()  # settles the layout
    _write_labels(
        axes,
        {
            name: [(_work(rung, free), table.score.scale * rung.value) for rung in curve]
            for name, curve in curves.items()
        },
    )
    return figure


def _base_scores(table: Table) -> list[Score]:
    """Of a ladder those of base classes alone."""
    shown = [] if table.declared.ladder is None else table.declared.shown("table")
    return [score for score in shown if score.statistic and score.statistic.classes == BASE]


def _scored_by(score: Score, curves: Mapping[str, Sequence[Rung]]) -> dict[str, list[Rung]]:
    """The rungs that have another score, with that in place of what ranks."""
    found = {}
    for name, curve in curves.items():
        values = [(rung, rung.row.others.get(score.name)) for rung in curve]
        known = [(rung, v) for rung, v in values if v is not None and not math.isnan(v)]
        if known:
            found[name] = [replace(rung, value=v, low=None, high=None) for rung, v in known]
    return found


def _curves(ladder: Sequence[Rung]) -> dict[str, list[Rung]]:
    """Rungs that differ in how many labels they have, the cheapest first, by a short name."""
    curves = defaultdict(list)
    for rung in sorted(ladder, key=lambda rung: rung.row.standing):
        curves[rung.curve].append(rung)
    tags = Counter(curve[0].row.tag for curve in curves.values())
    named: dict[str, list[Rung]] = {}
    for name, curve in curves.items():
        tag = curve[0].row.tag
        short = name if not tag else tag if tags[tag] == 1 else _with_setting(tag, name)
        named[name if short in named else short] = sorted(curve, key=lambda rung: rung.work)
    return named


def _with_setting(tag: str, name: str) -> str:
    """A tag that several curves have, and what sets this one apart; the whole name where nothing does."""
    _, _, setting = name.partition(f"[{tag}] ")
    return f"{tag} {setting}" if setting else name


def _work(rung: Rung, free: float) -> float:
    return rung.work or free


def _draw_curves(
    axes: Any, curves: Mapping[str, Sequence[Rung]], dashes: Mapping[str, str], score: Score, free: float
) -> None:
    """Each curve in its dashes."""
    for name, curve in curves.items():
        _draw_curve(axes, curve, score, free, dashes[name])


def _dashes(curves: Mapping[str, Sequence[Rung]]) -> dict[str, str]:
    """What tells curves of one kind of label apart."""
    of_kind: dict[str, Iterator[str]] = defaultdict(lambda: cycle(DASHES))
    return {name: next(of_kind[curve[0].row.standing.labels]) for name, curve in curves.items()}


def _draw_curve(axes: Any, curve: Sequence[Rung], score: Score, free: float, dashes: str) -> None:
    """Dots with intervals and, of more than one, their line and band; hollow where a class has few labels."""
    place = curve[0].row.standing
    x = [_work(rung, free) for rung in curve]
    y, low, high = (
        [score.scale * (rung.value if end is None else end) for rung, end in zip(curve, ends, strict=True)]
        for ends in zip(*((rung.value, rung.low, rung.high) for rung in curve), strict=True)
    )
    style = {"color": place.colour, "mfc": place.colour if place.all else "none"}
    name = place.labels if place.all else f"few {place.labels}"
    if len(curve) > 1:
        axes.plot(x, y, dashes, marker=place.marker, label=name, **style)
        axes.fill_between(x, low, high, color=place.colour, alpha=0.12, linewidth=0)
        return
    spans = [[max(0.0, y[0] - min(low[0], high[0]))], [max(0.0, max(low[0], high[0]) - y[0])]]
    axes.errorbar(x, y, yerr=spans, fmt=place.marker, label=name, capsize=3, **style)
    if not curve[0].work:
        axes.axhline(y[0], color=place.colour, linewidth=0.7, alpha=0.5, zorder=0)


def _draw_frontier(axes: Any, steps: Sequence[Rung], score: Score, free: float) -> None:
    """The best that any work up to there reaches."""
    work, scores = [_work(rung, free) for rung in steps], [score.scale * rung.value for rung in steps]
    axes.step(work, scores, where="post", color="0.6", linewidth=1, zorder=0)


def _set_axes(panels: Sequence[Any], ladder: Sequence[Rung], table: Table, free: float) -> None:
    """Titles, and the time axis as people say durations."""
    axes = panels[0]
    axes.set_xscale("log")
    axes.margins(x=0.2, y=0.08)
    low, high = axes.get_xlim()
    ticks = ticks_between(max(low, free * 2), high, [rung.work for rung in ladder])
    if any(not rung.work for rung in ladder):
        ticks[free] = "0"
    axes.set_xticks(list(ticks), list(ticks.values()))
    for panel in panels:
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        if any(not rung.work for rung in ladder):
            panel.axvline(free * 2, color="0.6", linestyle=":")  # parts work from none
    of_novel = "" if table.declared.ladder is None else " of the novel classes"
    axes.set(ylabel=table.score.axis, title=f"What labels{of_novel} buy on {table.called}")
    panels[-1].set_xlabel(f"work of annotators on labels{of_novel}")


def ticks_between(low: float, high: float, work: Sequence[float]) -> dict[float, str]:
    """Durations on an axis and their names: round ones, or the ends of the work there where none is between."""
    known = [seconds for seconds in work if seconds > 0]
    ends = {seconds: duration(seconds) for seconds in ((min(known), max(known)) if known else ())}
    return {tick: name for tick, name in TICKS.items() if low <= tick <= high} or ends


def _write_labels(axes: Any, curves: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Names beside the ends of curves (points x, y), from the top, each at the nearest spot that covers least."""
    from matplotlib.path import Path as Line
    from matplotlib.transforms import Bbox

    lines = [Line(axes.transData.transform(curve)) for curve in curves.values()]
    marks = np.concatenate([line.vertices for line in lines])
    taken: list[Any] = [Bbox.from_bounds(x - MARKER, y - MARKER, 2 * MARKER, 2 * MARKER) for x, y in marks]
    for name, curve in sorted(curves.items(), key=lambda one: -one[1][-1][1]):
        text = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        box, place = _free_place(axes, text, curve[-1], taken, lines)
        _annotated(axes, text, curve[-1], place, arrowprops=LEADER)
        taken.append(box)


def _free_place(
    axes: Any, text: str, point: tuple[float, float], taken: Sequence[Any], lines: Sequence[Any]
) -> tuple[Any, Place]:
    """Box and place of a text inside the axes that covers no other text or point, and few lines, if there is one."""
    inside, found = axes.get_window_extent(), []
    for place in PLACES:
        tried = _annotated(axes, text, point, place)
        box = tried.get_window_extent()
        tried.remove()
        fits = inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)
        covered = sum(box.overlaps(other) for other in taken)
        crossed = sum(line.intersects_bbox(box, filled=False) for line in lines)
        found.append((not fits, covered, crossed, box, place))
        if not any(found[-1][:3]):
            break  # none can be better, and each try takes milliseconds
    return min(found, key=lambda one: one[:3])[3:]


def _annotated(axes: Any, text: str, point: tuple[float, float], place: Place, **more: Any) -> Any:
    right, side, up = place
    return axes.annotate(text, point, (right, up), textcoords="offset points", ha=side, fontsize=7, **more)
