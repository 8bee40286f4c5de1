"""What a method is told of its classes besides their number: kept in the run's folder, and always read from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segladder.data.words.embeddings import Embeddings
from segladder.errors import DataError
from segladder.foreign import NO_ARCHIVE
from segladder.runs.folder import EMBEDDINGS


@dataclass(frozen=True)
class Told:
    """What a method that knows its classes by vectors is told of them.

    Attributes:
        embeddings: a vector per class.
        seen: which classes have labels in training, bool (K,), the background first.
        few_labels: whether training has a few labels of the others.
    """

    embeddings: Embeddings
    seen: np.ndarray
    few_labels: bool

    def save(self, folder: Path) -> None:
        """Write FOLDER/embeddings.npz."""
        self.embeddings.save(folder / EMBEDDINGS, seen=self.seen, few_labels=np.bool_(self.few_labels))

    def arguments(self) -> dict[str, Any]:
        """The arguments of the method."""
        vectors, seen = torch.from_numpy(self.embeddings.vectors), torch.from_numpy(self.seen)
        return {"embeddings": vectors, "seen": seen, "few_labels": self.few_labels}


def kept(folder: Path) -> Told | None:
    """What `Told.save` wrote to a run's folder; None where an older version wrote vectors alone, or nothing is there.

    Raises:
        DataError: a damaged or foreign file.
    """
    path = folder / EMBEDDINGS
    if not path.exists():
        return None
    embeddings = Embeddings.load(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            if "seen" not in stored:
                return None
            seen, few_labels = stored["seen"], stored["few_labels"]
    except NO_ARCHIVE as error:
        raise DataError(f"{path}: damaged ({error}), expected which classes are seen") from error
    if seen.dtype != bool or seen.shape != (len(embeddings.vectors),) or few_labels.shape:
        raise DataError(
            f"{path}: seen is {seen.dtype} {seen.shape}, expected bool for each of {len(embeddings.vectors)} classes"
        )
    return Told(embeddings, seen, bool(few_labels))


def kept_by_older_versions(folder: Path, weights: Mapping[str, Tensor], access: Mapping[str, Any]) -> Told:
    """`kept` for a run whose weights alone say which classes are seen.

    Args:
        folder: of the run.
        weights: of the run.
        access: the record's `label_access`, whose `shown` are the few labels.

    Raises:
        DataError: neither vectors nor what is seen.
    """
    embeddings = Embeddings.load(folder / EMBEDDINGS)
    if "seen" not in weights:
        raise DataError(f"{folder}: neither {EMBEDDINGS} nor the weights say which classes are seen")
    return Told(embeddings, weights["seen"].numpy(), bool(access.get("shown")))
