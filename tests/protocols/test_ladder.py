"""The ladder: pools, items, scores against counting each item by itself, and what training of a rung may see."""

import numpy as np
import pytest
import torch
from ladder_data import CLASSES, COLOURS, FOLDS, write_ladder

from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.pool import choose
from segladder.data.sources.folder import Folder
from segladder.data.sources.items import Items
from segladder.data.training.views import Images
from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method
from segladder.methods.few_shot.base import FewShotMethod
from segladder.methods.image_level.base import TagMethod
from segladder.metrics.counts import Asked, Counts
from segladder.protocols.asking import (
    ALONE,
    CROWDED,
    LACKING,
    SMALL,
    BaseClasses,
    Questions,
    best_threshold,
    the_surest,
)
from segladder.protocols.base import Result, Scoring
from segladder.protocols.episode_runner import EpisodeRunner
from segladder.protocols.ladder import LadderProtocol

FIELDS = {
    **{"name": "ladder", "dataset": "folder", "split": "val", "supervision": "full", "classes": None},
    **{"other_classes": "ignore", "folds": FOLDS, "fold": 0, "pool": 8, "shots": 2, "min_object": "none"},
    **{"min_area": 0, "fit": "native", "input_side": None, "aggregate": "mean"},
    **{"gamma_on": "probabilities", "gammas": (0.2, 0.5, 1.0), "gamma_rule": "seen_budget", "gamma": 0.0},
    **{"seen_kept": 0.9, "gamma_images": 8, "bootstrap": 30},
}
NOTHING = {"optimizer": {}, "schedule": {}, "mean": (0, 0, 0), "std": (1, 1, 1)}
NOVEL = (1, 2)


class NearestColour(Method):
    """Scores by distance to each class's colour; the base classes have a lead."""

    def __init__(self, supervision: str = "full", lead: float = 0.0) -> None:
        super().__init__(name="nearest_colour", supervision=supervision, trains=False, **NOTHING)
        self.seen = torch.tensor([True, False, False, True, True])
        self.lead = lead

    def loss(self, batch):
        raise NotImplementedError

    def predict(self, images):
        colours = torch.from_numpy(COLOURS).float()[None, :, :, None, None]  # (1, K, 3, 1, 1)
        distances = (images.float()[:, None] - colours).square().sum(2).sqrt()
        return self.lead * self.seen[:, None, None] - distances / 40


