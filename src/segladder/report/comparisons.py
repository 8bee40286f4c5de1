"""Paired tests between rows of a leaderboard: the score that ranks, recomputed from the runs' counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segladder.errors import ConfigError, DataError
from segladder.metrics.bootstrap import Comparison, Sample, Statistic, paired_bootstrap
from segladder.metrics.counts import COUNTS, ImageCounts
from segladder.metrics.scores import Score
from segladder.report.leaderboard import Row, Table
from segladder.report.record import Record
from segladder.report.rendering import markdown_table

if TYPE_CHECKING:
    from segladder.metrics.statistics import FromCounts, Groups

Runs = Sequence[tuple[Record, Path]]  # records with the folders that hold their counts


def comparisons(table: Table, pairs: Sequence[str], found: Iterable[tuple[Record, Path]]) -> str:
    """A Markdown table of paired bootstrap comparisons over images or episodes, each side the mean of its row's seeds.

    Compared is what ranks the table, by the statistic that its score declares.

    Args:
        table: the leaderboard the pairs stand in.
        pairs: `FIRST:SECOND`, each a row's method (with its settings, where several rows share the method; followed by
            `@BACKBONE`, where several backbones do).
        found: records with their folders, which hold the runs' counts.

    Raises:
        ConfigError: a name fits no row or several, a metric without such a test.
        DataError: a run's counts are missing, or runs were scored on different images.
    """
    runs = {record.id: (record, folder) for record, folder in found}
    lines = []
    for pair in pairs:
        first, second = ([runs[run] for run in row.runs] for row in _rows_named(table, pair))
        measure = _measure(table, first)
        result = paired_bootstrap(_samples(first, measure), _samples(second, measure), measure.statistic)
        lines.append([*pair.split(":"), *_cells(result, table.score)])
    return markdown_table(["first", "second", f"difference in {table.score.title}", "95 % interval", "p"], lines)


def _cells(result: Comparison, score: Score) -> list[str]:
    """Difference, interval and p-value."""
    difference, low, high = (score.text(value, 2, "+") for value in (result.difference, result.low, result.high))
    return [difference, f"[{low}, {high}]", f"{result.p_value:.3f}"]


def supports_compared(tables: Iterable[Table], found: Iterable[tuple[Record, Path]]) -> str:
    """A Markdown table of paired bootstrap comparisons of more supports with fewest, on the same queries; or nothing.

    Lists of one protocol with other supports are other tables; their queries are the same, number by number.
    """
    runs = {record.id: (record, folder) for record, folder in found}
    same: dict[tuple[str, ...], list[tuple[int, Table, Row]]] = {}
    for table in tables:
        for row in table.rows:
            if row.shots is not None and row.value is not None:
                key = table.protocol, table.fingerprint, table.metric, f"{row.label}@{row.backbone}"
                same.setdefault(key, []).append((row.shots, table, row))
    lines = []
    for (protocol, _, metric, name), rungs in same.items():
        (fewest, least_table, least), *more = sorted(rungs, key=lambda rung: rung[0])
        measure = _measure(least_table, [runs[run] for run in least.runs])
        for shots, table, row in more:
            first, second = (
                [_queries(sample) for sample in _samples([runs[run] for run in side.runs], measure)]
                for side in (row, least)
            )
            result = paired_bootstrap(first, second, measure.statistic)
            what = [protocol, name.split("@")[0], str(shots), str(fewest), metric]
            lines.append([*what, *_cells(result, table.score)])
    headings = ["protocol", "method", "supports", "against", "score", "difference", "95 % interval", "p"]
    return markdown_table(headings, lines) if lines else ""


def _queries(sample: Sample) -> Sample:
    """Episodes named without their supports."""
    return sample._replace(names=[name.rsplit("|", 1)[0] for name in sample.names])


def with_significance(table: Table, found: Iterable[tuple[Record, Path]]) -> Table:
    """The table with every row compared with its best one, as `comparisons` do; rows without counts are left alone.

    Rows of other supervisions are compared too: they answer the same questions.
    """
    runs = {record.id: (record, folder) for record, folder in found}
    ranked = [row for row in table.rows if row.value is not None]
    if not ranked:
        return table
    best = max(ranked, key=lambda row: table.score.sign * (row.value or 0.0))
    rows = []
    for row in table.rows:
        with suppress(DataError, ConfigError):  # no counts were kept, of other items, or the metric has no such test
            if row in ranked and row is not best:
                measure = _measure(table, [runs[run] for run in row.runs])
                first, second = (_samples([runs[run] for run in side.runs], measure) for side in (row, best))
                row = replace(row, against_best=asdict(paired_bootstrap(first, second, measure.statistic)))
        rows.append(row)
    return replace(table, rows=rows)


class Measure(NamedTuple):
    """How runs are compared: what is drawn of a run's counts, and the score as a function of the sums.

    Where each of several folds has groups of classes of its own, `folds` lists them, and sums are (N, folds, ...).
    """

    of_run: Callable[[ImageCounts], Sample]
    statistic: Statistic
    folds: Sequence[int | None] = ()


def _measure(table: Table, runs: Runs) -> Measure:
    """How the runs of a row are compared with others' by what ranks the table."""
    if not runs:
        raise ConfigError("compare: a row without a seed that has every fold, expected one")
    rule = _rule(table)
    if not rule.groups:
        return Measure(rule.units, rule.score)
    groups = {record.fold: _groups(record) for record, _ in runs}
    return Measure(rule.units, partial(_mean_over_folds, rule=rule, groups=list(groups.values())), list(groups))


