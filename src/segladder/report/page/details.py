"""A row in full: each class with its interval, what is taken for what, and the runs behind it with their files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segladder.errors import ConfigError, DataError
from segladder.metrics.bootstrap import Runs, ends
from segladder.metrics.counts import Counts
from segladder.metrics.scores import FromCounts, Score
from segladder.report.counted import Counted
from segladder.report.leaderboard import Row, Table
from segladder.report.means import class_means
from segladder.report.page.board import data_url, heading_of
from segladder.report.page.charts import Chart
from segladder.report.page.drawn import run_curves, training_charts
from segladder.report.page.naming import Name, Shown
from segladder.report.page.pictures import Picture
from segladder.report.record import Record, plain
from segladder.report.rendering import interval
from segladder.report.settings import typed

MOST_CLASSES = 40  # of a confusion matrix
CLASS_FORMULAS = {"iou": "class_iou"}  # columns per class that follow from counts


@dataclass(frozen=True)
class Confusion:
    """Shares of a true class's pixels by what they were taken for; rows and columns that hold none are left out."""

    truths: list[str]
    answers: list[str]
    shares: list[list[float]]
    over: str


@dataclass
class Run:
    """One run; `record_url` and `config_url` are its files, `file` what they are called without their ending."""

    anchor: str
    heading: str
    record: Record
    charts: list[Chart]
    config: list[tuple[str, str]]
    scores: list[tuple[str, str, str]]
    record_url: str
    config_url: str
    file: str
    has_folder: bool
    pictures: list[Picture] = field(default_factory=list)


@dataclass(frozen=True)
class Details:
    """One row in full; `classes` is a table of its classes, its `class_headings` above."""

    anchor: str
    name: Name
    row: Row
    score: str
    class_headings: list[str]
    classes: list[list[str]]
    confusion: Confusion | None
    runs: list[Run]
    left_out: int


def details(table: Table, shown: Shown, runs: list[Run], counted: Counted) -> Details:
    """A row in full.

    Args:
        table: where it stands.
        shown: the row, with at least one run.
        runs: those that are shown.
        counted: the counts of all of its runs.
    """
    row = shown.row
    headings, classes = _classes(table, row, shown.records, counted)
    value = table.score.text(row.value) + interval(row.low, row.high, table.score)
    score = f"{table.score.title} {value}{table.score.percent}"
    return Details(
        shown.anchor,
        shown.name,
        row,
        score,
        headings,
        classes,
        _confusion(table, row, counted),
        runs,
        len(row.runs) - len(runs),
    )


def run_of(table: Table, record: Record, folder: Path, anchor: str, panels: bool) -> Run:
    """A run with its files and, where its folder is there, its curves."""
    fold = "" if record.fold is None else f", fold {record.fold}"
    heading = f"seed {record.seed}{fold}" if record.seed is not None else f"one run{fold}"
    whole = json.dumps(plain(asdict(record)), indent=1, sort_keys=True, ensure_ascii=False)
    logged = training_charts(folder)
    return Run(
        anchor,
        heading,
        record,
        [*run_curves(record), *logged],
        list(dotted(record.config)),
        [_told(table.declared[name], score, record.has_intervals) for name, score in sorted(record.metrics.items())],
        data_url(whole + "\n", "application/json"),
        data_url(yaml.safe_dump(plain(record.config), sort_keys=True, allow_unicode=True), "text/plain"),
        anchor.removeprefix("run-"),
        bool(logged) or panels,
    )


