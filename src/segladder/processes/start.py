"""Runs in processes of their own, each of which ends when this one does: forked from it, or a fresh interpreter."""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Protocol

from hydra.core.global_hydra import GlobalHydra

from segladder.machine import STOPPING

END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux' prctl

Child = subprocess.Popen[bytes]


class Waitable(Protocol):
    """What `waited_for` needs of a child."""

    def poll(self) -> int | None: ...  # noqa: D102

    def wait(self) -> int: ...  # noqa: D102

    def send_signal(self, sig: int) -> None: ...  # noqa: D102


class Fork:
    """`segladder ARGUMENTS` in a copy of this process, which has imported everything already: that takes seconds.

    Only where this process has not computed anything yet: threads and devices do not survive a fork.

    Args:
        arguments: command and overrides.
        threads: CPU threads; None: as many as this process has.
        log: a file that gets all it prints; None: the screen.
    """

    def __init__(self, arguments: Sequence[str], threads: int | None = None, log: Path | None = None) -> None:
        fork = multiprocessing.get_context("fork")
        self.process = fork.Process(target=_in_fork, args=(list(arguments), threads, log))
        self.process.start()

    def poll(self) -> int | None:
        """The exit code, None as long as it runs."""
        return self.process.exitcode

    def wait(self) -> int:
        """The exit code, as of `subprocess.Popen`."""
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode

    def send_signal(self, sig: int) -> None:
        """Pass a signal on to a child that runs."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, sig)


def _in_fork(arguments: list[str], threads: int | None, log: Path | None) -> None:
    _end_with_parent()
    if log is not None:
        os.environ.setdefault("COLUMNS", str(shutil.get_terminal_size().columns))
        with log.open("ab") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of its own children
        importlib.import_module("torch").set_num_threads(threads)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    GlobalHydra.instance().clear()
    sys.argv = [sys.argv[0], *arguments]
    sys.exit(importlib.import_module("segladder.cli").main())  # by its name, as a fresh interpreter is told it


def run_child(arguments: Sequence[str]) -> int:
    """Run `segladder ARGUMENTS` in a process of its own and return its exit code; signals as in `waited_for`."""
    child = start(arguments)
    with waited_for([child]):
        return child.wait()


def start(arguments: Sequence[str], threads: int | None = None, log: Path | None = None) -> Waitable:
    """Start `segladder ARGUMENTS` in the quickest way; threads and log as of `Fork`."""
    if sys.platform == "linux":
        return Fork(arguments, threads, log)
    return start_child(arguments, {"OMP_NUM_THREADS": str(threads)} if threads else None, log)


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
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if log is None else log.open("ab") as stream:
        errors = None if log is None else subprocess.STDOUT
        return subprocess.Popen(command, env=variables, preexec_fn=_end_with_parent, stdout=stream, stderr=errors)


@contextmanager
def waited_for(children: Iterable[Waitable]) -> Iterator[None]:
    """Pass SIGTERM on to children, and let them finish before a signal or an error of ours ends us.

    Ctrl-C reaches them too. Signals that come after that are for them alone.

    Args:
        children: looked at when a signal comes, so a list may grow meanwhile.
    """
    stopping: list[int] = []

    def stop(received: int, frame: FrameType | None) -> None:
        if received == signal.SIGTERM:
            for child in children:
                child.send_signal(received)
        stopping.append(received)
        if len(stopping) == 1:
            raise KeyboardInterrupt(received)

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    except BaseException:
        stopping.append(0)
        for child in children:
            child.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_with_parent() -> None:
    end_with_parent(signal.SIGTERM)


def end_with_parent(number: int) -> None:
    """On Linux, let this process get a signal when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(END_WITH_PARENT, number)
