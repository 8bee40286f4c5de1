"""How threads that share a tensor wait for each other."""

from __future__ import annotations

import os

SPINS = 2000  # libgomp's own choice is 300,000


def wait_briefly() -> None:
    """Let threads of this process spin for a short while only before they sleep; to be called before torch is imported.

    A thread that spins keeps its core from the thread that it waits for. On a machine that another training shares,
    libgomp's own choice makes a step 4 to 19 times as long (`benchmarks/busy_core.py`). `OMP_WAIT_POLICY` and
    `GOMP_SPINCOUNT` of the environment come first.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
