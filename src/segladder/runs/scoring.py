"""Scoring a method and showing what came out: shared by `train` and `evaluate`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from io import StringIO
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from segladder.data.sources.base import Source
from segladder.foreign import printable
from segladder.methods.base import Method
from segladder.metrics.counts import COUNTS
from segladder.metrics.declaration import Declaration
from segladder.protocols.base import Protocol, Result
from segladder.report.declared import declared
from segladder.report.pictures.curves import CURVE, save_sweep
from segladder.report.pictures.panels import save_panels
from segladder.report.record import FILE_NAME, Record
from segladder.runs.watching.mirrors import Mirror

NAMES = 24  # columns that class names get at least, where they need them; longer ones go on in the next line
BETWEEN = 2  # columns between two of a table


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
    return save_panels(folder / "panels", result.pictured or result.counts, each, load, source.classes, source.colours)


def print_scores(record: Record, folder: Path) -> None:
    """The final table of a run: a row per class, the means beneath, and where everything lies."""
    show_scores(Console(), record, folder)


def scores_text(record: Record, folder: Path) -> str:
    """The final table of a run as plain text, 80 columns wide."""
    text = StringIO()
    show_scores(Console(file=text, width=80), record, folder)
    return text.getvalue().rstrip("\n")


def show_scores(console: Console, record: Record, folder: Path) -> None:
    """Print the final table of a run to a console."""
    says = declared(record)
    console.print(Text(printable(table_title(record)), "bold"))
    console.print(class_table(record, says, console.width))
    scores = [score for score in says.shown("summary") if score.name in record.metrics]
    width = max([17, *(len(score.heading) for score in scores)])
    for score in scores:
        value, low, high = (score.text(record.metrics[score.name][key]) for key in ("value", "low", "high"))
        interval = "" if low == "-" else f"  ({low} to {high})"
        console.print(Text(printable(f"  {score.heading:<{width}} {value}{interval}")))
    if any(record.metrics[score.name]["low"] is not None for score in scores):
        console.print(Text(f"  (in brackets: 95 % interval{says.over})"))
    console.print(Text(printable(f"  {folder}")), soft_wrap=True)


def table_title(record: Record) -> str:
    """What was scored on what."""
    return f"{record.method} on {record.data_title}, protocol {record.protocol['name']} {record.protocol['hash']}"


def class_table(record: Record, says: Declaration, width: int) -> Table:
    """A row per class. Columns that do not fit the width are named beneath: no word is cut."""
    columns = [column for column in says.columns if column.name in record.per_class[0]]
    names = [printable(row["class"]) for row in record.per_class]
    cells = {column: [column.text(row[column.name]) for row in record.per_class] for column in columns}
    needs = {c: max(map(len, [*printable(c.heading).split(), *cells[c]])) for c in columns}
    most = max(map(len, ["class", *names]))
    kept = columns
    while len(kept) > 1 and min(most, NAMES) + sum(BETWEEN + needs[column] for column in kept) > width:
        kept = kept[:-1]
    for_names = min(most, max(NAMES, width - sum(BETWEEN + needs[column] for column in kept)))
    left_out = ", ".join(printable(column.heading) for column in columns[len(kept) :])
    table = Table(
        Column("class", width=for_names, overflow="fold"),
        *(Column(Text(printable(c.heading)), "", justify="right", width=needs[c], vertical="bottom") for c in kept),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption=f"also in {FILE_NAME}: {left_out}" if left_out else None,
        caption_justify="left",
    )
    for number, name in enumerate(names):
        table.add_row(Text(name), *(cells[column][number] for column in kept))
    return table


def log_scores(record: Record, mirrors: Sequence[Mirror], panels: Sequence[Path]) -> None:
    """Hand the final scores and panels to the run's mirrors."""
    scores = {f"{record.protocol['name']}/{name}": score["value"] for name, score in record.metrics.items()}
    name = declared(record).row_score.name
    scores |= {f"{record.protocol['name']}/{name}/{row['class']}": row.get(name) for row in record.per_class}
    for mirror in mirrors:
        mirror.log_metrics({k: v for k, v in scores.items() if v is not None and not math.isnan(v)}, record.steps)
        for path in panels:
            mirror.log_image(f"panels/{path.stem}", path)
