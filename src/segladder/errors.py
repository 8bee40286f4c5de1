"""The errors a user can cause and mend; the command line prints their one line without a traceback."""

from __future__ import annotations

import errno
from collections.abc import Sequence

SHOWN = 3  # names in a line that stands for many


class SegLadderError(Exception):
    """A fault the user can mend; its text names the file, key or id, what was expected and what to do."""


class ConfigError(SegLadderError):
    """The configuration asks for something that does not exist or does not fit together."""


class DataError(SegLadderError):
    """A file of the data set is missing, damaged or holds what it may not hold."""


class Diverged(SegLadderError):
    """Training has left the finite numbers."""


class MachineError(SegLadderError):
    """The disk or the memory that loading processes share has no room, or a folder cannot be written to."""


def some(names: Sequence[str]) -> str:
    """The first few names of what is at fault, and how many there are in all."""
    rest = f" ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


UNWRITABLE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room on that disk"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "choose a place that you may read and write"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.EISDIR), "choose another place: a file is no folder"),
}
SHARED_MEMORY = "workers are out of shared memory", "</torch_"  # what torch says where it has none left


def of_machine(error: BaseException) -> MachineError | None:
    """The error in one line with its remedy, if the machine is its cause, however often it was raised again."""
    cause: BaseException | None = error
    while cause is not None:
        if any(word in str(cause) for word in SHARED_MEMORY):
            return MachineError(
                "loading processes have no shared memory left (/dev/shm): choose loader.workers=0, or give the"
                " container more of it (docker run --shm-size=8g)"
            )
        if isinstance(cause, OSError) and cause.errno in UNWRITABLE:
            place = f"{cause.filename}: " if cause.filename else ""
            return MachineError(f"{place}{cause.strerror}; {UNWRITABLE[cause.errno]}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None