def _rule(table: Table) -> FromCounts:
    """How the score that ranks follows from counts. Raises ConfigError where it does not say."""
    from segladder.metrics.statistics import STATISTICS  # brings torch: not for every leaderboard

    if (rule := STATISTICS.get(table.score.statistic)) is not None:
        return rule
    tested = [score.name for score in table.declared.scores if score.statistic in STATISTICS]
    expected = f"expected metric= {', '.join(tested)}" if tested else f"nor of another score of {table.protocol}"
    raise ConfigError(f"compare: no paired test of {table.metric}, {expected}")


def _groups(record: Record) -> Groups:
    """Indices of the classes of each group, such as the seen ones. Raises ConfigError where rows name no group."""
    if not all("group" in row for row in record.per_class):
        raise ConfigError(f"compare: run {record.id} does not say which classes are seen and which unseen")
    names = [str(row.get("group")) for row in record.per_class]
    if names and names[0] != "background":
        names.insert(0, "background")  # ignored, so that it has no row
    return {group: [k for k, name in enumerate(names) if name == group] for group in dict.fromkeys(names)}


def _mean_over_folds(sums: np.ndarray, rule: FromCounts, groups: Sequence[Groups]) -> np.ndarray:
    """The mean over folds of a score whose classes fall into groups, of sums (N, folds, ...)."""
    folds = np.stack([rule.score(sums[:, i], of_fold) for i, of_fold in enumerate(groups)])  # (folds, N)
    return np.asarray(folds.mean(0))


def _samples(runs: Runs, measure: Measure) -> list[Sample]:
    """What is drawn for each seed, that of its folds in one."""
    seeds: dict[int | None, list[Sample]] = {}
    for record, folder in runs:
        names, sums = measure.of_run(ImageCounts.load(folder / COUNTS))
        if measure.folds:
            if record.fold not in measure.folds:
                raise DataError(f"fold {record.fold}: scored by one row only, expected rows of the same folds")
            whole = np.zeros((len(sums), len(measure.folds), *sums.shape[1:]), sums.dtype)
            whole[:, measure.folds.index(record.fold)] = sums
            sums = whole
        seeds.setdefault(record.seed, []).append(Sample([f"{record.fold}|{name}" for name in names], sums))
    return [Sample.joined(parts) for parts in seeds.values()]


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
    return [[row for row in table.rows if _fits(row, name)] for name in pair.split(":")]


def _rows_named(table: Table, pair: str) -> tuple[Row, Row]:
    """The two rows a pair names."""
    fits = _rows_fitting(table, pair)
    if [len(rows) for rows in fits] != [1, 1]:
        allowed = ", ".join(_names(row)[-1] for row in table.rows)
        raise ConfigError(f"compare={pair}: expected FIRST:SECOND, each fitting one of the rows {allowed}")
    return fits[0][0], fits[1][0]
