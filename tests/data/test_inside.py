"""Items tell pixels of an image without a label from what augmentation filled up: both are 255 in the mask."""

import numpy as np
import pytest
import torch
from dummy_data import write_voc

from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.kinds.names import Names
from segladder.data.labels.kinds.tags import Tags
from segladder.data.sources.voc import VOC
from segladder.data.training.augmentation import TrainAugmentation
from segladder.data.training.dataset import SegmentationDataset, collate
from segladder.data.training.views import HiddenClasses, Recipe
from segladder.errors import DataError

RECIPES = {
    "padded": {"crop": 100},
    "scaled": {"scale": (0.5, 2.0), "crop": 80, "flip": 0.5},
    "turned": {"crop": 100, "extra": [{"name": "Rotate", "limit": (40, 40), "p": 1.0, "border_mode": 0}]},
    "holes": {"crop": 48, "extra": [{"name": "CoarseDropout", "p": 1.0}]},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return VOC(write_voc(tmp_path_factory.mktemp("data")), train_split="train")


@pytest.mark.parametrize("recipe", RECIPES)
def test_inside_is_where_a_mask_without_255_has_none_after_augmentation(source, recipe):
    augment = TrainAugmentation(**RECIPES[recipe])
    dataset = SegmentationDataset(source, source.split("train"), Masks(), augment)
    outside = 0
    for index, image_id in enumerate(dataset.ids):
        item = dataset[index, 7 + index]
        image, mask = source.pair(image_id)
        _, shown = augment(image, np.zeros_like(mask), 7 + index)  # 255 stands for padding alone
        assert torch.equal(item["inside"], torch.from_numpy(shown == 0))
        _, expected = augment(image, mask, 7 + index)
        assert torch.equal(item["mask"], torch.from_numpy(expected))
        assert ((item["mask"] == 255) & item["inside"]).any()  # borders of objects
        outside += int((~item["inside"]).sum())
    assert outside > 0


def test_hidden_classes_are_inside_and_the_background_too(source):
    view, recipe = HiddenClasses(("cat",), "ignore", transductive=True), Recipe(TrainAugmentation(crop=100))
    dataset = view.dataset(source, source.split("train"), Names(), recipe)
    batch = collate(dataset.__getitems__([(0, 1), (1, 2)]))
    assert batch["inside"].shape == batch["mask"].shape == (2, 100, 100)
    assert batch["inside"].flatten(1).sum(1).tolist() == [64 * 80] * 2
    assert (batch["mask"][~batch["inside"]] == 255).all()
    assert set(batch["mask"].unique().tolist()) == {12, 255}


def test_without_augmentation_everything_is_inside_and_tags_have_no_mask_to_tell_of(source):
    assert SegmentationDataset(source, source.split("train"), Masks())[0]["inside"].all()
    assert "inside" not in SegmentationDataset(source, source.split("train"), Tags())[0]


def test_more_classes_than_a_mask_can_mark_are_refused(source):
    class Crowded:
        name, classes = "crowded", tuple(f"class{k}" for k in range(255))

    with pytest.raises(DataError, match="data crowded: 255 classes, expected at most 254"):
        SegmentationDataset(Crowded(), ["a"], Masks())
