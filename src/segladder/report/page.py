"""The leaderboard as one HTML page that needs nothing else: no second file, no network.

The page is made of tables, records, and what lies in the runs' folders: panels and the CSV log of training.
"""

from __future__ import annotations

import base64
import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from segladder.report.charts import Chart, Series, chart
from segladder.report.curves import DRAWN
from segladder.report.ladder import PROTOCOL, rungs, summary
from segladder.report.leaderboard import Row, Table, rank
from segladder.report.means import class_means, mean_annotation
from segladder.report.published import Published, published
from segladder.report.record import Record
from segladder.report.rendering import columns

MOST_RUNS = 200  # shown in full
MOST_PICTURES = 12 * 2**20  # bytes of all panels before they are encoded as text
MOST_MARKS, MOST_LINES, MOST_CLASS_ROWS = 24, 8, 60  # of one chart or heat map
KINDS = ("best", "median", "worst")
LEADING_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")

Found = Sequence[tuple[Record, Path]]


@dataclass(frozen=True)
class Cell:
    """Text of a table's cell, what it is sorted by (None stands last), and the id of what it leads to."""

    text: str
    order: float | str | None
    link: str = ""


@dataclass(frozen=True)
class Picture:
    """A panel as a data URL, with what it shows."""

    caption: str
    url: str


@dataclass
class Run:
    """One run in full; `anchor` is its id in the page."""

    anchor: str
    heading: str
    record: Record
    charts: list[Chart]
    config: list[tuple[str, str]]
    pictures: list[Picture] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """One table of the leaderboard with all that is drawn from it; shares in the heat map are in 0..1 or None."""

    anchor: str
    title: str
    table: Table
    words: list[str]
    headings: list[tuple[str, bool]]
    rows: list[list[Cell]]
    charts: list[Chart]
    classes: list[str]
    heat: list[tuple[str, list[float | None]]]
    published: list[Published]
    runs: list[Run]
    runs_left_out: int


def page(tables: Sequence[Table], found: Found, title: str = "SegLadder leaderboard") -> str:
    """The whole page as text.

    The first 200 runs are shown in full, the best run of every row before the second of any; panels are embedded up to
    12 MiB, one of each kind for every run before further ones.

    Args:
        tables: of `segladder.report.leaderboard.rank`.
        found: the records behind them with the folder each lies in.
        title: heading of the page.
    """
    by_id = {(record.id, record.protocol.get("hash") or ""): (record, folder) for record, folder in found}
    parts = [part for table in tables for part in _with_folds(table, [record for record, _ in found])]
    shown = _shown_runs([table for _, table in parts])
    sections = [_section(title, table, by_id, shown, number) for number, (title, table) in enumerate(parts)]
    folders = {run.anchor: by_id[run.record.id, run.record.protocol["hash"]][1] for s in sections for run in s.runs}
    _add_pictures([run for section in sections for run in section.runs], folders)
    rows = sorted((row for table in tables for row in table.rows), key=lambda row: row.rung)
    supervisions = list(dict.fromkeys(row.supervision for row in rows))
    template = _environment().get_template("page.html.jinja")
    return template.render(title=title, sections=sections, supervisions=supervisions, records=len(found))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("segladder.report", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration}
    return environment


def percent(value: float | None) -> str:
    """A share in percent with one decimal, a dash for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: `45 s`, `12 min`, `3.4 h`; a dash for None."""
    if seconds is None:
        return "-"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _with_folds(table: Table, records: Sequence[Record]) -> list[tuple[str, Table]]:
    """A table with its title; where no row has every fold, also a table of each fold by itself."""
    parts = [(table.title, table)]
    if not table.rows or any(row.value is not None for row in table.rows):
        return parts
    key = table.hash, table.fingerprint
    mine = [r for r in records if (r.protocol.get("hash"), r.data.get("val_fingerprint")) == key]
    for fold in sorted({r.fold for r in mine if r.fold is not None}):
        alone = [replace(r, fold=None) for r in mine if r.fold == fold and r.status == "finished"]
        parts += [(f"{table.title}, fold {fold} alone", part) for part in rank(alone, table.metric) if part.rows]
    return parts


def _shown_runs(tables: Sequence[Table]) -> set[tuple[str, str]]:
    """Id and protocol hash of the runs shown in full: first one of every row, then the second of each."""
    rows = [[(run, table.hash) for run in row.runs] for table in tables for row in table.rows]
    order = [run for turn in zip_longest(*rows) for run in turn if run is not None]
    return set(order[:MOST_RUNS])


