"""Average precision of masks: which found objects are right, as COCO counts it, and the score that follows.

Lin et al.: Microsoft COCO: Common Objects in Context, ECCV 2014, https://arxiv.org/abs/1405.0312. pycocotools, the
official code, computes the IoU of masks and decides which found object takes which true one. What it decides for an
image is kept, so that the score can be computed again with images drawn again and again. With each image counted once
it is the number that pycocotools prints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from segladder.errors import ConfigError

if TYPE_CHECKING:
    from segladder.metrics.counts import Counts

THRESHOLDS = tuple(float(t) for t in np.linspace(0.5, 0.95, 10))  # of the IoU from which a found object is right
AREAS = ("all", "small", "medium", "large")
LIMITS = (32**2, 96**2)  # pixels where medium and large begin; an object of just so many is of both sizes
MOST = 100  # found objects of a class in an image; further ones, of lower scores, are left out
RECALLS = np.linspace(0, 1, 101)  # where the curve of precision over recall is read
FOUND = {"class": np.uint16, "score": np.float32, "right": np.uint64, "ignored": np.uint64}  # of each found object
BLOCK = 1 << 22  # numbers of one step


def matches(
    found: np.ndarray,
    found_classes: np.ndarray,
    scores: np.ndarray,
    true: np.ndarray,
    true_classes: np.ndarray,
    limits: tuple[float, float] = LIMITS,
) -> dict[str, np.ndarray]:
    """Which found objects of an image are right: arrays to keep in `Counts.listed`.

    Args:
        found: masks of the found objects, bool (N, H, W).
        found_classes: their class indices (N,).
        scores: how sure they are, (N,).
        true: masks of the true objects, bool (M, H, W).
        true_classes: their class indices (M,).
        limits: pixels where medium and large begin.

    Returns:
        `found_class`, `found_score`, `found_right` and `found_ignored` of the n found objects that count; `true_class`
        and `true_area` of the M true ones. Bit 10 a + t of `found_right` and `found_ignored` (uint64) is that of area
        a of `AREAS` and threshold t of `THRESHOLDS`; bit a of `true_area` (uint8) says that an object is of area a.

    Raises:
        ConfigError: pycocotools is not installed.
    """
    judge = _judge(true, true_classes, found, found_classes, scores)
    medium, large = limits
    kept = {name: [np.zeros(0, kind)] for name, kind in FOUND.items()}
    sizes = np.zeros(len(true), np.uint8)
    for k in sorted({*true_classes.tolist(), *found_classes.tolist()}):
        judge.ious[0, k] = judge.computeIoU(0, k)
        bits: dict[str, Any] = {"right": np.uint64(0), "ignored": np.uint64(0)}
        for place, limit in enumerate(((0, np.inf), (0, medium), (medium, large), (large, np.inf))):
            said = judge.evaluateImg(0, k, limit, MOST)
            counted = [g["id"] - 1 for g in judge._gts[0, k] if not g["_ignore"]]
            sizes[counted] |= np.uint8(1 << place)
            ignored = np.asarray(said["dtIgnore"], bool)  # (T, n)
            for name, flags in (("right", (said["dtMatches"] > 0) & ~ignored), ("ignored", ignored)):
                bits[name] = bits[name] | _bits(flags, place)
        of_class = {"class": np.full(len(said["dtScores"]), k), "score": said["dtScores"], **bits}
        for name, values in of_class.items():
            kept[name].append(np.asarray(values, FOUND[name]))
    listed = {f"found_{name}": np.concatenate(parts) for name, parts in kept.items()}
    return {**listed, "true_class": true_classes.astype(np.uint16), "true_area": sizes}


def _bits(flags: np.ndarray, area: int) -> np.ndarray:
    """Flags (T, n) of an area as the bits of numbers, uint64 (n,)."""
    places = np.arange(len(THRESHOLDS), dtype=np.uint64) + np.uint64(len(THRESHOLDS) * area)
    return np.asarray((flags * (np.uint64(1) << places)[:, None]).sum(0, dtype=np.uint64))


def _flags(bits: np.ndarray, area: str, threshold: float) -> np.ndarray:
    """The flags (n,) of an area and a threshold again, of numbers whose bits they are."""
    place = len(THRESHOLDS) * AREAS.index(area) + int(np.argmin(np.abs(np.array(THRESHOLDS) - threshold)))
    return np.asarray((bits >> np.uint64(place) & np.uint64(1)).astype(bool))


def _judge(
    true: np.ndarray, true_classes: np.ndarray, found: np.ndarray, found_classes: np.ndarray, scores: np.ndarray
) -> Any:
    """pycocotools' evaluation of one image, number 0, whose objects have numbers from 1."""
    try:
        from pycocotools import mask as codec
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ConfigError("mask AP is computed by pycocotools: pip install 'segladder[coco]'") from error
    judge = COCOeval(iouType="segm")
    judge.params.iouThrs, judge.params.maxDets = np.array(THRESHOLDS), [MOST]
    judge._gts, judge._dts, judge.ious = defaultdict(list), defaultdict(list), {}
    sides = (judge._gts, true, true_classes, np.ones(len(true))), (judge._dts, found, found_classes, scores)
    for place, masks, classes, sure in sides:
        coded = codec.encode(np.asfortranarray(masks.transpose(1, 2, 0), np.uint8)) if len(masks) else []
        columns = coded, masks.sum((1, 2)).tolist(), classes.tolist(), sure.tolist()
        for number, (code, area, k, score) in enumerate(zip(*columns, strict=True), start=1):
            entry = {"id": number, "image_id": 0, "segmentation": code, "area": area, "score": score}
            place[0, k].append({**entry, "iscrowd": 0, "ignore": 0})
    return judge


