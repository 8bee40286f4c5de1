"""Scoring a method and showing what came out: shared by `train` and `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pytorch_lightning.loggers import Logger
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from segladder.data.sources.base import Source
from segladder.foreign import printable
from segladder.methods.base import Method
from segladder.metrics.counts import COUNTS
from segladder.protocols.base import Protocol, Result
from segladder.report.declared import declared
from segladder.report.loggers import log_image
from segladder.report.pictures.curves import CURVE, save_sweep
from segladder.report.pictures.panels import save_panels
from segladder.report.record import Record


def fill_scores(record: Record, result: Result, folder: Path) -> None:
    """Copy a result into the record and its per-image counts beside it."""
    record.metrics, record.per_class, record.curve = result.metrics, result.per_class, result.curve or []
    if result.items is not None:
        record.protocol["items"] = result.items
    record.eval_seconds = round(result.seconds, 3)
    record.images_per_second = round(len(result.counts) / result.predict_seconds, 2)
    result.counts.fold, result.counts.seed = record.fold, record.seed
    result.counts.save(folder / COUNTS)
    if record.curve:
        save_sweep(folder / CURVE, record.curve, declared(record), record.protocol["name"])


def write_panels(
    method: Method, source: Source, protocol: Protocol, result: Result, folder: Path, each: int
) -> list[Path]:
    """Write panels of the `each` best, median, worst and shared images under FOLDER/panels."""
    load = partial(protocol.shown, method, source, result=result)
    return save_panels(folder / "panels", result.pictured or result.counts, each, load, source.classes)


def print_scores(record: Record, folder: Path) -> None:
    """The final table of a run: a row per class, the means beneath, and where everything lies."""
    title = f"{record.method} on {record.data['name']}, protocol {record.protocol['name']} {record.protocol['hash']}"
    says = declared(record)
    columns = [column for column in says.columns if column.name in record.per_class[0]]
    headings = (Text(printable(column.heading)) for column in columns)
    table = Table(Column("class", no_wrap=True), *map(Column, headings), title=Text(printable(title)))
    for row in record.per_class:
        table.add_row(Text(printable(row["class"])), *(column.text(row[column.name]) for column in columns))
    console = Console()
    console.print(table)
    for score in (score for score in says.shown("summary") if score.name in record.metrics):
        value, low, high = (score.text(record.metrics[score.name][key]) for key in ("value", "low", "high"))
        interval = "" if low == "-" else f"  (95 % interval{says.over} {low} to {high})"
        console.print(Text(printable(f"  {score.heading:<17} {value}{interval}")))
    console.print(Text(printable(f"  {folder}")))


def log_scores(record: Record, mirrors: Sequence[Logger], panels: Sequence[Path]) -> None:
    """Hand the final scores and panels to the run's mirrors."""
    scores = {f"{record.protocol['name']}/{name}": score["value"] for name, score in record.metrics.items()}
    name = declared(record).row_score.name
    scores |= {f"{record.protocol['name']}/{name}/{row['class']}": row.get(name) for row in record.per_class}
    for mirror in mirrors:
        mirror.log_metrics({k: v for k, v in scores.items() if v is not None and v == v}, record.steps)
        for path in panels:
            log_image(mirror, f"panels/{path.stem}", path)
