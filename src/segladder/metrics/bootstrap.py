"""One statistic, three uses: a score's value, its 95 % interval, and its difference to another's, from one function.

`under_draws` is that function: runs and weights to scores. A draw only changes how often each image counts (percentile
bootstrap, Efron 1979). The unit is what was sampled from the world: the image, with all that was asked about it. An
image that several folds score is drawn once for all of them; folds that share no image are drawn separately. The score
of several random seeds is their mean; from five on, seeds are drawn too. Of n images n - 1 are drawn, since the scatter
of draws is then the unbiased one (Rao and Wu 1988), and it is widened as Student's t is wider than a normal
distribution. A test divides a difference by that scatter; its degrees of freedom are those of images and of seeds,
by the share of each in the scatter (Satterthwaite 1946). Not covered: which images were the supports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from segladder.errors import DataError
from segladder.metrics.counts import Counts
from segladder.metrics.formulas import formula
from segladder.metrics.scores import FromCounts

DRAWS = 2000
LEVEL = 0.95
FEWEST = 5  # images; fewer have no interval
ROUNDING = 1e-12  # scores that lie closer are one
HELD = 1 << 23  # weights in memory at once; up to 4,000 images are one block of 2,000 draws
SEEDS_DRAWN_FROM = 5  # of fewer, nobody can tell how much they scatter

Fold = int | None


class Estimate(NamedTuple):
    """A score and the ends of its 95 % interval; nan where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Difference of two scores on the same images.

    Attributes:
        difference: first - second, with the ends `low` and `high` of its 95 % interval; nan of too few images.
        p_value: two-sided, of no difference; adjusted where several comparisons stand together (`holm`).
    """

    difference: float
    low: float
    high: float
    p_value: float

    @property
    def has_interval(self) -> bool:
        """Whether there were images enough to draw from."""
        return self.low == self.low and self.high == self.high

    @property
    def p_text(self) -> str:
        """The p-value as printed; a dash where nothing was tested."""
        if not self.has_interval:
            return "-"
        return "< 0.001" if self.p_value < 0.001 else f"{self.p_value:.3f}"


def estimate(runs: Counts | Sequence[Counts], rule: FromCounts, draws: int = DRAWS) -> Estimate:
    """A score of a run, or of a method: the mean over its seeds of the mean over their folds.

    Args:
        runs: counts of one run for each seed and fold.
        rule: how the score follows.
        draws: behind the interval.
    """
    return Runs.of(runs, rule).estimate(draws)


def per_class(
    runs: Counts | Sequence[Counts], draws: int = DRAWS, formula: str = "class_iou"
) -> tuple[np.ndarray, np.ndarray]:
    """Ends (K,) of the intervals of each class's IoU, or of another score of each class."""
    rule = FromCounts(formula)
    return ends(under_draws(runs, rule, draws), rule)


def compare(
    first: Counts | Sequence[Counts], second: Counts | Sequence[Counts], rule: FromCounts, draws: int = DRAWS
) -> Comparison:
    """Compare two runs, or two methods with several runs each, under the same draws of images (and of equal seeds).

    Raises:
        DataError: the runs were not scored on the same images or folds; names one that is missing.
    """
    return Runs.of(first, rule).minus(Runs.of(second, rule), draws)


