"""Items with single objects: boxes move with the image, and a class shown by boxes shows no pixel of its objects."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.kinds.tags import Tags
from segladder.data.sources.instances import Instances
from segladder.data.sources.shapes import Shapes
from segladder.data.training.augmentation import TrainAugmentation
from segladder.data.training.dataset import SegmentationDataset
from segladder.data.training.object_dataset import ObjectDataset
from segladder.data.training.views import BoxesOfSome, Images, Recipe
from segladder.errors import ConfigError, DataError

CROPS = {"scale": [0.5, 2.0], "crop": 40, "flip": 0.5}


@pytest.fixture(scope="module")
def source(shapes_root):
    return Shapes(shapes_root, train_size=20, val_size=4, size=64)


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, dict):
            assert_equal(value, second[key])
        else:
            assert torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key]


def test_objects_are_those_of_the_source(source):
    data = ObjectDataset(source, source.split("train"), Masks())
    for index, image_id in enumerate(data.ids):
        item, found = data[index], source.instances(image_id)
        assert np.array_equal(item["objects"]["masks"].numpy(), found.masks)
        assert np.array_equal(item["objects"]["boxes"].numpy(), found.boxes)
        assert item["objects"]["classes"].tolist() == found.classes.tolist() and item["objects"]["outlined"].all()
        assert np.array_equal(item["mask"].numpy(), source.mask(image_id)) and item["inside"].all()


def test_augmented_items_are_those_of_the_plain_data_set(source):
    augment = TrainAugmentation(**CROPS)
    data, plain = (
        kind(source, source.split("train"), Masks(), augment) for kind in (ObjectDataset, SegmentationDataset)
    )
    for key in [(i, seed) for i in range(8) for seed in (3, 4)]:
        item, other = data[key], plain[key]
        for name in ("image", "mask", "inside"):
            assert torch.equal(item[name], other[name])
        for box, mask in zip(item["objects"]["boxes"], item["objects"]["masks"], strict=True):
            rows, columns = (torch.nonzero(mask.any(axis))[:, 0] for axis in (1, 0))
            if len(rows):  # the box of what is seen lies in the box that moved along
                tight = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                assert (tight[:2] >= box[:2] - 1).all() and (tight[2:] <= box[2:] + 1).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(20, 70), st.integers(20, 70), st.sampled_from([None, 32]))
def test_boxes_move_as_their_pixels_do(seed, height, width, crop):
    augment = TrainAugmentation(scale=[0.5, 2.0], crop=crop, flip=0.5)
    box = np.array([[width // 4, height // 4, width // 4 + 9, height // 4 + 8]])
    mask = np.zeros((height, width), np.uint8)
    mask[box[0, 1] : box[0, 3], box[0, 0] : box[0, 2]] = 1
    _, moved = augment(np.zeros((height, width, 3), np.uint8), mask, seed)
    left, top, right, bottom = augment.moved(box, (height, width), seed)[0]
    rows, columns = np.nonzero(moved == 1)
    if right - left < 1 or bottom - top < 1:
        assert len(rows) <= moved.shape[0] + moved.shape[1]
    else:
        assert np.allclose(
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], [left, top, right, bottom], atol=1
        )


class Scrambled(Shapes):
    """The same, but objects of the first kind are noise inside their boxes."""

    def drawn_mask(self, image_id):
        mask = super().drawn_mask(image_id)
        found = Instances.of_classes(mask)
        for k, (left, top, right, bottom) in zip(found.classes, found.boxes, strict=True):
            if self.all_classes[k] in BOXED:
                random = np.random.default_rng(int(k)).random((bottom - top, right - left)) < 0.5
                random[[0, -1]], random[:, [0, -1]] = True, True  # so that the box stays
                place = mask[top:bottom, left:right]
                free = np.isin(place, [0, k, 255])
                place[free] = np.where(random, k, 0)[free]
        return mask


BOXED = ("disc_solid", "square_striped", "triangle_dotted", "star_checkered", "cross_solid")


def test_masks_of_classes_shown_by_boxes_change_nothing(shapes_root, source):
    scrambled = Scrambled(shapes_root, train_size=20, val_size=4, size=64)
    ids = source.split("train")
    kept = [i for i in ids if np.array_equal(source.instances(i).boxes, scrambled.instances(i).boxes)]
    touched = [i for i in kept if not np.array_equal(source.mask(i), scrambled.mask(i))]
    assert touched
    recipe = Recipe(TrainAugmentation(**CROPS), objects=True)
    one, other = (BoxesOfSome(BOXED).dataset(data, touched, Masks(), recipe) for data in (source, scrambled))
    for key in [*range(len(touched)), *((i, 7) for i in range(len(touched)))]:
        assert_equal(one[key], other[key])
        objects = one[key]["objects"]
        boxed = torch.tensor([source.classes[k] in BOXED for k in objects["classes"]])
        assert torch.equal(objects["outlined"], ~boxed) and not objects["masks"][boxed].any()
        assert not set(one[key]["mask"].unique().tolist()) & {source.classes.index(name) for name in BOXED}


def test_batches_hold_as_many_objects_as_each_image_has(source):
    data = Images().dataset(source, source.split("train"), Masks(), Recipe(TrainAugmentation(**CROPS), objects=True))
    batch = data.collate([data[0, 1], data[1, 1]])
    assert batch["image"].shape == (2, 3, 40, 40) and batch["mask"].shape == (2, 40, 40)
    assert_equal(batch["objects"][1], data[1, 1]["objects"])


def test_what_does_not_fit_is_refused(source, tmp_path):
    with pytest.raises(ConfigError, match="labels: tags do not outline single objects"):
        ObjectDataset(source, ["train_0000"], Tags())
    with pytest.raises(ConfigError, match=r"loader.augment.extra: moves no boxes"):
        ObjectDataset(source, ["train_0000"], Masks(), TrainAugmentation(extra=[{"name": "HorizontalFlip"}]))
    with pytest.raises(ConfigError, match="choose a method that reads objects"):
        BoxesOfSome(BOXED).dataset(source, ["train_0000"], Masks())
    pseudo = source.with_training_masks(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        ObjectDataset(pseudo, ["train_0000"], Masks())[0]