@dataclass(frozen=True)
class _Found:
    """Found objects of one class, the surest first."""

    places: np.ndarray
    right: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class AveragePrecision:
    """Mean over classes and thresholds of the precision at 101 recalls; a formula of `segladder.metrics.formulas`.

    A class without a true object has none (nan) and is left out of the mean.

    Args:
        thresholds: of the IoU, some of `THRESHOLDS`.
        area: which objects count, of `AREAS`.
        each_class: the score of each class (..., K) instead of their mean.
    """

    signed: ClassVar[bool] = False
    flatters: ClassVar[bool] = True  # the best precision at a recall is the best of noisy ones

    thresholds: tuple[float, ...] = THRESHOLDS
    area: str = "all"
    each_class: bool = False

    def gathered(
        self, counts: Counts, places: np.ndarray, units: int, lists: str
    ) -> tuple[Mapping[int, _Found], np.ndarray]:
        """What was found of each class, and how many true objects each unit holds of it, (units, K)."""
        held = np.zeros((units, counts.num_classes))
        there = [(area >> AREAS.index(self.area) & 1).astype(bool) for area in counts.listed["true_area"]]
        for place, classes, counted in zip(places, counts.listed["true_class"], there, strict=True):
            np.add.at(held, (place, classes[counted]), 1)
        joined = {
            name: np.concatenate([np.zeros(0, kind), *counts.listed[f"found_{name}"]]) for name, kind in FOUND.items()
        }
        units_of = np.repeat(places, [len(part) for part in counts.listed["found_class"]])
        order = np.argsort(-joined["score"], kind="stable")
        found = {}
        for k in np.unique(joined["class"]).tolist():
            mine = order[joined["class"][order] == k]
            found[k] = _Found(units_of[mine], joined["right"][mine], joined["ignored"][mine])
        return found, held

    def under(
        self,
        gathered: tuple[Mapping[int, _Found], np.ndarray],
        weights: np.ndarray,
        groups: Sequence[Sequence[int]],
        absent: str,
    ) -> np.ndarray:
        """The score under each weighting (D, units), (D,) or (D, K)."""
        found, held = gathered
        true = weights @ held  # (D, K)
        scores = np.where(true > 0, 0.0, np.nan)
        for k, objects in found.items():
            scores[:, k] = np.mean([self._of_class(objects, t, weights, true[:, k]) for t in self.thresholds], axis=0)
        if self.each_class:
            return scores
        chosen = scores[:, [k for group in groups for k in group]] if groups else scores
        present = ~np.isnan(chosen)
        counted = present.sum(1) if absent == "skip" else np.full(len(chosen), chosen.shape[1])
        total = np.where(present, chosen, 0).sum(1)
        return np.asarray(np.divide(total, counted, out=np.full(len(total), np.nan), where=counted > 0))

    def _of_class(self, found: _Found, threshold: float, weights: np.ndarray, true: np.ndarray) -> np.ndarray:
        """Average precision (D,) of one class at one threshold."""
        counted = ~_flags(found.ignored, self.area, threshold)
        places, right = found.places[counted], _flags(found.right[counted], self.area, threshold)
        scores = np.where(true > 0, 0.0, np.nan)
        step = max(1, BLOCK // max(1, len(places)))
        for start in range(0, len(weights) if len(places) else 0, step):
            block = slice(start, start + step)
            drawn = weights[block][:, places]  # (d, n)
            hits, said = np.cumsum(drawn * right, 1), np.cumsum(drawn, 1)
            precision = hits / (said + np.spacing(1))
            best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]  # from here on
            with np.errstate(invalid="ignore", divide="ignore"):
                recall = hits / true[block, None]
            read = np.searchsorted(RECALLS, recall, side="right")  # recalls reached so far
            values = (best * np.diff(read, axis=1, prepend=0)).sum(1) / len(RECALLS)
            scores[block] = np.where(true[block] > 0, values, np.nan)
        return scores