def _section(
    title: str,
    table: Table,
    by_id: Mapping[tuple[str, str], tuple[Record, Path]],
    shown: set[tuple[str, str]],
    number: int,
) -> Section:
    records = {id(row): [by_id[run, table.hash][0] for run in row.runs] for row in table.rows}
    costs = {id(row): mean_annotation(records[id(row)]) for row in table.rows}
    anchors = {(run, table.hash): f"run-{number}-{run}" for row in table.rows for run in row.runs}
    anchors = {key: anchor for key, anchor in anchors.items() if key in shown}
    first_run = {
        id(row): next((anchors[key] for r in row.runs if (key := (r, table.hash)) in anchors), "") for row in table.rows
    }
    runs = [
        _run(row, *by_id[run, table.hash], anchors[run, table.hash])
        for row in table.rows
        for run in row.runs
        if (run, table.hash) in anchors
    ]
    headings, rows = _cells(table, costs, first_run)
    steps = rungs(table, [record for row in records.values() for record in row]) if table.protocol == PROTOCOL else []
    classes, heat = _heat_map(table, records)
    return Section(
        anchor=f"table-{number}",
        title=title,
        table=table,
        words=summary(steps) if steps else [],
        headings=headings,
        rows=rows,
        charts=[*_cost_charts(table, records, first_run), *_sweep_charts(table, records, first_run)],
        classes=classes,
        heat=heat,
        published=published(table.protocol),
        runs=runs,
        runs_left_out=sum(len(row.runs) for row in table.rows) - len(runs),
    )


def _cells(
    table: Table, costs: Mapping[int, float | None], links: Mapping[int, str]
) -> tuple[list[tuple[str, bool]], list[list[Cell]]]:
    """Headings with whether their column holds numbers, and the rows beneath."""
    found = columns(table)
    texts = [[text(row) for _, text in found] for row in table.rows]
    names = [name for name, _ in found]
    numeric = [all(LEADING_NUMBER.match(line[i]) or line[i] == "-" for line in texts) for i in range(len(names))]
    place = names.index("seeds")
    rows = []
    for row, line in zip(table.rows, texts, strict=True):
        cells = [Cell(text, _order(text) if number else text) for text, number in zip(line, numeric, strict=True)]
        cells[names.index("method")] = Cell(row.label, row.label, links[id(row)])
        rows.append([*cells[:place], Cell(duration(costs[id(row)]), costs[id(row)]), *cells[place:]])
    headings = list(zip(names, numeric, strict=True))
    return [*headings[:place], ("annotation", True), *headings[place:]], rows


def _order(text: str) -> float | None:
    number = LEADING_NUMBER.match(text)
    return float(number.group()) if number else None


def _cost_charts(table: Table, records: Mapping[int, list[Record]], links: Mapping[int, str]) -> list[Chart]:
    """Score against annotation cost, and against the novel classes' part of it where records know one."""
    charts = []
    for key, of_what in (("seconds", "annotation"), ("novel_seconds", "annotation of novel classes")):
        costs = {id(row): mean_annotation(records[id(row)], key) for row in table.rows}
        rows = [row for row in table.rows if costs[id(row)] is not None and row.value is not None]
        rows = sorted(rows, key=lambda row: -(row.value or 0))[:MOST_MARKS]
        series = [
            Series(
                f"{row.label}, {duration(costs[id(row)])}",
                [((costs[id(row)] or 0) / 3600, 100 * (row.value or 0))],
                [_span(row)],
                row.rung.style,
                str(number),
                links[id(row)],
            )
            for number, row in enumerate(rows, 1)
        ]
        if any(costs.values()) and series:
            title = f"What {of_what} buys: {table.metric} against hours of work"
            axes = (f"{of_what}, hours (logarithmic)", f"{table.metric}, %")
            charts.append(chart(title, series, *axes, log_x=True, frontier=True))
    return charts


def _span(row: Row) -> tuple[float, float] | None:
    """The interval of a row in percent: over images for one run, one standard deviation for several."""
    if row.low is not None and row.high is not None:
        return 100 * row.low, 100 * row.high
    if row.value is not None and row.std is not None:
        return 100 * (row.value - row.std), 100 * (row.value + row.std)
    return None


