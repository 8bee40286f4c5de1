"""Paired tests between rows of a leaderboard as tables: the score that ranks, recomputed from the runs' counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segladder.errors import ConfigError
from segladder.metrics.bootstrap import SEEDS_DRAWN_FROM, Comparison, holm
from segladder.metrics.scores import Score
from segladder.report.counted import Counted
from segladder.report.fields import fields_of
from segladder.report.ladder import without_amount
from segladder.report.leaderboard import Row, Table
from segladder.report.rendering import comparison_cells, markdown_table
from segladder.report.settings import Settings

RESULT = ["difference", "95 % interval", "p"]


def comparisons(table: Table, pairs: Sequence[str], counted: Counted) -> str:
    """A Markdown table of paired bootstrap comparisons, each side the mean of its row's seeds; p-values by Holm.

    Args:
        table: the leaderboard the pairs stand in.
        pairs: `FIRST:SECOND`, each a row's method (with its settings, where several rows share the method; followed by
            `@5shot`, `@BACKBONE`, `@PRETRAINING` or `@SELECTION`, where these tell rows apart).
        counted: the runs with their counts.

    Raises:
        ConfigError: a name fits no row or several, a metric without such a test.
        DataError: a run's counts are missing, or runs were scored on different images.
    """
    read = [_rows_named(table, pair) for pair in pairs]
    found = holm([counted.compare(table, first, second) for (_, first), (_, second) in read])
    lines = [
        [*(name for name, _ in sides), *comparison_cells(one, table.score)]
        for sides, one in zip(read, found, strict=True)
    ]
    return markdown_table(["first", "second", f"difference in {table.score.title}", *RESULT[1:]], lines)


def title_of(table: Table) -> str:
    """What stands above the comparisons of a table: what is drawn, of which table."""
    seeds = any(len(row.seeds) >= SEEDS_DRAWN_FROM for row in table.rows)
    also = f", and over seeds of rows with {SEEDS_DRAWN_FROM} or more" if seeds else ""
    return f"Paired bootstrap{table.declared.over}{also}, {table.title}"


def supports_compared(tables: Sequence[Table], counted: Counted) -> str:
    """A Markdown table of paired bootstrap comparisons of more supports with fewest, on the same images; or nothing.

    Lists of one protocol with more supports are other tables; their queries and all other fields are the same. So are
    all settings of the two rows.
    """
    found_by = {(record.id, record.protocol.get("hash")): record for record in counted.records}
    among = Settings(counted.by_id)
    same: dict[tuple[str, ...], list[tuple[int, Table, Row]]] = {}
    for table in tables:
        for row in (row for row in table.rows if row.shots is not None and row.value is not None):
            record = found_by[row.runs[0], table.hash]
            asked, had = _beside(fields_of([record]), "shots"), _beside(among.of(record), "protocol.shots")
            key = table.protocol, asked, table.fingerprint, table.metric, *without_amount(row), had
            same.setdefault(key, []).append((row.shots or 0, table, row))
    told: list[list[str]] = []
    found: list[tuple[Comparison, Score]] = []
    for rungs in same.values():
        (fewest, least_table, least), *more = sorted(rungs, key=lambda rung: rung[0])
        for shots, table, row in (rung for rung in more if rung[0] > fewest):
            told.append([table.protocol, row.label, str(shots), str(fewest), table.metric])
            found.append((counted.compare(table, row, least, least_table), table.score))
    adjusted = holm([one for one, _ in found])
    lines = [
        [*what, *comparison_cells(one, score)] for what, one, (_, score) in zip(told, adjusted, found, strict=True)
    ]
    headings = ["protocol", "method", "supports", "against", "score", *RESULT]
    return markdown_table(headings, lines) if lines else ""


def _beside(values: Mapping[str, Any], left_out: str) -> str:
    """All values that are set but one, as a text that equal ones have in common."""
    return repr(sorted((key, repr(value)) for key, value in values.items() if value is not None and key != left_out))


def _columns(row: Row) -> list[str]:
    """What may stand behind a row's label in `compare`, each after an @."""
    return [*([] if row.shots is None else [f"{row.shots}shot"]), row.backbone, row.pretraining, row.selection]


def _bare(row: Row, name: str) -> str:
    """A name without what it says of a row's columns."""
    called, at, last = name.rpartition("@")
    return _bare(row, called) if at and last in _columns(row) else name


def _fits(row: Row, name: str) -> bool:
    """Whether a name is a row's method or label, with some of the settings left out and some columns behind it."""
    left = called = _bare(row, name)
    for setting in row.settings:
        left = left.replace(f" {setting}", "", 1)
    return called == row.method or left == row.label.removesuffix(" ".join(["", *row.settings]))


def _called(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows that a name fits; the one that is called so in full goes before those that say more."""
    fitting = [row for row in rows if _fits(row, name)]
    whole = [row for row in fitting if _bare(row, name) == row.label]
    return whole if len(whole) == 1 else fitting


def _told_apart(row: Row, rows: Sequence[Row]) -> str:
    """A name that fits a row alone, where its columns tell it apart."""
    columns = _columns(row)
    names = ["@".join([row.label, *columns[:n]]) for n in range(1, len(columns) + 1)]
    return next((name for name in names if len(_called(rows, name)) == 1), names[-1])


def pairs_of(tables: Sequence[Table], pairs: Sequence[str]) -> list[list[str]]:
    """For each table the pairs of which it holds both rows; a pair that no table holds goes to the first, to fail."""
    given: list[list[str]] = [[] for _ in tables]
    for pair in pairs:
        holding = [i for i, table in enumerate(tables) if all(rows for _, rows in _read(table, pair))]
        for i in holding or [0]:
            given[i].append(pair)
    return given


def _read(table: Table, pair: str) -> list[tuple[str, list[Row]]]:
    """The two names of a pair and the rows that each fits; a name may hold colons."""
    parts = pair.split(":")
    ways = [(":".join(parts[:n]), ":".join(parts[n:])) for n in range(1, len(parts))]
    read = [[(name, _called(table.rows, name)) for name in way] for way in ways]
    return next((way for way in read if all(rows for _, rows in way)), [(name, []) for name in parts])


def _rows_named(table: Table, pair: str) -> list[tuple[str, Row]]:
    """The two names of a pair, each with its row."""
    read = _read(table, pair)
    if [len(rows) for _, rows in read] != [1, 1]:
        allowed = ", ".join(_told_apart(row, table.rows) for row in table.rows)
        raise ConfigError(f"compare={pair}: expected FIRST:SECOND, each fitting one of the rows {allowed}")
    return [(name, row) for name, (row,) in read]
