"""What this process may use of the machine: cores, processes on them, a cache; and which process of a run it is."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any, Literal

STOPPING = (signal.SIGINT, signal.SIGTERM)


def cores(most: int | None = None) -> int:
    """CPU cores that this process may use, at least 1; not more than `most` where that is given."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return found if most is None else min(most, found)


def cache_folder(asked: str | Path | None = None) -> Path:
    """The folder asked for, or segladder/ in the user's cache folder (XDG_CACHE_HOME, default ~/.cache)."""
    if asked is not None:
        return Path(asked)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segladder"


def rank() -> int:
    """Which process of a distributed run this is, 0 the first: as torchrun, Lightning or srun have numbered it."""
    known = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return int(next((number for number in known if number is not None), 0))


def tasks() -> int:
    """How many processes a cluster's scheduler has started for this run, each by itself; 1 where none did."""
    if "SLURM_PROCID" in os.environ and "LOCAL_RANK" not in os.environ:
        return int(os.environ.get("SLURM_NTASKS", 1))
    return 1


def pool(
    how: Literal["fork", "spawn"], workers: int, start: Callable[..., None] | None = None, *arguments: Any
) -> Pool:
    """Processes that leave stopping to this one, so that Ctrl-C prints nothing of theirs.

    Args:
        how: they begin.
        workers: how many.
        start: what each calls first, with `arguments`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # until a worker has let go of the parent's handlers
    try:
        return multiprocessing.get_context(how).Pool(workers, begin, (start, arguments))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    """For a worker: Ctrl-C is for the parent, and the SIGTERM that ends a worker runs no handler of the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    if start is not None:
        start(*arguments)
