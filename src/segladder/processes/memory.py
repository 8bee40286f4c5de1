"""How the process holds on to memory."""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_MAX, TOP_PAD = -1, -4, -2  # glibc's mallopt parameters


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next allocation; other C libraries are left as they are.

    glibc returns each large block to the system, so every training step on the CPU pays for fresh, zeroed pages.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(TOP_PAD, 256 * 2**20)
