"""Choices by a hash of an id: the same on every machine, and unchanged when other images come or go."""

from __future__ import annotations

import hashlib


def hashed_share(image_id: str) -> float:
    """A number in [0, 1) that depends on the id alone."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:6], "little") / 2**48


def hashed_seed(*key: int | str) -> int:
    """A 48-bit seed that depends on the words of a key alone."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:6], "little")
