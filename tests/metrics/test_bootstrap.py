"""Values, intervals and paired tests against slow resampling, cases whose answer is known, and simulated worlds."""

import hashlib
import math
import tracemalloc

import numpy as np
import pytest
import scipy.stats
import torch

from segladder.errors import DataError
from segladder.metrics import bootstrap
from segladder.metrics.bootstrap import (
    Comparison,
    compare,
    ends,
    estimate,
    few_widen,
    holm,
    image_weights,
    interval,
    per_class,
    seed_weights,
    under_draws,
)
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.formulas import class_iou, mean_iou
from segladder.metrics.overlap import summary
from segladder.metrics.scores import FromCounts

MEAN_IOU = FromCounts("mean_iou")


def random_counts(images=12, classes=4, seed=0, right=20, fold=None, run=0):
    random = np.random.default_rng(seed)
    counts = Counts(classes)
    counts.fold, counts.seed = fold, run
    for i in range(images):
        counts.add(f"{i:03}", random.integers(0, 9, (classes, classes)) + right * np.eye(classes, dtype=int))
    return counts


def slow_scores(counts, weights):
    """mIoU of each draw, by adding up whole confusion matrices."""
    scores = []
    for row in weights:
        total = sum(int(times) * matrix for times, matrix in zip(row, counts.dense(), strict=True))
        scores.append(summary(torch.from_numpy(total))["mIoU"])
    return widened(np.array(scores), len(set(counts.images)) - 1)


def widened(scores, freedom):
    """Scores (1 + draws, ...) as far from the first as Student's t is wider than a normal distribution."""
    return scores[0] + scipy.stats.t.ppf(0.975, freedom) / scipy.stats.norm.ppf(0.975) * (scores - scores[0])


def weights_of(counts, draws):
    return drawn({counts.fold: sorted(set(counts.images))}, draws)[counts.fold]


def drawn(images, draws):
    """All blocks of weights in one."""
    blocks = list(image_weights(images, draws))
    return {fold: np.concatenate([weights[fold] for weights in blocks]) for fold in images}


def drawn_at_once(names, draws):
    """The weights of some names by one call of the generator."""
    key = int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:8], "big")
    hit = np.random.default_rng(key).integers(0, len(names), (draws, max(1, len(names) - 1)))
    return np.stack([np.ones(len(names)), *(np.bincount(row, minlength=len(names)).astype(float) for row in hit)])


