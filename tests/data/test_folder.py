"""Folders of images and masks: pairs, names, deterministic splits."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from dummy_data import picture, save_image, save_mask, write_folder
from PIL import Image

from segladder.data.inspection.checks import check_training_ready, remarks
from segladder.data.inspection.palettes import unlike_palettes
from segladder.data.labels.kinds.masks import Masks
from segladder.data.sources.folder import Folder
from segladder.errors import ConfigError, DataError
from segladder.runs import fitting

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


def test_a_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    image, mask = picture(0, values=(1,))
    root = write_folder(tmp_path, SIZES)
    save_image(root / "images" / os.fsdecode(b"caf\xe9.png"), image)
    save_mask(root / "masks" / os.fsdecode(b"caf\xe9.png"), mask)
    with pytest.raises(DataError, match=r"images/caf\\xdce9\.png: a name that is no text in UTF-8; rename the file"):
        Folder(root).split("train")


@pytest.mark.parametrize("of_images, of_masks, of_list", [("NFD", "NFC", "NFC"), ("NFC", "NFD", "NFD")])
def test_accents_may_be_written_in_two_ways(tmp_path: Path, of_images: str, of_masks: str, of_list: str) -> None:
    image, mask = picture(0, values=(1,))
    root = write_folder(tmp_path, SIZES)
    image_id = unicodedata.normalize(of_images, "Grüße/Käfer")
    save_image(root / "images" / f"{image_id}.png", image)
    save_mask(root / "masks" / f"{unicodedata.normalize(of_masks, 'Grüße/Käfer')}.png", mask)
    assert image_id in Folder(root).split("train") + Folder(root).split("val")
    (root / "splits").mkdir()
    (root / "splits" / "val.txt").write_text(unicodedata.normalize(of_list, "images/Grüße/Käfer.png\n"))
    assert Folder(root).split("val") == [image_id]
    assert np.array_equal(Folder(root).mask(image_id), mask)


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    """Such as what is still being written: `.NAME.xxxxxxxx.partial.png`."""
    root = write_folder(tmp_path, SIZES)
    before = {split: Folder(root).split(split) for split in ("train", "val")}
    save_image(root / "images" / "site0" / ".item 4.01234567.partial.png", picture(0)[0])
    save_mask(root / "masks" / ".item 4.01234567.partial.png", np.zeros((64, 68), np.uint8))
    assert {split: Folder(root).split(split) for split in ("train", "val")} == before


def test_hidden_folders_are_passed_over_and_links_followed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", SIZES)
    before = {split: Folder(root).split(split) for split in ("train", "val")}
    for kind in ("images", "masks"):
        shutil.copytree(root / kind / "site0", root / kind / ".ipynb_checkpoints")
        shutil.move(root / kind / "site0", tmp_path / f"elsewhere_{kind}")
        (root / kind / "site0").symlink_to(tmp_path / f"elsewhere_{kind}")
    assert {split: Folder(root).split(split) for split in ("train", "val")} == before
    (tmp_path / "elsewhere_images" / "loop").symlink_to(root / "images")
    for kind in ("images", "masks"):
        (root / kind / "latest").symlink_to(root / kind / "site1")
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
    with pytest.raises(ConfigError, match="two classes are called a, expected names of their own"):
        Folder(root, class_names=["void", "a", "b", "a"])
    Folder(root, class_names=["void", *map(str, range(254))])
    with pytest.raises(ConfigError, match="256 classes, expected 255 at most"):
        Folder(root, class_names=["void", *map(str, range(255))])
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


@pytest.mark.parametrize(
    ("fault", "words", "told"),
    [
        ("size", [], r"masks/site1/item 29.png: size 9x9, expected 93x64 \(width x height\) like its image"),
        ("deep", [], r"images/site1/item 29.png: uint16 a channel, expected 8 bits"),
        ("gone", ["protocol.split=test"], "masks/site1/item 29.png: no such file, expected a mask"),
        ("none", ["protocol=panoptic"], "folder: nothing tells the objects of site1/item 29 apart"),
    ],
)
def test_what_cannot_be_scored_is_told_before_training(
    segladder, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, fault, words, told
) -> None:
    """It was told after training."""
    root = write_folder(tmp_path / "folder", SIZES, lists=True)
    image, mask = root / "images/site1/item 29", root / "masks/site1/item 29.png"
    if fault == "size":
        save_mask(mask, np.ones((9, 9), np.uint8))
    elif fault == "deep":
        image.with_suffix(".bmp").unlink()
        Image.fromarray(np.full(SIZES[29], 300, np.uint16)).save(image.with_suffix(".png"))
    elif fault == "gone":
        mask.unlink()
        shutil.move(root / "splits/val.txt", root / "splits/test.txt")
        (root / "splits/val.txt").write_text("site0/item 28\n")
        (root / "splits/train.txt").write_text("site0/item 0\nsite1/item 1\n")
    monkeypatch.setattr(fitting, "learn", None)
    words = ["method=fcn8s", "data=folder", f"data.root={root}", f"runs={tmp_path / 'runs'}", *words]
    assert segladder("train", *words) == 1
    assert re.search(told, capsys.readouterr().err)


def test_lists_beside_images_are_read(tmp_path: Path) -> None:
    """They were passed over, so that images of test.txt were trained on."""
    root = write_folder(tmp_path, SIZES)
    (root / "train.txt").write_text("site0/item 0\nsite1/item 1.png\n")
    (root / "test.txt").write_text("images/site0/item 2.png\n")
    data = Folder(root)
    assert (data.split("train"), data.split("test")) == (["site0/item 0", "site1/item 1"], ["site0/item 2"])
    with pytest.raises(DataError, match=r"val\.txt: No such file"):
        data.split("val")
    (root / "splits").mkdir()
    with pytest.raises(DataError, match=r"train\.txt: a list beside .*splits, expected one place of lists"):
        data.split("train")


def test_folders_of_splits_are_splits(tmp_path: Path) -> None:
    root = write_folder(tmp_path, SIZES)
    for kind in ("images", "masks"):
        (root / kind / "site0").rename(root / kind / "train")
        (root / kind / "site1").rename(root / kind / "test")
    data = Folder(root)
    assert {i.partition("/")[0] for i in data.split("train")} == {"train"}
    assert len(data.split("test")) == 15
    with pytest.raises(DataError, match=r"split val is empty.*images/ has test, train \(data\.val_split=NAME\)"):
        data.split("val")
    save_image(root / "images" / "stray.png", picture(0)[0])
    with pytest.raises(DataError, match=r"stray\.png: neither in images/test nor in images/train"):
        Folder(root).split("train")


@pytest.mark.parametrize("name", ["valid", "Val", "validation"])
def test_folders_that_are_called_nearly_like_splits_are_named(tmp_path: Path, name: str) -> None:
    """They would be dealt by hash, so that their images would be trained on."""
    root = write_folder(tmp_path, SIZES)
    for kind in ("images", "masks"):
        (root / kind / "site0").rename(root / kind / "train")
        (root / kind / "site1").rename(root / kind / name)
    with pytest.raises(DataError, match=rf"images/{name}: a folder like that of a split, expected train, val, test"):
        Folder(root).split("val")


def test_neither_split_of_few_images_is_empty(tmp_path: Path) -> None:
    for count in range(2, 8):
        data = Folder(write_folder(tmp_path / str(count), SIZES[:count]))
        train, val = data.split("train"), data.split("val")
        assert train and val
        assert len(train) + len(val) == count
    with pytest.raises(DataError, match="1 images, expected two or more"):
        Folder(write_folder(tmp_path / "one", SIZES[:1])).split("train")


def test_folds_of_images_score_each_image_once(tmp_path: Path) -> None:
    root = write_folder(tmp_path, SIZES[:11])
    parts = [Folder(root, folds_of_images=4, fold_of_images=k) for k in range(4)]
    scored = [image_id for part in parts for image_id in part.split("val")]
    assert sorted(scored) == sorted(parts[0].split("train") + parts[0].split("val"))
    assert sorted(len(part.split("val")) for part in parts) == [2, 3, 3, 3]
    assert not {*parts[1].split("train")} & {*parts[1].split("val")}
    with pytest.raises(ConfigError, match=r"data\.fold_of_images=4: expected 0\.\.3"):
        Folder(root, folds_of_images=4, fold_of_images=4)
    (root / "train.txt").write_text("site0/item 0\n")
    with pytest.raises(ConfigError, match="says already which images are trained on"):
        parts[0].split("train")


def test_few_images_no_pixel_of_a_class_and_a_large_crop_are_remarked_upon(tmp_path: Path) -> None:
    data = Folder(write_folder(tmp_path, SIZES))
    few, large = remarks(data, 512)
    assert "too few for a score to rely on; data.folds_of_images=5" in few
    assert "loader.augment.crop=512 is larger than the images, 93 pixels at most" in large
    assert large.endswith("loader.augment.crop=64 fits")
    assert len(remarks(data, 64)) == 1
    (tmp_path / "classes.txt").write_text("background\nroad\ntree\nunicorn\n")
    unscored = remarks(Folder(tmp_path), 64)[1]
    assert unscored.startswith(
        "val holds no pixel of unicorn, so no score says how well they are found; give it images"
    )


def test_one_mask_with_a_class_is_enough_and_damaged_ones_are_passed_over(tmp_path: Path) -> None:
    root = write_folder(tmp_path, lists=True)
    (root / "masks" / "site0" / "item 0.png").write_bytes(b"no mask")
    check_training_ready(Folder(root), Masks())


def test_a_value_that_masks_paint_in_two_colours_is_named(
    segladder, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = write_folder(tmp_path)
    _, second, *_ = sorted((root / "masks").rglob("*.png"))
    check_training_ready(Folder(root, val_share=0.5), Masks())
    with Image.open(second) as mask:
        colours = mask.getpalette()
        colours[:3], colours[300:303] = colours[300:303], colours[:3]  # 0 and 100: no mask holds the latter
        mask.putpalette(colours)
        mask.save(second)
    told = r"value 0 is painted #\w{6}, in .* #\w{6}: are classes told by colour\? segladder data action=convert"
    with pytest.raises(DataError, match=told):
        check_training_ready(Folder(root, val_share=0.5), Masks())
    assert segladder("data", "action=check", "data=folder", f"data.root={root}", "workers=0") == 1
    assert "value 0 is painted" in capsys.readouterr().out
    save_mask(
        second, Folder(root).drawn_mask("/".join(second.relative_to(root / "masks").with_suffix("").parts)), False
    )
    check_training_ready(Folder(root, val_share=0.5), Masks())  # gray beside a palette


def test_colours_of_values_that_no_mask_holds_may_differ(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    path = sorted((root / "masks").rglob("*.png"))[1]
    with Image.open(path) as mask:
        mask.putpalette([*mask.getpalette()[: 3 * 200], *[77] * 3 * 56])
        mask.save(path)
    check_training_ready(Folder(root), Masks())


def test_a_palette_that_is_shorter_than_values_go_is_no_fault(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    path = sorted((root / "masks").rglob("*.png"))[1]
    with Image.open(path) as mask:
        mask.putpalette(mask.getpalette()[:3])  # of 0 alone
        mask.save(path)
    other = sorted((root / "masks").rglob("*.png"))[0]
    with Image.open(other) as mask:
        mask.putpalette([*mask.getpalette()[:3], *[9] * 765])
        mask.save(other)
    save_mask(root / "masks" / "third.png", np.ones((8, 8), np.uint8))
    assert "value 1 is painted" in (unlike_palettes([other, path, root / "masks" / "third.png"]) or "")
    assert unlike_palettes([path, other]) is None


def test_masks_whose_ending_is_in_capitals_are_read(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    ids = Folder(root).split("train")
    before = [Folder(root).mask(image_id) for image_id in ids]
    for path in (root / "masks").rglob("*.png"):
        path.rename(path.with_suffix(".PNG"))
    data = Folder(root)
    check_training_ready(data, Masks())
    assert all(np.array_equal(data.mask(image_id), mask) for image_id, mask in zip(ids, before, strict=True))
    assert data.fingerprint(ids)


@pytest.mark.parametrize("line", ["{}", "images/{}", "./images/{}", "{} masks/{}", "images\\{}"])
def test_lines_of_a_list_in_other_programs_words_name_images(tmp_path: Path, line: str) -> None:
    root = write_folder(tmp_path, SIZES[:4])
    named = {path.relative_to(root / "images").as_posix() for path in (root / "images").rglob("*.png")}
    names = sorted(named)[:2]
    (root / "train.txt").write_text(
        "\n".join(
            line.replace("{}", name.replace("/", "\\")) if "\\" in line else line.replace("{}", name) for name in names
        )
    )
    assert Folder(root).split("train") == [name.removesuffix(".png") for name in names]


def test_lines_of_classes_that_are_no_names_are_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    for lines, told in (
        (["# my classes", "background", "road"], "'# my classes' is no name"),
        (["0 background", "1: road", "2,tree"], "'0 background' is no name, expected names alone"),
    ):
        (root / "classes.txt").write_text("\n".join(lines))
        with pytest.raises(DataError, match=told):
            Folder(root)
    (root / "classes.txt").write_text("background\n3 wheeler\n")
    assert Folder(root).classes == ("background", "3 wheeler")


def test_a_folder_that_has_moved_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: no such folder from .*; give data\.root=DIR, where it lies now"):
        Folder(tmp_path / "gone")


def test_a_value_without_a_class_shows_the_names_there_are(tmp_path: Path) -> None:
    data = Folder(write_folder(tmp_path), class_names=["road", "tree"])
    with pytest.raises(
        DataError, match=r"value 2, expected 0\.\.1 or 255: road to tree; segladder data action=convert"
    ):
        data.mask("site0/item 0")


def test_names_in_brackets_are_shown_as_they_are(segladder, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write_folder(tmp_path)
    names = "data.class_names=[background,'car [x]','tree [/b]']"
    assert segladder("data", "action=check", "data=folder", f"data.root={root}", names, "workers=0") == 0
    shown = capsys.readouterr().out
    assert "car [x]" in shown and "tree [/b]" in shown


def test_it_is_called_by_the_name_of_its_folder_unless_it_has_one(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "my cats")
    assert (Folder(root).title, Folder(root).name) == ("my cats", "folder")
    assert Folder(root, "cats").title == "cats"
