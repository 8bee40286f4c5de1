"""What was counted on each image: small enough to keep beside every run, enough for intervals and paired tests."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segladder.errors import DataError
from segladder.files import written

COUNTS = "counts.npz"  # in a run's folder
ARRAYS = ("num_classes", "ids", "ends", "cells", "pixels")


class ImageCounts:
    """A confusion matrix per image, kept as its non-zero cells.

    Args:
        num_classes: K.

    Attributes:
        ids: image ids in the order they were added.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.ids: list[str] = []
        self._cells: list[np.ndarray] = []  # per image: row * K + column of each non-zero cell
        self._pixels: list[np.ndarray] = []  # per image: the counts there

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, image_id: str, confusion: Any) -> None:
        """Add an image's confusion matrix, (K, K) integers as tensor or array, rows = truth."""
        flat = np.asarray(confusion, dtype=np.int64).reshape(-1)
        if flat.size != self.num_classes**2:
            raise ValueError(f"{image_id}: {flat.size} cells, expected a {self.num_classes}x{self.num_classes} matrix")
        cells = np.flatnonzero(flat)
        self.ids.append(image_id)
        self._cells.append(cells)
        self._pixels.append(flat[cells])

    def dense(self) -> np.ndarray:
        """All matrices, int64 (N, K, K)."""
        matrices = np.zeros((len(self), self.num_classes**2), np.int64)
        images = np.repeat(np.arange(len(self)), [len(cells) for cells in self._cells])
        matrices[images, _joined(self._cells)] = _joined(self._pixels)
        return matrices.reshape(len(self), self.num_classes, self.num_classes)

    def total(self) -> np.ndarray:
        """The matrix of the whole set, int64 (K, K)."""
        flat = np.zeros(self.num_classes**2, np.int64)
        np.add.at(flat, _joined(self._cells), _joined(self._pixels))
        return flat.reshape(self.num_classes, self.num_classes)

    def outcomes(self) -> np.ndarray:
        """True positives, false positives and false negatives, int64 (N, K, 3)."""
        return outcomes(self.dense())

    def image_iou(self) -> np.ndarray:
        """Mean IoU within each image over the classes true or predicted there, float64 (N,); nan without pixels."""
        counts = self.outcomes().astype(np.float64)
        union = counts.sum(-1)  # (N, K)
        shares = np.divide(counts[..., 0], union, out=np.zeros_like(union), where=union > 0)
        present = (union > 0).sum(1)
        means: np.ndarray = np.divide(shares.sum(1), present, out=np.full(len(self), np.nan), where=present > 0)
        return means

    def select(self, ids: Sequence[str]) -> ImageCounts:
        """The counts of these images in this order. Raises DataError for an id that was never added."""
        places = {image_id: i for i, image_id in enumerate(self.ids)}
        chosen = ImageCounts(self.num_classes)
        for image_id in ids:
            if image_id not in places:
                raise DataError(f"{image_id}: no counts of this image, expected one of {len(self)} scored images")
            chosen.ids.append(image_id)
            chosen._cells.append(self._cells[places[image_id]])
            chosen._pixels.append(self._pixels[places[image_id]])
        return chosen

    @classmethod
    def merged(cls, parts: Iterable[ImageCounts]) -> ImageCounts:
        """The counts of several processes in one. Raises DataError for an image counted twice."""
        parts = list(parts)
        whole = cls(parts[0].num_classes)
        for part in parts:
            whole.ids += part.ids
            whole._cells += part._cells
            whole._pixels += part._pixels
        if len(set(whole.ids)) != len(whole.ids):
            twice = next(image_id for i, image_id in enumerate(whole.ids) if image_id in whole.ids[:i])
            raise DataError(f"{twice}: counted twice, expected each image in one part only")
        return whole

    def save(self, path: str | Path) -> None:
        """Write a compressed `.npz` atomically."""
        arrays: dict[str, Any] = {
            "num_classes": np.int64(self.num_classes),
            "ids": np.array(self.ids, dtype=np.str_),
            "ends": np.cumsum([len(cells) for cells in self._cells], dtype=np.int64),
            "cells": _joined(self._cells).astype(np.uint32),
            "pixels": _joined(self._pixels).astype(np.uint32),
        }
        with written(Path(path)) as partial:
            np.savez_compressed(partial, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> ImageCounts:
        """Read what `save` wrote. Raises DataError for a missing, damaged or foreign file."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                count, ids, ends, cells, pixels = (stored[name] for name in ARRAYS)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: no counts of images ({error}); score the run again to write them") from error
        counts = cls(int(count))
        counts.ids = [str(image_id) for image_id in ids]
        counts._cells = np.split(cells.astype(np.int64), ends[:-1]) if len(ids) else []
        counts._pixels = np.split(pixels.astype(np.int64), ends[:-1]) if len(ids) else []
        return counts


def outcomes(confusions: np.ndarray) -> np.ndarray:
    """True positives, false positives and false negatives (..., K, 3) of confusion matrices (..., K, K)."""
    hits = np.diagonal(confusions, axis1=-2, axis2=-1)
    return np.stack([hits, confusions.sum(-2) - hits, confusions.sum(-1) - hits], -1)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