class SupportColour(FewShotMethod):
    """A pixel is of the class if it is nearer to the supports' mean colour than to gray."""

    def __init__(self) -> None:
        super().__init__(5, torch.nn.Identity(), name="colour", supervision="few_shot", trains=False, **NOTHING)

    def encode(self, images):
        return (images,)

    def condition(self, support_images, support_features, support_masks):
        weights = support_masks[:, None] / support_masks.sum((1, 2))[:, None, None, None]
        return ((support_features[0] * weights).sum((2, 3)),)

    def decode(self, query_features, state, size):
        distances = [(query_features[0] - c).square().sum(1).sqrt() for c in (90 / 255, state[0][..., None, None])]
        return -torch.stack(distances, 1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_ladder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def source(root):
    return Folder(root, folds=FOLDS)


def protocol(**changes) -> LadderProtocol:
    return LadderProtocol(**{**FIELDS, **changes})


def items(kept, present=None) -> Items:
    ids = tuple(f"im{i}" for i in range(len(kept)))
    return Items("toy", ("background", *"abcd"), ids, tuple(kept), tuple(present or kept))


def test_a_pool_starts_with_smaller_ones_and_with_the_supports():
    held = items([(1,), (2,), (3,), (1, 3), (4,), (2, 4), (1, 2)] * 6)
    whole = choose(held, NOVEL, None)
    assert sorted(whole.base) == sorted(i for i, k in zip(held.ids, held.kept, strict=True) if not set(k) & {1, 2})
    assert not set(whole.base) & set(whole.images) and len(whole.images) == 30
    for size in range(1, 31):
        pool = choose(held, NOVEL, size)
        assert pool.images == whole.images[:size] and pool.base == whole.base
        pairs = sum(k in held.kept[held.ids.index(i)] for i in pool.images for k in NOVEL)
        assert sum(map(len, pool.holders.values())) == pairs
    assert {k: len(choose(held, NOVEL, 2).supports(k, 1, "x")) for k in NOVEL} == {1: 1, 2: 1}
    assert choose(held, NOVEL, 20).supports(1, 3, "a") == whole.supports(1, 3, "a")


def test_each_pool_seed_draws_a_pool_and_supports_of_its_own():
    held = items([(1,), (2,), (3,), (1, 3), (4,), (2, 4), (1, 2)] * 6)
    pools = [choose(held, NOVEL, 6, seed) for seed in range(3)]
    assert len({pool.images for pool in pools}) == len({pool.supports(1, 1, "a") for pool in pools}) == 3
    assert len({pool.base for pool in pools}) == 1


def test_an_image_with_a_speck_of_a_novel_class_is_neither_base_nor_in_the_pool():
    pool = choose(items([(3,), (3,), (1,)], present=[(3,), (1, 3), (1,)]), (1,), None)
    assert (pool.base, pool.images) == (("im0",), ("im2",))


@pytest.mark.parametrize("kept, fault", [([(3,)], "no training image holds"), ([(1,), (1, 3)], "every training image")])
def test_a_pool_needs_both_kinds_of_images(kept, fault):
    with pytest.raises(DataError, match=fault):
        choose(items(kept), NOVEL, None)


class Compared(str):
    """An id that counts how often it is compared with another."""

    times = 0

    def __eq__(self, other):
        Compared.times += 1
        return str(self) == str(other)

    __hash__ = str.__hash__


def test_neither_a_pool_nor_questions_search_all_images_for_each():
    ids = [Compared(n) for n in range(300)]
    kept = tuple(() if n % 3 else (1,) for n in range(300))
    items = Items("made", ("background", "a"), tuple(ids), kept, kept)
    Compared.times = 0
    pool = choose(items, [1], None)
    assert len(pool.holders[1]) == 100
    assert len(Questions.of(items, [1]).on(tuple(ids)).kinds) == 300
    assert Compared.times < 300


def test_every_image_is_asked_for_every_class():
    held = items([(1,), (1, 2), (2, 3), (3,), ()], present=[(1, 2), (1, 2), (2, 3), (3,), ()])
    questions = Questions.of(held, NOVEL)
    assert [questions.kinds[f"im{n}", 1] for n in range(5)] == [ALONE, CROWDED, LACKING, LACKING, LACKING]
    assert [questions.kinds[f"im{n}", 2] for n in range(5)] == [SMALL, CROWDED, CROWDED, LACKING, LACKING]
    assert questions.holders(1) == ["im0", "im1"] and questions.holders(2) == ["im1", "im2"]


def by_class(source, answer):
    """IoU, told IoU and hard IoU (3, 2) of the novel classes, and painted share, counted item by item."""
    counts, told, hard = (np.zeros((5, 2)) for _ in range(3))
    painted = pixels = 0
    for image_id in source.split("val"):
        mask = source.mask(image_id)
        known, crowded = mask != 255, len(np.setdiff1d(mask, [0, 255])) > 1
        for k in NOVEL:
            said, there = answer(image_id, k), mask == k
            added = np.array([(said & there & known).sum(), ((said | there) & known).sum()])
            counts[k] += added
            told[k] += added * there.any()
            hard[k] += added * (there.any() and crowded)
            if not there.any():
                painted, pixels = painted + (said & known).sum(), pixels + known.sum()
    return np.array([c[1:3, 0] / c[1:3, 1] for c in (counts, told, hard)]), painted / pixels


def expected(source, answer):
    """mIoU, told and hard mIoU and painted share of answer(image id, class) -> bool (H, W)."""
    shares, painted = by_class(source, answer)
    return [*shares.mean(1), painted]


def values(result):
    return [result.metrics[name]["value"] for name in ("mIoU", "told_mIoU", "hard_mIoU", "negative_area")]


def test_a_dense_method_answers_where_the_class_wins(source):
    method = NearestColour()
    result = protocol().score(method, source, batch_size=3)

    def answer(image_id, k):
        return method.predict(torch.from_numpy(source.image(image_id)).permute(2, 0, 1)[None]).argmax(1)[0].numpy() == k

    assert values(result) == pytest.approx(expected(source, answer))
    assert result.metrics["mIoU"]["low"] < result.metrics["mIoU"]["value"] < result.metrics["mIoU"]["high"]
    assert [row["class"] for row in result.per_class] == ["apple", "brick"]
    shares, _ = by_class(source, answer)
    for name, of_classes in zip(("iou", "told_iou", "hard_iou"), shares, strict=True):
        assert [row[name] for row in result.per_class] == pytest.approx(of_classes), name
    assert {"base_mIoU", "harmonic_mIoU"} <= set(result.metrics) and result.curve is None
    assert result.metrics["mIoU"]["value"] < result.metrics["told_mIoU"]["value"]


def test_a_few_shot_method_is_asked_with_the_same_supports_from_the_pool(source):
    method, ladder = SupportColour(), protocol(supervision="few_shot")
    result = ladder.score(method, source, batch_size=3)
    pool = choose(Items.read(source, source.split("train"), "none"), NOVEL, 8)
    colours = {}
    for k in NOVEL:
        shown = [source.pair(i) for i in pool.supports(k, 2, CLASSES[k - 1])]
        colours[k] = np.mean([image[mask == k].mean(0) for image, mask in shown], axis=0)

    def answer(image_id, k):
        image = source.image(image_id).astype(float)
        return np.linalg.norm(image - colours[k], axis=2) < np.linalg.norm(image - 90.0, axis=2)

    assert values(result) == pytest.approx(expected(source, answer), abs=2e-3)
    assert "base_mIoU" not in result.metrics
    assert ladder.place() == (0, 2) and protocol().place() == (0, None)
    shown = ladder.shown(method, source, result.pictured.asked[0], result)
    assert set(np.unique(shown.prediction)) <= {0, 1, 2} and len(shown.beside) >= 1


def test_a_query_is_forgotten_once_it_is_answered_and_supports_are_kept(source, monkeypatch):
    """However many images a split has, no more of them are held than a batch and the supports."""
    most = {"features": 0, "masks": 0}
    met, drop_used = set(), EpisodeRunner._drop_used

    def watched(runner, episodes):
        most["features"] = max(most["features"], len(runner.features))
        most["masks"] = max(most["masks"], len(runner.masks))
        met.update(episode.query for episode in episodes)
        assert runner.encoded == len(met) + 4  # the supports once
        drop_used(runner, episodes)

    monkeypatch.setattr(EpisodeRunner, "_drop_used", watched)
    protocol(supervision="few_shot").score(SupportColour(), source, batch_size=3)
    assert len(met) == 20
    assert most["features"] <= 4 + 3 and most["masks"] <= 4 + 3


@pytest.mark.parametrize("method", [NearestColour(), SupportColour()])
def test_answers_hold_four_numbers_for_each_question(source, method):
    ladder = protocol(supervision=method.supervision)
    scoring = Scoring(method, source, batch_size=3)
    questions = Questions.of(Items.read(source, source.split("val"), "none"), NOVEL)
    answers = ladder.asker(scoring).answers(questions)
    assert {matrix.shape for matrix in answers.confusions.values()} == {(2, 2)}
    assert list(answers.confusions) and set(answers.confusions) == set(questions.kinds)


def test_pictures_of_a_ladder_read_the_training_masks_once_for_all(root, monkeypatch):
    source, read = Folder(root, folds=FOLDS), []
    mask = Folder.raw_mask
    monkeypatch.setattr(Folder, "raw_mask", lambda source, i: [read.append(i), mask(source, i)][1])
    ladder = protocol(supervision="few_shot", presence="competing", gamma_images=2)
    for image_id in ("val00", "val01", "val02"):
        ladder.shown(SupportColour(), source, Asked(image_id), Result({}, [], Counts(5)))
    assert max(read.count(image_id) for image_id in source.split("train")) <= 1 + 3  # as a support of each panel too


def colours_of(source, supports):
    """The mean colour of each class's supports."""
    found = {}
    for k, ids in supports.items():
        shown = [source.pair(i) for i in ids]
        found[k] = np.mean([image[mask == k].mean(0) for image, mask in shown], axis=0)
    return found


def of_presence(source, presence):
    """A protocol of few-shot methods, with the supports of novel and of base classes and the images that calibrate."""
    ladder = protocol(supervision="few_shot", presence=presence)
    train = Items.read(source, source.split("train"), "none")
    novel = {k: choose(train, NOVEL, 8).supports(k, 2, CLASSES[k - 1]) for k in NOVEL}
    base = Items.read(source, source.ids_without(source.split("train"), FOLDS[0]), "none")
    return ladder, novel, BaseClasses.of(base, (3, 4), 2, 8, 0)


def probability(source, image_id, colour):
    """What SupportColour gives."""
    image = source.image(image_id).astype(float)
    class_, ground = (np.linalg.norm(image - c, axis=2) / 255 for c in (colour, 90.0))
    return 1 / (1 + np.exp(class_ - ground))


def test_a_pixel_goes_to_the_surest_of_novel_and_base_classes(source):
    ladder, novel, base = of_presence(source, "competing")
    colours = colours_of(source, {**novel, **base.supports})

    def answer(image_id, k):
        claims = {j: probability(source, image_id, colour) for j, colour in colours.items()}
        return (claims[k] > 0.5) & np.all([claims[k] > other for j, other in claims.items() if j != k], axis=0)

    result = ladder.score(SupportColour(), source, batch_size=3)
    assert values(result) == pytest.approx(expected(source, answer), abs=2e-3)
    plain = protocol(supervision="few_shot").score(SupportColour(), source)
    assert values(result)[0] > values(plain)[0] + 0.1 and values(result)[3] < values(plain)[3]
    assert protocol(supervision="few_shot").hash == ladder.hash and ladder.described()["presence"] == "competing"
    shown = ladder.shown(SupportColour(), source, result.pictured.asked[0], result)
    assert set(np.unique(shown.prediction)) <= {0, 1, 2}
    held = [{*np.unique(source.mask(image_id))} for image_id in source.split("val")]
    empty = next(i for i, classes in zip(source.split("val"), held, strict=True) if not classes & {1, 2})
    assert not ladder.shown(SupportColour(), source, Asked(empty), result).prediction.any()


def test_answers_less_sure_than_is_best_for_base_classes_are_left_out(source):
    ladder, novel, base = of_presence(source, "calibrated")
    assert not set(base.images) & {i for ids in base.supports.values() for i in ids} and len(base.images) == 8
    colours = colours_of(source, {**novel, **base.supports})
    asked = []
    for image_id in base.images:
        mask = source.mask(image_id)
        for k in base.supports:
            claim = probability(source, image_id, colours[k])
            painted, true = claim > 0.5, mask == k
            known = mask != 255
            asked.append((k, claim[painted].mean(), (painted & true).sum(), (painted & known).sum(), true.sum()))

    def over_all(least):
        ious = []
        for k in base.supports:
            mine = [a for a in asked if a[0] == k]
            hit = sum(a[2] for a in mine if a[1] >= least)
            ious.append(hit / sum(a[3] + a[4] - a[2] if a[1] >= least else a[4] for a in mine))
        return np.mean(ious)

    result = ladder.score(SupportColour(), source, batch_size=3)
    least = result.metrics["least_sure"]["value"]
    assert over_all(least - 1e-6) == pytest.approx(max(over_all(a[1] - 1e-6) for a in asked), abs=2e-3)

    def answer(image_id, k):
        claim = probability(source, image_id, colours[k])
        return (claim > 0.5) & (claim[claim > 0.5].mean() >= least - 1e-6)

    assert values(result) == pytest.approx(expected(source, answer), abs=2e-3)


def of_base(source, ids, shots=2):
    """Supports of base classes among images, and the mean IoU of SupportColour on all others, by hand."""
    found = BaseClasses.of(Items.read(source, ids, "none"), (3, 4), shots, len(ids), 0)
    colours, shares = colours_of(source, found.supports), []
    for k, colour in colours.items():
        hit = union = 0
        for image_id in found.images:
            image, mask = source.pair(image_id)
            painted = np.linalg.norm(image - colour, axis=2) < np.linalg.norm(image - 90.0, axis=2)
            painted &= mask != 255
            hit += (painted & (mask == k)).sum()
            union += (painted | (mask == k)).sum()
        shares.append(hit / union)
    return found, np.mean(shares)


@pytest.mark.parametrize("presence", ["always", "competing"])
def test_a_few_shot_method_is_judged_by_base_classes_of_held_out_images(source, presence):
    ids = source.ids_without(source.split("train"), FOLDS[0])[:9]
    ladder, (found, share) = protocol(supervision="few_shot", presence=presence), of_base(source, ids)
    assert len(found.images) < len(ids) and 0.2 < share < 0.9
    score = ladder.selection_score(SupportColour(), source, ids, batch_size=3)
    assert score == pytest.approx(share, abs=2e-3)
    shown = dict(ladder.glimpses(Scoring(SupportColour(), source, ids), 2))
    assert len(shown) == 2 and set(shown) <= set(found.images)
    assert all(set(np.unique(picture.truth)) <= {0, 3, 4, 255} for picture in shown.values())


def test_no_image_of_a_novel_class_judges_a_few_shot_run(source):
    ids = source.split("train")
    judges = protocol(supervision="few_shot").training(source).judges(source, ids)
    assert 0 < len(judges) < len(ids)
    assert list(judges) == [i for i in ids if not np.isin(source.mask(i), NOVEL).any()]


def test_too_few_held_out_images_of_base_classes_are_named(source):
    ids = source.ids_without(source.split("train"), FOLDS[0])[:4]
    asked = protocol(supervision="few_shot", shots=5)
    for look in (
        lambda: asked.check_held_out(source, ids),
        lambda: asked.selection_score(SupportColour(), source, ids, batch_size=3),
    ):
        with pytest.raises(ConfigError, match=r"held_out: no base class has 6 of 4 held-out images"):
            look()
    protocol(supervision="full").check_held_out(source, ids)


def test_each_pool_seed_draws_supports_of_base_classes_of_its_own(source):
    ids = source.ids_without(source.split("train"), FOLDS[0])
    ladders = [protocol(supervision="few_shot", presence="calibrated", pool_seed=seed) for seed in range(3)]
    found = [ladder.base(source) for ladder in ladders]
    assert found == [BaseClasses.of(Items.read(source, ids, "none"), (3, 4), 2, 8, seed) for seed in range(3)]
    assert len({tuple(base.supports.items()) for base in found}) == len({base.images for base in found}) == 3


def test_of_equal_thresholds_the_lowest_is_chosen():
    sure, hit, painted, true = (
        np.array(column) for column in zip((0.2, 0, 5, 0), (0.5, 0, 0, 0), (0.8, 5, 5, 5), strict=True)
    )
    assert best_threshold(np.ones(3, int), sure, hit, painted, true) == 0.5
    assert best_threshold(np.ones(2, int), sure[1:], hit[1:], painted[1:], true[1:]) == 0


def test_of_equals_nobody_has_a_pixel():
    maps = torch.tensor([[[[0.9, 0.7, 0.6]], [[0.9, 0.8, 0.4]]]])  # (1, 2, 1, 3)
    assert the_surest(maps > 0.5, maps).tolist() == [[[[False, False, True]], [[False, True, False]]]]


def test_presence_needs_supports_of_base_classes(source):
    with pytest.raises(DataError, match=r"too few training images without apple, brick for protocol.presence=calib"):
        protocol(supervision="few_shot", presence="calibrated", shots=30, pool=None).base(source)


class Left(TagMethod):
    """The first class is in the left half."""

    def __init__(self) -> None:
        super().__init__(0.3, name="left", supervision="image_level", trains=False, **NOTHING)

    def loss(self, batch):
        raise NotImplementedError

    def class_scores(self, ids, images, tags, scales, flip):
        scores = torch.zeros(len(images), 4, *images.shape[-2:])
        scores[:, 0, :, : images.shape[-1] // 2] = 1
        return scores


def test_where_a_method_of_tags_fires_is_shown(source):
    ladder = protocol(supervision="image_level")
    picture = ladder.shown(Left(), source, Asked(source.split("val")[0]), ladder.score(Left(), source))
    fires = (
        picture.beside["scores of its classes"].mean(-1) > picture.image.mean(-1) / 4 + 40
    )  # inferno's top is far from black
    half = fires.shape[1] // 2
    assert fires[:, :half].all() and not fires[:, half:].any()
    assert (picture.prediction[:, :half] == 1).all() and not picture.prediction[:, half:].any()


def test_a_zero_shot_method_has_the_gamma_of_the_rule_and_others_none(source):
    leading = protocol(supervision="zero_shot").score(NearestColour("zero_shot", lead=3.0), source)
    plain = protocol().score(NearestColour(lead=3.0), source)
    assert leading.metrics["gamma"]["value"] > 0
    assert values(leading)[0] > values(plain)[0]
    assert [point["gamma"] for point in leading.curve] == [0, 0.2, 0.5, 1]


def test_all_rungs_share_items_and_hash_but_not_with_another_question(source):
    rungs = [{"supervision": s, "pool": n, "shots": k} for s, n, k in (("full", 3, 1), ("few_shot", None, 5))]
    assert len({protocol(**rung).hash for rung in rungs}) == 1 != len({protocol().hash, protocol(min_area=7).hash})
    dense = protocol().score(NearestColour(), source)
    assert dense.items == protocol(supervision="few_shot").score(SupportColour(), source).items


def test_more_shots_than_the_pool_holds_are_named(source):
    asked = protocol(supervision="few_shot", pool=3, shots=5)
    for look in (lambda: asked.check_items(source), lambda: asked.score(SupportColour(), source)):
        with pytest.raises(DataError, match=r"class apple: \d of 3 images of the pool hold it, protocol.shots=5"):
            look()
    protocol(supervision="few_shot", shots=1).check_items(source)


def test_without_a_pool_nothing_novel_is_labelled(source):
    floor = protocol(pool=0)
    assert floor.training(source) == Images(floor.labelled(source).base, labelled=FOLDS[0])
    assert floor.hidden() == FOLDS[0] and not protocol().hidden() and not floor.labelled_novel(source, Masks())