def _sweep_charts(table: Table, records: Mapping[int, list[Record]], links: Mapping[int, str]) -> list[Chart]:
    """The score that ranks along what records sweep, a line for the first run of each of the best rows."""
    charts = []
    for swept in ("threshold", "gamma"):
        series: list[Series] = []
        for row in sorted(table.rows, key=lambda row: -(row.value or 0)):
            curve = next((r.curve for r in records[id(row)] if r.curve and swept in r.curve[0]), [])
            points = [(line[swept], 100 * line[table.metric]) for line in curve if line.get(table.metric) is not None]
            if points and len(series) < MOST_LINES:
                series.append(Series(row.label, points, style=len(series), link=links[id(row)]))
        if series:
            charts.append(chart(f"{table.metric} along the {swept}", series, swept, f"{table.metric}, %"))
    return charts


def _heat_map(
    table: Table, records: Mapping[int, list[Record]]
) -> tuple[list[str], list[tuple[str, list[float | None]]]]:
    """IoU of each class (columns) and row, mean over runs."""
    means = [(row.label, class_means(records[id(row)])) for row in table.rows[:MOST_CLASS_ROWS]]
    known = dict.fromkeys([*table.classes, *(name for _, scores in means for name in scores)])
    classes = [name for name in known if any(name in scores for _, scores in means)]
    return classes, [(label, [scores.get(name) for name in classes]) for label, scores in means if scores]


def _run(row: Row, record: Record, folder: Path, anchor: str) -> Run:
    fold = "" if record.fold is None else f", fold {record.fold}"
    heading = f"{row.label}, seed {record.seed}{fold}"
    return Run(anchor, heading, record, [*_run_curves(record), *_training_charts(folder)], list(dotted(record.config)))


def _run_curves(record: Record) -> list[Chart]:
    """All scores along the threshold or gamma that a record sweeps."""
    if not record.curve:
        return []
    swept = "threshold" if "threshold" in record.curve[0] else "gamma"
    names = [name for name in DRAWN if name in record.curve[0]]
    series = [
        Series(name.replace("_", " "), [(line[swept], 100 * line[name]) for line in record.curve], style=style)
        for style, name in enumerate(names)
    ]
    return [chart(f"Scores along the {swept}", series, swept, "%")] if series else []


def _training_charts(folder: Path) -> list[Chart]:
    """What the run's CSV log has of its training: one chart of the losses, one of each score seen more than once."""
    groups: dict[str, list[tuple[str, list[tuple[float, float]]]]] = defaultdict(list)
    for name, points in _logged(folder).items():
        groups["train" if name.startswith("train/") else name].append((name, points))
    charts = []
    for group, lines in groups.items():
        series = [Series(name, points, style=style) for style, (name, points) in enumerate(lines[:MOST_LINES])]
        charts.append(chart("Training" if group == "train" else group, series, "step", "value"))
    return charts


def _logged(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Steps and values by column of a run's CSV logs, without columns of one value and the IoU of single classes."""
    values: dict[str, dict[float, float]] = defaultdict(dict)
    for file in sorted(folder.glob("logs/csv/version_*/metrics.csv")):
        with file.open(newline="", encoding="utf-8") as stream:
            for line in csv.DictReader(stream):
                step = _number(line.get("step"))
                for name, text in line.items():
                    value = _number(text)
                    if step is not None and value is not None and name not in ("step", "epoch") and "/iou/" not in name:
                        values[name][step] = value
    return {name: sorted(points.items()) for name, points in values.items() if len(points) > 1}


def _number(text: Any) -> float | None:
    """A finite number, None for anything else: a log may end in the middle of a line."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if abs(value) < float("inf") else None


def dotted(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings by dotted key with their values as text, as one would write them on the command line."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "null" if value is None else str(value)


def _add_pictures(runs: Sequence[Run], folders: Mapping[str, Path]) -> None:
    """Embed panels while there is room: the first of each kind for every run, then the others."""
    left = MOST_PICTURES
    panels = {run.anchor: _panels(folders[run.anchor]) for run in runs}
    for first in (True, False):
        for run in runs:
            for file in (file for file in panels[run.anchor] if (_place(file)[1] == 1) == first):
                size = file.stat().st_size
                if size <= left:
                    left -= size
                    run.pictures.append(_picture(file))


def _panels(folder: Path) -> list[Path]:
    return sorted((file for file in folder.glob("panels/*.png") if _place(file)[0] in KINDS), key=_place)


def _place(file: Path) -> tuple[str, int, str]:
    """Kind, number and image of a panel `best-1-ID.png`."""
    kind, _, rest = file.stem.partition("-")
    number, _, image = rest.partition("-")
    return kind, int(number) if number.isdigit() else 0, image


def _picture(file: Path) -> Picture:
    kind, number, image = _place(file)
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    return Picture(f"{kind} {number}: {image}", f"data:image/png;base64,{data}")
