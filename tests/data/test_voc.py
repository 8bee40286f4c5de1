"""VOC and SBD: lists, masks, tags, class subsets, damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dummy_data import picture, save_mask, write_list, write_sbd, write_voc, write_xml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segladder.data.inspection.checks import check_training_ready
from segladder.data.labels.kinds.boxes import Boxes
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.kinds.tags import Tags
from segladder.data.sources.base import Source
from segladder.data.sources.decoding import read_image, read_mask
from segladder.data.sources.sbd import derive_train_aug
from segladder.data.sources.scene import tags_of
from segladder.data.sources.voc import VOC
from segladder.data.training.dataset import SegmentationDataset
from segladder.errors import ConfigError, DataError

IDS = st.lists(st.integers(0, 40).map("2008_{:06d}".format), unique=True)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc(tmp_path)


def source(root: Path, **settings: object) -> VOC:
    return VOC(root, **{"train_split": "train", **settings})


def test_masks_are_decoded_as_the_values_that_were_written(voc: Path) -> None:
    image_id = source(voc).split("train")[0]
    _, written = picture(0)
    assert np.array_equal(source(voc).mask(image_id), written)
    assert source(voc).image(image_id).shape == (64, 80, 3)


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"bits": 8}, {"compress_level": 0}])
@pytest.mark.parametrize("palette", [True, False])
def test_every_kind_of_png_gives_the_same_values(tmp_path: Path, options: dict[str, int], palette: bool) -> None:
    values = np.random.default_rng(0).integers(0, 256, (37, 53), np.uint8)
    image = Image.fromarray(values, "L")
    if palette:
        image.putpalette(np.arange(768, dtype=np.uint8).tobytes())
    image.save(tmp_path / "mask.png", **options)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), values)


def test_a_mask_of_few_values_stored_in_four_bits_is_read_as_indices(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 5, (9, 13), np.uint8)
    image = Image.fromarray(values, "L")
    image.putpalette(np.arange(15, dtype=np.uint8).tobytes())
    image.save(tmp_path / "mask.png", bits=4)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), values)


def test_class_subset_renumbers_and_hides_the_others(voc: Path) -> None:
    raw = source(voc).mask("2007_train00")
    only_dog = source(voc, classes=["dog"]).mask("2007_train00")
    assert np.array_equal(only_dog == 1, raw == 12)
    assert np.array_equal(only_dog == 255, (raw == 8) | (raw == 255))
    as_background = source(voc, classes=["dog"], other_classes="background").mask("2007_train00")
    assert np.array_equal(as_background == 0, (raw == 8) | (raw == 0))


def test_an_unknown_class_is_named_with_those_there_are(voc: Path) -> None:
    with pytest.raises(ConfigError, match="no such class dragon; voc has aeroplane"):
        source(voc, classes=["cat", "dragon"])


@given(mask=st.lists(st.integers(0, 255), min_size=1, max_size=30), classes=st.integers(2, 30))
def test_tags_are_the_foreground_values_present(mask: list[int], classes: int) -> None:
    expected = [float(value in mask) for value in range(1, classes)]
    assert tags_of(np.array([mask], np.uint8), range(1, classes)).tolist() == expected


@given(train=IDS, val=IDS, sbd=st.lists(st.integers(0, 40).map("2008_{:06d}".format)))
def test_derived_train_aug_is_the_union_without_val(train: list[str], val: list[str], sbd: list[str]) -> None:
    train = [image_id for image_id in train if image_id not in val]
    derived = derive_train_aug(train, val, sbd)
    assert set(derived) == (set(train) | set(sbd)) - set(val)
    assert len(set(derived)) == len(derived)
    assert derived[: len(train)] == train
    assert derived == derive_train_aug(train, reversed(val), reversed(sbd))


def test_train_aug_from_mat_files_reads_sbd_masks_and_leaves_val_out(tmp_path: Path, voc: Path) -> None:
    sbd = write_sbd(tmp_path, voc, train=["2008_1", "2007_train00"], val=["2008_2", "2007_val00"])
    data = source(voc, train_split="train_aug", sbd=sbd)
    assert data.split("train_aug") == [f"2007_train{i:02d}" for i in range(4)] + ["2008_1", "2008_2"]
    _, mask = picture(1000, values=(15,))
    assert np.array_equal(data.mask("2008_1"), np.where(mask == 255, 0, mask))
    assert np.array_equal(data.mask("2007_train00"), picture(0)[1])  # VOC's own mask wins
    check_training_ready(data, Masks())


def test_train_aug_from_pngs_and_from_a_list_of_paths(voc: Path) -> None:
    save_mask(voc / "SegmentationClassAug" / "2008_9.png", picture(5, values=(3,))[1])
    save_mask(voc / "SegmentationClassAug" / "2007_val00.png", picture(5)[1])
    data = source(voc, train_split="train_aug")
    assert data.split("train_aug")[-1] == "2008_9"
    assert data.tags("2008_9").nonzero()[0].tolist() == [2]  # bird
    lines = ["/JPEGImages/2008_9.jpg /SegmentationClassAug/2008_9.png"]
    write_list(voc / "ImageSets" / "Segmentation" / "trainaug.txt", lines)
    assert data.split("train_aug") == ["2008_9"]


def test_train_sbd_is_what_train_aug_adds_to_train_unless_listed(voc: Path) -> None:
    lists = voc / "ImageSets" / "Segmentation"
    (lists / "train_aug.txt").write_text("2008_9\n2007_train02\n2008_1\n")
    assert source(voc).split("train_sbd") == ["2008_9", "2008_1"]
    (lists / "train_sbd.txt").write_text("2008_1\n")
    assert source(voc).split("train_sbd") == ["2008_1"]


def test_train_aug_without_sbd_says_what_to_do(voc: Path) -> None:
    with pytest.raises(DataError, match=r"train_aug.txt: no such list.*data\.sbd=DIR"):
        source(voc).split("train_aug")


def test_xml_tags_with_and_without_difficult_objects(voc: Path) -> None:
    write_xml(voc / "Annotations" / "2007_train00.xml", ["cat"], difficult=["person"])
    plain = source(voc, classes=["cat", "dog", "person"], tags="xml")
    assert plain.tags("2007_train00").tolist() == [1, 0, 0]
    assert source(voc, tags="xml", difficult=True).tags("2007_train00").nonzero()[0].tolist() == [7, 14]
    with pytest.raises(DataError, match=r"Annotations/2007_train01.xml: No such file.*data\.tags=xml"):
        plain.tags("2007_train01")


def test_pseudo_masks_replace_training_masks_only(tmp_path: Path, voc: Path) -> None:
    for image_id in source(voc).split("train"):
        save_mask(tmp_path / "pseudo" / f"{image_id}.png", np.full((64, 80), 3, np.uint8))
    data = source(voc, masks=tmp_path / "pseudo")
    assert (data.mask("2007_train00") == 3).all()
    assert np.array_equal(data.mask("2007_val00"), picture(4)[1])
    (tmp_path / "pseudo" / "2007_train01.png").unlink()
    with pytest.raises(DataError, match=r"missing training labels: .*pseudo/2007_train01.png"):
        check_training_ready(data, Masks())


def test_full_items_hold_masks_and_others_cannot_reach_any(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = source(voc)
    ids = data.split("train")
    full = SegmentationDataset(data, ids, Masks())[1]
    weak = SegmentationDataset(data, ids, Tags())
    assert np.array_equal(full["mask"].numpy(), picture(1)[1])
    assert np.array_equal(full["image"].permute(1, 2, 0).numpy(), data.image(ids[1]))

    def refuse(*arguments: object) -> None:
        raise AssertionError("a mask was read")

    for method in ("mask", "raw_mask", "decode_mask", "pair"):
        monkeypatch.setattr(Source, method, refuse)
        monkeypatch.setattr(VOC, method, refuse)
    item = weak[1]
    assert set(item) == {"image", "tags", "id"}
    assert np.array_equal(item["tags"].numpy(), full["tags"].numpy())
    assert not any(isinstance(value, Source) for value in vars(weak).values())


def test_items_read_by_processes_equal_direct_ones(voc: Path) -> None:
    from torch.utils.data import DataLoader

    data = source(voc)
    dataset = SegmentationDataset(data, data.split("train"), Masks())
    batches = list(DataLoader(dataset, batch_size=2, num_workers=1))
    assert [image_id for batch in batches for image_id in batch["id"]] == data.split("train")
    assert np.array_equal(batches[1]["mask"][0].numpy(), data.mask("2007_train02"))


def test_truncated_jpeg_is_named(voc: Path) -> None:
    path = voc / "JPEGImages" / "2007_train00.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"2007_train00.jpg: damaged or truncated"):
        read_image(path)


def test_truncated_or_altered_mask_is_named(voc: Path) -> None:
    path = voc / "SegmentationClass" / "2007_train00.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 + 400])
    with pytest.raises(DataError, match=r"2007_train00.png: damaged or truncated mask"):
        read_mask(path)
    position = whole.index(b"IDAT") + 30
    path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
    with pytest.raises(DataError, match=r"2007_train00.png: damaged or truncated mask"):
        read_mask(path)


def test_value_without_a_class_is_named(voc: Path) -> None:
    save_mask(voc / "SegmentationClass" / "2007_train00.png", np.full((64, 80), 37, np.uint8))
    with pytest.raises(DataError, match=r"2007_train00.png: value 37, expected 0..20 or 255"):
        source(voc).mask("2007_train00")


def test_colour_mask_is_refused(voc: Path) -> None:
    path = voc / "SegmentationClass" / "2007_train00.png"
    Image.fromarray(np.zeros((64, 80, 3), np.uint8)).save(path)
    with pytest.raises(DataError, match="mode RGB, expected a palette"):
        source(voc).mask("2007_train00")


def test_mask_of_another_size_is_named_at_the_item(voc: Path) -> None:
    save_mask(voc / "SegmentationClass" / "2007_train00.png", np.zeros((64, 81), np.uint8))
    with pytest.raises(DataError, match=r"2007_train00.png: size 81x64, expected 80x64"):
        SegmentationDataset(source(voc), ["2007_train00"], Masks())[0]


def test_lists_that_are_missing_empty_or_repeat_are_named(voc: Path) -> None:
    with pytest.raises(DataError, match=r"nope.txt: No such file"):
        source(voc).split("nope")
    lists = voc / "ImageSets" / "Segmentation"
    write_list(lists / "val.txt", [])
    with pytest.raises(DataError, match=r"val.txt: empty list"):
        check_training_ready(source(voc), Masks())
    write_list(lists / "val.txt", ["a", "b", "a"])
    with pytest.raises(DataError, match=r"val.txt: id a is listed twice"):
        source(voc).split("val")


def test_missing_files_and_overlap_are_found_before_training(voc: Path) -> None:
    (voc / "JPEGImages" / "2007_train03.jpg").unlink()
    with pytest.raises(DataError, match=r"missing images: .*2007_train03.jpg"):
        check_training_ready(source(voc), Masks())
    with pytest.raises(DataError, match=r"2007_val00, 2007_val01 in both trainval and val"):
        write_voc(voc.parent.parent)
        check_training_ready(source(voc, train_split="trainval"), Masks())


@pytest.mark.real_data
def test_real_masks_decode_as_the_general_decoder_decodes_them(real_data) -> None:
    root = real_data("voc_native/VOCdevkit/VOC2012")
    data = VOC(root, train_split="val")
    check_training_ready(data, Masks())
    for image_id in data.split("val"):
        image, mask = data.pair(image_id)
        with Image.open(data.mask_path(image_id)) as general:
            assert np.array_equal(mask, np.array(general))
        with Image.open(data.image_path(image_id)) as general:
            assert np.abs(image.astype(int) - np.array(general.convert("RGB"))).max() <= 2


@pytest.mark.real_data
def test_real_class_subset_is_complete(real_data) -> None:
    data = VOC(real_data("voc_animals/VOCdevkit/VOC2012"), classes=["cat", "cow", "dog", "horse", "person", "sheep"])
    assert (len(data.split("train_aug")), len(data.split("val"))) == (3131, 295)
    check_training_ready(data, Masks())
    tags = np.stack([data.tags(image_id) for image_id in data.split("val")])
    assert tags.sum(axis=0).tolist() == [80, 46, 79, 55, 60, 40]


def test_boxes_come_from_instances_else_from_xml(voc: Path) -> None:
    boxed = """<annotation><object><name>dog</name><difficult>1</difficult><bndbox><xmax>20.4</xmax><xmin>5</xmin>
        <ymin>2</ymin><ymax>30</ymax></bndbox></object><object><name>cow</name><bndbox><xmin>1</xmin><ymin>1</ymin>
        <xmax>{right}</xmax><ymax>64</ymax></bndbox></object></annotation>"""
    path = voc / "Annotations" / "2007_train00.xml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(boxed.format(right=80))
    found = source(voc, classes=["dog", "cow"]).boxes("2007_train00")
    assert found is not None and found.classes == (1, 2) and found.path == path
    assert found.places.tolist() == [[4, 1, 20, 30], [0, 0, 80, 64]]
    assert source(voc, classes=["cat", "dog"]).boxes("2007_train00").classes == (2,)
    assert source(voc).told_objects("2007_train00") == ("xml", path)
    assert source(voc).told_objects("2007_train01") is None and source(voc).boxes("2007_train01") is None
    for right, fault in ((81, "has a box from"), ("wide", "object cow has no whole bndbox")):
        path.write_text(boxed.format(right=right))
        with pytest.raises(DataError, match=rf"2007_train00\.xml: .*{fault}"):
            Boxes().of_image(source(voc).scene("2007_train00"))
    mask = read_mask(voc / "SegmentationClass" / "2007_train00.png")
    save_mask(voc / "SegmentationObject" / "2007_train00.png", np.where(mask == 255, 255, mask > 0).astype(np.uint8))
    with pytest.raises(DataError, match=r"2007_train00\.png: disagrees with the mask of 2007_train00: object 1"):
        Boxes().of_image(source(voc).scene("2007_train00"))
    objects = np.select([mask == 8, mask == 12, mask == 255], [2, 1, 255]).astype(np.uint8)
    save_mask(voc / "SegmentationObject" / "2007_train00.png", objects)
    told = source(voc).boxes("2007_train00")
    assert told is not None and told.path.parent.name == "SegmentationObject"
    assert {*told.classes} == {8, 12} and source(voc, masks=voc).told_objects("2007_train00") is None
