"""The audit of a few-shot split counts what a slow look at every mask counts."""

from __future__ import annotations

import numpy as np
from episode_data import LARGE, SMALL, varied, write_striped

from segladder.data.inspection.audit import audit
from segladder.data.pascal5i import fold_classes, keeps_object
from segladder.data.sources.items import Items
from segladder.data.sources.voc import VOC, VOC_CLASSES


def test_a_split_counted_by_hand(tmp_path):
    train = {
        "base": [(6, LARGE)],
        "both": [(6, LARGE), (1, LARGE)],
        "speck": [(7, LARGE), (2, SMALL)],
        "novel": [(1, LARGE), (2, LARGE)],
        "tiny": [(6, SMALL)],
        "shared": [],
    }
    test = {"q": [(1, LARGE), (2, LARGE)], "r": [(2, LARGE), (1, SMALL)], "s": [(6, LARGE)], "shared": []}
    source = VOC(write_striped(tmp_path, {"train": train, "val": test}), train_split="train")
    row, other = audit(source, source.split("train"), source.split("val"), [["aeroplane", "bicycle"], ["bus"]])
    assert (row.fold, row.novel, row.shared_ids) == (0, ("aeroplane", "bicycle"), ("shared",))
    assert (row.train_images, row.train_images_with_novel, row.train_pairs_dropped) == (3, 2, 3)
    assert (row.test_images, row.test_pairs, row.pairs_per_class) == (2, 3, {"aeroplane": 1, "bicycle": 2})
    assert (other.fold, other.train_images, other.train_images_with_novel, other.test_pairs) == (1, 3, 1, 1)


def test_folds_agree_with_a_slow_count_and_with_the_item_lists(tmp_path):
    splits = {"train": varied(60, range(1, 21), "t"), "val": varied(50, range(1, 21), "v")}
    source = VOC(write_striped(tmp_path, splits), train_split="train")
    train, test = source.split("train"), source.split("val")
    folds = [[VOC_CLASSES[k] for k in fold_classes(fold)] for fold in range(4)]
    for row in audit(source, train, test, folds):
        novel = fold_classes(row.fold)
        base = [k for k in range(1, 21) if k not in novel]
        masks = [source.mask(i) for i in train]
        trained = [mask for mask in masks if any(keeps_object(mask == k) for k in base)]
        assert row.novel == tuple(folds[row.fold]) and row.shared_ids == ()
        assert row.train_images == len(trained)
        assert row.train_images_with_novel == sum(np.isin(mask, novel).any() for mask in trained)
        assert row.train_pairs_dropped == sum(keeps_object(mask == k) for mask in masks for k in novel)
        pairs = [(i, k) for i in test for k in novel if keeps_object(source.mask(i) == k)]
        assert pairs == Items.read(source, test).pairs(novel)
        assert row.test_pairs == len(pairs) == sum(row.pairs_per_class.values()) > 0
        assert row.test_images == len({image_id for image_id, _ in pairs})


def test_classes_not_in_use_count_nowhere(tmp_path):
    splits = {"train": {"a": [(1, LARGE), (3, LARGE)]}, "val": {"b": [(1, LARGE), (2, LARGE)]}}
    source = VOC(write_striped(tmp_path, splits), classes=["bird", "bicycle"], train_split="train")
    (row,) = audit(source, ["a"], ["b"], [["aeroplane", "bicycle"]])
    assert (row.novel, row.train_images, row.train_images_with_novel) == (("bicycle",), 1, 0)
    assert row.pairs_per_class == {"bicycle": 1}
