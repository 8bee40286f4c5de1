"""A run that is asked to stop ends as interrupted, whichever of its processes hears of that first, and how often."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Any

from segladder.errors import SegLadderError
from segladder.machine import STOPPING

TOGETHER = 1.0  # seconds in which signals are one request: a group's, passed on by a sweep, in whatever order they come
POLL = 0.05
INTERRUPTED = tuple(128 + number for number in STOPPING)  # exit codes


class Interruption:
    """Ctrl-C and SIGTERM: the first asks the training loop to stop at its next step, otherwise they stop at once."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.asked = False
        self.asked_at = 0.0
        self.code = INTERRUPTED[0]
        self.patient = False  # whether a loop is running that looks at `asked`
        self.ending = False  # whether the run is being recorded as ended: nothing stops that
        self.ended = False
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        self.previous = {number: signal.getsignal(number) for number in STOPPING}
        self.listen()
        return self

    def wait_for_loop(self) -> None:
        """A training loop looks at `asked` from here on; Lightning has set handlers of its own, so ours go back in."""
        self.listen()
        self.patient = True

    def listen(self) -> None:
        """Put our handlers in."""
        for number in STOPPING:
            signal.signal(number, self.receive)

    def __exit__(self, *error: object) -> None:
        if not self.ended:
            for number, handler in self.previous.items():
                signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler; what it raises may be lost in a callback, so the loop is told in any case."""
        if os.getpid() != self.process:  # a fork, such as a loading process: its parent ends it
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.ended:
            os._exit(self.code)
        again = self.asked
        self.ask(number)
        if not self.ending and (time.monotonic() - self.asked_at > TOGETHER if again else not self.patient):
            raise KeyboardInterrupt(number)

    def ask(self, number: int) -> None:
        """Ask the run to stop, for a signal."""
        if not self.asked:
            self.asked, self.asked_at, self.code = True, time.monotonic(), 128 + number

    def explains(self, error: BaseException) -> bool:
        """Whether a run ended with an error because it was asked to stop. From here on nothing disturbs its recording.

        Of processes that are stopped together, others may end first; that is an error here before our signal comes.
        """
        self.ending = True
        self.listen()
        by_torch = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # raises where a loading process ends
        self.previous[signal.SIGCHLD] = by_torch or signal.SIG_DFL
        if isinstance(error, KeyboardInterrupt):
            return True
        until = time.monotonic() + (0 if isinstance(error, SegLadderError) else TOGETHER)
        while not self.asked and time.monotonic() < until:
            time.sleep(POLL)
        return self.asked

    def end(self) -> int:
        """The exit code of an interrupted run, which is recorded: another signal ends the process without a word."""
        self.ended = True
        return self.code