@pytest.mark.parametrize("count", [5, 6, 41, 300])
@pytest.mark.parametrize("held", [1, 50, 1000, 1 << 23])
def test_blocks_of_draws_are_the_draws_of_one_call(monkeypatch, count, held):
    monkeypatch.setattr(bootstrap, "HELD", held)
    names = [f"{n:03}" for n in range(count)]
    found = drawn({None: names}, 60)[None]
    assert found.dtype == np.float64 and np.array_equal(found, drawn_at_once(names, 60))
    assert max(len(weights[None]) for weights in image_weights({None: names}, 60)) <= max(1, held // count)


@pytest.mark.parametrize("count", [1, 3, 12])
def test_blocks_of_draws_give_the_same_scores(monkeypatch, count):
    runs = [random_counts(count, seed=n, fold=n % 2, run=n // 2) for n in range(4)]
    whole = under_draws(runs, MEAN_IOU, draws=100)
    monkeypatch.setattr(bootstrap, "HELD", 7 * count)
    assert np.array_equal(under_draws(runs, MEAN_IOU, draws=100), whole, equal_nan=True)
    assert whole.shape == (101,)


def test_many_images_are_drawn_a_block_at_a_time_and_not_kept():
    images = {None: [f"{n:05}" for n in range(20_000)]}
    before = bootstrap._all_draws.cache_info().currsize
    tracemalloc.start()
    assert sum(len(weights[None]) for weights in image_weights(images, 1000)) == 1001
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * bootstrap.HELD * 8  # all at once 20 million weights of 8 bytes, three times over
    assert bootstrap._all_draws.cache_info().currsize == before


def test_all_images_count_once_then_one_less_than_there_are_is_drawn():
    weights = drawn({None: [*"abcde"]}, draws=400)[None]
    assert weights.shape == (401, 5) and weights[0].tolist() == [1] * 5
    assert (weights[1:].sum(1) == 4).all() and weights[1:].mean(0) == pytest.approx([4 / 5] * 5, abs=0.1)
    again = drawn({7: [*"abcde"]}, draws=400)[7]
    assert np.array_equal(weights, again) and not np.array_equal(weights, drawn({7: [*"xbcde"]}, 400)[7])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_so_few_images_have_no_interval(count):
    """Of two images each draw is one, so that their score would lie beside its own interval now and then."""
    few = random_counts(count)
    value, low, high = estimate(few, MEAN_IOU)
    assert not np.isnan(value) and np.isnan([low, high]).all()


def test_an_image_is_drawn_once_for_all_folds_that_score_it():
    weights = drawn({0: [*"abc"], 1: [*"bdef"], 2: [*"vwxyz"]}, draws=50)
    assert np.array_equal(weights[0][:, 1], weights[1][:, 0])  # b
    joint = weights[0].sum(1) + weights[1][:, 1:].sum(1)
    assert (joint[1:] == 5).all() and (weights[2][1:].sum(1) == 4).all()  # a to f together, v to z apart


def test_folds_that_share_images_through_another_are_drawn_together():
    weights = drawn({0: [*"abc"], 1: [*"cde"], 2: [*"afgh"]}, draws=50)
    assert np.array_equal(weights[0][:, 0], weights[2][:, 0])  # a
    whole = weights[0].sum(1) + weights[1][:, 1:].sum(1) + weights[2][:, 1:].sum(1)
    assert (whole[1:] == 7).all()  # of eight


def test_a_seed_has_one_share_wherever_it_stands():
    orders = (["3", "10", "0", "4", "2"], ["0", "2", "4", "3", "10"])
    first, second = (dict(zip(seeds, seed_weights(seeds, 20).T.tolist(), strict=True)) for seeds in orders)
    assert first == second and len({tuple(shares) for shares in first.values()}) == 5


@pytest.mark.parametrize("value, low, high", [(0.5, 0.4, 0.7), (0.5, 0.55, 0.7), (0.2, 0.3, 0.9), (0.9, 0.5, 0.7)])
def test_where_draws_repeat_the_bias_of_a_score_its_interval_is_mirrored(value, low, high):
    scores = np.concatenate([[value], np.linspace(low, high, 401)])  # a 95 % interval leaves ten out at either end
    inner = (high - low) / 40
    low, high = low + inner, high - inner
    assert ends(scores, MEAN_IOU) == pytest.approx((low, high))
    mirrored = min(value, 2 * value - high), max(value, 2 * value - low)
    assert ends(scores, FromCounts("average_precision")) == pytest.approx(tuple(np.clip(mirrored, 0, 1)))


def test_seeds_count_alike_until_there_are_five():
    assert (seed_weights(["0", "1", "2", "3"], 10) == 0.25).all()
    drawn = seed_weights(["0", "1", "2", "3", "10"], 200)
    assert drawn[0].tolist() == [0.2] * 5 and drawn.sum(1) == pytest.approx(np.ones(201)) and drawn[1:].std() > 0.1


def test_few_seeds_scatter_as_wide_as_students_t_says():
    seeds = [str(seed) for seed in range(5)]
    draws = seed_weights(seeds, 4000)[1:] @ np.arange(5.0)
    usual = np.arange(5).std(ddof=1) / math.sqrt(5)
    assert draws.std() == pytest.approx(usual * 2.776 / 1.96, rel=0.05)


def seeds_alone(shares, images=300):
    """A run for each share of an object that is found: on every image alike, so that nothing but seeds scatters."""
    runs = []
    for seed, share in enumerate(shares):
        counts = Counts(2, {"novel": (1,)})
        counts.seed = seed
        for n in range(images):
            counts.add(f"{n:03}", [[0, 0], [1000 - round(1000 * share), round(1000 * share)]])
        runs.append(counts)
    return runs


def test_where_seeds_alone_scatter_a_test_is_the_t_test_of_seeds():
    """Tables correct p-values for their number, so small ones must be right as well as those near .05."""
    rule, first, second = (
        FromCounts("mean_iou", ("novel",)),
        [0.56, 0.52, 0.60, 0.55, 0.59],
        [0.50, 0.49, 0.53, 0.50, 0.51],
    )
    of_one = compare(seeds_alone(first), seeds_alone([0.45]), rule)
    paired = compare(seeds_alone(first), seeds_alone(second), rule)
    assert of_one.p_value == pytest.approx(scipy.stats.ttest_1samp(first, 0.45).pvalue, rel=0.2)
    assert paired.p_value == pytest.approx(scipy.stats.ttest_rel(first, second).pvalue, rel=0.2)
    assert of_one.p_value < 0.003 and paired.p_value < 0.003


@pytest.mark.slow
def test_methods_of_five_seeds_that_are_equal_are_seldom_told_apart():
    """Without that width 14 of 100 were, where 5 are promised."""
    random, worlds, rejected = np.random.default_rng(0), 400, 0

    def method(hardness, names):
        runs = []
        for seed in range(5):
            counts = Counts(2, {"novel": (1,)})
            counts.seed = seed
            shares = np.clip(hardness + random.normal(0, 0.02) + random.normal(0, 0.02, len(names)), 0, 1)
            for name, share in zip(names, shares, strict=True):
                hits = round(1e6 * share)
                counts.add(Asked(name), [[0, 0], [10**6 - hits, hits]])
            runs.append(counts)
        return runs

    for world in range(worlds):
        hardness = 0.5 + np.clip(random.normal(0, 0.3, 100), -0.4, 0.4)
        names = [f"{world}-{n}" for n in range(100)]
        first, second = (method(hardness, names) for _ in range(2))
        rejected += compare(first, second, FromCounts("mean_iou", ("novel",)), draws=300).p_value < 0.05
    assert rejected / worlds < 0.08


def test_value_and_interval_equal_slow_resampling():
    counts = random_counts()
    found = estimate(counts, MEAN_IOU, draws=60)
    scores = slow_scores(counts, weights_of(counts, 60))
    assert found.value == pytest.approx(summary(torch.from_numpy(counts.total()))["mIoU"])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(scores[1:], [0.025, 0.975])))


def test_intervals_per_class_equal_slow_resampling():
    counts = random_counts()
    low, high = per_class(counts, draws=60)
    totals = np.tensordot(weights_of(counts, 60), counts.outcomes(), 1)  # (61, K, 3)
    for k in range(4):
        shares = widened(np.array([hits / (hits + wrong + missed) for hits, wrong, missed in totals[:, k]]), 11)
        assert (low[k], high[k]) == pytest.approx(tuple(np.quantile(shares[1:], [0.025, 0.975])))


@pytest.mark.parametrize("absent", ["skip", "zero"])
def test_one_image_says_nothing_of_others(absent):
    counts = Counts(3)
    counts.add("only", np.array([[8, 2, 0], [0, 4, 0], [0, 0, 0]]))
    found = estimate(counts, FromCounts("mean_iou", absent=absent), draws=20)
    assert found.value > 0.3 and math.isnan(found.low) and math.isnan(found.high)


def test_mean_iou_equals_the_summary_with_absent_classes():
    matrix = np.array([[8, 2, 0], [0, 0, 0], [0, 0, 0]])
    counts = Counts(3)
    counts.add("only", matrix)
    for absent in ("skip", "zero"):
        expected = summary(torch.from_numpy(matrix), absent)["mIoU"]
        assert mean_iou(counts.outcomes().sum(0), absent=absent) == pytest.approx(expected)
    assert math.isnan(mean_iou(np.zeros((3, 3))))


def test_equal_images_have_a_point_and_a_single_one_no_interval():
    counts = Counts(1)
    for i in range(20):
        counts.add(f"{i}", [[6]])
    assert estimate(counts, MEAN_IOU) == (1, 1, 1)
    value, low, high = estimate(counts.select([0]), MEAN_IOU)
    assert value == 1 and math.isnan(low) and math.isnan(high)


def test_interval_has_the_width_of_a_binomial():
    counts = Counts(2)  # an image is all right or all wrong: the IoU of class 1 is a mean of coin flips
    counts.groups = {"object": (1,)}
    for i in range(400):
        counts.add(f"{i:03}", [[0, 0], [0, 10]] if i < 200 else [[0, 0], [10, 0]])
    _, low, high = estimate(counts, FromCounts("mean_iou", ("object",)), draws=4000)
    half = 1.96 * math.sqrt(0.5 * 0.5 / 400)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.006)


