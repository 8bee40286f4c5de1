"""What torch stored in a file; the weights of a network, mostly."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from segladder.errors import DataError


def unpacked(path: Path, what: str) -> dict[str, Any]:
    """The dictionary that torch wrote to a file, on the CPU. Raises DataError for a file that holds no such thing."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        KeyError,
        AttributeError,
        IndexError,
        UnpicklingError,
    ) as error:
        fault = str(error).strip().partition("\n")[0]
        raise DataError(f"{path}: damaged or truncated ({fault}), expected {what}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds a {type(found).__name__}, expected {what}")
    return found
