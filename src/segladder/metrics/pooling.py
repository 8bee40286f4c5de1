"""How the runs of all folds become one value, where it is not the mean of their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]  # of a record's `per_class`


def fb_iou_pooled(rows: Sequence[Row]) -> float | None:
    """Mean IoU of background and foreground, the classes of all folds pooled as one foreground.

    Args:
        rows: of all folds of one seed, with `tp`, `fp` and `fn`; each fold's begin with the background.

    Returns:
        A share; None where a row does not hold these counts, or rows of classes that were asked for are missing.
    """
    if not rows or any(type(row.get(key)) is not int for row in rows for key in ("tp", "fp", "fn")):
        return None
    background = [row for row in rows if row["class"] == rows[0]["class"]]
    objects = [row for row in rows if row["class"] != rows[0]["class"]]
    kept, invented, missed = (sum(row[key] for row in background) for key in ("tp", "fn", "fp"))
    if missed > sum(row["fn"] for row in objects):  # pixels of another class
        return None
    found = sum(row["tp"] + row["fn"] for row in objects) - missed  # as whichever class
    return float(kept / max(1, kept + invented + missed) + found / max(1, found + invented + missed)) / 2


POOLED: dict[str, Callable[[Sequence[Row]], float | None]] = {"fb_iou_pooled": fb_iou_pooled}
