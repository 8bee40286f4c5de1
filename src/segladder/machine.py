"""What this process may use of the machine."""

from __future__ import annotations

import os


def cores(most: int | None = None) -> int:
    """CPU cores that this process may use, at least 1; not more than `most` where that is given."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return found if most is None else min(most, found)
