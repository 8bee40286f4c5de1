"""Rows per class of a record: how well a class is overlapped, with the interval of its IoU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from segladder.metrics import bootstrap, overlap
from segladder.metrics.counts import Counts


def class_rows(counts: Counts, names: Sequence[str], draws: int, absent: str = "skip") -> list[dict[str, Any]]:
    """One row per class: its name, scores, number of true pixels, and the ends `low` and `high` of its IoU's interval.

    Args:
        counts: of a run.
        names: of the classes.
        draws: behind the intervals.
        absent: what classes that never occur have: nothing (`skip`) or 0 (`zero`); their interval is nan.
    """
    rows = overlap.per_class(torch.from_numpy(counts.total()), names, absent)
    ends = zip(*bootstrap.per_class(counts, draws), strict=True)
    return [{**row, "low": float(low), "high": float(high)} for row, (low, high) in zip(rows, ends, strict=True)]