def test_classes_that_never_occur_have_no_interval():
    counts = Counts(2)
    for i in range(5):
        counts.add(f"{i}", [[6, 0], [0, 0]])
    low, high = per_class(counts, draws=20)
    assert low[0] == high[0] == 1 and math.isnan(low[1]) and math.isnan(high[1])
    assert all(math.isnan(end) for end in estimate(Counts(2), MEAN_IOU))


def test_asking_an_image_again_does_not_narrow_an_interval():
    once, often = (Counts(2, {"object": (1,)}) for _ in range(2))
    random = np.random.default_rng(0)
    for i in range(40):
        matrix = [[50, random.integers(0, 20)], [random.integers(0, 20), random.integers(1, 20)]]
        once.add(Asked(f"{i}", (1,)), matrix)
        for number in range(9):
            often.add(Asked(f"{i}", (1,), list=number), matrix)
    rule = FromCounts("mean_iou", ("object",))
    assert estimate(often, rule) == pytest.approx(estimate(once, rule))


def test_folds_are_averaged_as_the_table_does_also_where_a_class_is_missing():
    folds = []
    for fold, classes in enumerate(([1, 2], [1])):
        counts = Counts(3, {"novel": (1, 2)})
        counts.fold, counts.seed = fold, 0
        for i in range(4):
            matrix = np.zeros((3, 3), int)
            matrix[classes, classes], matrix[0, classes] = 10 * (fold + 1), 5 + i
            counts.add(f"{fold}{i}", matrix)
        folds.append(counts)
    rule = FromCounts("mean_iou", ("novel",))
    apart = [estimate(counts, rule).value for counts in folds]
    pooled = mean_iou(sum(counts.outcomes().sum(0) for counts in folds), (1, 2))
    assert estimate(folds, rule).value == pytest.approx(np.mean(apart)) != pytest.approx(pooled)
    doubled = [random_counts(3, 3, seed=9, fold=fold) for fold in (0, 1)]
    for counts, other in zip(doubled, folds, strict=True):
        counts.groups, counts.asked = other.groups, other.asked[:3]
    matching = [counts.select([0, 1, 2]) for counts in folds]
    found = compare(matching, doubled, rule)
    assert found.difference == pytest.approx(estimate(matching, rule).value - estimate(doubled, rule).value)


