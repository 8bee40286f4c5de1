"""What every protocol shares: a name, a hash over all that changes its numbers, and the form of a Result."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from segladder.data.source import Source
from segladder.methods.base import Method
from segladder.metrics.counts import ImageCounts


@dataclass(frozen=True)
class Protocol(ABC):
    """A named way of measuring; equal hashes mean comparable numbers.

    Args:
        name: public name, the file name of its yaml.
        dataset: the data set it measures on.
        split: the split that is scored.
    """

    name: str
    dataset: str
    split: str

    @abstractmethod
    def score(
        self,
        method: Method,
        source: Source,
        ids: Sequence[str] | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ) -> Result:
        """Measure a method on a source's items, or on some `ids`; every process of a distributed run calls this."""

    @abstractmethod
    def predictions(self, method: Method, images: Sequence[np.ndarray], size: tuple[int, ...]) -> np.ndarray:
        """Class indices uint8 (B, H, W) at label size for images uint8 (h, w, 3) of one size, as they are scored."""

    def fields(self) -> dict[str, Any]:
        """All fields in plain JSON types."""
        return json.loads(json.dumps(asdict(self), default=list))

    @property
    def hash(self) -> str:
        """First 8 hex digits of the sha256 of the canonical JSON of all fields."""
        text = json.dumps(self.fields(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass
class Result:
    """What a protocol found.

    Args:
        metrics: name -> `value` with the ends `low`, `high` of its 95 % interval (None where there is none).
        per_class: a row for each class.
        counts: what was counted on each image, for intervals and paired tests.
        seconds: wall time of prediction and scoring.
        predict_seconds: wall time of prediction alone.
    """

    metrics: dict[str, dict[str, float | None]]
    per_class: list[dict[str, Any]]
    counts: ImageCounts
    seconds: float = 0.0
    predict_seconds: float = 0.0
