"""What was counted on each image: small enough to keep beside every run, enough for intervals and paired tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from segladder.errors import DataError
from segladder.files import written
from segladder.foreign import NO_ARCHIVE

COUNTS = "counts.npz"  # in a run's folder
MOST_CLASSES = 1 << 12  # of counts that are read; masks know 255
ARRAYS = ("about", "text", "fields", "classes", "supports", "ends", "cells", "pixels")


class Asked(NamedTuple):
    """What one row of counts is about: an image, or a question that was asked about it.

    Attributes:
        image: id of the image that was answered for.
        classes: indices of the classes that were asked for; empty where all are.
        kind: of the question, a word of the protocol's; empty where there is one kind.
        list: seed of the frozen list that the question stands in.
        supports: ids of the annotated images that showed the classes, as many for each.
        unit: what is drawn by a bootstrap, such as the video that a frame belongs to; empty for the image itself.
    """

    image: str
    classes: tuple[int, ...] = ()
    kind: str = ""
    list: int = 0
    supports: tuple[str, ...] = ()
    unit: str = ""

    @property
    def drawn(self) -> str:
        """What a bootstrap draws with this row."""
        return self.unit or self.image


class Counts:
    """A confusion matrix for each image or question, kept as its non-zero cells.

    Args:
        num_classes: K.
        groups: indices of classes by the name of a group, such as `novel`: scores name groups, folds fill them.

    Attributes:
        asked: what each row is about, in the order they were added.
        measured: further numbers of each row by name, such as the accuracy of its contours.
        listed: further arrays of each row by name, of any length, such as the scores of the objects found there.
        fold: of the run; None where there is none, like `seed`.
    """

    def __init__(self, num_classes: int, groups: Mapping[str, Sequence[int]] | None = None) -> None:
        self.num_classes = num_classes
        self.groups = {name: tuple(map(int, members)) for name, members in (groups or {}).items()}
        self.fold: int | None = None
        self.seed: int | None = None
        self.asked: list[Asked] = []
        self.measured: dict[str, list[float]] = {}
        self.listed: dict[str, list[np.ndarray]] = {}
        self._cells: list[np.ndarray] = []  # per row: truth * K + prediction of each non-zero cell
        self._pixels: list[np.ndarray] = []  # per row: the counts there

    def __len__(self) -> int:
        return len(self.asked)

    def group(self, name: str) -> tuple[int, ...]:
        """Indices of the classes of a group. Raises DataError for a group that these counts do not have."""
        if name not in self.groups:
            raise DataError(f"group of classes {name}: not in these counts, expected one of {', '.join(self.groups)}")
        return self.groups[name]

    @property
    def images(self) -> list[str]:
        """The image of each row."""
        return [asked.image for asked in self.asked]

    def add(
        self, asked: Asked | str, confusion: Any, listed: Mapping[str, np.ndarray] | None = None, **measured: float
    ) -> None:
        """Add a confusion matrix, (K, K) integers as tensor or array, rows = truth; of an image, or what was asked.

        All rows have the same `measured` numbers and `listed` arrays. Raises ValueError for a matrix of another size.
        """
        asked = Asked(asked) if isinstance(asked, str) else asked
        flat = np.asarray(confusion, dtype=np.int64).reshape(-1)
        if flat.size != self.num_classes**2:
            size = self.num_classes
            raise ValueError(f"{asked.image}: {flat.size} cells, expected a {size}x{size} matrix")
        cells = np.flatnonzero(flat)
        self._append(asked, cells, flat[cells], measured, listed or {})

    def rows(self) -> Iterator[tuple[Asked, np.ndarray]]:
        """Each row with its matrix, int64 (K, K)."""
        for i, asked in enumerate(self.asked):
            flat = np.zeros(self.num_classes**2, np.int64)
            flat[self._cells[i]] = self._pixels[i]
            yield asked, flat.reshape(self.num_classes, self.num_classes)

    def dense(self) -> np.ndarray:
        """All matrices, int64 (N, K, K)."""
        matrices = np.zeros((len(self), self.num_classes**2), np.int64)
        matrices[self._row_of_cells(), _joined(self._cells)] = _joined(self._pixels)
        return matrices.reshape(len(self), self.num_classes, self.num_classes)

    def total(self) -> np.ndarray:
        """The matrix of the whole set, int64 (K, K)."""
        flat = np.zeros(self.num_classes**2, np.int64)
        np.add.at(flat, _joined(self._cells), _joined(self._pixels))
        return flat.reshape(self.num_classes, self.num_classes)

    def outcomes(self) -> np.ndarray:
        """True positives, false positives and false negatives, int64 (N, K, 3)."""
        found = np.zeros((len(self), self.num_classes, 3), np.int64)
        rows, pixels = self._row_of_cells(), _joined(self._pixels)
        truth, predicted = np.divmod(_joined(self._cells), self.num_classes)
        hit = truth == predicted
        np.add.at(found, (rows[hit], truth[hit], 0), pixels[hit])
        np.add.at(found, (rows[~hit], predicted[~hit], 1), pixels[~hit])
        np.add.at(found, (rows[~hit], truth[~hit], 2), pixels[~hit])
        return found

    def image_iou(self) -> np.ndarray:
        """Mean IoU within each row over the classes true or predicted there, float64 (N,); nan without pixels."""
        counts = self.outcomes().astype(np.float64)
        union = counts.sum(-1)  # (N, K)
        shares = np.divide(counts[..., 0], union, out=np.zeros_like(union), where=union > 0)
        present = (union > 0).sum(1)
        means: np.ndarray = np.divide(shares.sum(1), present, out=np.full(len(self), np.nan), where=present > 0)
        return means

    def of_kinds(self, *kinds: str) -> Counts:
        """The rows of these kinds; all without a kind."""
        return self.select([i for i, asked in enumerate(self.asked) if not kinds or asked.kind in kinds])

    def by_image(self) -> Counts:
        """A row for each image: the sum of its rows."""
        rows: dict[str, list[int]] = {}
        for i, asked in enumerate(self.asked):
            rows.setdefault(asked.image, []).append(i)
        whole = Counts(self.num_classes)
        for image_id, places in rows.items():
            flat = np.zeros(self.num_classes**2, np.int64)
            for i in places:
                flat[self._cells[i]] += self._pixels[i]
            whole.add(image_id, flat)
        return whole

    def sorted(self) -> Counts:
        """The rows in the order of what they are about, which says nothing of who counted them."""
        return self.select(sorted(range(len(self)), key=self.asked.__getitem__))

    def select(self, rows: Sequence[int]) -> Counts:
        """The rows at these places, in this order."""
        chosen = self._empty()
        for i in rows:
            chosen._append(self.asked[i], *self._row(i))
        return chosen

    def bare(self) -> Counts:
        """What was asked without the supports, which no score depends on."""
        whole = self.select(range(len(self)))
        whole.asked = [asked._replace(supports=()) for asked in self.asked]
        return whole

    @classmethod
    def merged(cls, parts: Iterable[Counts]) -> Counts:
        """The counts of several processes in one, sorted. Raises DataError for an image counted twice."""
        parts = list(parts)
        whole = parts[0]._empty()
        for part in parts:
            for i, asked in enumerate(part.asked):
                whole._append(asked, *part._row(i))
        whole = whole.sorted()
        for before, after in zip(whole.asked, whole.asked[1:], strict=False):
            if before == after and not after.supports:  # lists may ask a question again
                raise DataError(f"{after.image}: counted twice, expected each image in one part only")
        return whole

    def save(self, file: str | Path | IO[bytes]) -> None:
        """Write a compressed `.npz`, atomically where a path is given."""
        about = {"version": 2, "num_classes": self.num_classes, "groups": self.groups}
        words = dict.fromkeys(w for a in self.asked for w in (a.image, a.kind, a.unit, *a.supports))
        place = {word: number for number, word in enumerate(words)}
        asked = self.asked
        arrays: dict[str, Any] = {
            "about": np.array(json.dumps({**about, "fold": self.fold, "seed": self.seed})),
            "text": np.array(list(words), dtype=np.str_),
            "fields": np.array(
                [(place[a.image], place[a.kind], place[a.unit], a.list, len(a.classes), len(a.supports)) for a in asked]
            ).reshape(len(asked), 6),
            "classes": np.array([k for a in asked for k in a.classes], np.uint16),
            "supports": np.array([place[i] for a in asked for i in a.supports], np.uint32),
            "ends": np.cumsum([len(cells) for cells in self._cells], dtype=np.int64),
            "cells": _joined(self._cells).astype(np.uint32),
            "pixels": _joined(self._pixels).astype(np.uint32),
        }
        arrays |= {f"measured_{name}": np.array(values) for name, values in self.measured.items()}
        for name, parts in self.listed.items():
            arrays |= {
                f"listed_{name}": np.concatenate(parts),
                f"ends_{name}": np.cumsum([len(part) for part in parts]),
            }
        if not isinstance(file, (str, Path)):
            np.savez_compressed(file, allow_pickle=False, **arrays)
            return
        with written(Path(file)) as partial:
            np.savez_compressed(partial, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, file: str | Path | IO[bytes], name: str = "") -> Counts:
        """Read what `save` wrote; `name` stands in messages. Raises DataError for a missing or damaged file."""
        name = name or str(file)
        try:
            with np.load(file, allow_pickle=False) as stored:
                if "about" not in stored:
                    raise DataError(f"{name}: counts of an older version; score the run again to write them")
                about, text, fields, classes, supports, ends, cells, pixels = (stored[key] for key in ARRAYS)
                measured = {name: stored[f"measured_{name}"].tolist() for name in _named(stored, "measured_")}
                listed = {
                    name: (stored[f"listed_{name}"], stored[f"ends_{name}"]) for name in _named(stored, "listed_")
                }
            counts = cls._read(json.loads(str(about)), text, fields, classes, supports, ends, cells, pixels, measured)
            counts.listed = {name: _split(whole, ends, len(counts)) for name, (whole, ends) in listed.items()}
            return counts
        except NO_ARCHIVE as error:
            raise DataError(f"{name}: no counts of images ({error}); score the run again to write them") from error

    @classmethod
    def _read(
        cls,
        about: Mapping[str, Any],
        text: np.ndarray,
        fields: np.ndarray,
        classes: np.ndarray,
        supports: np.ndarray,
        ends: np.ndarray,
        cells: np.ndarray,
        pixels: np.ndarray,
        measured: dict[str, list[float]],
    ) -> Counts:
        num_classes, fold, seed = (about[key] for key in ("num_classes", "fold", "seed"))
        if not (type(num_classes) is int and 0 < num_classes <= MOST_CLASSES):
            raise ValueError(f"num_classes is {num_classes!r}, expected 1 to {MOST_CLASSES}")
        if not {type(fold), type(seed)} <= {int, type(None)}:
            raise ValueError(f"fold {fold!r} and seed {seed!r}, expected numbers")
        if odd := [name for name, values in measured.items() if not {*map(type, values)} <= {int, float}]:
            raise ValueError(f"{odd[0]} is measured in other than numbers")
        counts = cls(num_classes, about["groups"])
        counts.fold, counts.seed, counts.measured = fold, seed, measured
        words = [str(word) for word in text]
        of_classes, of_supports = iter(classes.tolist()), iter(supports.tolist())
        for image, kind, unit, number, ways, shown in fields.tolist():
            asked_for = tuple(next(of_classes) for _ in range(ways))
            images = tuple(words[next(of_supports)] for _ in range(shown))
            counts.asked.append(Asked(words[image], asked_for, words[kind], number, images, words[unit]))
        counts._cells = np.split(cells.astype(np.int64), ends[:-1]) if len(ends) else []
        counts._pixels = np.split(pixels.astype(np.int64), ends[:-1]) if len(ends) else []
        if len(counts._cells) != len(counts.asked):
            raise ValueError(f"{len(counts._cells)} matrices for {len(counts.asked)} images")
        return counts

    def _row(self, i: int) -> tuple[np.ndarray, np.ndarray, dict[str, float], dict[str, np.ndarray]]:
        measured = {name: values[i] for name, values in self.measured.items()}
        return self._cells[i], self._pixels[i], measured, {name: parts[i] for name, parts in self.listed.items()}

    def _append(
        self,
        asked: Asked,
        cells: np.ndarray,
        pixels: np.ndarray,
        measured: Mapping[str, float],
        listed: Mapping[str, np.ndarray],
    ) -> None:
        self.asked.append(asked)
        self._cells.append(cells)
        self._pixels.append(pixels)
        for name, value in measured.items():
            self.measured.setdefault(name, []).append(float(value))
        for name, part in listed.items():
            self.listed.setdefault(name, []).append(part)

    def _empty(self) -> Counts:
        empty = Counts(self.num_classes, self.groups)
        empty.fold, empty.seed = self.fold, self.seed
        return empty

    def _row_of_cells(self) -> np.ndarray:
        """The row that each non-zero cell belongs to."""
        return np.repeat(np.arange(len(self)), [len(cells) for cells in self._cells])


def outcomes(confusions: np.ndarray) -> np.ndarray:
    """True positives, false positives and false negatives (..., K, 3) of confusion matrices (..., K, K)."""
    hits = np.diagonal(confusions, axis1=-2, axis2=-1)
    return np.stack([hits, confusions.sum(-2) - hits, confusions.sum(-1) - hits], -1)


def _named(stored: Iterable[str], prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in stored if key.startswith(prefix)]


def _split(whole: np.ndarray, ends: np.ndarray, rows: int) -> list[np.ndarray]:
    """An array of all rows as one for each row. Raises ValueError where the ends do not fit."""
    if len(ends) != rows or (np.diff(ends, prepend=0) < 0).any() or (rows and ends[-1] != len(whole)):
        raise ValueError(f"{len(ends)} lists for {rows} images that do not fit")
    return np.split(whole, ends[:-1]) if rows else []


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