def test_lists_are_pooled_or_averaged():
    counts = Counts(2, {"object": (1,)})
    for number, hits in ((3, 10), (8, 40)):
        counts.add(Asked("a", (1,), list=number), [[0, 10], [0, hits]])
        counts.add(Asked("b", (1,), list=number), [[0, 0], [10, hits]])
    scores = [2 * hits / (2 * hits + 20) for hits in (10, 40)]
    assert estimate(counts, FromCounts("mean_iou", ("object",), lists="mean")).value == pytest.approx(np.mean(scores))
    assert estimate(counts, FromCounts("mean_iou", ("object",))).value == pytest.approx(100 / 140)


def test_a_run_does_not_differ_from_itself():
    counts = random_counts()
    result = compare_(counts, counts)
    assert (result.difference, result.low, result.high, result.p_value, result.p_text) == (0, 0, 0, 1, "1.000")


def compare_(first, second, **draws):
    return compare(first, second, MEAN_IOU, **draws)


def test_comparison_equals_slow_resampling_and_is_antisymmetric():
    first, second = random_counts(right=20), random_counts(seed=1, right=18)
    result, turned = compare_(first, second, draws=80), compare_(second, first, draws=80)
    weights = weights_of(first, 80)
    scores = slow_scores(first, weights) - slow_scores(second, weights)
    drawn = scores[1:]
    assert result.difference == pytest.approx(scores[0])
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    scatter = drawn.std() / (scipy.stats.t.ppf(0.975, 11) / scipy.stats.norm.ppf(0.975))
    assert result.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(scores[0]) / scatter, 11))
    assert (turned.difference, turned.low, turned.p_value) == pytest.approx(
        (-result.difference, -result.high, result.p_value)
    )


def test_a_clear_difference_is_found_and_noise_is_not():
    clear = compare_(random_counts(60, right=30), random_counts(60, right=20), draws=1000)
    assert clear.low > 0 and clear.p_value < 1e-6 and clear.p_text == "< 0.001"
    noise = compare_(random_counts(60, seed=1), random_counts(60, seed=2))
    assert noise.low < 0 < noise.high and noise.p_value > 0.05


def test_several_seeds_are_averaged():
    runs = [random_counts(seed=s, run=s) for s in range(3)]
    scores = [summary(torch.from_numpy(run.total()))["mIoU"] for run in runs]
    assert compare_(runs[:2], runs[2]).difference == pytest.approx(np.mean(scores[:2]) - scores[2])
    assert estimate(runs, MEAN_IOU).value == pytest.approx(np.mean(scores))


def test_five_seeds_that_disagree_widen_the_interval():
    runs = [random_counts(40, right=8 * (1 + s), run=s) for s in range(5)]
    widths = [np.subtract(*estimate(some, MEAN_IOU)[:0:-1]) for some in (runs[:4], runs)]
    spread = np.std([estimate(run, MEAN_IOU).value for run in runs], ddof=1) / math.sqrt(5)
    assert widths[1] > 3 * spread > 3 * widths[0]


