"""Generalised few-shot scoring: every image asked for all classes, base and novel scored from one confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from episode_data import write_coloured
from hydra import compose, initialize_config_module
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from test_episodic import CLASSES, Hazy, Painter, pixels, value

from segladder.data.sources.items import Items
from segladder.data.sources.palette import voc_palette
from segladder.data.sources.voc import VOC
from segladder.data.training.episodes import digest, draw_all_ways
from segladder.errors import ConfigError, DataError
from segladder.metrics.formulas import formula
from segladder.protocols.generalised import SCORES, GeneralisedProtocol

NOVEL, BASE = [1, 2, 3], [4, 5, 6, 7]


@pytest.fixture(scope="module")
def coloured(tmp_path_factory) -> VOC:
    """Images of one to three classes, every class in a colour of its own, and two folds."""
    return VOC(write_coloured(tmp_path_factory.mktemp("coloured")), classes=CLASSES, folds=[CLASSES[:3], CLASSES[3:6]])


def protocol(*overrides: str) -> GeneralisedProtocol:
    """The protocol of conf/protocol, its first fold NOVEL."""
    folds = f"data.folds=[[{','.join(CLASSES[:3])}],[{','.join(CLASSES[3:6])}]]"
    words = ["data=voc", "protocol=generalised", folds, "protocol.min_object=none", "protocol.bootstrap=50", *overrides]
    with initialize_config_module("segladder.conf", version_base="1.3"):
        return instantiate(compose("train", words).protocol)


def test_a_method_that_tells_all_classes_apart(coloured):
    chosen = protocol()
    result = chosen.score(Painter(), coloured)
    for name in ("mIoU", "base_mIoU", "novel_mIoU", "harmonic_mIoU", "average_precision"):
        assert value(result, name) > 0.95
    assert [row["class"] for row in result.per_class] == ["background", *CLASSES]
    assert [row["novel"] for row in result.per_class] == [False, True, True, True, False, False, False, False]
    assert len(result.counts) == sum(coloured.mask(i).clip(0, 254).any() for i in coloured.split("val"))
    assert protocol("fold=1").score(Painter(), coloured).items == result.items  # folds differ in what they call novel
    picture = chosen.shown(Painter(), coloured, result.counts.asked[0], result)
    held = np.setdiff1d(np.union1d(picture.truth, picture.prediction), [0, 255])
    assert list(picture.beside) == [*(f"support: {coloured.classes[k]}" for k in held), "probability"]


class Blind(Painter):
    """Finds nothing when the support shows a novel class."""

    def decode(self, query_features, state, size):
        novel = torch.tensor(voc_palette()[NOVEL] / 255, dtype=torch.float32)
        is_novel = ((state[0][:, None] - novel).abs().sum(-1) < 0.1).any(1)
        logits = super().decode(query_features, state, size)
        return torch.where(is_novel[:, None, None, None], torch.tensor([9.0, -9.0])[:, None, None], logits)


def test_a_method_blind_to_novel_classes_is_found_out_and_selected_by_base_classes(coloured):
    chosen = protocol()
    result = chosen.score(Blind(), coloured)
    assert value(result, "base_mIoU") > 0.95
    assert value(result, "novel_mIoU") == value(result, "harmonic_mIoU") == 0
    assert 0.5 < value(result, "mIoU") < 0.625
    assert chosen.selection_score(Blind(), coloured, coloured.split("val")[:20], 8) > 0.95
    assert chosen.selection_score(Blind(), coloured, None, 8) == value(result, "mIoU")


def test_scores_are_those_of_each_class_asked_for_on_its_own(coloured):
    method, ids = Hazy(), coloured.split("val")[:12]
    result = protocol("protocol.shots=2").score(method, coloured, ids=ids, batch_size=5)
    episodes = draw_all_ways(Items.read(coloured, ids, "none"), 2, 0)
    confusion = np.zeros((8, 8), np.int64)
    for start in range(0, len(episodes), 7):
        query, maps = pixels(coloured, episodes[start].query)[None], []
        for way in episodes[start : start + 7]:
            supports = torch.stack([pixels(coloured, i) for i in way.supports])[None]
            masks = torch.stack([torch.from_numpy(coloured.mask(i)) == way.class_index for i in way.supports])[None]
            maps.append(method.predict(query, supports, masks.to(torch.uint8)).softmax(1)[0, 1].numpy())
        said = np.where(np.max(maps, 0) > 0.5, 1 + np.argmax(maps, 0), 0)
        truth = coloured.mask(episodes[start].query)
        np.add.at(confusion, (truth[truth < 255], said[truth < 255]), 1)
    np.testing.assert_array_equal(result.counts.total(), confusion)
    assert confusion[1:4, 4:].sum() > 0 and confusion[4:, 1:4].sum() > 0  # base and novel are confused
    hits = np.diag(confusion)
    shares = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    base, novel = shares[BASE].mean(), shares[NOVEL].mean()
    expected = {"mIoU": shares.mean(), "base_mIoU": base, "novel_mIoU": novel}
    for name, score in {**expected, "harmonic_mIoU": 2 / (1 / base + 1 / novel)}.items():
        assert value(result, name) == pytest.approx(score)
        assert result.metrics[name]["low"] <= score <= result.metrics[name]["high"]


def test_lists_are_told_apart_and_none_is_drawn_twice(coloured):
    result = protocol("protocol.seeds=[0,7]").score(Hazy(), coloured, coloured.split("val")[:12])
    assert sorted(asked.list for asked in result.counts.asked) == [0] * 12 + [7] * 12
    with pytest.raises(
        InstantiationException, match=r"protocol.seeds=\[0, 0\]: a list that is drawn twice says nothing new"
    ):
        protocol("protocol.seeds=[0,0]")


def test_absent_classes_are_left_out_of_every_mean():
    outcomes = np.zeros((6, 3), np.int64)  # classes 3 and 5 are neither true nor predicted
    outcomes[[0, 1, 2, 4]] = (8, 1, 1), (1, 1, 0), (3, 0, 1), (1, 2, 2)
    groups = {"base": (1, 3), "novel": (2, 4, 5)}
    rules = {score.name: score.statistic for score in SCORES if score.statistic}
    found = {
        name: float(formula(rule.formula).score(outcomes, [groups[group] for group in rule.classes], "skip"))
        for name, rule in rules.items()
    }
    assert found == pytest.approx(
        {"mIoU": (0.8 + 0.5 + 0.75 + 0.2) / 4, "base_mIoU": 0.5, "novel_mIoU": 0.475, "harmonic_mIoU": 0.475 / 0.975}
    )


def made() -> Items:
    """60 images of 7 classes that lie on no disk, each seventh empty."""
    kept = {f"im{i:03d}": () if i % 7 == 6 else tuple(sorted({1 + i % 7, 1 + i // 3 % 7})) for i in range(60)}
    return Items("made", ("background", *CLASSES), tuple(kept), tuple(kept.values()), tuple(kept.values()))


def test_the_list_asks_each_image_for_each_class_and_is_frozen():
    items = made()
    kept = dict(zip(items.ids, items.kept, strict=True))
    one, three = draw_all_ways(items, 1, 0), draw_all_ways(items, 3, 0)
    assert [(e.query, e.class_index) for e in one] == [(i, k) for i in items.ids if kept[i] for k in range(1, 8)]
    for first, all_of_them in zip(one, three, strict=True):
        assert first.supports == all_of_them.supports[:1]
        assert len({first.query, *all_of_them.supports}) == 4
        assert all(first.class_index in kept[i] for i in all_of_them.supports)
    assert digest(one) == "bd3d2e63dba2d07e"
    assert digest(draw_all_ways(items, 1, 1)) != digest(one)


def test_the_hash_depends_on_shots_but_not_on_the_fold():
    assert protocol().hash == protocol("fold=1").hash != protocol("protocol.shots=5").hash


def test_faults_are_named(coloured):
    with pytest.raises(DataError, match=r"made: class aeroplane has \d+ of 60 images, 40-shot episodes need 41"):
        draw_all_ways(made(), 40, 0)
    with pytest.raises(ConfigError, match="0 shots"):
        draw_all_ways(made(), 0, 0)
    fewer = VOC(coloured.root, classes=CLASSES[1:], folds=coloured.folds)
    with pytest.raises(ConfigError, match=r"fold 0 needs the class aeroplane, but data\.classes gives bicycle"):
        protocol().score(Painter(), fewer)
    with pytest.raises(ConfigError, match="protocol=generalised scores few_shot methods, but method=fcn8s is full"):
        protocol().check_method("fcn8s", "full")
