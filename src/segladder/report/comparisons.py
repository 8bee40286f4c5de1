"""Paired tests between rows of a leaderboard as tables: the score that ranks, recomputed from the runs' counts."""

from __future__ import annotations

from collections.abc import Sequence

from segladder.errors import ConfigError
from segladder.metrics.bootstrap import Comparison, holm
from segladder.metrics.scores import Score
from segladder.report.counted import Counted
from segladder.report.fields import fields_of
from segladder.report.leaderboard import Row, Table
from segladder.report.rendering import comparison_cells, markdown_table

RESULT = ["difference", "95 % interval", "p"]


def comparisons(table: Table, pairs: Sequence[str], counted: Counted) -> str:
    """A Markdown table of paired bootstrap comparisons, each side the mean of its row's seeds; p-values by Holm.

    Args:
        table: the leaderboard the pairs stand in.
        pairs: `FIRST:SECOND`, each a row's method (with its settings, where several rows share the method; followed by
            `@BACKBONE`, where several backbones do).
        counted: the runs with their counts.

    Raises:
        ConfigError: a name fits no row or several, a metric without such a test.
        DataError: a run's counts are missing, or runs were scored on different images.
    """
    found = holm([counted.compare(table, *_rows_named(table, pair)) for pair in pairs])
    lines = [[*pair.split(":"), *comparison_cells(one, table.score)] for pair, one in zip(pairs, found, strict=True)]
    return markdown_table(["first", "second", f"difference in {table.score.title}", *RESULT[1:]], lines)


def supports_compared(tables: Sequence[Table], counted: Counted) -> str:
    """A Markdown table of paired bootstrap comparisons of more supports with fewest, on the same images; or nothing.

    Lists of one protocol with more supports are other tables; their queries and all other fields are the same.
    """
    by_hash = {record.protocol.get("hash"): fields_of([record]) for record in counted.records}
    same: dict[tuple[str, ...], list[tuple[int, Table, Row]]] = {}
    for table in tables:
        asked = {key: value for key, value in sorted(by_hash.get(table.hash, {}).items()) if key != "shots"}
        for row in table.rows:
            if row.shots is not None and row.value is not None:
                key = table.protocol, repr(asked), table.fingerprint, table.metric, f"{row.label}@{row.backbone}"
                same.setdefault(key, []).append((row.shots, table, row))
    told: list[list[str]] = []
    found: list[tuple[Comparison, Score]] = []
    for (protocol, *_, metric, name), rungs in same.items():
        (fewest, least_table, least), *more = sorted(rungs, key=lambda rung: rung[0])
        for shots, table, row in (rung for rung in more if rung[0] > fewest):
            told.append([protocol, name.split("@")[0], str(shots), str(fewest), metric])
            found.append((counted.compare(table, row, least, least_table), table.score))
    adjusted = holm([one for one, _ in found])
    lines = [
        [*what, *comparison_cells(one, score)] for what, one, (_, score) in zip(told, adjusted, found, strict=True)
    ]
    headings = ["protocol", "method", "supports", "against", "score", *RESULT]
    return markdown_table(headings, lines) if lines else ""


def _names(row: Row) -> list[str]:
    """What a row goes by in `compare`, the most exact last; the number of supports tells few-shot rows apart."""
    shots = [] if row.shots is None else [f"{row.label}@{row.shots}shot"]
    return [row.method, row.label, f"{row.label}@{row.backbone}", *shots]


def _fits(row: Row, name: str) -> bool:
    """Whether a name is one of a row's, or its label with some of the settings left out."""
    if name in _names(row):
        return True
    left = name
    for setting in row.settings:
        left = left.replace(f" {setting}", "", 1)
    return left == row.label.removesuffix(" ".join(["", *row.settings]))


def pairs_of(tables: Sequence[Table], pairs: Sequence[str]) -> list[list[str]]:
    """For each table the pairs of which it holds both rows; a pair that no table holds goes to the first, to fail."""
    given: list[list[str]] = [[] for _ in tables]
    for pair in pairs:
        holding = [i for i, table in enumerate(tables) if all(_rows_fitting(table, pair))]
        for i in holding or [0]:
            given[i].append(pair)
    return given


def _rows_fitting(table: Table, pair: str) -> list[list[Row]]:
    """The rows that either name of a pair fits; the one that is called so in full goes before those that say more."""
    fits = [[row for row in table.rows if _fits(row, name)] for name in pair.split(":")]
    whole = [[row for row in table.rows if row.label == name] for name in pair.split(":")]
    return [called if len(called) == 1 else fitting for called, fitting in zip(whole, fits, strict=True)]


def _rows_named(table: Table, pair: str) -> tuple[Row, Row]:
    """The two rows a pair names."""
    fits = _rows_fitting(table, pair)
    if [len(rows) for rows in fits] != [1, 1]:
        allowed = ", ".join(_names(row)[-1] for row in table.rows)
        raise ConfigError(f"compare={pair}: expected FIRST:SECOND, each fitting one of the rows {allowed}")
    return fits[0][0], fits[1][0]