def holm(found: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons of one table with p-values that hold for all of them together (Holm 1979)."""
    order = sorted(range(len(found)), key=lambda i: found[i].p_value)
    adjusted = list(found)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(found) - rank) * found[i].p_value))
        adjusted[i] = replace(found[i], p_value=largest)
    return adjusted


def under_draws(runs: Counts | Sequence[Counts], rule: FromCounts, draws: int = DRAWS) -> np.ndarray:
    """The score, and the score under each draw, (1 + draws, ...); nan where a draw has none."""
    return Runs.of(runs, rule).under_draws(draws)


def interval(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends (...) of the central 95 % of draws (D, ...), leaving out draws without a value."""
    shape = drawn.shape[1:]
    ends = np.full((2, *shape), np.nan)
    defined = ~np.isnan(drawn).all(0) if len(drawn) else np.zeros(shape, bool)
    ends[:, defined] = np.nanquantile(drawn[:, defined], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return ends[0], ends[1]


def ends(scores: np.ndarray, rule: FromCounts) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the 95 % interval of scores (1 + draws, ...), the first of which counts each image once.

    They are the percentiles of the draws; mirrored at the score where draws repeat its bias (the basic bootstrap
    interval, Davison and Hinkley 1997), within 0 and 1.
    """
    low, high = _around(scores, rule)
    return (low, high) if formula(rule.formula).signed else (np.maximum(0, low), np.minimum(1, high))


def _around(scores: np.ndarray, rule: FromCounts) -> tuple[np.ndarray, np.ndarray]:
    low, high = interval(scores[1:])
    if formula(rule.formula).flatters:
        return np.minimum(scores[0], 2 * scores[0] - high), np.maximum(scores[0], 2 * scores[0] - low)
    return low, high


@dataclass(frozen=True)
class _Drawn:
    """The things that are drawn of a run: their names, what a formula makes of them, and the classes that it scores."""

    names: tuple[str, ...]
    gathered: Any
    groups: list[tuple[int, ...]]

    @classmethod
    def of(cls, counts: Counts, rule: FromCounts) -> _Drawn:
        chosen = counts.of_kinds(*rule.kinds)
        rows = [asked.drawn for asked in chosen.asked]
        names = tuple(sorted(set(rows)))
        place = {name: number for number, name in enumerate(names)}
        places = np.array([place[name] for name in rows], np.int64)
        gathered = formula(rule.formula).gathered(chosen, places, len(names), rule.lists)
        return cls(names, gathered, [counts.group(name) for name in rule.classes])


@dataclass(frozen=True)
class Runs:
    """The runs of one row of a table, by seed and fold, ready to be drawn from."""

    rule: FromCounts
    runs: Mapping[int | None, Mapping[Fold, _Drawn]]

    @classmethod
    def of(cls, runs: Counts | Sequence[Counts], rule: FromCounts, seedless: bool = False) -> Runs:
        """What a rule makes of runs. Raises DataError for two runs of one seed and fold.

        Args:
            runs: counts of each run.
            rule: how the score follows.
            seedless: the runs are one whatever their seeds, since nothing depends on them.
        """
        whole: dict[int | None, dict[Fold, _Drawn]] = {}
        for counts in [runs] if isinstance(runs, Counts) else runs:
            folds = whole.setdefault(None if seedless else counts.seed, {})
            if counts.fold in folds:
                raise DataError(f"seed {counts.seed}, fold {counts.fold}: given twice, expected one run of each")
            folds[counts.fold] = _Drawn.of(counts, rule)
        return cls(rule, whole)

    @cached_property
    def images(self) -> dict[Fold, tuple[str, ...]]:
        """What each fold scores. Raises DataError where seeds of one fold score other images."""
        found: dict[Fold, tuple[str, ...]] = {}
        for folds in self.runs.values():
            for fold, run in folds.items():
                _check_equal(found.setdefault(fold, run.names), run.names)
        return found

    def estimate(self, draws: int = DRAWS) -> Estimate:
        """The score with its interval."""
        scores = self.under_draws(draws)
        low, high = ends(scores, self.rule)
        return Estimate(float(scores[0]), float(low), float(high))

    def minus(self, other: Runs, draws: int = DRAWS) -> Comparison:
        """The difference to other runs, see `compare`."""
        _check_same(self, other)
        scores = self.under_draws(draws) - other.under_draws(draws)
        low, high = _around(scores, self.rule)
        of_seeds = self._under_draws(draws, of_seeds_alone=True) - other._under_draws(draws, of_seeds_alone=True)
        drawn = [len(runs.runs) for runs in (self, other) if len(runs.runs) >= SEEDS_DRAWN_FROM]
        p_value = self._p_value(scores, of_seeds, min(drawn, default=SEEDS_DRAWN_FROM))
        return Comparison(float(scores[0]), float(low), float(high), p_value)

    def _p_value(self, scores: np.ndarray, of_seeds: np.ndarray, seeds: int) -> float:
        """How likely Student's t makes a difference (1 + draws,) as large as the first, where there is none."""
        from scipy.special import stdtr  # takes long to import

        drawn = scores[1:][~np.isnan(scores[1:])]
        if not len(drawn):
            return 1.0
        bias = drawn.mean() - scores[0] if formula(self.rule.formula).flatters else 0.0
        difference, scatter = abs(scores[0] - bias), drawn.std()
        if scatter <= ROUNDING:
            return float(difference <= ROUNDING)
        share = min(1.0, of_seeds.std() / scatter) ** 2  # of the variance
        freedom = float(1 / (share**2 / (seeds - 1) + (1 - share) ** 2 / self.freedom))
        return float(2 * stdtr(freedom, -difference * few_widen(freedom) / scatter))

    @property
    def freedom(self) -> int:
        """Degrees of freedom of what is drawn: the images less one for each group that is drawn apart."""
        groups = _sharing_images(self.images)
        return sum(len({name for fold in folds for name in self.images[fold]}) - 1 for folds in groups)

    @cached_property
    def _kept(self) -> dict[int, np.ndarray]:
        return {}

    def under_draws(self, draws: int) -> np.ndarray:
        """The score, and the score under each draw, (1 + draws, ...), as far apart as so few images make them."""
        if draws not in self._kept:
            self._kept[draws] = self._under_draws(draws)
        return self._kept[draws]

    def _under_draws(self, draws: int, of_seeds_alone: bool = False) -> np.ndarray:
        blocks = image_weights(self.images, 0 if of_seeds_alone else draws)
        seeds = np.concatenate([self._of_seeds(weights) for weights in blocks], 1)  # (S, 1 or 1 + draws, ...)
        shares = seed_weights([str(seed) for seed in self.runs], draws)  # (1 + draws, S)
        scores = np.asarray(sum(values.T * share for values, share in zip(seeds, shares.T, strict=True))).T
        return np.asarray(scores[:1] + few_widen(self.freedom) * (scores - scores[:1]))

    def _of_seeds(self, weights: Mapping[Fold, np.ndarray]) -> np.ndarray:
        """The mean over folds of each seed under each weighting, (S, D, ...)."""
        return np.stack([
            np.mean([self._score(run, weights[fold]) for fold, run in folds.items()], axis=0)
            for folds in self.runs.values()
        ])  # fmt: skip

    def _score(self, run: _Drawn, weights: np.ndarray) -> np.ndarray:
        """The score of one run under each weighting (D, N), (D, ...)."""
        return formula(self.rule.formula).under(run.gathered, weights, run.groups, self.rule.absent)


def image_weights(images: Mapping[Fold, Sequence[str]], draws: int) -> Iterator[dict[Fold, np.ndarray]]:
    """How often each fold's images count, (1 + draws, N) each; first all count once. A block of rows at a time.

    Equal images give equal draws, whoever was scored on them. Fewer than `FEWEST` in all say nothing of others: nan.
    """
    groups = _sharing_images(images)
    names = [tuple(sorted({name for fold in folds for name in images[fold]})) for folds in groups]
    places = {name: number for of_group in names for number, name in enumerate(of_group)}
    rows = max(1, HELD // max(1, len(places)))
    for block, drawn in enumerate(zip(*(_draws(of_group, draws, rows) for of_group in names), strict=True)):
        weights: dict[Fold, np.ndarray] = {}
        for folds, times in zip(groups, drawn, strict=True):
            for fold in folds:
                weights[fold] = times[:, [places[name] for name in images[fold]]].astype(np.float64)
                if len(places) < FEWEST or times.shape[1] == 1:
                    weights[fold][block == 0 :] = np.nan
        yield weights


def seed_weights(seeds: Sequence[str], draws: int) -> np.ndarray:
    """What share each seed has in the mean, (1 + draws, S): equal ones, unless there are enough seeds to draw from."""
    count = len(seeds)
    equal = np.full((1 + draws, count), 1 / max(1, count))
    if count < SEEDS_DRAWN_FROM:
        return equal
    weights = _all_draws(tuple(sorted(seeds)), draws).astype(np.float64)
    shares = weights / weights.sum(1, keepdims=True)
    order = np.argsort(np.argsort(seeds))
    return np.asarray(equal + few_widen(count - 1) * (shares - equal))[:, order]


@lru_cache
def few_widen(freedom: float) -> float:
    """How much wider Student's t is at 95 % than a normal distribution, for so many degrees of freedom; 1 for none."""
    from scipy.special import ndtri, stdtrit  # takes long to import

    upper = (1 + LEVEL) / 2
    return float(stdtrit(freedom, upper) / ndtri(upper)) if freedom > 0 else 1.0


def _draws(names: tuple[str, ...], draws: int, rows: int) -> Iterable[np.ndarray]:
    """Weights (1 + draws, N) that depend on the names alone, so many rows at a time; kept where all are one block."""
    return [_all_draws(names, draws)] if rows > draws else _drawn(names, draws, rows)


@lru_cache(maxsize=4)
def _all_draws(names: tuple[str, ...], draws: int) -> np.ndarray:
    return next(_drawn(names, draws, rows=1 + draws))


def _drawn(names: tuple[str, ...], draws: int, rows: int) -> Iterator[np.ndarray]:
    """Ones, then how often each of N - 1 draws hits each of N names, in blocks (rows, N) of small integers."""
    key = int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:8], "big")
    random, count, size = np.random.default_rng(key), len(names), max(1, len(names) - 1)
    kind = np.min_scalar_type(size)
    for start in range(0, 1 + draws, rows):
        ones = np.ones((int(start == 0), count), kind)
        number = min(rows, 1 + draws - start) - len(ones)
        drawn = random.integers(0, max(1, count), (number, size)) if count else np.zeros((number, 0), int)
        drawn += np.arange(number)[:, None] * count
        weights = np.bincount(drawn.reshape(-1), minlength=number * count).reshape(number, count).astype(kind)
        yield np.vstack([ones, weights])


def _sharing_images(images: Mapping[Fold, Sequence[str]]) -> list[list[Fold]]:
    """Folds in groups: those that have an image in common, directly or through others, stand together."""
    groups: list[tuple[list[Fold], set[str]]] = []
    for fold, names in images.items():
        mine, held = [fold], set(names)
        apart = []
        for folds, others in groups:
            if held.isdisjoint(others):
                apart.append((folds, others))
            else:
                mine, held = [*folds, *mine], held | others
        groups = [*apart, (mine, held)]
    return [folds for folds, _ in groups]


def _check_same(first: Runs, second: Runs) -> None:
    if odd := set(first.images) ^ set(second.images):
        raise DataError(f"fold {min(odd, key=str)}: scored by one row only, expected rows of the same folds")
    for fold, names in first.images.items():
        _check_equal(names, second.images[fold])


def _check_equal(first: Iterable[str], second: Iterable[str]) -> None:
    if odd := set(first) ^ set(second):
        raise DataError(f"{min(odd)}: scored by one run only, expected runs scored on the same images")
