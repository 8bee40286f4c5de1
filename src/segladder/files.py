"""Files and folders that appear whole or not at all, whoever else writes them and whatever interrupts it."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from glob import escape
from pathlib import Path

from segladder.errors import DataError


@contextmanager
def written(path: Path, durable: bool = False) -> Iterator[Path]:
    """A place to write to, in the same folder and of the same ending; it becomes `path` when the block ends.

    A reader sees what was there before or all of the new. On an error `path` stays as it was. Each process and thread
    writes to a place of its own, so the last one to finish wins.

    Args:
        path: a file, or a folder that does not exist yet; its parent folder is created if missing.
        durable: a file that is on the disk before it appears, so that a power failure leaves the old or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield partial
        if durable:
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):  # of a folder that nobody may write to
            _remove(partial)
        for cause in (error, error.__context__):  # a full disk names no file, and nobody knows the partial one
            if isinstance(cause, OSError) and cause.errno and cause.filename in (None, partial, str(partial)):
                cause.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, as `written` does."""
    with written(path) as partial:
        partial.write_text(text, encoding="utf-8")


def remove_partials(path: Path) -> None:
    """Remove what killed processes left of writing `path`; only for one who knows that nobody else is writing it."""
    for partial in path.parent.glob(f".{escape(path.stem)}.????????.partial{escape(path.suffix)}"):
        _remove(partial)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on a file or a folder that other processes wait for; a killed process loses it.

    Some network file systems know no locks on folders; there the block runs without.
    """
    file, is_folder = _own_file(path), path.is_dir()
    try:
        with suppress(OSError) if is_folder else nullcontext():
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough where a fork has the file open too
        os.close(file)


def _own_file(path: Path) -> int:
    """A folder's or file's descriptor, the file made if missing. Raises DataError for a link or a pipe."""
    if path.is_symlink() or (path.exists() and not (path.is_file() or path.is_dir())):
        raise DataError(f"{path}: a link or a pipe, expected a file of its own")
    if path.is_dir():
        return os.open(path, os.O_RDONLY)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _remove(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial)
    else:
        partial.unlink(missing_ok=True)
