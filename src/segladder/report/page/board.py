"""The tables of the page: what differs between rows stands in columns, what is the same for all of them above."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from segladder.metrics.scores import Score
from segladder.report.leaderboard import Row, Table
from segladder.report.means import mean_annotation
from segladder.report.page.naming import Name, Shown, labels_of, method_of
from segladder.report.rendering import against_best, beside, csv_text, duration, interval, no_formula, number, seeds

LEADING_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
NOTHING = ("", "-")


@dataclass(frozen=True)
class Bar:
    """A score and its interval as shares of the axis, 0..100, drawn behind its text."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Cell:
    """Text of a table's cell, and what it is sorted by (None stands last)."""

    text: str
    order: float | str | None
    bar: Bar | None = None


@dataclass(frozen=True)
class Line:
    """A row: its name, the id of what tells it in full (empty where nothing does), its cells, what filters ask."""

    name: Name
    anchor: str
    cells: list[Cell]
    labels: str
    supervision: str


@dataclass(frozen=True)
class Board:
    """A leaderboard's table; `common` is what all rows share, `headings` say whether their column holds numbers."""

    headings: list[tuple[str, bool]]
    lines: list[Line]
    common: list[str]


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        heading: with its unit.
        text: of a row's cell.
        order: what rows are sorted by; None: the number that the text begins with, or the text.
        folds: whether it is named above the table where all rows have the same.
    """

    heading: str
    text: Callable[[Shown], str]
    order: Callable[[Shown], float | None] | None = None
    folds: bool = True


def board(table: Table, rows: Sequence[Shown]) -> Board:
    """The table of a leaderboard with its rows."""
    told, common = [], []
    for column in _columns(table):
        texts = [column.text(shown) for shown in rows]
        if all(text in NOTHING for text in texts):
            continue
        if column.folds and len(texts) > 1 and len(set(texts)) == 1:
            common.append(f"{column.heading} {texts[0]}")
        elif column.heading not in ("method", "labels"):  # the name says them
            told.append(column)
    cells = [[_cell(column, shown, table.score) for shown in rows] for column in told]
    numeric = [all(cell.text in NOTHING or not isinstance(cell.order, str) for cell in line) for line in cells]
    headings = [(column.heading, right) for column, right in zip(told, numeric, strict=True)]
    lines = [
        Line(shown.name, shown.anchor, [line[i] for line in cells], labels_of(shown.row), shown.row.supervision)
        for i, shown in enumerate(rows)
    ]
    return Board(headings, lines, common)


def heading_of(score: Score) -> str:
    """A score's heading with its unit."""
    return f"{score.heading}, %" if score.unit == "share" else score.heading


def _columns(table: Table) -> list[Column]:
    """All that a table may have, in the order in which one asks."""
    score = table.score
    costs = {"annotation": "seconds"}
    if table.declared.ladder is not None:
        costs = {"novel labels": "novel_seconds", "all labels": "seconds"}
    others = map(table.declared.__getitem__, dict.fromkeys(name for row in table.rows for name in row.others))
    percent = ", %" if score.unit == "share" else ""
    return [
        _of_row("method", method_of),
        _of_row("labels", labels_of),
        _of_row(
            score.axis,
            lambda row: score.text(row.value) + interval(row.low, row.high, score),
            lambda row: _scaled(row.value, score),
            folds=False,
        ),
        _of_row("against the best, points", lambda row: against_best(row, score), folds=False),
        *(_cost(heading, key) for heading, key in costs.items()),
        *map(_beside, others),
        _of_row(f"each seed{percent}", lambda row: seeds(row, score) if row.seeds[1:] else "-"),
        _of_row("seeds", lambda row: str(len(row.seeds) or "-")),
        _of_row("folds", lambda row: str(row.folds or "-")),
        _of_row("backbone", lambda row: row.backbone),
        _of_row("pretraining", lambda row: row.pretraining),
        _of_row("selection", lambda row: row.selection),
        _of_row("supervision", lambda row: row.supervision.replace("_", " ")),
        _of_row("parameters", lambda row: "-" if row.parameters is None else f"{row.parameters / 1e6:.2f} M"),
        _of_row("training", lambda row: duration(row.train_seconds), lambda row: row.train_seconds),
        _of_row("images/s", lambda row: number(row.images_per_second, 0)),
        _of_row("memory, MB", lambda row: number(row.peak_memory_mb, 0)),
        _of_row("note", lambda row: row.note),
    ]


def _of_row(
    heading: str, text: Callable[[Row], str], order: Callable[[Row], float | None] | None = None, folds: bool = True
) -> Column:
    return Column(
        heading, lambda shown: text(shown.row), None if order is None else lambda shown: order(shown.row), folds
    )


def _cost(heading: str, key: str) -> Column:
    return Column(
        heading,
        lambda shown: duration(mean_annotation(shown.records, key)),
        lambda shown: mean_annotation(shown.records, key),
    )


def _beside(score: Score) -> Column:
    return _of_row(
        heading_of(score), lambda row: beside(row, score), lambda row: _scaled(row.others.get(score.name), score)
    )


def _scaled(value: float | None, score: Score) -> float | None:
    return None if value is None or math.isnan(value) else score.scale * value


def _cell(column: Column, shown: Shown, score: Score) -> Cell:
    text = column.text(shown)
    if column.order is not None:
        order: float | str | None = column.order(shown)
    elif text in NOTHING:
        order = None
    else:
        begun = LEADING_NUMBER.match(text)
        order = float(begun.group()) if begun else text
    has_bar = column.heading == score.axis and score.unit == "share" and shown.row.value is not None
    return Cell(text or "-", order, _bar(shown.row, score) if has_bar else None)


def _bar(row: Row, score: Score) -> Bar:
    value, low, high = (
        None if one is None else round(min(100.0, max(0.0, score.scale * one)), 1)
        for one in (row.value, row.low, row.high)
    )
    return Bar(value or 0.0, low, high)


def board_csv(table: Table) -> str:
    """A link's address that holds the whole table, exact, with all columns."""
    return data_url(csv_text([table]), "text/csv")


def lines_csv(headings: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A link's address that holds these lines as CSV; no spreadsheet computes a cell of them."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([no_formula(heading) for heading in headings])
    writer.writerows([["" if cell is None else no_formula(cell) for cell in line] for line in lines])
    return data_url(stream.getvalue(), "text/csv")


def data_url(text: str, kind: str) -> str:
    """A link's address that holds a text: nothing in it is markup, whoever wrote it."""
    return (
        f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode(errors='backslashreplace')).decode('ascii')}"
    )
