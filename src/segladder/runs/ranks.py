"""The further processes of a distributed run: when one of them dies, the run ends with a record, not by SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.strategies.launchers import subprocess_script

from segladder.runs.interruption import INTERRUPTED, Interruption

OBSERVER = "_launch_process_observer"  # what Lightning calls with the processes that it has started
POLL = 0.2  # seconds between looks at them
PATIENCE = 5.0  # seconds in which the first process ends by itself; afterwards it hangs waiting for the dead one


class Watch(threading.Thread):
    """Looks after processes as long as they run.

    Args:
        processes: all but the first, which is this one.
        interruption: asked for where a process was killed or interrupted; one that failed is a failure of the run.
        give_up: records how a run has ended that hangs; gets `interrupted` or `failed`.
    """

    def __init__(
        self, processes: Sequence[subprocess.Popen[Any]], interruption: Interruption, give_up: Callable[[str], None]
    ) -> None:
        super().__init__(name="ranks", daemon=True)
        self.processes, self.interruption, self.give_up = processes, interruption, give_up

    def run(self) -> None:
        """Wait for the processes; see to the end of the run where one ends badly."""
        while not (died := [p.returncode for p in self.processes if p.poll()]):
            if all(process.returncode == 0 for process in self.processes):
                return
            time.sleep(POLL)
        for process in self.processes:
            process.kill()
        stopped = died[0] < 0 or died[0] in INTERRUPTED
        if stopped:
            self.interruption.ask(signal.SIGTERM)
        until = time.monotonic() + PATIENCE
        while not self.interruption.ending:
            if time.monotonic() > until:
                self.give_up("interrupted" if stopped else "failed")
                os._exit(self.interruption.code if stopped else 1)
            time.sleep(POLL)


@contextmanager
def watched(interruption: Interruption, give_up: Callable[[str], None]) -> Iterator[None]:
    """Let a `Watch` look after processes that Lightning starts: its own observer kills this process too."""
    before = getattr(subprocess_script, OBSERVER)
    setattr(subprocess_script, OBSERVER, lambda processes: Watch(processes, interruption, give_up).start())
    try:
        yield
    finally:
        setattr(subprocess_script, OBSERVER, before)
