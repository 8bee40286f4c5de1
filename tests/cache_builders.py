"""What other processes do to a cache; imports no torch, so that they start at once."""

import os
import signal

from segladder.data.training.cache import packed


def build_counting(data, arrays, gate, counts):
    """Ask for a cache at the same moment as another process; report how many arrays this one decoded."""
    decoded = 0

    def counted():
        nonlocal decoded
        for array in arrays:
            decoded += 1
            yield array

    gate.wait(60)
    result = packed(data, "images", "key", counted())
    counts.put((decoded, [result[i].tobytes() for i in range(len(result))]))


def build_and_die(data, arrays):
    """Be killed in the middle of building a cache."""

    def deadly():
        yield from arrays[:2]
        os.kill(os.getpid(), signal.SIGKILL)

    packed(data, "images", "key", deadly())