def dotted(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings by dotted key with their values as text, as one would write them on the command line."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", typed(value)


def _told(score: Score, found: Mapping[str, Any], has_intervals: bool) -> tuple[str, str, str]:
    """A score's name, its value with its unit, its interval."""
    low, high = found.get("low"), found.get("high")
    span = (
        f"{score.text(low)} to {score.text(high)}{score.percent}" if has_intervals and None not in (low, high) else ""
    )
    value = found["value"]
    return score.heading, f"{score.text(value, 2)}{'' if value is None else score.percent}", span


def _classes(table: Table, row: Row, records: Sequence[Record], counted: Counted) -> tuple[list[str], list[list[str]]]:
    """A line for each class: the columns that the protocol declares, and the interval of the first."""
    told = [
        (score, class_means(records, score.name)) for score in table.declared.columns or (table.declared.row_score,)
    ]
    told = [(score, means) for score, means in told if means]
    if not told:
        return [], []
    names = list(dict.fromkeys([*(n for n in table.classes if n in told[0][1]), *told[0][1]]))
    spans = _spans(table, row, records, counted)
    headings = ["class", heading_of(told[0][0]), *(["95 % interval"] if spans else [])]
    lines = []
    for name in names:
        first, *others = (score.text(means.get(name)) for score, means in told)
        between = [_between(spans.get(name), told[0][0])] if spans else []
        lines.append([name, first, *between, *others])
    return [*headings, *(heading_of(score) for score, _ in told[1:])], lines


def _between(ends: tuple[float, float] | None, score: Score) -> str:
    return "-" if ends is None else f"{score.text(ends[0])} to {score.text(ends[1])}"


def _spans(table: Table, row: Row, records: Sequence[Record], counted: Counted) -> dict[str, tuple[float, float]]:
    """The interval of each class: what the record of a single run says, else what counts give.

    Counts are believed where their value is the records' own. A class of one fold has that of its fold, one that all
    folds score that of the mean over them.
    """
    score = table.declared.row_score
    if len(records) == 1 and records[0].has_intervals:
        lines = [
            line for line in records[0].per_class if all(isinstance(line.get(end), float) for end in ("low", "high"))
        ]
        return {str(line["class"]): (line["low"], line["high"]) for line in lines}
    if score.name not in CLASS_FORMULAS:
        return {}
    found: dict[str, tuple[float, float]] = {}
    means = class_means(records, score.name)
    for counts in _of_folds(table, row, records, counted):
        rule = FromCounts(
            CLASS_FORMULAS[score.name], kinds=table.score.statistic.kinds if table.score.statistic else ()
        )
        try:
            drawn = Runs.of(counts, rule, seedless=not row.seeds).under_draws(2000)
        except (DataError, ValueError, LookupError):
            continue
        low, high = ends(drawn, rule)
        for k, name in enumerate(table.classes[: drawn.shape[1]]):
            if name in means and abs(drawn[0, k] - means[name]) < 1e-6 and low[k] == low[k]:
                found[name] = (float(low[k]), float(high[k]))
    return found


def _of_folds(table: Table, row: Row, records: Sequence[Record], counted: Counted) -> Iterator[list[Counts]]:
    """The counts of a row's runs: of all of them, and by the fold that they score."""
    try:
        counts = counted.of(table, row)
    except (DataError, ConfigError):
        return
    yield counts
    folds = dict.fromkeys(record.fold for record in records)
    for fold in folds if len(folds) > 1 else ():
        yield [of_run for of_run, record in zip(counts, records, strict=True) if record.fold == fold]


def _confusion(table: Table, row: Row, counted: Counted) -> Confusion | None:
    """What a row's runs took for what, over the questions that the ranking score is about."""
    size = len(table.classes)
    if table.score.statistic is None or size > MOST_CLASSES:
        return None
    try:
        runs = [counts.of_kinds(*table.score.statistic.kinds) for counts in counted.of(table, row)]
        if any(counts.num_classes != size for counts in runs):
            return None
        total = np.sum([counts.total() for counts in runs], axis=0)
    except (DataError, ConfigError, ValueError, LookupError):  # counts of strangers may not fit
        return None
    true = [k for k in range(size) if total[k].sum()]
    said = [k for k in range(size) if total[:, k].sum()]
    if len(true) < 2:
        return None
    shares = [[float(total[k, j] / total[k].sum()) for j in said] for k in true]
    images = len({name for counts in runs for name in counts.images})
    over = f"{images} image{'' if images == 1 else 's'}, {len(runs)} run{'' if len(runs) == 1 else 's'}."
    if all(len(asked.classes) == 1 for counts in runs for asked in counts.asked):
        over += " Each question asks for one class, so that no other could be answered."
    return Confusion([table.classes[k] for k in true], [table.classes[k] for k in said], shares, over)
