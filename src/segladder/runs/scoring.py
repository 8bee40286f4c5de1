"""Scoring a method and showing what came out: shared by `train` and `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pytorch_lightning.loggers import Logger
from rich.console import Console
from rich.table import Column, Table

from segladder.data.sources.base import Source
from segladder.methods.base import Method
from segladder.protocols.base import Protocol, Result
from segladder.report.curves import CURVE, save_curve
from segladder.report.loggers import log_image
from segladder.report.panels import save_panels
from segladder.report.record import Record
from segladder.report.rendering import shown
from segladder.report.study import COUNTS

SHOWN = (
    *("mIoU", "pixel_accuracy", "boundary_iou", "iou_small", "iou_medium", "iou_large"),
    *("mIoU_oracle", "threshold_oracle", "over_activation", "under_activation"),
    *(
        "harmonic_mIoU",
        "seen_mIoU",
        "unseen_mIoU",
        "base_mIoU",
        "novel_mIoU",
        "gamma",
        "oracle_harmonic_mIoU",
        "gamma_area",
    ),
    *("unseen_only_pixel_accuracy", "majority_rate"),
    *("fb_iou", "average_precision", "predicted_share", "true_share"),
    *("J", "F", "J_recall", "J_decay", "J_without_last", "F_without_last"),
    *("hard_mIoU", "negative_area", "negative_empty", "swap_follows", "swap_right_iou", "swap_wrong_iou"),
)
COLUMNS = ("iou", "precision", "recall", "over_activation", "under_activation", "boundary_iou", "F")


def fill_scores(record: Record, result: Result, folder: Path) -> None:
    """Copy a result into the record and its per-image counts beside it."""
    record.metrics, record.per_class, record.curve = result.metrics, result.per_class, result.curve or []
    if result.items is not None:
        record.protocol["items"] = result.items
    record.eval_seconds = round(result.seconds, 3)
    record.images_per_second = round(len(result.counts) / result.predict_seconds, 2)
    result.counts.save(folder / COUNTS)
    if record.curve:
        save_curve(folder / CURVE, record.curve, record.protocol["name"])


def write_panels(
    method: Method, source: Source, protocol: Protocol, result: Result, folder: Path, each: int
) -> list[Path]:
    """Write panels of the `each` best, median and worst images under FOLDER/panels."""

    load = partial(protocol.shown, method, source)
    return save_panels(folder / "panels", result.counts, each, load, source.classes)


def print_scores(record: Record, folder: Path) -> None:
    """The final table of a run: a row per class, the means beneath, and where everything lies."""
    title = f"{record.method} on {record.data['name']}, protocol {record.protocol['name']} {record.protocol['hash']}"
    columns = [c for c in COLUMNS if c in record.per_class[0]]
    table = Table(Column("class", no_wrap=True), *(c.replace("_", " ") for c in columns), title=title)
    for row in record.per_class:
        table.add_row(row["class"], *(shown(c, row[c]) for c in columns))
    console = Console()
    console.print(table)
    for name in (name for name in SHOWN if name in record.metrics):
        value, low, high = (shown(name, record.metrics[name][key]) for key in ("value", "low", "high"))
        interval = "" if low == "-" else f"  (95 % interval {low} to {high})"
        console.print(f"  {name.replace('_', ' '):<17} {value}{interval}", highlight=False)
    console.print(f"  {folder}", highlight=False)


def log_scores(record: Record, mirrors: Sequence[Logger], panels: Sequence[Path]) -> None:
    """Hand the final scores and panels to the run's mirrors."""
    scores = {f"{record.protocol['name']}/{name}": score["value"] for name, score in record.metrics.items()}
    scores |= {f"{record.protocol['name']}/iou/{row['class']}": row["iou"] for row in record.per_class}
    for mirror in mirrors:
        mirror.log_metrics({k: v for k, v in scores.items() if v is not None and v == v}, record.steps)
        for path in panels:
            log_image(mirror, f"panels/{path.stem}", path)
