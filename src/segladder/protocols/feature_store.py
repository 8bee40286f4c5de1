"""Features by key: in memory up to a limit, beyond it in a temporary file, the same bits in both."""

from __future__ import annotations

import tempfile
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import IO

import torch
from torch import Tensor

from segladder.methods.few_shot.base import Features, State


@dataclass(frozen=True)
class _Stored:
    offset: int
    shape: torch.Size
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Bytes."""
        return self.shape.numel() * self.dtype.itemsize


class FeatureStore:
    """Tuples of tensors by key.

    Args:
        limit_mb: memory for tensors; what comes after it is full is written to a temporary file.
    """

    def __init__(self, limit_mb: float) -> None:
        self.left = limit_mb * 2**20
        self._held: dict[Hashable, tuple[Tensor, ...]] = {}
        self._written: dict[Hashable, tuple[_Stored, ...]] = {}
        self._free: dict[int, list[int]] = {}  # offsets of dropped tensors in the file, by their bytes
        self._file: IO[bytes] | None = None

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held or key in self._written

    def __len__(self) -> int:
        return len(self._held) + len(self._written)

    def put(self, key: Hashable, tensors: tuple[Tensor, ...]) -> None:
        """Keep tensors under a key."""
        size = _bytes(tensors)
        if size <= self.left:
            self.left -= size
            self._held[key] = tensors
        else:
            self._written[key] = tuple(self._write(tensor) for tensor in tensors)

    def get(self, key: Hashable) -> tuple[Tensor, ...]:
        """The tensors of a key, on the CPU where they come from the file. Raises KeyError for an unknown key."""
        if key in self._held:
            return self._held[key]
        return tuple(self._read(stored) for stored in self._written[key])

    def drop(self, key: Hashable) -> None:
        """Forget a key, if it is there; what comes next takes its place."""
        self.left += _bytes(self._held.pop(key, ()))
        for stored in self._written.pop(key, ()):
            self._free.setdefault(stored.size, []).append(stored.offset)

    def _write(self, tensor: Tensor) -> _Stored:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the store)
        free = self._free.get(_bytes((tensor,)))
        offset = self._file.seek(free.pop()) if free else self._file.seek(0, 2)
        self._file.write(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return _Stored(offset, tensor.shape, tensor.dtype)

    def _read(self, stored: _Stored) -> Tensor:
        assert self._file is not None
        self._file.seek(stored.offset)
        data = bytearray(self._file.read(stored.size))
        return torch.frombuffer(data, dtype=stored.dtype).reshape(stored.shape)


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def stacked(items: Sequence[Features], device: torch.device) -> Features:
    """Features of images, each tensor without batch axis, as those of a batch."""
    return tuple(torch.stack([each.to(device) for each in tensors]) for tensors in zip(*items, strict=True))


def of_one_shape(states: Sequence[State]) -> list[list[int]]:
    """Places of the states whose tensors have the same shapes, together."""
    groups: dict[tuple[torch.Size, ...], list[int]] = {}
    for place, state in enumerate(states):
        groups.setdefault(tuple(part.shape for part in state), []).append(place)
    return list(groups.values())


def joined(states: Sequence[State]) -> State:
    """States of one episode each as that of a batch."""
    return tuple(torch.cat(tensors) for tensors in zip(*states, strict=True))
