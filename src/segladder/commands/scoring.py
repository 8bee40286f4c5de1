"""Scoring a method and showing what came out: shared by `train` and `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from rich.console import Console
from rich.table import Table

from segladder.data.source import Source
from segladder.methods.base import Method
from segladder.protocols.base import Protocol, Result
from segladder.report.loggers import log_image
from segladder.report.record import Record

COUNTS = "counts.npz"


def score(
    method: Method,
    source: Source,
    protocol: Protocol,
    config: DictConfig,
    ids: Sequence[str] | None = None,
    progress: bool | None = None,
) -> Result:
    """Score a method on the protocol's items, or on some ids; every process of a distributed run calls this."""
    show_progress = config.trainer.progress if progress is None else progress
    return protocol.score(method, source, ids=ids, batch_size=config.trainer.score_batch, progress=show_progress)


def fill_scores(record: Record, result: Result, folder: Path) -> None:
    """Copy a result into the record and its per-image counts beside it."""
    record.metrics, record.per_class = result.metrics, result.per_class
    record.eval_seconds = round(result.seconds, 3)
    record.images_per_second = round(len(result.counts.ids) / result.predict_seconds, 2)
    result.counts.save(folder / COUNTS)