def test_an_interval_of_a_share_stays_between_0_and_1():
    rule, runs = FromCounts("mean_iou", ("novel",)), []
    for seed, hits in enumerate((1, 1, 1, 1, 200)):
        counts = Counts(2, {"novel": (1,)})
        counts.seed = seed
        for n in range(40):
            counts.add(f"{n}", [[0, 0], [1000 - hits, hits]])
        runs.append(counts)
    assert interval(under_draws(runs, rule)[1:])[0] < 0 == estimate(runs, rule).low


def test_images_are_matched_by_id():
    counts = random_counts()
    result = compare_(counts, counts.select(range(11, -1, -1)))
    assert (result.difference, result.low, result.high) == (0, 0, 0)
    single = compare_(random_counts(1), random_counts(1))
    assert math.isnan(single.low) and (single.p_value, single.p_text) == (1, "-")
    with pytest.raises(DataError, match="011: scored by one run only"):
        compare_(counts, counts.select(range(11)))
    with pytest.raises(DataError, match="fold 1: scored by one row only"):
        compare_([random_counts(fold=0), random_counts(fold=1)], random_counts(fold=0))
    with pytest.raises(DataError, match="seed 0, fold None: given twice"):
        estimate([counts, counts], MEAN_IOU)


def test_holm_multiplies_by_the_comparisons_that_are_left():
    found = holm([Comparison(0, 0, 0, p) for p in (0.04, 0.001, 0.03, 0.9)])
    assert [one.p_value for one in found] == pytest.approx([0.09, 0.004, 0.09, 0.9])
    assert [one.p_text for one in found] == ["0.090", "0.004", "0.090", "0.900"] and holm([]) == []
    clear = holm([Comparison(0, 0, 0, 1e-9)] * 1000)
    assert [one.p_text for one in clear] == ["< 0.001"] * 1000


class World:
    """Networks asked for classes of three folds: two folds share their images, one lacks a class; images repeat."""

    FREQUENCIES = ((0.5, 0.5), (0.7, 0.3), (1.0, 0.0))

    def __init__(self, methods=2, seeds=2):
        self.random = np.random.default_rng(1)
        self.skill = self.random.normal(0, 0.05, (methods, seeds, 3, 2))
        self.skill[1] -= 0.03

    def outcomes(self, images):
        """Sums of each method, seed, fold and image, (2, S, 3, N, 2, 3), of images drawn from the world."""
        quality = np.repeat(self.random.beta(3, 2, (1, images)), 2, 0)
        quality = np.vstack([quality, self.random.beta(3, 2, (1, images))])  # folds 0 and 1: of the same images
        size = np.exp(self.random.normal(0, 0.5, quality.shape)) * 1000
        held = np.stack([self.random.choice(2, images, p=share) for share in self.FREQUENCIES])
        asked = self.random.integers(1, 4, quality.shape)
        sums = np.zeros((*self.skill.shape[:2], 3, images, 2, 3))
        for method, seed, fold in np.ndindex(self.skill.shape[:3]):
            skill = self.skill[method, seed, fold, held[fold]]
            for number in range(3):
                scatter = self.random.normal(0, 0.05, images)
                share = np.clip(quality[fold] + skill + scatter, 0, 1) * (asked[fold] > number)
                whole = size[fold] * (asked[fold] > number)
                hits = share * size[fold]
                counted = np.stack([hits, 0.6 * (whole - hits), whole - hits], -1)
                sums[method, seed, fold, np.arange(images), held[fold]] += counted
        return sums

    def truth(self):
        values = np.stack([mean_iou(self.outcomes(20_000).sum(3)).mean((1, 2)) for _ in range(5)])
        return values.mean(0)


def as_runs(sums):
    """Counts of one method, of sums (S, 3, N, 2, 3): a row for each image, binary matrices of its class."""
    runs = []
    for seed, fold in np.ndindex(sums.shape[:2]):
        counts = Counts(3, {"novel": (1, 2)})
        counts.seed, counts.fold = seed, fold
        for n, outcomes in enumerate(sums[seed, fold].astype(int)):
            matrix = np.zeros((3, 3), int)
            for k in (1, 2):
                matrix[k, k], matrix[0, k], matrix[k, 0] = outcomes[k - 1]
            counts.add(Asked(f"{'b' if fold == 2 else 'a'}{n:03}"), matrix)
        runs.append(counts)
    return runs


