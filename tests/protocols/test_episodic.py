"""Few-shot scoring: episodes answered once per image as one by one, what distractors show, hashes, frozen lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from episode_data import counted_one_by_one, probability_histogram, write_coloured
from hydra import compose, initialize_config_module
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from sklearn.metrics import average_precision_score
from torch import nn

from segladder.data.labels.kinds import of_supports
from segladder.data.sources.items import Items
from segladder.data.sources.palette import voc_palette
from segladder.data.sources.voc import VOC, VOC_CLASSES
from segladder.data.training.episodes import Episode, digest, draw
from segladder.errors import ConfigError, DataError
from segladder.methods.few_shot.base import FewShotMethod
from segladder.metrics.average_precision import BINS, average_precision, best_threshold
from segladder.metrics.bootstrap import estimate
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.episodes import EpisodeCounts
from segladder.metrics.formulas import foreground_background_iou, mean_iou, painted_shares, swapped
from segladder.metrics.scores import FromCounts
from segladder.protocols.episode_runner import Answer, EpisodeRunner, InputSize, aggregated, merged, merged_all
from segladder.protocols.episodic import DISTRACTORS, EpisodicProtocol
from segladder.protocols.feature_store import FeatureStore
from segladder.protocols.few_shot import asking, episodes_of, outlined
from segladder.runs import build

CLASSES = VOC_CLASSES[1:8]
PROTOCOLS = ("strict", "oslsm", "sg_one", "panet", "pfenet", "bam", "hsnet", "hard", "negative", "swap")


class Painter(FewShotMethod):
    """Answers with the pixels coloured like the support's class or, if salient, with all that are not black."""

    def __init__(self, salient: bool = False, **common: Any) -> None:
        settings = {"name": "painter", "supervision": "few_shot", "trains": False, "optimizer": {}, "schedule": {}}
        super().__init__(8, nn.CrossEntropyLoss(), mean=(0.0,) * 3, std=(1.0,) * 3, **settings)
        self.salient = salient

    def encode(self, images):
        return (images,)

    def condition(self, support_images, support_features, support_masks):
        weights = support_masks[:, None]
        return ((support_features[0] * weights).sum((2, 3)) / weights.sum((2, 3)),)  # (B, 3)

    def decode(self, query_features, state, size):
        (images,) = query_features
        distance = (images - state[0][..., None, None]).abs().sum(1)  # (B, h, w)
        score = images.sum(1) - 0.3 if self.salient else 0.2 - distance
        score = nn.functional.interpolate(score[:, None], size, mode="nearest")
        return torch.cat([-20 * score, 20 * score], 1)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory) -> VOC:
    """Images of one to three classes, every class in a colour of its own, and two folds."""
    return VOC(write_coloured(tmp_path_factory.mktemp("coloured")), classes=CLASSES, folds=[CLASSES[:3], CLASSES[3:6]])


def protocol(name: str = "strict", *overrides: str) -> EpisodicProtocol:
    """A protocol of conf/protocol on those classes."""
    folds = f"data.folds=[[{','.join(CLASSES[:3])}],[{','.join(CLASSES[3:6])}]]"
    with initialize_config_module("segladder.conf", version_base="1.3"):
        config = compose("train", ["data=voc", f"protocol={name}", folds, *overrides])
        return instantiate(config.protocol)


SHORT = ("protocol.min_object=none", "protocol.episodes=30", "protocol.seeds=[0,1]", "protocol.beside=20")


def value(result, name: str) -> float:
    return result.metrics[name]["value"]


def test_a_method_that_follows_the_support_passes_every_test(coloured):
    result = protocol("strict", *SHORT).score(Painter(), coloured)
    assert value(result, "mIoU") > 0.95 and value(result, "hard_mIoU") > 0.95
    assert value(result, "average_precision") > 0.95
    assert value(result, "negative_area") < 0.01
    assert value(result, "swap_follows") == 1 and value(result, "swap_wrong_iou") < 0.05
    assert [row["class"] for row in result.per_class] == ["background", *CLASSES[:3]]
    assert [row["episodes"] for row in result.per_class] == [0, 20, 20, 20]
    assert len(result.pictured) == 60 and {a.kind for a in result.counts.asked} == {"standard", *DISTRACTORS}


