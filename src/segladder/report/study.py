"""What a study leaves in the repository: small records, and the tables made from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from segladder.errors import ConfigError
from segladder.report import record as records
from segladder.report.leaderboard import Row, Table
from segladder.report.record import Record
from segladder.report.rendering import markdown_table

if TYPE_CHECKING:
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


def collect(found: Iterable[Record], folder: str | Path) -> list[Path]:
    """Write slim records as `METHOD-BACKBONE-seedSEED-ID.json` into a folder; returns the files."""
    return [records.write(slim(record), Path(folder) / _file_name(record)) for record in found]


def _file_name(record: Record) -> str:
    parts = (record.method, record.backbone.get("name"), f"seed{record.seed}", record.id)
    return re.sub(r"[^\w.-]+", "_", "-".join(str(part) for part in parts if part)) + ".json"


def per_class(table: Table, found: Iterable[Record], score: str = "iou") -> str:
    """A Markdown table of one score per class or video (columns) and leaderboard row, in percent, mean over runs."""
    by_id = {(record.id, record.protocol.get("hash")): record for record in found}
    runs = {id(row): [by_id[run, table.hash].per_class for run in row.runs] for row in table.rows}
    scored = dict.fromkeys(line["class"] for lines in runs.values() for run in lines for line in run)
    names = sorted(scored, key=lambda name: table.classes.index(name) if name in table.classes else len(table.classes))
    rows = [[row.label, row.backbone, *(_mean_of(runs[id(row)], name, score) for name in names)] for row in table.rows]
    return markdown_table(["method", "backbone", *names], rows)


def _mean_of(runs: Sequence[Sequence[dict[str, Any]]], name: str, score: str) -> str:
    values = [line[score] for run in runs for line in run if line["class"] == name and line.get(score) is not None]
    return f"{100 * fmean(values):.1f}" if values else "-"


def comparisons(table: Table, pairs: Sequence[str], found: Iterable[tuple[Record, Path]]) -> str:
    """A Markdown table of paired bootstrap comparisons over images or episodes, each side the mean of its row's seeds.

    Compared is what ranks: mean IoU over all classes, over an episode's foreground, or the harmonic mean of seen and
    unseen classes.

    Args:
        table: the leaderboard the pairs stand in.
        pairs: `FIRST:SECOND`, each a row's method (with its settings, where several rows share the method; followed by
            `@BACKBONE`, where several backbones do).
        found: records with their folders, which hold the runs' counts.

    Raises:
        ConfigError: a name fits no row or several.
        DataError: a run's counts are missing, or runs were scored on different images.
    """
    from segladder.metrics.bootstrap import paired_bootstrap  # brings torch: not for every leaderboard

    runs = {record.id: (record, folder) for record, folder in found}
    lines = []
    for pair in pairs:
        first, second = ([runs[run] for run in row.runs] for row in _rows_named(table, pair))
        result = paired_bootstrap(_counts(first), _counts(second), _statistic(first[0][0]))
        interval = f"[{100 * result.low:+.2f}, {100 * result.high:+.2f}]"
        lines.append([*pair.split(":"), f"{100 * result.difference:+.2f}", interval, f"{result.p_value:.3f}"])
    return markdown_table(["first", "second", f"difference in {table.metric}", "95 % interval", "p"], lines)


def _statistic(record: Record) -> Callable[[Any], Any]:
    """What ranks a run, as a function of outcomes (..., K, 3)."""
    from segladder.metrics.bootstrap import mean_iou
    from segladder.metrics.episodes import novel_mean_iou
    from segladder.metrics.zero_shot import split_scores

    groups = [row.get("group") for row in record.per_class]
    if any(groups):
        seen, unseen = ([k for k, group in enumerate(groups) if group == name] for name in ("seen", "unseen"))
        return lambda outcomes: split_scores(outcomes, seen, unseen)["harmonic_mIoU"]
    every_class = record.fold is None or "novel" in record.per_class[0]
    return mean_iou if every_class else novel_mean_iou


def _counts(runs: Sequence[tuple[Record, Path]]) -> list[ImageCounts]:
    """The counts of each seed, those of its folds in one."""
    from segladder.metrics.counts import ImageCounts

    seeds: dict[int | None, list[ImageCounts]] = {}
    for record, folder in runs:
        counts = ImageCounts.load(folder / COUNTS)
        if record.fold is not None:
            counts.ids = [f"{record.fold}|{name}" for name in counts.ids]
        seeds.setdefault(record.seed, []).append(counts)
    return [ImageCounts.merged(parts) for parts in seeds.values()]


def _rows_named(table: Table, pair: str) -> tuple[Row, Row]:
    """The two rows a pair names."""
    fits = [
        [row for row in table.rows if name in (row.label, f"{row.label}@{row.backbone}", row.method)]
        for name in pair.split(":")
    ]
    if [len(rows) for rows in fits] != [1, 1]:
        allowed = ", ".join(f"{row.label}@{row.backbone}" for row in table.rows)
        raise ConfigError(f"compare={pair}: expected FIRST:SECOND, each fitting one of the rows {allowed}")
    return fits[0][0], fits[1][0]
