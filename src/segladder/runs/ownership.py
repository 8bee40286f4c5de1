"""Who works in a folder: one process at a time. It says in `owner.json` who it is and, again and again, that it lives.

The file is there as long as the process works. A killed process leaves it; the next one sees that its owner is gone.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from segladder.errors import ConfigError
from segladder.files import locked, write_text
from segladder.foreign import content, json_values

FILE_NAME = "owner.json"
GUARD = ".owner.lock"  # held while the file is read and written
BEAT = 30.0  # seconds between signs of life
KINDS = {"process": int, "beat": float} | dict.fromkeys(("host", "numbering", "birth", "since", "token"), str)
SILENCE = 300.0  # seconds without one after which an owner on another machine counts as gone


class Owned(ConfigError):
    """Another process works in the folder."""


@dataclass(frozen=True)
class Owner:
    """A process that works in a folder.

    Attributes:
        process: its id.
        host: name of its machine.
        numbering: in which process ids are told apart; containers of one host have one each.
        birth: what tells it from a later process of the same id; empty where the system does not say.
        since: when it took the folder, ISO 8601 in UTC.
        beat: its last sign of life, in seconds of the epoch.
        token: drawn for it.
    """

    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    numbering: str = field(default_factory=lambda: process_numbering())
    birth: str = field(default_factory=lambda: birth_of(os.getpid()) or "")
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    beat: float = field(default_factory=time.time)
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} (since {self.since})"

    @property
    def lives(self) -> bool:
        """Whether it still works: on this machine, whether the process is there; elsewhere, whether it was heard of."""
        if (self.host, self.numbering) == (socket.gethostname(), process_numbering()):
            return birth_of(self.process) == self.birth
        return time.time() - self.beat < SILENCE


def process_numbering() -> str:
    """The name of what numbers this process, on Linux its process namespace."""
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def birth_of(process: int) -> str | None:
    """When a process of this machine was started, empty where the system does not say; None if there is none."""
    if sys.platform == "linux":
        with suppress(OSError):
            state, *after = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            return None if state in "ZX" else after[18]  # field 22: clock ticks since the machine was started
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # it is somebody else's
        pass
    return ""


def owner_of(folder: Path) -> Owner | None:
    """The process that works in a folder, if one does; one that is gone does not count."""
    found = named_in(folder)
    return found if found is not None and found.lives else None


def named_in(folder: Path) -> Owner | None:
    """Who the folder's file names, living or gone."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        found = json_values(content(folder / FILE_NAME))
        if found.keys() == KINDS.keys() and all(isinstance(value, KINDS[key]) for key, value in found.items()):
            return Owner(**found)
    return None


@contextmanager
def owned(folder: Path, then: str) -> Iterator[None]:
    """Own a folder while the block runs, and say every `BEAT` seconds that this process lives.

    Args:
        folder: created if missing.
        then: what to do once another owner has ended, such as `segladder train resume=FOLDER`.

    Raises:
        Owned: another process owns it.
    """
    owner = taken(folder, then)
    done = threading.Event()
    heart = threading.Thread(target=keep_beating, args=(folder, owner, done), name="owner", daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
        release(folder, owner)


def taken(folder: Path, then: str) -> Owner:
    """Own a folder from now on; takes it over from a process that is gone, and says so."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / GUARD):
        before = named_in(folder)
        if before is not None and before.lives:
            raise Owned(f"{folder}: {before} works in it; wait until it has ended, or end it, then: {then}")
        owner = Owner()
        write(folder, owner)
    if before is not None:
        print(f"{folder}: taken over from {before}, which is gone", flush=True)
    return owner


def write(folder: Path, owner: Owner) -> None:
    """Write who owns a folder."""
    write_text(folder / FILE_NAME, json.dumps(asdict(owner), indent=1) + "\n")


def keep_beating(folder: Path, owner: Owner, done: threading.Event) -> None:
    """Say that an owner lives until it is done; ends the process if somebody took it for dead and owns its folder."""
    while not done.wait(BEAT):
        with suppress(OSError):  # a file system that is away for a while
            if not beaten(folder, owner):
                print(f"segladder: {folder}: owned by {named_in(folder)} by now, so this process ends", file=sys.stderr)
                os._exit(1)


def beaten(folder: Path, owner: Owner) -> bool:
    """Write a sign of life; False where another process has taken the folder over."""
    with locked(folder / GUARD):
        found = named_in(folder)
        if found is not None and found.token != owner.token:
            return False
        write(folder, replace(owner, beat=time.time()))
    return True


def release(folder: Path, owner: Owner) -> None:
    """Own a folder no longer."""
    with suppress(OSError), locked(folder / GUARD):
        found = named_in(folder)
        if found is not None and found.token == owner.token:
            (folder / FILE_NAME).unlink()