def test_a_method_that_paints_the_salient_is_found_out(coloured):
    result = protocol("strict", *SHORT).score(Painter(salient=True), coloured)
    assert value(result, "hard_mIoU") < value(result, "mIoU")
    assert value(result, "negative_area") > 0.2 and value(result, "negative_empty") == 0
    assert value(result, "swap_follows") < 0.7
    assert value(result, "predicted_share") > value(result, "true_share")


@pytest.mark.parametrize("kind", ["hard", "negative", "swap"])
def test_a_distractor_test_is_a_protocol_of_its_own(coloured, kind):
    result = protocol(kind, *SHORT).score(Painter(), coloured)
    assert any(name.startswith(kind) for name in result.metrics)
    assert not any(name.startswith(other) for other in {"hard", "negative", "swap"} - {kind} for name in result.metrics)


def test_negative_queries_have_no_overlap_to_rank_by(coloured):
    chosen = protocol("negative", *SHORT)
    careful, salient = (chosen.score(Painter(salient), coloured) for salient in (False, True))
    assert chosen.ranked_by == "negative_empty" and protocol("hard").ranked_by == "mIoU"
    assert value(careful, "negative_empty") > value(salient, "negative_empty") == 0
    assert not {"mIoU", "fb_iou", "average_precision", "best_threshold_mIoU"} & set(careful.metrics)
    assert chosen.selection_score(Painter(), coloured, None, 8) == value(careful, "negative_empty")


@pytest.mark.parametrize("fit", ["square", "padded"])
@pytest.mark.parametrize("score_at", ["native", "input"])
def test_resized_input_is_scored_where_it_should_be(coloured, fit, score_at):
    resized = (f"protocol.fit={fit}", "protocol.input_side=128", f"protocol.score_at={score_at}")
    result = protocol("strict", *SHORT, *resized).score(Painter(), coloured)
    assert value(result, "mIoU") > 0.85
    pixels = sum(result.pictured.select([0]).total().reshape(-1))
    assert pixels > 0.9 * (128**2 if score_at == "input" else 96**2) * 0.9


def test_swapped_queries_are_scored_for_the_class_asked_for_alone(coloured):
    result = protocol("swap", *SHORT).score(Painter(), coloured)
    assert value(result, "mIoU") > 0.95
    assert value(result, "swap_right_iou") > 0.95
    assert protocol("swap").ranked_by == "swap_follows"
    assert "fb_iou_pooled" not in {score.name for score in protocol("swap").scores}  # its rows lack base classes


@pytest.mark.parametrize("salient", [False, True])
def test_counts_of_distractor_tests_give_their_scores_again(coloured, salient):
    swap, negative = (protocol(kind, *SHORT).score(Painter(salient), coloured) for kind in ("swap", "negative"))
    right, wrong = swapped(swap.counts.of_kinds("swap"))
    painted = painted_shares(negative.counts)
    expected = [(right > wrong).mean(), (painted == 0).mean(), painted.mean()]
    found = value(swap, "swap_follows"), value(negative, "negative_empty"), value(negative, "negative_area")
    assert found == pytest.approx(tuple(expected))
    assert all(
        {"low", "high"} <= {k for k, v in swap.metrics[name].items() if v is not None}
        for name in ("swap_follows", "swap_right_iou", "swap_wrong_iou")
    )


def test_a_wrong_answer_is_compared_with_the_other_classes_that_are_asked_for():
    counts = Counts(4)
    counts.add(Asked("a", (1,)), [[0, 0, 0, 0], [5, 5, 0, 0], [2, 8, 0, 0], [0, 9, 0, 0]])
    counts.add(Asked("a", (2,)), [[0, 0, 0, 0], [10, 0, 0, 0], [0, 0, 10, 0], [9, 0, 0, 0]])
    right, wrong = swapped(counts)  # class 3 is there, but never asked for
    assert right == pytest.approx([5 / 27, 1]) and wrong == pytest.approx([8 / 24, 0])


