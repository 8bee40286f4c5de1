"""Choices by a hash of an id: the same on every machine, and unchanged when other images come or go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def hashed_share(image_id: str) -> float:
    """A number in [0, 1) that depends on the id alone."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:6], "little") / 2**48


def hashed_fields(fields: Mapping[str, Any]) -> str:
    """First 8 hex digits of the sha256 of the canonical JSON of a protocol's fields, in JSON's own types."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def hashed_seed(*key: int | str) -> int:
    """A 48-bit seed that depends on the words of a key alone."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:6], "little")
