"""How sure a score is: percentile bootstrap over images (Efron 1979), for one run and for the difference of two.

Images are drawn with replacement; a draw only changes how often each image counts, so all draws are one matrix product
of weights (draws, images) with counts (images, classes, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from segladder.errors import DataError
from segladder.metrics.counts import ImageCounts

Statistic = Callable[[np.ndarray], np.ndarray]


class Sample(NamedTuple):
    """What is drawn with replacement: names, unique, and what each adds to the sums of a statistic, (N, ...)."""

    names: Sequence[str]
    sums: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Sample]) -> Sample:
        """The samples of several folds in one."""
        return cls([name for part in parts for name in part.names], np.concatenate([part.sums for part in parts]))


def images(counts: ImageCounts) -> Sample:
    """Images, or episodes, with their true positives, false positives and false negatives (N, K, 3)."""
    return Sample(counts.ids, counts.outcomes())


def ratio(sums: np.ndarray) -> np.ndarray:
    """First over second, (...) of (..., 2)."""
    shares: np.ndarray = sums[..., 0] / sums[..., 1]
    return shares


def class_iou(outcomes: np.ndarray) -> np.ndarray:
    """IoU (..., K) from true positives, false positives, false negatives (..., K, 3); nan where all are 0."""
    union = outcomes.sum(-1, dtype=np.float64)
    shares: np.ndarray = np.divide(outcomes[..., 0], union, out=np.full(union.shape, np.nan), where=union > 0)
    return shares


def mean_iou(outcomes: np.ndarray) -> np.ndarray:
    """Mean IoU (...) over the classes that are true or predicted anywhere; nan where none is."""
    shares = class_iou(outcomes)
    present = ~np.isnan(shares)
    count = present.sum(-1)
    return np.where(count > 0, np.where(present, shares, 0).sum(-1) / np.maximum(count, 1), np.nan)


def resampling_weights(images: int, samples: int, seed: int) -> np.ndarray:
    """How often each image is drawn, float64 (samples, images); every row adds up to `images`."""
    drawn = np.random.default_rng(seed).integers(0, images, (samples, images))
    joint = drawn + np.arange(samples)[:, None] * images
    return np.bincount(joint.reshape(-1), minlength=samples * images).reshape(samples, images).astype(np.float64)


def bootstrap_interval(
    outcomes: np.ndarray, statistic: Statistic = mean_iou, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of a statistic over images.

    Args:
        outcomes: true positives, false positives, false negatives of each image and class, (N, K, 3).
        statistic: (samples, K, 3) to (samples,) or, for intervals per class, (samples, K).
        samples: number of draws.
        level: share of draws inside the interval.
        seed: of the draws.

    Returns:
        Lower and upper end, each of one draw's shape; nan where no draw has a value or there is no image.
    """
    if not len(outcomes):
        nothing = np.full(statistic(outcomes.sum(0)[None]).shape[1:], np.nan)
        return nothing, nothing
    values = statistic(_weighted(outcomes, resampling_weights(len(outcomes), samples, seed)))
    return _ends(values, level)


@dataclass(frozen=True)
class Comparison:
    """Difference of two scores on the same images, its interval, and the two-sided p-value of no difference."""

    difference: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(
    first: Sample | Sequence[Sample],
    second: Sample | Sequence[Sample],
    statistic: Statistic = mean_iou,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two runs, or two methods with several runs each, on the same draws of images, episodes or queries.

    Args:
        first: what a run adds up to; of several (random seeds), the statistic is averaged over them.
        second: what it is compared with.
        statistic: (samples, ...) sums to (samples,).
        samples: number of draws; the p-value is never below 2 / (samples + 1).
        level: share of draws inside the interval.
        seed: of the draws.

    Returns:
        The comparison first - second: of the variation, what is drawn is covered and random seeds are not.

    Raises:
        DataError: the runs were not scored on the same images; names one that is missing.
    """
    runs = [_several(first), _several(second)]
    names = runs[0][0].names
    weights = np.vstack([np.ones(len(names)), resampling_weights(len(names), samples, seed)])
    scores = [np.mean([statistic(_weighted(_aligned(run, names), weights)) for run in side], axis=0) for side in runs]
    actual, *drawn = scores[0] - scores[1]
    low, high = _ends(np.array(drawn), level)
    tail = 1 + min((np.array(drawn) <= 0).sum(), (np.array(drawn) >= 0).sum())
    return Comparison(float(actual), float(low), float(high), min(1.0, float(2 * tail / (samples + 1))))


def _several(sample: Sample | Sequence[Sample]) -> list[Sample]:
    return [sample] if isinstance(sample, Sample) else list(sample)


def _aligned(sample: Sample, names: Sequence[str]) -> np.ndarray:
    """Sums (N, ...) in the order of `names`."""
    if odd := set(sample.names) ^ set(names):
        raise DataError(f"{min(odd)}: scored by one run only, expected runs scored on the same images")
    places = {name: place for place, name in enumerate(sample.names)}
    return sample.sums[[places[name] for name in names]]


def _weighted(outcomes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums (draws, ...) of what each image adds (N, ...) under weights (draws, N); exact below 2^53 pixels."""
    flat = outcomes.reshape(len(outcomes), -1).astype(np.float64)
    return (weights @ flat).reshape(len(weights), *outcomes.shape[1:])


def _ends(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The central share `level` of the draws on the first axis, leaving out draws without a value."""
    defined = ~np.isnan(values).all(0)
    ends = np.full((2, *values.shape[1:]), np.nan)
    ends[:, defined] = np.nanquantile(values[:, defined], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends[0], ends[1]