def test_an_answer_that_follows_the_third_of_three_classes_does_not_follow_its_support():
    counts, nothing = Counts(4), [0, 0, 0, 0]
    counts.add(Asked("a", (1,)), [nothing, [8, 2, 0, 0], [9, 1, 0, 0], [1, 9, 0, 0]])
    counts.add(Asked("a", (2,)), [nothing, [10, 0, 0, 0], [0, 0, 10, 0], [10, 0, 0, 0]])
    counts.add(Asked("a", (3,)), [nothing, [7, 0, 0, 3], [10, 0, 0, 0], [5, 0, 0, 5]])
    right, wrong = swapped(counts)
    assert right == pytest.approx([2 / 20, 1, 5 / 13]) and wrong == pytest.approx([9 / 13, 0, 3 / 15])
    assert estimate(counts, FromCounts("follows_support"), draws=0).value == pytest.approx(2 / 3)


def test_void_pixels_are_left_out_or_background(coloured):
    ignored = protocol("strict", *SHORT).score(Painter(), coloured)
    counted = protocol("strict", *SHORT, "protocol.void=background").score(Painter(), coloured)
    assert counted.pictured.total().sum() == 60 * 96 * 96 > ignored.pictured.total().sum()


@pytest.mark.parametrize("name", ["sg_one", "prototype", "panet"])
@pytest.mark.parametrize("shots", [1, 3])
def test_encoding_each_image_once_changes_no_answer(coloured, name, shots):
    with initialize_config_module("segladder.conf", version_base="1.3"):
        config = compose("train", [f"method={name}", "backbone=tiny", "backbone.width=8"])
    method = build.method(config, 8).eval()
    items = Items.read(coloured, coloured.split("val"), "none")
    episodes = draw(items, [1, 2, 3], shots, 12, 0)
    runner = EpisodeRunner(method, coloured, InputSize("native", None), "mean", batch_size=5)
    with torch.inference_mode():
        answers = {id(a.episode): a for a in runner.answers(episodes)}
        for episode in episodes:
            query, *supports = (pixels(coloured, i) for i in (episode.query, *episode.supports))
            masks = torch.stack([torch.from_numpy(coloured.mask(i)) == episode.class_index for i in episode.supports])
            logits = method.predict(query[None], torch.stack(supports)[None], masks[None].to(torch.uint8))
            expected = logits.softmax(1)[0, 1].numpy()
            np.testing.assert_allclose(answers[id(episode)].probability, expected, atol=1e-5)
    assert runner.encoded == len({i for e in episodes for i in (e.query, *e.supports)})


def pixels(source: VOC, image_id: str) -> torch.Tensor:
    return torch.from_numpy(source.image(image_id)).permute(2, 0, 1)


@pytest.mark.parametrize("aggregate", ["vote", "or", "max", "logit_mean"])
def test_aggregates_of_predictions(aggregate):
    maps = np.random.default_rng(0).uniform(0.01, 0.99, (5, 8, 9)).astype(np.float32)
    prediction, probability = aggregated(maps, aggregate)
    for place in np.ndindex(8, 9):
        p = maps[(slice(None), *place)].astype(np.float64)
        votes = (p > 0.5).sum()
        odds = np.exp(np.log(p / (1 - p)).mean())
        expected = {
            "vote": (votes >= 3, p.mean()),
            "or": (votes > 0, p.max()),
            "max": (p.max() > 0.5, p.max()),
            "logit_mean": (odds > 1, odds / (1 + odds)),
        }[aggregate]
        assert prediction[place] == expected[0]
        assert probability[place] == pytest.approx(expected[1], abs=1e-5)


