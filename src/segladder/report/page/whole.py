"""The leaderboard as one HTML page that needs nothing else: no second file, no network.

The page is made of tables, records, and what lies in the runs' folders: panels and the CSV log of training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from segladder.metrics.scores import Score
from segladder.report.budget import decisions
from segladder.report.counted import Counted
from segladder.report.ladder import findings, rungs
from segladder.report.leaderboard import Table
from segladder.report.means import class_means
from segladder.report.page.board import Board, board, board_csv, heading_of, lines_csv
from segladder.report.page.charts import Chart
from segladder.report.page.details import Details, Run, details, run_of
from segladder.report.page.drawn import sweep_charts
from segladder.report.page.ladder_figure import LadderFigure, Step, ladder_figure
from segladder.report.page.naming import Name, Shown, labels_of, names
from segladder.report.page.pictures import MOST_BYTES, Room, SideBySide, embedded, panels, place, side_by_side
from segladder.report.page.questions import questions, told
from segladder.report.published import Published, published
from segladder.report.record import Record
from segladder.report.rendering import duration

MOST_RUNS = 200  # shown in full
MOST_CLASS_ROWS = 60  # of one heat map
UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")

RunKey = tuple[str, str]  # id of a run and hash of the protocol that scored it


@dataclass(frozen=True)
class Section:
    """One table of the leaderboard with all that is drawn from it.

    Attributes:
        anchor: its id in the page, made of hashes: it stays as other tables come and go.
        title: what was asked, in words; `tooltip` has the hashes.
        worth: of a ladder, sentences on what is worth its labels; `not_worth`, on what is not.
        bought: which label to buy for each budget that was asked about, headings and lines.
        row_score: what the heat map shows, its classes in columns; `heat` has a line for each row but those left out.
    """

    anchor: str
    title: str
    tooltip: str
    table: Table
    best: str
    worth: list[str]
    not_worth: list[str]
    bought: tuple[list[str], list[list[str]]] | None
    board: Board
    csv: str
    figure: LadderFigure | None
    charts: list[Chart]
    row_score: Score
    classes: list[str]
    heat: list[tuple[Name, str, list[float | None]]]
    heat_left_out: int
    heat_csv: str
    side_by_side: list[SideBySide]
    published: list[Published]
    published_csv: str
    rows: list[Details]
    runs_left_out: int


def page(
    tables: Sequence[Table], counted: Counted, budgets: Sequence[str] = (), title: str = "SegLadder leaderboard"
) -> str:
    """The whole page as text.

    The first 200 runs are shown in full, the best run of every row before the second of any; panels are embedded up to
    12 MiB, one of each kind for every run before further ones.

    Args:
        tables: of `segladder.report.leaderboard.rank`.
        counted: the runs behind them with their counts.
        budgets: of work on one class, such as `1h`: which label to buy for each.
        title: heading of the page.
    """
    by_id = {(record.id, record.protocol.get("hash") or ""): (record, folder) for record, folder in counted.found}
    parts = [part for table in tables for part in _with_folds(table, counted)]
    asked = questions(tables, [_records(table, counted.records) for table in tables])
    titles = {(table.hash, table.data, table.fingerprint): words for table, words in zip(tables, asked, strict=True)}
    shown = _shown_runs([table for _, table in parts])
    room = Room(MOST_BYTES)
    make = _Sections(counted, by_id, shown, room, budgets)
    sections = [
        make.section(alone + titles[table.hash, table.data, table.fingerprint], table, alone) for alone, table in parts
    ]
    _add_pictures([run for section in sections for row in section.rows for run in row.runs], make.panels, room)
    rows = sorted((row for table in tables for row in table.rows), key=lambda row: row.standing)
    about = {
        "title": title,
        "records": len(counted.found),
        "all_shares": all(table.score.unit == "share" for _, table in parts),
        "supervisions": list(dict.fromkeys(row.supervision for row in rows)),
        "labels": list(dict.fromkeys(labels_of(row) for row in rows)),
        "data": list(dict.fromkeys(table.called for table in tables if table.called)),
        "protocols": list(dict.fromkeys(table.protocol for table in tables if table.protocol)),
    }
    return _environment().get_template("page.html.jinja").render(sections=sections, **about)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("segladder.report", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    environment.filters["heading_of"] = heading_of
    return environment


def _with_folds(table: Table, counted: Counted) -> list[tuple[str, Table]]:
    """A table; where no row has every fold, also a table of each fold by itself, with the fold's name."""
    if not table.rows or any(row.value is not None for row in table.rows):
        return [("", table)]
    folds = counted.of_each_fold(table)
    return [("", table), *((f"Fold {fold} alone: ", alone) for fold, alone in folds.items() if alone.rows)]


