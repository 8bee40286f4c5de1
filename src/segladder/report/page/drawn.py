"""The small charts of the page: scores along a sweep, training. None of them draws a constant."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from segladder.foreign import files_below
from segladder.metrics.scores import Score
from segladder.report.declared import declared
from segladder.report.leaderboard import Table
from segladder.report.page.charts import Chart, Series, chart
from segladder.report.page.naming import Shown
from segladder.report.pictures.curves import units_of
from segladder.report.record import Record

LARGEST = 1e100  # of a value in a log that is drawn
NO_CURVES = ("step", "epoch", "rate/")  # columns of a CSV log, by how they begin
MOST_LINES = 8  # of one chart


def sweep_charts(table: Table, rows: Sequence[Shown]) -> list[Chart]:
    """The score that ranks along what records sweep, a line for the first run of each of the best rows."""
    swept, score = table.declared.swept, table.score
    series: list[Series] = []
    for shown in sorted(rows, key=lambda shown: -score.sign * (shown.row.value or 0)):
        if points := swept_points(shown.records, swept, score):
            series.append(Series(shown.name.short, points, style=len(series), link=shown.anchor))
    best = f", the best {MOST_LINES} of {len(series)} rows" if len(series) > MOST_LINES else ""
    return _drawn(f"{score.title} along the {swept}{best}", series[:MOST_LINES], swept, score.axis)


def swept_points(records: Sequence[Record], swept: str, score: Score) -> list[tuple[float, float]]:
    """Where the first run that sweeps has which score, as printed; empty where none sweeps."""
    curve = next((r.curve for r in records if r.curve and swept in r.curve[0]), [])
    known = [line for line in curve if None not in (line.get(swept), line.get(score.name))]
    return [(line[swept], score.scale * line[score.name]) for line in known]


def run_curves(record: Record) -> list[Chart]:
    """All scores along the threshold or gamma that a record sweeps."""
    if not record.curve:
        return []
    says = declared(record)
    scores = [score for score in says.shown("curve") if score.name in record.curve[0]]
    series = [
        Series(score.heading, swept_points([record], says.swept, score), style=style)
        for style, score in enumerate(scores)
    ]
    return _drawn(f"Scores along the {says.swept}", series, says.swept, units_of(scores))


def training_charts(folder: Path) -> list[Chart]:
    """What the run's CSV log has of its training: one chart of the losses, one of each score seen more than once."""
    groups: dict[str, list[tuple[str, list[tuple[float, float]]]]] = defaultdict(list)
    for name, points in _logged(folder).items():
        groups["train" if name.startswith("train/") else name].append((name, points))
    charts = []
    for group, lines in groups.items():
        series = [Series(name, points, style=style) for style, (name, points) in enumerate(lines[:MOST_LINES])]
        charts += _drawn("Training" if group == "train" else group, series, "step", "value")
    return charts


def _drawn(title: str, series: Sequence[Series], x_label: str, y_label: str) -> list[Chart]:
    """The chart, unless every line of it is flat."""
    moves = any(len({y for _, y in one.points}) > 1 for one in series)
    return [chart(title, series, x_label, y_label)] if moves else []


def _logged(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Steps and values by column of a run's CSV logs: no rates, columns of one value or IoU of single classes."""
    values: dict[str, dict[float, float]] = defaultdict(dict)
    for file in files_below(folder, "logs/csv/version_*/metrics.csv"):
        with suppress(csv.Error), file.open(newline="", encoding="utf-8", errors="replace") as stream:
            for line in csv.DictReader(stream):
                step = _number(line.get("step"))
                for name, text in line.items():
                    value = _number(text)
                    if (
                        step is not None
                        and value is not None
                        and not name.startswith(NO_CURVES)
                        and "/iou/" not in name
                    ):
                        values[name][step] = value
    return {name: sorted(points.items()) for name, points in values.items() if len(points) > 1}


def _number(text: Any) -> float | None:
    """A number that can be drawn, None for anything else: a log may end in the middle of a line."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if abs(value) < LARGEST else None
