"""PASCAL-5i: folds and the small-object rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dummy_data import save_mask
from episode_data import LARGE, SMALL, striped
from hypothesis import given
from hypothesis import strategies as st

from segladder.data.pascal5i import fold_classes, items, keeps_object
from segladder.data.sources.voc import VOC_CLASSES
from segladder.errors import ConfigError, DataError


def test_folds_part_the_classes():
    assert [VOC_CLASSES[k] for k in fold_classes(0)] == ["aeroplane", "bicycle", "bird", "boat", "bottle"]
    assert [VOC_CLASSES[k] for k in fold_classes(3)] == ["pottedplant", "sheep", "sofa", "train", "tvmonitor"]
    assert [k for fold in range(4) for k in fold_classes(fold)] == list(range(1, 21))


@pytest.mark.parametrize("fold", [-1, 4])
def test_other_folds_are_refused(fold):
    with pytest.raises(ConfigError, match=f"fold={fold}.*0..3"):
        fold_classes(fold)


@given(st.integers(1, 140), st.integers(1, 140), st.integers(0, 2**32 - 1), st.floats(0, 0.1))
def test_rule_is_padding_by_15_then_each_32nd_pixel(height, width, seed, density):
    mask = np.random.default_rng(seed).random((height, width)) < density
    mask[1::32, 1::32] |= np.random.default_rng(seed + 1).random(mask[1::32, 1::32].shape) < 0.4
    kept = np.pad(mask, 15)[16::32, 16::32][: -(-(height - 1) // 32), : -(-(width - 1) // 32)].sum() > 2
    assert keeps_object(mask) == kept
    assert keeps_object(mask.astype(np.uint8)) == kept
    assert keeps_object(mask.astype(np.int64)) == kept


def test_three_points_are_an_object_and_two_are_none():
    mask = np.zeros((100, 100), bool)
    mask[1, [1, 33]] = True
    assert not keeps_object(mask)
    mask[33, 65] = True
    assert keeps_object(mask)
    everything_else = np.ones((100, 100), bool)
    everything_else[1::32, 1::32] = False
    assert not keeps_object(everything_else)


def test_items_come_by_image_then_class_without_small_objects(tmp_path: Path):
    masks = {"b": [(7, LARGE), (6, LARGE)], "a": [(6, SMALL), (3, LARGE)], "c": [(10, LARGE), (8, SMALL)]}
    for image_id, stripes in masks.items():
        save_mask(tmp_path / f"{image_id}.png", striped(stripes))
    assert items(tmp_path, masks, 1) == [("b", 6), ("b", 7), ("c", 10)]
    assert items(str(tmp_path), ["c", "a"], 0) == [("a", 3)]


def test_missing_mask_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        items(tmp_path, ["gone"], 0)