def _records(table: Table, found: Sequence[Record]) -> list[Record]:
    """All records of a table, ranked or not."""
    key = table.hash, table.data, table.fingerprint
    return [
        record
        for record in found
        if (record.protocol.get("hash") or "", record.data.get("name") or "", record.data.get("val_fingerprint") or "")
        == key
    ]


def _shown_runs(tables: Sequence[Table]) -> set[RunKey]:
    """Id and protocol hash of the runs shown in full: first one of every row, then the second of each."""
    rows = [[(run, table.hash) for run in row.runs] for table in tables for row in table.rows]
    order = [run for turn in zip_longest(*rows) for run in turn if run is not None]
    return set(order[:MOST_RUNS])


class _Sections:
    """Makes the sections; `panels` are those of the runs shown, by the run's id in the page."""

    def __init__(
        self,
        counted: Counted,
        by_id: Mapping[RunKey, tuple[Record, Path]],
        shown: set[RunKey],
        room: Room,
        budgets: Sequence[str],
    ) -> None:
        self.counted, self.by_id, self.shown, self.room, self.budgets = counted, by_id, shown, room, budgets
        self.panels: dict[str, list[Path]] = {}
        self.taken: set[str] = set()

    def section(self, title: str, table: Table, alone: str) -> Section:
        """The section of a table, of one fold `alone` where that is named."""
        key = "-".join(filter(None, (table.hash or "none", *alone.lower().split()[:2])))
        anchor = self._anchor(f"table-{'-'.join(filter(None, (key, table.fingerprint[:8])))}")
        shown = [
            Shown(
                row,
                name,
                self._row_anchor(row.runs, table.hash, key),
                [self.by_id[run, table.hash][0] for run in row.runs],
            )
            for row, name in zip(table.rows, names(table), strict=True)
        ]
        rows = [
            details(table, each, self._runs(table, each.row.runs, key), self.counted) for each in shown if each.anchor
        ]
        steps = self._steps(table, shown)
        worth, not_worth, figure = self._ladder(table, steps)
        classes, heat = _heat_map(table, shown)
        alongside = published(table.protocol)
        seen = [(row.name.text, row.anchor, self.panels[run.anchor]) for row in rows for run in row.runs[:1]]
        return Section(
            anchor=anchor,
            title=title,
            tooltip=told(table),
            table=table,
            best=_best(table, shown),
            worth=worth,
            not_worth=not_worth,
            bought=self._bought(table, steps),
            board=board(table, shown),
            csv=board_csv(table),
            figure=figure,
            charts=sweep_charts(table, shown),
            row_score=table.declared.row_score,
            classes=classes,
            heat=heat[:MOST_CLASS_ROWS],
            heat_left_out=len(heat[MOST_CLASS_ROWS:]),
            heat_csv=lines_csv(["row", *classes], [[name.text, *shares] for name, _, shares in heat]),
            side_by_side=side_by_side(seen, self.room),
            published=alongside,
            published_csv=_published_csv(alongside),
            rows=rows,
            runs_left_out=sum(len(row.runs) for row in table.rows) - sum(len(row.runs) for row in rows),
        )

    def _anchor(self, wanted: str) -> str:
        """An id that a link can hold and nothing else in the page has."""
        safe = UNSAFE.sub("-", wanted)
        anchor = next(name for n in range(len(self.taken) + 2) if (name := safe + f"-{n}" * (n > 0)) not in self.taken)
        self.taken.add(anchor)
        return anchor

    def _row_anchor(self, runs: Sequence[str], protocol: str, key: str) -> str:
        """A row goes by its first run; empty where none of its runs is shown in full."""
        return self._anchor(f"row-{key}-{runs[0]}") if any((run, protocol) in self.shown for run in runs) else ""

    def _runs(self, table: Table, runs: Sequence[str], key: str) -> list[Run]:
        made = []
        for run in runs:
            if (run, table.hash) in self.shown:
                record, folder = self.by_id[run, table.hash]
                anchor = self._anchor(f"run-{key}-{run}")
                self.panels[anchor] = panels(folder)
                made.append(run_of(table, record, folder, anchor, bool(self.panels[anchor])))
        return made

    def _steps(self, table: Table, shown: Sequence[Shown]) -> list[Step]:
        """The rungs of a table under the names that the page gives its rows."""
        of_row = {each.row.runs[0]: each for each in shown if each.row.runs}
        steps = []
        for rung in rungs(table, self.counted.records):
            each = of_row[rung.row.runs[0]]
            oracle = ", by an oracle" if rung.row.selection == "oracle" else ""
            steps.append(Step(replace(rung, label=each.name.text + oracle), each))
        return steps

    def _bought(self, table: Table, steps: Sequence[Step]) -> tuple[list[str], list[list[str]]] | None:
        """Which label to buy for each budget; None where nobody asked or nothing is known to cost."""
        if not (steps and self.budgets):
            return None
        return decisions(table, [step.rung for step in steps], self.counted, self.budgets)

    def _ladder(self, table: Table, steps: Sequence[Step]) -> tuple[list[str], list[str], LadderFigure | None]:
        """What a ladder says in words, and the figure of any table whose rows cost differently."""
        if not steps:
            return [], [], None
        is_ladder = table.declared.ladder is not None
        figure = ladder_figure(steps, table.score, " of novel classes" if is_ladder else "")
        if not is_ladder:
            return [], [], figure
        worth, not_worth, remarks = findings(table, [step.rung for step in steps], self.counted)
        return [*worth, *remarks], not_worth, figure


