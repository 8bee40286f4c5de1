"""RUN/log.txt: what a run printed, each part with its time in UTC; a run that goes on adds to it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segladder.errors import DataError
from segladder.foreign import printable
from segladder.runs.folder import is_first_process

NAME = "log.txt"
APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT
NO_OTHER_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # neither a link nor a pipe that waits


def note(folder: Path, text: str) -> None:
    """Add to a folder's log, from the first process only. Raises DataError where no file can be written."""
    if not is_first_process():
        return
    line = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {printable(text)}\n"
    try:
        file = os.open(folder / NAME, APPENDING | NO_OTHER_FILE, 0o666)
        with os.fdopen(file, "a", encoding="utf-8") as stream:
            stream.write(line)
    except OSError as error:
        raise DataError(f"{folder / NAME}: {error.strerror}, expected a file that a run can add to") from error


def say(folder: Path, text: str) -> None:
    """Print and add to a folder's log, from the first process only."""
    if is_first_process():
        print(text, flush=True)
        note(folder, text)


@contextmanager
def warnings_noted(folder: Path) -> Iterator[None]:
    """What Python warns of goes to the log too."""
    show = warnings.showwarning

    def noted(message: Warning | str, category: type[Warning], *place: Any, **rest: Any) -> None:
        note(folder, f"warning: {' '.join(str(message).split())}")
        show(message, category, *place, **rest)

    warnings.showwarning = noted
    try:
        yield
    finally:
        warnings.showwarning = show
