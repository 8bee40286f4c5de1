"""The leaderboard as one HTML page that needs nothing else: no second file, no network.

The page is made of tables, records, and what lies in the runs' folders: panels and the CSV log of training.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from segladder.foreign import files_below
from segladder.metrics.scores import Score
from segladder.report.charts import Chart
from segladder.report.counted import Counted
from segladder.report.ladder import rungs, summary
from segladder.report.leaderboard import Row, Table
from segladder.report.means import class_means, mean_annotation
from segladder.report.page_charts import cost_charts, duration, run_curves, sweep_charts, training_charts
from segladder.report.published import Published, published
from segladder.report.record import Record
from segladder.report.rendering import columns

MOST_RUNS = 200  # shown in full
MOST_PICTURES = 12 * 2**20  # bytes of all panels before they are encoded as text
MOST_CLASS_ROWS = 60  # of one heat map
KINDS = ("best", "median", "worst")
LEADING_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


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
    """One table of the leaderboard with all that is drawn from it; `row_score` is what the heat map shows."""

    anchor: str
    title: str
    table: Table
    words: list[str]
    headings: list[tuple[str, bool]]
    rows: list[list[Cell]]
    charts: list[Chart]
    row_score: Score
    classes: list[str]
    heat: list[tuple[str, list[float | None]]]
    published: list[Published]
    runs: list[Run]
    runs_left_out: int


def page(tables: Sequence[Table], counted: Counted, title: str = "SegLadder leaderboard") -> str:
    """The whole page as text.

    The first 200 runs are shown in full, the best run of every row before the second of any; panels are embedded up to
    12 MiB, one of each kind for every run before further ones.

    Args:
        tables: of `segladder.report.leaderboard.rank`.
        counted: the runs behind them with their counts.
        title: heading of the page.
    """
    by_id = {(record.id, record.protocol.get("hash") or ""): (record, folder) for record, folder in counted.found}
    parts = [part for table in tables for part in _with_folds(table, counted)]
    shown = _shown_runs([table for _, table in parts])
    sections = [_section(title, table, counted, by_id, shown, number) for number, (title, table) in enumerate(parts)]
    folders = {run.anchor: by_id[run.record.id, run.record.protocol["hash"]][1] for s in sections for run in s.runs}
    _add_pictures([run for section in sections for run in section.runs], folders)
    rows = sorted((row for table in tables for row in table.rows), key=lambda row: row.rung)
    supervisions = list(dict.fromkeys(row.supervision for row in rows))
    shares = all(table.score.unit == "share" for _, table in parts)
    template = _environment().get_template("page.html.jinja")
    about = {"title": title, "records": len(counted.found), "all_shares": shares}
    return template.render(sections=sections, supervisions=supervisions, **about)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("segladder.report", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    return environment


def _with_folds(table: Table, counted: Counted) -> list[tuple[str, Table]]:
    """A table with its title; where no row has every fold, also a table of each fold by itself."""
    parts = [(table.title, table)]
    if not table.rows or any(row.value is not None for row in table.rows):
        return parts
    folds = counted.of_each_fold(table)
    return parts + [(f"{table.title}, fold {fold} alone", alone) for fold, alone in folds.items() if alone.rows]


def _shown_runs(tables: Sequence[Table]) -> set[tuple[str, str]]:
    """Id and protocol hash of the runs shown in full: first one of every row, then the second of each."""
    rows = [[(run, table.hash) for run in row.runs] for table in tables for row in table.rows]
    order = [run for turn in zip_longest(*rows) for run in turn if run is not None]
    return set(order[:MOST_RUNS])


def _section(
    title: str,
    table: Table,
    counted: Counted,
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
    is_ladder = table.declared.ladder is not None
    steps = rungs(table, [record for row in records.values() for record in row]) if is_ladder else []
    classes, heat = _heat_map(table, records)
    return Section(
        anchor=f"table-{number}",
        title=title,
        table=table,
        words=summary(table, steps, counted) if steps else [],
        headings=headings,
        rows=rows,
        charts=[*cost_charts(table, records, first_run), *sweep_charts(table, records, first_run)],
        row_score=table.declared.row_score,
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


def _heat_map(
    table: Table, records: Mapping[int, list[Record]]
) -> tuple[list[str], list[tuple[str, list[float | None]]]]:
    """What sums up each class (columns), by row, mean over runs."""
    name = table.declared.row_score.name
    means = [(row.label, class_means(records[id(row)], name)) for row in table.rows[:MOST_CLASS_ROWS]]
    known = dict.fromkeys([*table.classes, *(name for _, scores in means for name in scores)])
    classes = [name for name in known if any(name in scores for _, scores in means)]
    return classes, [(label, [scores.get(name) for name in classes]) for label, scores in means if scores]


def _run(row: Row, record: Record, folder: Path, anchor: str) -> Run:
    fold = "" if record.fold is None else f", fold {record.fold}"
    heading = f"{row.label}, seed {record.seed}{fold}"
    return Run(anchor, heading, record, [*run_curves(record), *training_charts(folder)], list(dotted(record.config)))


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
    return sorted((file for file in files_below(folder, "panels/*.png") if _place(file)[0] in KINDS), key=_place)


def _place(file: Path) -> tuple[str, int, str]:
    """Kind, number and image of a panel `best-1-ID.png`."""
    kind, _, rest = file.stem.partition("-")
    number, _, image = rest.partition("-")
    return kind, int(number) if number.isdigit() else 0, image


def _picture(file: Path) -> Picture:
    kind, number, image = _place(file)
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    return Picture(f"{kind} {number}: {image}", f"data:image/png;base64,{data}")
