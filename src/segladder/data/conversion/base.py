"""What a format tells of a folder: images, how the mask of each is drawn, and the classes of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from segladder.data.conversion.listing import Listing
from segladder.data.conversion.naming import Naming
from segladder.machine import cores

MOST_THREADS = 8
T = TypeVar("T")
Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]  # passes things on and shows how many of how many came


@dataclass(frozen=True)
class Entry:
    """One annotated image.

    Attributes:
        image_id: its id in the folder that is written.
        image: its file.
        told: the file that tells its mask.
        draw: the mask, class values uint8 (H, W), 255 ignored; raises DataError naming the file at fault.
    """

    image_id: str
    image: Path
    told: Path
    draw: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Found:
    """A class of the masks that are written.

    Attributes:
        value: in these masks; 255 is ignored.
        name: of the class.
        looks: what it was before: colours, numbers, a label.
    """

    value: int
    name: str
    looks: str


@dataclass(frozen=True)
class Reading:
    """What a folder holds.

    Attributes:
        words: what the annotations are, in words.
        classes: by value, the ignored one last.
        entries: what can be converted.
        left_out: a line for each thing that cannot, naming the file.
        unnamed: the `classes=` that would name classes nobody has named, or None.
    """

    words: str
    classes: Sequence[Found]
    entries: Sequence[Entry]
    left_out: Sequence[str]
    unnamed: str | None = None


class Format(Protocol):
    """A module of `formats`: one way in which annotations come."""

    @staticmethod
    def finds(listing: Listing) -> str | None:
        """What of this format a folder holds, in a few words; None without any."""

    @staticmethod
    def read(listing: Listing, naming: Naming, watch: Watch) -> Reading:
        """All of it. Raises DataError or ConfigError for what cannot be converted at all."""


def threaded(work: Callable[[Any], T], items: Sequence[Any]) -> Iterator[T]:
    """The results of some work in the order of the items; what has not begun when the reader stops is dropped."""
    pool = ThreadPoolExecutor(cores(most=MOST_THREADS))
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
