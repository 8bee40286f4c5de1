"""Reading something of each of many images, in threads; if that takes a while, a line says so."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.progress import track

from segladder.machine import cores, rank

MANY = 2000  # images; fewer are read in a moment
MOST_THREADS = 4

Key = TypeVar("Key")
Found = TypeVar("Found")


def of_each(
    read: Callable[[Key], Found],
    keys: Sequence[Key],
    what: str,
    most_threads: int = MOST_THREADS,
    progress: bool = False,
) -> Iterator[Found]:
    """What `read` gives for each image, in their order; of many a line on standard error says what is read.

    Args:
        read: called in threads.
        keys: ids or positions of images.
        what: is read, such as `masks of voc`.
        most_threads: of them.
        progress: show a bar instead.
    """
    if len(keys) >= MANY and not progress and rank() == 0:
        print(f"segladder: reading {len(keys):,} {what}", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(cores(most=most_threads)) as pool:
        yield from track(pool.map(read, keys), what, len(keys), transient=True, disable=not progress)
