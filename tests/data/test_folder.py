"""Folders of images and masks: pairs, names, deterministic splits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from dummy_data import picture, save_image, save_mask, write_folder

from segladder.data.inspection.checks import check_training_ready
from segladder.data.labels.kinds.masks import Masks
from segladder.data.sources.folder import Folder
from segladder.errors import DataError

SIZES = [(64, 64 + i) for i in range(30)]


def test_images_of_any_size_and_kind_with_palette_or_gray_masks(tmp_path: Path) -> None:
    data = Folder(write_folder(tmp_path, lists=True))
    assert data.classes == ("background", "road", "tree")
    check_training_ready(data, Masks())
    for index, image_id in enumerate([*data.split("train"), *data.split("val")]):
        expected_image, expected_mask = picture(index, ((64, 80), (70, 66), (90, 64))[index], values=(1, 2))
        image, mask = data.pair(image_id)
        assert np.array_equal(mask, expected_mask)
        assert np.abs(image.astype(int) - expected_image).mean() < (4 if index == 0 else 0.01)  # index 0 is a JPEG


def test_splits_depend_on_each_id_alone(tmp_path: Path) -> None:
    data = Folder(write_folder(tmp_path, SIZES), val_share=0.3)
    train, val = data.split("train"), data.split("val")
    assert sorted(train + val) == sorted(f"site{i % 2}/item {i}" for i in range(30))
    assert 3 <= len(val) <= 15
    for image_id in train[:5]:
        data.image_path(image_id).unlink()
        data.mask_path(image_id).unlink()
    again = Folder(tmp_path, val_share=0.3)
    assert again.split("val") == val
    assert again.split("train") == train[5:]
    assert set(Folder(tmp_path, val_share=0.1).split("val")) <= set(val)


def test_pairs_that_are_not_whole_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path, SIZES)
    (root / "masks" / "site0" / "item 4.png").unlink()
    with pytest.raises(DataError, match=r"masks: no mask for site0/item 4; expected"):
        Folder(root).split("train")
    save_mask(root / "masks" / "site0" / "item 4.png", np.zeros((64, 68), np.uint8))
    save_mask(root / "masks" / "extra.png", np.zeros((64, 68), np.uint8))
    with pytest.raises(DataError, match=r"images: no image for extra"):
        Folder(root).split("train")


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    """Such as what is still being written: `.NAME.xxxxxxxx.partial.png`."""
    root = write_folder(tmp_path, SIZES)
    before = {split: Folder(root).split(split) for split in ("train", "val")}
    save_image(root / "images" / "site0" / ".item 4.01234567.partial.png", picture(0)[0])
    save_mask(root / "masks" / ".item 4.01234567.partial.png", np.zeros((64, 68), np.uint8))
    assert {split: Folder(root).split(split) for split in ("train", "val")} == before


def test_two_images_of_one_name_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    save_image(root / "images" / "site0" / "item 0.png", picture(0)[0])
    with pytest.raises(DataError, match=r"item 0.jpg and item 0.png are both site0/item 0"):
        Folder(root).split("train")


def test_class_names_from_the_configuration_or_a_file(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    assert Folder(root, class_names=["void", "a", "b"], classes=["b"]).classes == ("void", "b")
    (root / "classes.txt").write_text("background\n")
    with pytest.raises(DataError, match=r"classes.txt: 1 names, expected the background and at least one class"):
        Folder(root)
    (root / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes.txt: No such file.*data\.class_names"):
        Folder(root)


def test_wrong_places_say_what_is_expected(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    with pytest.raises(DataError, match="the splits are train and val"):
        Folder(root).split("test")
    shutil.rmtree(root / "images")
    with pytest.raises(DataError, match="images: no such folder"):
        Folder(root).split("train")


def test_masks_of_0_and_255_alone_ask_what_255_is(segladder, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write_folder(tmp_path / "folder", SIZES)
    shutil.rmtree(root / "masks")
    for index, (height, width) in enumerate(SIZES):
        mask = np.zeros((height, width), np.uint8)
        mask[10:20, 10:20] = 255
        save_mask(root / "masks" / f"site{index % 2}" / f"item {index}.png", mask)
    told = r"it holds no class, only 0 and 255.*if 255 is the foreground, write 1"
    with pytest.raises(DataError, match=told):
        check_training_ready(Folder(root), Masks())
    assert segladder("data", "action=check", "data=folder", f"data.root={root}", "workers=0") == 1
    assert capsys.readouterr().out.count("if 255 is the foreground") == 2  # train and val
    words = ["method=fcn8s", "data=folder", f"data.root={root}", "trainer.steps=1", f"runs={tmp_path / 'runs'}"]
    assert segladder("train", *words) == 1
    assert "if 255 is the foreground" in capsys.readouterr().err


def test_one_mask_with_a_class_is_enough_and_damaged_ones_are_passed_over(tmp_path: Path) -> None:
    root = write_folder(tmp_path, lists=True)
    (root / "masks" / "site0" / "item 0.png").write_bytes(b"no mask")
    check_training_ready(Folder(root), Masks())
