"""What a study leaves in the repository: small records, and the tables made from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segladder.errors import ConfigError, DataError
from segladder.report import record as records
from segladder.report.leaderboard import LOWER_IS_BETTER, Row, Table
from segladder.report.record import Record
from segladder.report.rendering import markdown_table

if TYPE_CHECKING:
    from segladder.metrics.bootstrap import Sample, Statistic
    from segladder.metrics.counts import ImageCounts

COUNTS = "counts.npz"  # per-image counts in a run's folder
PATH = re.compile(r"(?<![^\s='\"\[(,:])(?:~|\.{1,2})?/(?:[^\s/'\",\]):]+/)*(?=[^\s/'\",\]):])")


def slim(record: Record) -> Record:
    """A copy fit for a repository.

    Of every path that starts with `/`, `~` or `.` only the last part is kept, of an error the last line, of a
    checkpoint its hash.
    """
    bare = _without_folders(asdict(record))
    error = (bare["error"] or "").strip().splitlines()
    checkpoint = {key: value for key, value in bare["checkpoint"].items() if key != "path"}
    return replace(Record(**bare), error=error[-1] if error else None, checkpoint=checkpoint)


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(item) for item in value]
    return PATH.sub("", value) if isinstance(value, str) else value


def collect(found: Iterable[Record], folder: str | Path) -> Path:
    """Put slim records into a folder's `records.jsonl`; returns that file.

    A record that is there already (same `records.key`) is replaced, as is what its run left before its protocol was
    known; others stay.

    Raises:
        DataError: a line that is there cannot be read, so that writing would lose it.
    """
    file = Path(folder) / records.LINES_NAME
    there, faults = records.read_lines(file) if file.exists() else ([], [])
    if faults:
        raise DataError(f"{faults[0]}; repair or remove the line, copying would lose it")
    kept = {records.key(record): record for record in [*there, *map(slim, found)]}
    scored = {run for run, protocol_hash in kept if protocol_hash}
    return records.write_lines([r for (run, protocol), r in kept.items() if protocol or run not in scored], file)


def per_class(table: Table, found: Iterable[Record], score: str = "iou") -> str:
    """A Markdown table of one score per class or video (columns) and leaderboard row, in percent, mean over runs."""
    by_id = {(record.id, record.protocol.get("hash")): record for record in found}
    runs = {id(row): [by_id[run, table.hash].per_class for run in row.runs] for row in table.rows}
    scored = dict.fromkeys(line["class"] for lines in runs.values() for run in lines for line in run)
    names = sorted(scored, key=lambda name: table.classes.index(name) if name in table.classes else len(table.classes))
    few = any(row.shots is not None for row in table.rows)
    rows = [
        [
            *(row.label, row.backbone, *(["-" if row.shots is None else str(row.shots)] if few else [])),
            *(_mean_of(runs[id(row)], name, score) for name in names),
        ]
        for row in table.rows
    ]
    return markdown_table(["method", "backbone", *(["shots"] if few else []), *names], rows)


def _mean_of(runs: Sequence[Sequence[dict[str, Any]]], name: str, score: str) -> str:
    values = [line[score] for run in runs for line in run if line["class"] == name and line.get(score) is not None]
    return f"{100 * fmean(values):.1f}" if values else "-"


def comparisons(table: Table, pairs: Sequence[str], found: Iterable[tuple[Record, Path]]) -> str:
    """A Markdown table of paired bootstrap comparisons over images or episodes, each side the mean of its row's seeds.

    Compared is what ranks the table: mean IoU over all classes or over an episode's foreground, the harmonic mean of
    seen and unseen classes, how often an answer follows its support (queries are drawn), is empty, how much it paints.

    Args:
        table: the leaderboard the pairs stand in.
        pairs: `FIRST:SECOND`, each a row's method (with its settings, where several rows share the method; followed by
            `@BACKBONE`, where several backbones do).
        found: records with their folders, which hold the runs' counts.

    Raises:
        ConfigError: a name fits no row or several, a metric without such a test.
        DataError: a run's counts are missing, or runs were scored on different images.
    """
    from segladder.metrics.bootstrap import paired_bootstrap  # brings torch: not for every leaderboard

    runs = {record.id: (record, folder) for record, folder in found}
    lines = []
    for pair in pairs:
        first, second = ([runs[run] for run in row.runs] for row in _rows_named(table, pair))
        measure = _measure(table.metric, first)
        result = paired_bootstrap(_samples(first, measure), _samples(second, measure), measure.statistic)
        interval = f"[{100 * result.low:+.2f}, {100 * result.high:+.2f}]"
        lines.append([*pair.split(":"), f"{100 * result.difference:+.2f}", interval, f"{result.p_value:.3f}"])
    return markdown_table(["first", "second", f"difference in {table.metric}", "95 % interval", "p"], lines)


def supports_compared(tables: Iterable[Table], found: Iterable[tuple[Record, Path]]) -> str:
    """A Markdown table of paired bootstrap comparisons of more supports with fewest, on the same queries; or nothing.

    Lists of one protocol with other supports are other tables; their queries are the same, number by number.
    """
    from segladder.metrics.bootstrap import paired_bootstrap

    runs = {record.id: (record, folder) for record, folder in found}
    same: dict[tuple[str, ...], list[tuple[int, Table, Row]]] = {}
    for table in tables:
        for row in table.rows:
            if row.shots is not None and row.value is not None:
                key = table.protocol, table.fingerprint, table.metric, f"{row.label}@{row.backbone}"
                same.setdefault(key, []).append((row.shots, table, row))
    lines = []
    for (protocol, _, metric, name), rungs in same.items():
        (fewest, _, least), *more = sorted(rungs, key=lambda rung: rung[0])
        measure = _measure(metric, [runs[run] for run in least.runs])
        for shots, _, row in more:
            first, second = (
                [_queries(sample) for sample in _samples([runs[run] for run in side.runs], measure)]
                for side in (row, least)
            )
            result = paired_bootstrap(first, second, measure.statistic)
            interval = f"[{100 * result.low:+.2f}, {100 * result.high:+.2f}]"
            what = [protocol, name.split("@")[0], str(shots), str(fewest), metric]
            lines.append([*what, f"{100 * result.difference:+.2f}", interval, f"{result.p_value:.3f}"])
    headings = ["protocol", "method", "supports", "against", "score", "difference", "95 % interval", "p"]
    return markdown_table(headings, lines) if lines else ""


def _queries(sample: Sample) -> Sample:
    """Episodes named without their supports."""
    return sample._replace(names=[name.rsplit("|", 1)[0] for name in sample.names])


def with_significance(table: Table, found: Iterable[tuple[Record, Path]]) -> Table:
    """The table with every row compared with its best one, as `comparisons` do; rows without counts are left alone.

    Rows of other supervisions are compared too: they answer the same questions.
    """
    from segladder.metrics.bootstrap import paired_bootstrap  # brings torch: not for every leaderboard

    runs = {record.id: (record, folder) for record, folder in found}
    ranked = [row for row in table.rows if row.value is not None]
    if not ranked:
        return table
    best = (min if table.metric in LOWER_IS_BETTER else max)(ranked, key=lambda row: row.value or 0.0)
    rows = []
    for row in table.rows:
        with suppress(DataError, ConfigError):  # no counts were kept, of other items, or the metric has no such test
            if row in ranked and row is not best:
                measure = _measure(table.metric, [runs[run] for run in row.runs])
                first, second = (_samples([runs[run] for run in side.runs], measure) for side in (row, best))
                row = replace(row, against_best=asdict(paired_bootstrap(first, second, measure.statistic)))
        rows.append(row)
    return replace(table, rows=rows)


class Measure(NamedTuple):
    """How runs are compared: what is drawn of a run's counts, and the metric as a function of the sums.

    Where each of several folds has groups of classes of its own, `folds` lists them, and sums are (N, folds, ...).
    """

    of_run: Callable[[ImageCounts], Sample]
    statistic: Statistic
    folds: Sequence[int | None] = ()


def _measure(metric: str, runs: Sequence[tuple[Record, Path]]) -> Measure:
    """How the runs of a row are compared with others' by a metric."""
    from segladder.metrics import bootstrap, episodes

    if not runs:
        raise ConfigError("compare: a row without a seed that has every fold, expected one")
    means = {
        "swap_follows": episodes.following,
        "negative_empty": episodes.empty_answers,
        "negative_area": episodes.painted_shares,
    }
    if metric in means:
        return Measure(means[metric], bootstrap.ratio)
    if metric == "harmonic_mIoU":
        groups = {record.fold: _groups(record) for record, _ in runs}
        return Measure(bootstrap.images, partial(_harmonic, groups=list(groups.values())), list(groups))
    if metric != "mIoU":
        raise ConfigError(
            f"compare: no paired test of {metric}, expected metric= {', '.join(means)}, harmonic_mIoU or mIoU"
        )
    record = runs[0][0]
    every_class = record.fold is None or "novel" in record.per_class[0]
    return Measure(bootstrap.images, bootstrap.mean_iou if every_class else episodes.novel_mean_iou)


def _groups(record: Record) -> list[list[int]]:
    """Indices of seen and of unseen classes."""
    groups = [row.get("group") for row in record.per_class]
    if groups and groups[0] != "background":
        groups.insert(0, "background")  # ignored, so that it has no row
    return [[k for k, group in enumerate(groups) if group == name] for name in ("seen", "unseen")]


def _harmonic(sums: np.ndarray, groups: Sequence[list[list[int]]]) -> np.ndarray:
    """Mean over folds of the harmonic mean of seen and unseen classes, of outcomes (..., folds, K, 3)."""
    from segladder.metrics.zero_shot import split_scores

    folds = [split_scores(sums[..., i, :, :], seen, unseen)["harmonic_mIoU"] for i, (seen, unseen) in enumerate(groups)]
    means: np.ndarray = np.mean(folds, axis=0)
    return means


def _samples(runs: Sequence[tuple[Record, Path]], measure: Measure) -> list[Sample]:
    """What is drawn for each seed, that of its folds in one."""
    from segladder.metrics.bootstrap import Sample
    from segladder.metrics.counts import ImageCounts

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
