"""Passes over all masks: said where they are long, and no image is decoded for what masks tell."""

import copy

import numpy as np
import pytest
from dummy_data import save_mask
from episode_data import varied, write_striped

from segladder.data import reading
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.kinds.tags import Tags
from segladder.data.labels.labelled import Labelled
from segladder.data.labels.pool import training_items
from segladder.data.sources.items import Items
from segladder.data.sources.voc import VOC
from segladder.data.training.dataset import SegmentationDataset


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> VOC:
    return VOC(write_striped(tmp_path_factory.mktemp("voc"), {"train": varied(20, range(1, 6))}))


def test_a_pass_over_many_masks_is_said(source, monkeypatch, capsys):
    ids = source.split("train")
    passes = (
        lambda: Items.read(source, ids),
        lambda: Labelled.of(source, Masks(), ids, source.foreground),
        lambda: source.ids_without(ids, ["cat"]),
        lambda: SegmentationDataset(source, ids, Masks()).pixels_of_classes(),
    )
    for silent in passes:
        silent()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(reading, "MANY", 20)
    for loud in passes:
        loud()
        assert capsys.readouterr().err.startswith("segladder: reading 20 ")


def test_pixels_of_classes_are_counted_without_an_image(source, monkeypatch):
    ids = source.split("train")
    expected = [np.bincount(source.mask(i).ravel(), minlength=256)[: len(source.classes)] for i in ids]
    dataset = SegmentationDataset(source, ids, Masks())
    monkeypatch.setattr(dataset, "_images", None)
    assert np.array_equal(dataset.pixels_of_classes(), expected)


def test_tags_of_a_mask_are_read_once_whoever_asks(source, tmp_path, monkeypatch):
    read, stored, ids = [], VOC._stored, source.split("train")
    monkeypatch.setattr(VOC, "_stored", lambda source, i: [read.append(i), stored(source, i)][1])
    source = copy.copy(source)
    source._tags = {}
    dataset = SegmentationDataset(source, ids, Tags())
    cost = Labelled.of(source.as_seen(Tags()), Tags(), ids, source.foreground)
    assert sorted(read) == sorted(ids)
    assert all(tags.sum() == len(cost.held[i]) for i, tags in zip(ids, dataset._tags, strict=True))
    source.tags(ids[0])[:] = 7  # the caller's own
    assert source.tags(ids[0]).max() == 1
    save_mask(tmp_path / f"{ids[0]}.png", np.zeros_like(source.mask(ids[0])))
    assert source.with_training_masks(tmp_path).tags(ids[0]).max() == 0


def test_what_training_images_hold_is_read_once(source, monkeypatch):
    read, mask = [], VOC.mask
    monkeypatch.setattr(VOC, "mask", lambda source, i: [read.append(i), mask(source, i)][1])
    items = training_items(source, "none", 0)
    assert training_items(source, "none", 0) is items and sorted(read) == sorted(source.split("train"))
    rest = items.without([2, 3])
    assert list(rest.ids) == source.ids_without(items.ids, [source.classes[k] for k in (2, 3)])
    assert rest == Items.read(source, rest.ids, "none") and 0 < len(rest.ids) < 20
