"""Lightning starts this very job in the further processes of a distributed run, not the sweep that it is part of."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from segladder.processes.start import end_with_parent
from segladder.runs.composition import given_words
from segladder.runs.folder import FOLDER_VARIABLE, is_first_process

LAUNCH_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", FOLDER_VARIABLE)


@contextmanager
def relaunchable(folder: Path) -> Iterator[None]:
    """Let Lightning start this very job in further processes, and leave no trace for the next job of a sweep."""
    if not is_first_process():
        end_with_parent(signal.SIGKILL)  # it may hang waiting for the first one, and there is nothing to write
    before = {name: os.environ.get(name) for name in LAUNCH_VARIABLES}
    arguments = sys.argv
    os.environ[FOLDER_VARIABLE] = str(folder.resolve())
    sys.argv = [arguments[0], "train", *given_words()]
    try:
        yield
    finally:
        sys.argv = arguments
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