def test_aggregates_of_states_weigh_supports_alike_or_by_area(coloured):
    items = Items.read(coloured, coloured.split("val"), "none")
    episode = draw(items, [1], 2, 1, 0)[0]
    areas = [int((coloured.mask(i) == 1).sum()) for i in episode.supports]
    states = {}
    for aggregate in ("mean", "area_mean"):
        runner = EpisodeRunner(Painter(), coloured, InputSize("native", None), aggregate, 1)
        runner.encode([episode.query, *episode.supports])
        states[aggregate] = runner._state(episode)[0][0][0]
    single = [runner._support_state(i, 1)[0][0] for i in episode.supports]
    torch.testing.assert_close(states["mean"], (single[0] + single[1]) / 2)
    expected = (single[0] * areas[0] + single[1] * areas[1]) / sum(areas)
    torch.testing.assert_close(states["area_mean"], expected)
    with pytest.raises(ConfigError, match="aggregate=average: expected one of mean, area_mean, vote"):
        EpisodeRunner(Painter(), coloured, InputSize("native", None), "average", 1)


class Echo(Painter):
    """Says what it was given of a support: the mask."""

    def condition(self, support_images, support_features, support_masks):
        return (support_masks.flatten(1),)


@pytest.mark.parametrize("kind", ["mask", "box", "scribble", "point"])
def test_supports_show_what_their_annotation_leaves_of_the_mask(coloured, kind):
    episode = draw(Items.read(coloured, coloured.split("val"), "none"), [1], 2, 1, 0)[0]
    masks = [of_supports(kind).of_object((coloured.mask(i) == 1).astype(np.uint8)) for i in episode.supports]
    for size in (InputSize("native", None), InputSize("square", 60)):
        runner = EpisodeRunner(Echo(), coloured, size, "area_mean", 1, annotation=kind)
        runner.encode(episode.supports)
        areas = np.array([mask.sum() for mask in masks])
        given = np.stack([size.mask(mask).reshape(-1) for mask in masks])
        expected = (areas[:, None] * given).sum(0) / areas.sum()
        np.testing.assert_allclose(runner._state(episode)[0][0][0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["box", "scribble", "point"])
def test_panels_outline_what_the_method_was_given(coloured, kind):
    chosen = protocol("strict", *SHORT, f"protocol.support_annotation={kind}", "protocol.beside=0")
    result = chosen.score(Painter(), coloured)
    assert value(result, "mIoU") > 0.95  # every part of an object has its colour
    (episode,) = episodes_of(result.counts.asked[0])
    picture = chosen.shown(Painter(), coloured, result.counts.asked[0], result)
    support = episode.supports[0]
    given = of_supports(kind).of_object((coloured.mask(support) == episode.class_index).astype(np.uint8))
    np.testing.assert_array_equal(picture.beside["support"], outlined(coloured.image(support), given))


def test_an_unknown_annotation_is_named(coloured):
    with pytest.raises(InstantiationException, match="support_annotation=polygon: choose from point, scribble, box"):
        protocol("strict", *SHORT, "protocol.support_annotation=polygon")


class Hazy(Painter):
    """Sees colours through noise, so that it takes classes for each other."""

    def decode(self, query_features, state, size):
        noise = 1.5 * torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
        distance = (noise * query_features[0] - state[0][..., None, None]).abs().sum(1, keepdim=True)
        return torch.cat([distance - 0.7, 0.7 - distance], 1)


def best_of(method: FewShotMethod, source: VOC, ways: list[Episode]) -> np.ndarray:
    """SG-One's rule pixel by pixel, each class asked for on its own."""
    query = pixels(source, ways[0].query)[None]
    maps = {}
    for way in ways:
        supports = torch.stack([pixels(source, i) for i in way.supports])[None]
        masks = torch.stack([torch.from_numpy(source.mask(i)) == way.class_index for i in way.supports])[None]
        maps[way.class_index] = method.predict(query, supports, masks.to(torch.uint8)).softmax(1)[0, 1].numpy()
    prediction = np.zeros(query.shape[-2:], np.uint8)
    for place in np.ndindex(prediction.shape):
        probability, k = max((maps[k][place], k) for k in maps)
        prediction[place] = k if probability > 0.5 else 0
    return prediction


@pytest.mark.parametrize(("ways", "shots"), [(2, 2), (3, 1)])
def test_several_classes_at_once_score_as_pixel_by_pixel(coloured, ways, shots):
    settings = (f"protocol.ways={ways}", f"protocol.shots={shots}", "protocol.episodes=6")
    chosen = protocol("strict", *SHORT, *settings)
    result = chosen.score(Hazy(), coloured, batch_size=4)
    items = Items.read(coloured, coloured.split("val"), "none")
    episodes = [e for seed in (0, 1) for e in chosen.frozen_list(items, [1, 2, 3], "standard", 6, seed)]
    confusion = np.zeros((4, 4), np.int64)
    for start in range(0, len(episodes), ways):
        group = episodes[start : start + ways]
        prediction, mask = best_of(Hazy(), coloured, group), coloured.mask(group[0].query)
        for place in np.ndindex(mask.shape):
            if mask[place] != 255:
                true = mask[place] if mask[place] in {e.class_index for e in group} else 0
                confusion[true, prediction[place]] += 1
    assert (confusion[1:, 1:].sum() - np.trace(confusion[1:, 1:])) > 0  # classes are confused with each other
    np.testing.assert_array_equal(result.counts.total()[:4, :4], confusion)
    hits = np.diag(confusion)
    shares = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    assert value(result, "mIoU") == pytest.approx(shares[1:].mean())
    object_found = confusion[1:, 1:].sum() / (confusion.sum() - confusion[0, 0])
    assert value(result, "fb_iou") == pytest.approx((shares[0] + object_found) / 2)
    assert len(result.counts) == 12 and [row["episodes"] for row in result.per_class][1:] == (
        np.bincount([e.class_index for e in episodes])[1:].tolist()
    )
    for name in ("mIoU", "fb_iou"):
        assert result.metrics[name]["low"] <= value(result, name) <= result.metrics[name]["high"]
    assert not any(name.startswith(("hard", "negative", "swap")) for name in result.metrics)


def test_several_classes_at_once_are_told_apart_shown_and_selected_by(coloured):
    chosen = protocol("strict", *SHORT, "protocol.ways=2")
    result = chosen.score(Painter(), coloured)
    assert value(result, "mIoU") > 0.95
    assert chosen.selection_score(Painter(), coloured, coloured.split("val"), 8) > 0.95
    asked = result.counts.asked[3]
    first, second = episodes_of(asked)
    picture = chosen.shown(Painter(), coloured, asked, result)
    headings = [f"support: {coloured.classes[e.class_index]}" for e in (first, second)]
    assert list(picture.beside) == [*headings, "probability"]
    mask = coloured.mask(first.query)
    asked = np.isin(mask, [first.class_index, second.class_index, 255])
    np.testing.assert_array_equal(picture.truth, np.where(asked, mask, 0))
    known = picture.truth != 255
    assert (picture.prediction[known] == picture.truth[known]).mean() > 0.95


def test_a_class_needs_a_pass_that_finds_it():
    """By vote, a class found with a lower probability wins over one that is not found."""
    episodes = [Episode("q", k, ("s",), 0) for k in (5, 2, 7)]
    found = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 1]], bool)[:, None]
    probabilities = np.array([[0.6, 0.4, 0.48], [0.3, 0.5, 0.45], [0.6, 0.1, 0.46]], np.float32)[:, None]
    answers = [Answer(e, found[n], probabilities[n], found[n]) for n, e in enumerate(episodes)]
    np.testing.assert_array_equal(merged(answers), [[5, 0, 7]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_beyond_the_limit_go_to_a_file_and_come_back_the_same(dtype):
    """Which images are met first changes no answer."""
    features = {key: (torch.randn(4, 5, 6).to(dtype), torch.randn(3).to(dtype)) for key in range(10)}
    store = FeatureStore(limit_mb=4 * (120 + 3) * dtype.itemsize / 2**20)
    for key, tensors in features.items():
        store.put(key, tensors)
    assert len(store) == 10 and 9 in store and 10 not in store
    for key, tensors in features.items():
        for stored, tensor in zip(store.get(key), tensors, strict=True):
            assert torch.equal(stored, tensor) and stored.dtype == dtype
            assert (stored is tensor) == (key < 4)


def test_what_is_dropped_from_a_store_makes_room_in_memory_and_in_the_file():
    store = FeatureStore(limit_mb=2 * 120 * 4 / 2**20)
    features = {key: (torch.randn(4, 5, 6),) for key in range(50)}
    for key, tensors in features.items():
        store.put(key, tensors)
        if key >= 4:
            store.drop(key - 4)
    assert store._file is not None and store._file.seek(0, 2) <= 6 * 120 * 4
    assert all(torch.equal(store.get(key)[0], features[key][0]) for key in features if key in store)
    store.drop("unknown")


def test_no_score_needs_a_matrix_of_all_classes_for_each_image(coloured, monkeypatch):
    monkeypatch.setattr(Counts, "dense", None)
    assert value(protocol("strict", *SHORT).score(Painter(), coloured), "true_share") > 0


def test_images_of_later_lists_are_encoded_once(coloured):
    items = Items.read(coloured, coloured.split("val"), "none")
    lists = [draw(items, [1, 2, 3], 1, 12, seed) for seed in range(2)]
    runner = EpisodeRunner(Painter(), coloured, InputSize("native", None), "mean", 5)
    with torch.inference_mode():
        for episodes, later in zip(lists, [lists[1], []], strict=True):
            for maps in runner.batches(episodes, later):
                assert len(maps.episodes) <= 5
    assert runner.encoded == len({i for episodes in lists for e in episodes for i in runner._images_of(e)})
    assert len(runner.features) == len(runner.states) == len(runner.masks) == 0


def test_a_mask_of_another_size_than_its_query_is_named(coloured, monkeypatch):
    (episode,) = draw(Items.read(coloured, coloured.split("val"), "none"), [1], 1, 1, 0)
    runner = EpisodeRunner(Painter(), coloured, InputSize("native", None), "mean", 1)
    mask = coloured.mask
    monkeypatch.setattr(coloured, "mask", lambda i: mask(i)[:-1] if i == episode.query else mask(i))
    with torch.inference_mode(), pytest.raises(DataError, match=rf"{episode.query}\.png: size 96x95, expected 96x96"):
        list(runner.answers([episode]))


def test_the_hash_tells_protocols_apart_but_not_folds():
    assert protocol("strict").hash == protocol("strict", "fold=1").hash
    assert protocol("strict").hash != protocol("strict", "protocol.shots=5").hash
    assert len({protocol(name).hash for name in PROTOCOLS}) == len(PROTOCOLS)
    assert protocol("strict", "fold=1").novel == CLASSES[3:6]
    with pytest.raises(ConfigError, match=r"fold=2: voc has folds 0\.\.1"):
        _ = protocol("strict", "fold=2").novel


def test_wrong_methods_and_classes_are_named(coloured):
    with pytest.raises(ConfigError, match="protocol=strict scores few_shot methods, but method=fcn8s is full"):
        protocol().check_method("fcn8s", "full")
    fewer = VOC(coloured.root, classes=CLASSES[1:], folds=coloured.folds)
    with pytest.raises(ConfigError, match=r"fold 0 needs the class aeroplane, but data\.classes gives bicycle"):
        protocol("strict", *SHORT).score(Painter(), fewer)


PINNED = {
    "strict": "71d02525b5f69109",
    "oslsm": "e77a6656caf5a8f6",
    "sg_one": "fdd195b5467b95e8",
    "panet": "54ffc5c49d41fc6d",
    "pfenet": "fdb1ec1337af4e09",
    "bam": "e8b53ae9d9d62fb8",
    "hsnet": "74b34f938334c297",
    "hard": "cf6ed42f4bc22405",
    "negative": "e82815ad9174ef38",
    "swap": "462958e1da59507e",
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_lists_of_every_protocol_are_frozen(name):
    classes = ("background", *CLASSES)
    kept = {f"im{i:03d}": tuple(sorted({1 + i % 7, 1 + i // 3 % 7})) for i in range(60)}
    items = Items("made", classes, tuple(kept), tuple(kept.values()), tuple(kept.values()))
    frozen = protocol(name)
    episodes = [e for seed in frozen.seeds for e in frozen.frozen_list(items, [1, 2, 3], frozen.kind, 50, seed)]
    assert digest(episodes) == PINNED[name]
    (first,) = episodes_of(asking(episodes[:1], "standard", 7))
    assert (first.query, first.class_index, first.supports) == (
        episodes[0].query,
        episodes[0].class_index,
        episodes[0].supports,
    )


def test_lists_of_several_ways_are_frozen_and_extend_those_of_fewer():
    classes = ("background", *CLASSES)
    kept = {f"im{i:03d}": tuple(sorted({1 + i % 7, 1 + i // 3 % 7})) for i in range(60)}
    items = Items("made", classes, tuple(kept), tuple(kept.values()), tuple(kept.values()))
    lists = {ways: draw(items, [1, 2, 3, 4], 2, 40, 0, ways=ways) for ways in (1, 2, 4)}
    for ways in (1, 2):
        firsts = [e for start in range(0, 160, 4) for e in lists[4][start : start + ways]]
        assert lists[ways] == firsts
    for start in range(0, 160, 4):
        group = lists[4][start : start + 4]
        assert {e.class_index for e in group} == {1, 2, 3, 4} and len({e.query for e in group}) == 1
        assert all(e.class_index in kept[i] and i != e.query for e in group for i in e.supports)
        again = episodes_of(asking(group))
        assert [(e.query, e.class_index, e.supports) for e in again] == [
            (e.query, e.class_index, e.supports) for e in group
        ]
    seconds = [e.class_index for e in lists[2][1::2]]
    assert set(seconds) == {1, 2, 3, 4}  # drawn, not in turn
    assert digest(lists[2]) == "884150e70b2ce56a"


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["protocol.ways=4"], r"ways=4: the fold has 3 classes, expected 1\.\.3"),
        (["protocol.ways=2", "protocol.kind=hard"], "ways=2: kind=hard asks for one class at a time"),
    ],
)
def test_impossible_ways_are_named(coloured, overrides, named):
    with pytest.raises(ConfigError, match=named):
        protocol("strict", *SHORT, *overrides).score(Painter(), coloured)


def test_selection_looks_at_base_classes_of_held_out_images_only(coloured):
    class NovelFails(Painter):
        """Answers with nothing when the support shows a novel class."""

        def decode(self, query_features, state, size):
            novel = torch.tensor(voc_palette()[1:4] / 255, dtype=torch.float32)
            logits = super().decode(query_features, state, size)
            is_novel = ((state[0][:, None] - novel).abs().sum(-1) < 0.1).any(1)
            return torch.where(is_novel[:, None, None, None], torch.tensor([9.0, -9.0])[:, None, None], logits)

    chosen = protocol("strict", *SHORT)
    assert chosen.selection_score(NovelFails(), coloured, coloured.split("val"), 8) > 0.95
    assert chosen.selection_score(NovelFails(), coloured, None, 8) < 0.1
    with pytest.raises(ConfigError, match=r"loader\.held_out: no base class has 2 of 1 held-out images"):
        chosen.selection_score(Painter(), coloured, coloured.split("val")[:1], 8)


def test_histogram_scores_equal_those_of_single_pixels():
    random = np.random.default_rng(0)
    truth = random.choice(np.array([0, 1, 255], np.uint8), (40, 50), p=[0.6, 0.3, 0.1])
    bins = random.integers(0, BINS, truth.shape)
    probability = (bins + 0.5) / BINS
    histogram = probability_histogram(probability, truth)
    known = truth < 2
    expected = average_precision_score(truth[known], probability[known])
    assert average_precision(histogram) == pytest.approx(expected, abs=1e-12)
    share, threshold = best_threshold(histogram)
    ious = [
        (truth[known] & (probability[known] >= t)).sum() / (truth[known] | (probability[known] >= t)).sum()
        for t in np.arange(BINS) / BINS
    ]
    assert share == pytest.approx(max(ious)) and ious[round(threshold * BINS)] == max(ious)
    assert np.isnan(average_precision(np.zeros((2, BINS)))) and np.isnan(best_threshold(np.zeros((2, BINS)))[0])


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("strict", []),
        ("strict", ["protocol.void=background", "protocol.shots=3", "protocol.aggregate=logit_mean"]),
        ("strict", ["protocol.score_at=input", "protocol.fit=padded", "protocol.input_side=80"]),
        ("swap", ["protocol.shots=2", "protocol.aggregate=vote"]),
        ("hard", []),
        ("panet", ["protocol.ways=2"]),
        ("strict", ["protocol.ways=5"]),
    ],
)
def test_counting_many_episodes_at_once_gives_the_counts_of_one_at_a_time(coloured, kind, changes):
    chosen = protocol(kind, *SHORT, *changes)
    classes = [VOC_CLASSES.index(name) for name in chosen.novel]
    items = chosen.test_items(coloured, coloured.split("val"))
    ways = chosen.ways_among(classes)
    episodes = draw(items, classes, chosen.shots, 10, 0, "item", chosen.kind, ways=ways)
    tallies = []
    for count in (chosen.tally, counted_one_by_one(chosen)):
        runner = chosen.runner(Painter(salient=True), coloured, batch_size=4)
        tallies.append(count(runner, episodes, ways, kind == "swap", kind=kind))
    ours, former = tallies
    assert len(former.counts) == len(episodes) // ways >= 10 and ours.counts.asked == former.counts.asked
    np.testing.assert_array_equal(ours.counts.dense(), former.counts.dense())
    np.testing.assert_array_equal(ours.histograms, former.histograms)


def test_counting_at_once_keeps_the_first_of_equally_probable_classes():
    random = np.random.default_rng(3)
    probability = random.choice(np.array([0, 0.25, 0.5, 0.75, 1], np.float32), (6, 3, 20, 30))
    found = random.random(probability.shape) < 0.5
    together = merged_all(*map(torch.from_numpy, (found, probability))).numpy()
    for number in range(6):
        ways = zip(found[number], probability[number], strict=True)
        answers = [Answer(Episode("q", k + 1, ("s",), 0), *way, way[0]) for k, way in enumerate(ways)]
        np.testing.assert_array_equal(together[number], merged(answers))


def test_pooled_scores_equal_those_of_pixels():
    random = np.random.default_rng(1)
    tally = EpisodeCounts(4)
    pixels: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {1: [], 3: []}
    for number in range(6):
        c = (1, 3)[number % 2]
        truth = random.choice(np.array([0, c, 255], np.uint8), (10, 12))
        prediction = random.random((10, 12)) > 0.5
        said = torch.from_numpy(prediction)[None]
        asked = [Asked("q", (c,), supports=(f"{number}",))]
        tally.add(asked, said.byte(), said[:, None].float(), torch.from_numpy(truth)[None])
        pixels[c].append((prediction[truth < 255], truth[truth < 255] == c))
    ious = []
    for pairs in pixels.values():
        said, true = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        ious.append((said & true).sum() / (said | true).sum())
    total = tally.counts.outcomes().sum(0)
    assert float(mean_iou(total, (1, 2, 3))) == pytest.approx(np.mean(ious))
    said, true = (np.concatenate(p) for p in zip(*(pair for pairs in pixels.values() for pair in pairs), strict=True))
    both = [(said & true).sum() / (said | true).sum(), (~said & ~true).sum() / (~said | ~true).sum()]
    assert float(foreground_background_iou(total)) == pytest.approx(np.mean(both))