def _published_csv(rows: Sequence[Published]) -> str:
    columns = ["method", "network", "data", "shots", "score", "percent", "source", "url", "verified"]
    return lines_csv(
        columns,
        [[p.method, p.network, p.data, p.shots, p.metric, p.percent, p.source, p.url, p.verified] for p in rows],
    )


def _best(table: Table, shown: Sequence[Shown]) -> str:
    """The best row and its score."""
    name = next((each.name.text for each in shown if each.row is table.best), None)
    if name is None or table.best is None:
        return ""
    return f"{name}: {table.score.title} {table.score.text(table.best.value)}{table.score.percent}"


def _heat_map(table: Table, rows: Sequence[Shown]) -> tuple[list[str], list[tuple[Name, str, list[float | None]]]]:
    """What sums up each class (columns), by row, mean over runs; the row's name and the id of its details before it."""
    score = table.declared.row_score.name
    means = [(shown, class_means(shown.records, score)) for shown in rows]
    known = dict.fromkeys([*table.classes, *(name for _, scores in means for name in scores)])
    classes = [name for name in known if any(name in scores for _, scores in means)]
    return classes, [
        (shown.name, shown.anchor, [scores.get(name) for name in classes]) for shown, scores in means if scores
    ]


def _add_pictures(runs: Sequence[Run], files: Mapping[str, Sequence[Path]], room: Room) -> None:
    """Embed panels while there is room: the first of each kind for every run, then the others."""
    for first in (True, False):
        for run in runs:
            for file in (file for file in files[run.anchor] if (place(file)[1] == 1) == first):
                if (picture := embedded(file, room)) is not None:
                    run.pictures.append(picture)
