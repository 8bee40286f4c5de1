"""Records of a folder as tables."""

from __future__ import annotations

import warnings
from pathlib import Path

from segladder.errors import DataError
from segladder.report.costs import with_costs_of_today
from segladder.report.counted import Counted
from segladder.report.leaderboard import Table
from segladder.report.record import find_records


def rank(runs: str | Path, metric: str | None = None) -> list[Table]:
    """The leaderboard's tables; see `segladder.rank`. Raises DataError without a record, ConfigError for no score."""
    found, faults = find_records(runs)
    for fault in faults:
        warnings.warn(f"skipped {fault}", stacklevel=3)
    if not found:
        raise DataError(f"runs={runs}: no record there, expected folders that segladder train wrote")
    records = with_costs_of_today(record for record, _ in found)
    with Counted([(record, folder) for record, (_, folder) in zip(records, found, strict=True)]) as counted:
        return counted.tables(metric)
