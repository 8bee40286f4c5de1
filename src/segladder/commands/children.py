"""Runs in processes of their own: a fresh interpreter for each, that ends when this one does."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux' prctl

Child = subprocess.Popen[bytes]


def run_child(arguments: Sequence[str]) -> int:
    """Run `segladder ARGUMENTS` in a process of its own and return its exit code; signals as in `waited_for`."""
    child = start_child(arguments)
    with waited_for([child]):
        return child.wait()


def start_child(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, log: Path | None = None
) -> Child:
    """Start `segladder ARGUMENTS`; on Linux it ends if this process is killed.

    Args:
        arguments: command and overrides.
        environment: further variables.
        log: a file that gets all it prints, after what is there (its folder is created); None: the screen.
    """
    command = [sys.executable, "-m", "segladder.cli", *arguments]
    variables = {**os.environ, **(environment or {})}
    if log is None:
        return subprocess.Popen(command, env=variables, preexec_fn=_end_with_parent)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(
            command, env=variables, preexec_fn=_end_with_parent, stdout=stream, stderr=subprocess.STDOUT
        )


@contextmanager
def waited_for(children: Iterable[Child]) -> Iterator[None]:
    """Pass SIGTERM on to children, and let them finish their records before a Ctrl-C (which reaches them too) ends us.

    Args:
        children: looked at when a signal comes, so a list may grow meanwhile.
    """

    def pass_on(received: int, frame: FrameType | None) -> None:
        for child in children:
            child.send_signal(received)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    except KeyboardInterrupt:
        for child in children:
            child.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGTERM)
