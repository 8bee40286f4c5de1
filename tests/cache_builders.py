"""What other processes do to a cache; imports no torch, so that they start at once."""

import os
import signal

from segladder.data.training.cache import packed


class Deadly(list):
    """Arrays whose third kills the process that reads it."""

    def __getitem__(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class Counted(list):
    """Arrays that count how often they are read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def build_counting(data, arrays, gate, counts):
    """Ask for a cache at the same moment as another process; report how many arrays this one decoded."""
    counted = Counted(arrays)
    gate.wait(60)
    result = packed(data, "images", keys_of(arrays), counted)
    counts.put((counted.reads, [result[i].tobytes() for i in range(len(result))]))


def build_and_die(data, arrays):
    """Be killed in the middle of building a cache."""
    packed(data, "images", keys_of(arrays), Deadly(arrays))


def keys_of(arrays):
    """A key of each array."""
    return [f"{position:016}" for position in range(len(arrays))]
