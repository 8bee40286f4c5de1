"""The tables of the page: what differs between rows stands in columns, what is the same for all of them above."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segladder.metrics.scores import Score
from segladder.report.leaderboard import Row, Table
from segladder.report.page.naming import Name, labels_of, method_of
from segladder.report.rendering import against_best, beside, csv_text, duration, no_formula, number, seeds

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
    text: Callable[[Row], str]
    order: Callable[[Row], float | None] | None = None
    folds: bool = True


def board(
    table: Table, named: Mapping[int, Name], costs: Mapping[str, Mapping[int, float | None]], anchors: Mapping[int, str]
) -> Board:
    """The table of a leaderboard.

    Args:
        table: with its rows.
        named: of `segladder.report.page.naming.names`.
        costs: seconds of annotation of every row by the heading of their column.
        anchors: the id of each row's details, empty for none.
    """
    told, common = [], []
    for column in _columns(table, costs):
        texts = [column.text(row) for row in table.rows]
        if all(text in NOTHING for text in texts):
            continue
        if column.folds and len(texts) > 1 and len(set(texts)) == 1:
            common.append(f"{column.heading} {texts[0]}")
        elif column.heading not in ("method", "labels"):  # the name says them
            told.append(column)
    cells = [[_cell(column, row, table.score) for row in table.rows] for column in told]
    numeric = [all(cell.text in NOTHING or not isinstance(cell.order, str) for cell in line) for line in cells]
    headings = [(column.heading, right) for column, right in zip(told, numeric, strict=True)]
    lines = [
        Line(named[id(row)], anchors[id(row)], [line[i] for line in cells], labels_of(row), row.supervision)
        for i, row in enumerate(table.rows)
    ]
    return Board(headings, lines, common)


def heading_of(score: Score) -> str:
    """A score's heading with its unit."""
    return f"{score.heading}, %" if score.unit == "share" else score.heading


def _columns(table: Table, costs: Mapping[str, Mapping[int, float | None]]) -> list[Column]:
    """All that a table may have, in the order in which one asks."""
    score = table.score
    found = [
        Column("method", method_of),
        Column("labels", labels_of),
        Column(score.axis, lambda row: _ranking(row, score), lambda row: _scaled(row.value, score), folds=False),
        Column("against the best, points", lambda row: against_best(row, score), folds=False),
    ]
    for heading, seconds in costs.items():
        found.append(_cost(heading, seconds))
    for one in map(table.declared.__getitem__, dict.fromkeys(name for row in table.rows for name in row.others)):
        found.append(_beside(one))
    return [
        *found,
        Column(
            f"each seed{', %' if score.unit == 'share' else ''}",
            lambda row: seeds(row, score) if row.seeds[1:] else "-",
        ),
        Column("seeds", lambda row: str(len(row.seeds) or "-")),
        Column("folds", lambda row: str(row.folds or "-")),
        Column("backbone", lambda row: row.backbone),
        Column("pretraining", lambda row: row.pretraining),
        Column("selection", lambda row: row.selection),
        Column("supervision", lambda row: row.supervision.replace("_", " ")),
        Column("parameters", lambda row: "-" if row.parameters is None else f"{row.parameters / 1e6:.2f} M"),
        Column("training", lambda row: duration(row.train_seconds), lambda row: row.train_seconds),
        Column("images/s", lambda row: number(row.images_per_second, 0)),
        Column("memory, MB", lambda row: number(row.peak_memory_mb, 0)),
        Column("note", lambda row: row.note),
    ]


def _cost(heading: str, seconds: Mapping[int, float | None]) -> Column:
    return Column(heading, lambda row: duration(seconds[id(row)]), lambda row: seconds[id(row)])


def _beside(score: Score) -> Column:
    return Column(
        heading_of(score), lambda row: beside(row, score), lambda row: _scaled(row.others.get(score.name), score)
    )


def _scaled(value: float | None, score: Score) -> float | None:
    return None if value is None or value != value else score.scale * value


def _ranking(row: Row, score: Score) -> str:
    interval = "" if row.low is None or row.high is None else f" [{score.text(row.low)}, {score.text(row.high)}]"
    return f"{score.text(row.value)}{interval}"


def _cell(column: Column, row: Row, score: Score) -> Cell:
    text = column.text(row)
    if column.order is not None:
        order: float | str | None = column.order(row)
    elif text in NOTHING:
        order = None
    else:
        begun = LEADING_NUMBER.match(text)
        order = float(begun.group()) if begun else text
    shown = column.heading == score.axis and score.unit == "share" and row.value is not None
    return Cell(text or "-", order, _bar(row, score) if shown else None)


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
