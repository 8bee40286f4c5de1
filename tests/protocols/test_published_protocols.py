"""Few-shot protocols as their papers' code measures: draws, padding, means over lists, training's class draw."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from episode_data import LARGE, SMALL, write_coloured, write_striped
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from torch import nn

from segladder.data.labels.kinds.masks import Masks
from segladder.data.sources.items import Items
from segladder.data.sources.voc import VOC, VOC_CLASSES
from segladder.data.training.episodes import draw
from segladder.data.training.views import Episodes, Recipe
from segladder.methods.few_shot.base import FewShotMethod
from segladder.protocols.episode_runner import EpisodeRunner, InputSize
from segladder.protocols.episodic import EpisodicProtocol

pytestmark = pytest.mark.long

CLASSES = VOC_CLASSES[1:8]
SHORT = ("protocol.min_object=none", "protocol.episodes=20", "protocol.bootstrap=20")


class Bright(FewShotMethod):
    """Paints where the image is brighter than a third of its support's object."""

    def __init__(self, **common: Any) -> None:
        settings = {"name": "bright", "supervision": "few_shot", "trains": False, "optimizer": {}, "schedule": {}}
        super().__init__(8, nn.CrossEntropyLoss(), mean=(0.0,) * 3, std=(1.0,) * 3, **settings)

    def encode(self, images):
        return (images,)

    def condition(self, support_images, support_features, support_masks):
        return (
            (support_features[0].mean(1) * support_masks).sum((1, 2))[:, None] / support_masks.sum((1, 2))[:, None],
        )

    def decode(self, query_features, state, size):
        score = query_features[0].mean(1) - state[0][..., None] / 3  # (B, h, w)
        score = nn.functional.interpolate(score[:, None], size, mode="bilinear")
        return torch.cat([-20 * score, 20 * score], 1)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory) -> VOC:
    return VOC(write_coloured(tmp_path_factory.mktemp("coloured")), classes=CLASSES, folds=[CLASSES[:3], CLASSES[3:6]])


def protocol(name: str, *overrides: str) -> EpisodicProtocol:
    folds = f"data.folds=[[{','.join(CLASSES[:3])}],[{','.join(CLASSES[3:6])}]]"
    with initialize_config_module("segladder.conf", version_base="1.3"):
        return instantiate(
            compose("train", ["data=voc", "data.train_split=train", f"protocol={name}", folds, *overrides]).protocol
        )


def made(kept: dict[str, tuple[int, ...]], present: dict[str, tuple[int, ...]] | None = None) -> Items:
    """Items of classes 1..5 that lie on no disk."""
    seen = {**kept, **(present or {})}
    classes = ("background", *"abcde")
    return Items("made", classes, tuple(kept), tuple(kept.values()), tuple(seen[i] for i in kept))


