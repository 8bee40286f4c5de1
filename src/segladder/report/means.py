"""Means over the runs of a leaderboard's row: what their labels cost, and the score of each class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from segladder.report.record import Record


def mean_annotation(records: Sequence[Record], key: str = "seconds") -> float | None:
    """Mean annotation cost of runs in seconds, None where one does not know it.

    Args:
        records: of one row.
        key: `seconds` for all labels, `novel_seconds` for those of novel classes.
    """
    costs = [(record.annotation_cost or {}).get(key) for record in records]
    return fmean(cost for cost in costs if cost is not None) if costs and None not in costs else None


def class_means(records: Sequence[Record], score: str) -> dict[str, float]:
    """Mean of a score of every class or video that some run of a row has scored."""
    values = defaultdict(list)
    for line in (line for record in records for line in record.per_class):
        if line.get(score) is not None:
            values[str(line["class"])].append(line[score])
    return {name: fmean(scores) for name, scores in values.items()}