@pytest.mark.parametrize("images", [5, 8, 14])
def test_equal_methods_on_few_images_are_told_apart_as_seldom_as_promised(images):
    """Counting draws on the other side of 0 tells more apart; docs/how_sure.md has what this prints (`pytest -s`)."""
    random, rule, told, worlds = np.random.default_rng(images), FromCounts("mean_iou", ("object",)), np.zeros(3), 800
    for world in range(worlds):
        first, second = (Counts(2, {"object": (1,)}) for _ in range(2))
        for i in range(images):
            for counts in (first, second):
                hits = int(np.clip(random.normal(5e5, 1e5), 0, 1e6))
                counts.add(f"{world}-{i}", [[0, 0], [10**6 - hits, hits]])
        p_value = compare(first, second, rule, draws=200).p_value
        scores = under_draws(first, rule, 200) - under_draws(second, rule, 200)
        drawn = scores[0] + (scores[1:] - scores[0]) / few_widen(images - 1)
        counted = 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / 201
        told += p_value < 0.05, p_value < 0.001, counted < 0.05
    shares = told / worlds
    print(f"{images} images: {shares[0]:.1%} at p < .05, {shares[1]:.1%} at p < .001; counting draws {shares[2]:.1%}")
    assert 0.03 < shares[0] < 0.07 and shares[1] < 0.01
    assert shares[2] > shares[0] + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("images", [150, 60, 34, 12])
def test_intervals_hold_the_truth_as_often_as_they_say(images):
    """Of a score, and of a paired difference; docs/how_sure.md has what this prints (`pytest -s`)."""
    world, rule = World(), FromCounts("mean_iou", ("novel",))
    truth = world.truth()
    single, paired, drawn = 0, 0, 800
    for _ in range(drawn):
        first, second = (as_runs(sums) for sums in world.outcomes(images))
        found, difference = estimate(first, rule, draws=300), compare(first, second, rule, draws=300)
        single += found.low <= truth[0] <= found.high
        paired += difference.low <= truth[0] - truth[1] <= difference.high
    print(f"{images} images a fold: of a score {single / drawn:.1%}, of a difference {paired / drawn:.1%}")
    assert 0.9 <= single / drawn <= 0.97
    assert 0.93 <= paired / drawn <= 0.97


def test_drawing_answers_instead_of_images_would_be_too_sure():
    """The interval over images is much wider than one over questions, which repeat images, would be."""
    random = np.random.default_rng(3)
    images, questions = (Counts(2, {"object": (1,)}) for _ in range(2))
    for i in range(30):
        hits = random.integers(5, 95)
        for number in range(30):
            matrix = [[0, 0], [100 - hits, hits]]
            images.add(Asked(f"{i}", (1,), list=number), matrix)
            questions.add(Asked(f"{i}", (1,), list=number, unit=f"{i} {number}"), matrix)
    rule = FromCounts("mean_iou", ("object",))
    wide, narrow = (np.ptp(estimate(counts, rule)[1:]) for counts in (images, questions))
    assert wide > 4 * narrow


def test_a_draw_in_which_one_fold_has_no_value_has_none():
    folds, rule = [Counts(2, {"object": (1,)}) for _ in range(2)], FromCounts("mean_iou", ("object",))
    for fold, counts in enumerate(folds):
        counts.fold = fold
        for i in range(6):  # of fold 1 one image alone holds an object
            held = fold == 0 or i == 0
            counts.add(f"{fold}{i}", [[5, 0], [i * held, 5 * held]])
    first, second = (under_draws(counts, rule, draws=100) for counts in folds)
    both = under_draws(folds, rule, draws=100)
    assert 0 < np.isnan(second).sum() < 100 and not np.isnan(first).any()
    mean, wider = (first + second) / 2, few_widen(10) / few_widen(5)  # of two folds of six images drawn apart, of one
    assert both == pytest.approx(mean[0] + wider * (mean - mean[0]), nan_ok=True)


def test_draws_without_a_value_are_left_out():
    counts = Counts(2, {"object": (1,)})
    for i in range(6):
        counts.add(f"{i}", [[5, 0], [0, 5 if i == 0 else 0]])  # drawn without image 0 there is no object
    drawn = under_draws(counts, FromCounts("mean_iou", ("object",)), draws=200)
    assert np.isnan(drawn).any() and estimate(counts, FromCounts("mean_iou", ("object",)), 200) == (1, 1, 1)
    assert class_iou(counts.outcomes().sum(0)).tolist() == [1, 1]