PUBLISHED = {  # what each protocol's official code does
    "oslsm": {"draw": "pass", "aggregate": "or", "over_lists": "pooled", "class_draw": None, "fit": "square"},
    "sg_one": {"draw": "pass", "aggregate": "mean", "over_lists": "pooled", "class_draw": "class", "fit": "native"},
    "panet": {"draw": "class", "aggregate": "mean", "over_lists": "mean", "class_draw": "class", "fit": "square"},
    "pfenet": {"draw": "image_sequential", "aggregate": "mean", "over_lists": "pooled", "class_draw": "image_any_size"},
    "bam": {"draw": "image_sequential", "aggregate": "mean", "over_lists": "mean", "class_draw": "image_any_size"},
    "hsnet": {"draw": "sequential", "aggregate": "relative_vote", "over_lists": "pooled", "class_draw": None},
    "strict": {"draw": "balanced", "aggregate": "mean", "over_lists": "pooled", "class_draw": None, "fit": "native"},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_protocol_says_what_its_paper_does(name):
    asked = protocol(name)
    assert {key: getattr(asked, key) for key in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_protocol_scores(coloured, name):
    side = () if protocol(name).fit == "native" else ("protocol.input_side=64",)
    result = protocol(name, *SHORT, *side, "protocol.shots=2").score(Bright(), coloured)
    assert 0 <= result.metrics["mIoU"]["value"] <= 1 and len(result.per_class) == 4


def test_passes_go_through_all_items_before_one_comes_again():
    items = made({f"x{n}": (1,) for n in range(7)} | {f"y{n}": (1, 2) for n in range(5)} | {"z": (3,)})
    every = Counter((i, k) for i, kept in zip(items.ids, items.kept, strict=True) for k in kept if k in (1, 2))
    episodes = draw(items, [1, 2], 1, 3 * 17, 5, "pass")
    passes = [[(e.query, e.class_index) for e in episodes[start : start + 17]] for start in (0, 17, 34)]
    assert all(Counter(one) == every for one in passes)
    assert passes[0] != passes[1] != passes[2] and passes[0] != list(every)
    assert draw(items, [1, 2], 1, 20, 5, "pass") == episodes[:20]  # more episodes extend a list
    assert draw(items, [1, 2], 1, 17, 6, "pass") != episodes[:17]
    assert [e.query for e in draw(items, [1, 2], 3, 20, 5, "pass")] == [e.query for e in episodes[:20]]


def test_images_come_in_order_and_are_asked_for_any_of_their_classes():
    """PFENet: an image with one large object of the fold is asked for all of the fold's classes, small ones too."""
    images = {"a": (1,), "speck": (), "b": (1, 2), "other": (3,), "c": (2,), "d": (2,)}
    items = made(images, {"a": (1, 2), "speck": (1,), "c": (2, 3), "d": (2,)})
    episodes = draw(items, [1, 2], 1, 400, 0, "image_sequential")
    assert [e.query for e in episodes[:8]] == ["a", "b", "c", "d"] * 2
    asked = Counter((e.query, e.class_index) for e in episodes)
    assert set(asked) == {("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 2), ("d", 2)}
    assert 30 < asked["a", 2] < 70  # half of a hundred, though its object of class 2 is small
    assert all(e.class_index in images[i] for e in episodes for i in e.supports)  # supports show large ones
    hard = draw(items, [1, 2], 1, 20, 0, "image_sequential", "hard")
    assert {e.query for e in hard} == {"b"}


def pfenet_size(height: int, width: int, side: int) -> tuple[int, int]:
    """What is written in PFENet's `find_new_hw`, by another way: exact fractions, then multiples of 8."""
    longer = max(height, width)
    new = [side if n == longer else n * side // longer for n in (height, width)]
    return new[0] - new[0] % 8, new[1] - new[1] % 8


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (281, 500), (500, 500), (112, 150), (473, 300), (96, 96)])
def test_floored_inputs_are_those_of_pfenet(size):
    fitted = InputSize("floored", 473)
    inner = fitted.inner(size)
    assert inner == pfenet_size(*size, 473) and max(inner) == 472  # small images are enlarged, too
    assert fitted.inner(inner) == inner
    image, mask = fitted.image(np.full((*size, 3), 200, np.uint8)), fitted.mask(np.ones(size, np.uint8))
    assert image.shape == (473, 473, 3) and mask.shape == (473, 473)
    assert (image[: inner[0], : inner[1]] == 200).all() and mask[: inner[0], : inner[1]].all()
    assert not image[inner[0] :].any() and not image[:, inner[1] :].any()  # black
    assert not mask[inner[0] :].any() and not mask[:, inner[1] :].any()


def test_floored_answers_are_the_square_at_the_longer_side(coloured):
    """PFENet's `ori_resize`: the whole square is enlarged to the longer side, corners aligned, and cut to the image."""
    runner = EpisodeRunner(Bright(), coloured, InputSize("floored", 17), "mean", 1)
    values = torch.rand(1, 3, 17, 17, generator=torch.Generator().manual_seed(0))
    logits = runner.logits((values,), (torch.zeros(1, 1),), (30, 40))
    assert logits.shape == (1, 2, 30, 40)
    square = 20 * values.mean(1)[0].double().numpy()  # (17, 17)
    for y, x in [(0, 0), (29, 39), (7, 20), (15, 3)]:
        v, u = y * 16 / 39, x * 16 / 39
        top, left = int(v), min(int(u), 15)
        rows = [square[top + d, left] * (1 - (u - left)) + square[top + d, left + 1] * (u - left) for d in (0, 1)]
        assert logits[0, 1, y, x].item() == pytest.approx(rows[0] * (1 - (v - top)) + rows[1] * (v - top), abs=1e-3)


@pytest.mark.parametrize("name", ["panet", "bam"])
def test_lists_of_several_seeds_are_scored_each_and_averaged(coloured, name):
    short = (*SHORT, "protocol.input_side=64")
    of_lists = protocol(name, *short, "protocol.seeds=[1,2,3]").score(Bright(), coloured)
    each = [protocol(name, *short, f"protocol.seeds=[{s}]").score(Bright(), coloured) for s in (1, 2, 3)]
    values = [result.metrics["mIoU"]["value"] for result in each]
    assert of_lists.metrics["mIoU"]["value"] == pytest.approx(np.mean(values))
    pooled = protocol(name, *short, "protocol.seeds=[1,2,3]", "protocol.over_lists=pooled").score(Bright(), coloured)
    assert pooled.metrics["mIoU"]["value"] != pytest.approx(np.mean(values), abs=1e-6)
    assert of_lists.metrics["mIoU"]["low"] <= np.mean(values) <= of_lists.metrics["mIoU"]["high"]


def test_generalised_heeds_its_lists(coloured):
    short = ("protocol.min_object=none", "protocol.bootstrap=5")
    pooled, mean = (
        protocol("generalised", *short, "protocol.seeds=[0,1]", f"protocol.over_lists={way}").score(Bright(), coloured)
        for way in ("pooled", "mean")
    )
    each = [protocol("generalised", *short, f"protocol.seeds=[{s}]").score(Bright(), coloured).metrics for s in (0, 1)]
    for name in ("mIoU", "novel_mIoU"):
        assert mean.metrics[name]["value"] == pytest.approx(np.mean([metrics[name]["value"] for metrics in each]))
    assert pooled.metrics["mIoU"]["value"] != mean.metrics["mIoU"]["value"]


def test_pfenet_trains_on_small_objects_of_images_that_hold_a_large_one(tmp_path):
    images = {f"a{n}": [(1, LARGE), (2, SMALL)] for n in range(3)} | {f"b{n}": [(2, LARGE)] for n in range(3)}
    images |= {"speck": [(1, SMALL)], **{f"n{n}": [(3, LARGE)] for n in range(3)}}
    root = write_striped(tmp_path, {"train": images, "val": images})
    source = VOC(root, classes=VOC_CLASSES[1:4], folds=[[VOC_CLASSES[3]], VOC_CLASSES[1:3]])
    ids, recipe = source.split("train"), Recipe(episodes={"class_draw": "image"})
    for draw_rule, expected in (("image", {("a", 1), ("b", 2)}), ("image_any_size", {("a", 1), ("a", 2), ("b", 2)})):
        view = Episodes((VOC_CLASSES[3],), 1, "background", class_draw=draw_rule)
        dataset = view.dataset(source, ids, Masks(), recipe)
        items = [dataset[index, seed] for seed in range(10) for index in range(len(dataset))]
        assert {(item["id"][0], item["class_index"]) for item in items} == expected
        assert all(i[0] == "ab"[item["class_index"] - 1] for item in items for i in item["support_ids"])


@pytest.mark.parametrize("name", ["sg_one", "panet", "strict", "oslsm"])
def test_a_protocol_names_trainings_class_draw_or_leaves_it_to_the_loader(coloured, name):
    view = protocol(name, "protocol.min_object=none", "protocol.train_images=all").training(coloured)
    ids = coloured.split("train")
    for loader in ("image", "class"):
        dataset = view.dataset(coloured, ids, Masks(), Recipe(episodes={"class_draw": loader, "multi_object": 0.0}))
        assert dataset.class_draw == ("class" if name in ("sg_one", "panet") else loader)


def test_sg_one_trains_on_every_class_alike(tmp_path):
    """The rare class is drawn as often as the frequent one, whatever `loader.episodes` says by default."""
    images = {f"a{n:02d}": [(1, LARGE)] for n in range(36)} | {f"b{n}": [(2, LARGE)] for n in range(4)}
    images |= {f"n{n}": [(3, LARGE)] for n in range(3)}
    folds = [[VOC_CLASSES[3]], [VOC_CLASSES[1], VOC_CLASSES[2]]]
    source = VOC(write_striped(tmp_path, {"train": images, "val": images}), classes=VOC_CLASSES[1:4], folds=folds)
    with initialize_config_module("segladder.conf", version_base="1.3"):
        words = ["data=voc", "protocol=sg_one", f"data.folds=[[{folds[0][0]}],[{','.join(folds[1])}]]"]
        asked = instantiate(compose("train", words).protocol)
    dataset = asked.training(source).dataset(source, source.split("train"), Masks())
    drawn = Counter(dataset[index, seed]["class_index"] for seed in range(10) for index in range(len(dataset)))
    assert set(drawn) == {1, 2} and 0.35 < drawn[2] / sum(drawn.values()) < 0.65
