"""Runs in processes of their own: a fresh interpreter for each, that ends when this one does."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux' prctl


def run_child(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run `segladder ARGUMENTS` in a process of its own and return its exit code.

    Ctrl-C reaches the child as it reaches this process; SIGTERM is passed on. The child is given the time it needs to
    write its resume point and record. On Linux it is told to stop when this process is killed.
    """
    command = [sys.executable, "-m", "segladder.cli", *arguments]
    child = subprocess.Popen(command, env={**os.environ, **(environment or {})}, preexec_fn=_end_with_parent)
    with _passing_on(signal.SIGTERM, child):
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue  # the child has been interrupted too


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGTERM)


@contextmanager
def _passing_on(number: signal.Signals, child: subprocess.Popen[bytes]) -> Any:
    def pass_on(received: int, frame: FrameType | None) -> None:
        child.send_signal(received)

    before = signal.signal(number, pass_on)
    try:
        yield
    finally:
        signal.signal(number, before)
