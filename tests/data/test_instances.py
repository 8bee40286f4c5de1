"""The objects of an image: told apart as their files say, never against the mask, never for labels that show less."""

import numpy as np
import pytest
from dummy_data import save_image, save_mask, write_list

from segladder.data.labels.kinds.points import Points
from segladder.data.labels.kinds.tags import Tags
from segladder.data.sources.shapes import Shapes
from segladder.data.sources.shapes_drawing import draw
from segladder.data.sources.voc import VOC
from segladder.errors import DataError

CAT, DOG = 8, 12


@pytest.fixture
def voc(tmp_path):
    """One image with two cats that touch, a dog, and a void border around all."""
    mask, objects = np.zeros((12, 16), np.uint8), np.zeros((12, 16), np.uint8)
    mask[1:7, 1:10] = objects[1:7, 1:10] = 255
    mask[2:6, 2:9], objects[2:6, 2:5], objects[2:6, 5:9] = CAT, 3, 1
    mask[8:11, 2:6], objects[8:11, 2:6] = DOG, 2
    save_image(tmp_path / "JPEGImages/a.jpg", np.zeros((12, 16, 3), np.uint8))
    save_mask(tmp_path / "SegmentationClass/a.png", mask)
    save_mask(tmp_path / "SegmentationObject/a.png", objects)
    write_list(tmp_path / "ImageSets/Segmentation/train.txt", ["a"])
    return tmp_path


def changed(voc, row, column, value):
    """Set one pixel of the stored map of objects."""
    objects = np.zeros((12, 16), np.uint8)
    objects[1:7, 1:10] = 255
    objects[2:6, 2:5], objects[2:6, 5:9], objects[8:11, 2:6] = 3, 1, 2
    objects[row, column] = value
    save_mask(voc / "SegmentationObject/a.png", objects)


def test_voc_objects_have_the_class_of_the_mask_below_them(voc):
    found = VOC(voc).instances("a")
    assert found.map.dtype == np.uint16 and found.classes.tolist() == [CAT, DOG, CAT]
    assert [int((found.map == k).sum()) for k in range(4)] == [12 * 16 - 40, 16, 12, 12]
    assert found.boxes.tolist() == [[5, 2, 9, 6], [2, 8, 6, 11], [2, 2, 5, 6]]
    assert np.array_equal(found.masks[1], found.map == 2)
    assert found.map[1, 1] == 0  # void


@pytest.mark.parametrize("others", ["ignore", "background"])
def test_objects_of_classes_that_are_not_in_use_are_left_out(voc, others):
    found = VOC(voc, classes=["cat"], other_classes=others).instances("a")
    assert found.classes.tolist() == [1, 1] and (found.map[8:11] == 0).all()
    assert found.boxes.tolist() == [[5, 2, 9, 6], [2, 2, 5, 6]]


def test_a_pixel_that_either_file_calls_void_belongs_to_no_object(voc):
    changed(voc, 3, 3, 255)  # the mask says cat
    changed_map = VOC(voc).instances("a").map
    assert changed_map[3, 3] == 0 and (changed_map == 3).sum() == 11
    changed(voc, 1, 1, 3)  # the mask says void
    assert VOC(voc).instances("a").map[1, 1] == 0


@pytest.mark.parametrize(
    ("row", "column", "value", "fault"),
    [
        (0, 0, 3, r"object 3 on mask value 0 at row 0, column 0 \(1 such pixels\)"),
        (2, 2, 0, r"object 0 on mask value 8 at row 2, column 2"),
        (9, 3, 1, r"object 1 holds mask values 8 and 12, expected one class"),
    ],
)
def test_a_map_that_disagrees_with_the_mask_is_named(voc, row, column, value, fault):
    changed(voc, row, column, value)
    with pytest.raises(DataError, match=rf"SegmentationObject/a.png: disagrees with the mask of a: {fault}"):
        VOC(voc).instances("a")


def test_a_map_of_another_size_is_named(voc):
    save_mask(voc / "SegmentationObject/a.png", np.zeros((12, 15), np.uint8))
    with pytest.raises(DataError, match=r"Object/a.png: disagrees with the mask of a: 15x12 against 16x12 pixels"):
        VOC(voc).instances("a")


def test_nothing_tells_objects_apart_without_their_file_or_under_other_masks(voc, tmp_path):
    source = VOC(voc)
    assert source.with_training_masks(tmp_path / "pseudo").instances("a") is None
    (voc / "SegmentationObject/a.png").unlink()
    assert source.instances("a") is None


def test_labels_that_show_less_than_masks_reach_no_object(voc):
    source = VOC(voc)
    assert source.as_seen(Points()).instances("a") is None
    with pytest.raises(DataError, match="the objects of a are asked for, but the labels are tags"):
        source.as_seen(Tags()).instances("a")


def test_shapes_have_one_object_for_each_creature_drawn(shapes_root):
    source = Shapes(shapes_root, train_size=60, val_size=8)
    before = source.fingerprint(source.split("val"))
    for index, image_id in enumerate(source.split("val")):
        mask, drawn = source.mask(image_id), draw(0, "val", index)[2]
        found = source.instances(image_id)
        assert found.classes.tolist() == sorted(drawn)
        classes = np.array([0, *found.classes])
        assert np.array_equal(classes[found.map], np.where(mask == 255, 0, mask))
    assert source.fingerprint(source.split("val")) == before
    assert sorted(path.name for path in source.root.iterdir()) == ["ImageSets", "JPEGImages", "SegmentationClass"]
