"""Published lists of test items: both forms, their place in a protocol's hash, faults; the small-object rule on VOC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from episode_data import LARGE, SMALL, write_striped
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from PIL import Image

from segladder.data.pascal5i import fold_classes, keeps_object
from segladder.data.sources.item_lists import ItemList, files_of
from segladder.data.sources.voc import VOC, VOC_CLASSES
from segladder.errors import ConfigError, DataError

CLASSES = VOC_CLASSES[1:6]
IMAGES = {
    "x": [(1, LARGE), (2, SMALL)],
    "y": [(2, LARGE)],
    "z": [(1, SMALL), (4, LARGE)],
    "w": [(4, LARGE), (5, LARGE)],
}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> VOC:
    root = write_striped(tmp_path_factory.mktemp("voc"), {"train": IMAGES, "val": IMAGES})
    return VOC(root, classes=CLASSES, folds=[CLASSES[:2], CLASSES[3:]])


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def protocol(items: Path | None, *overrides: str):
    folds = f"data.folds=[[{','.join(CLASSES[:2])}],[{','.join(CLASSES[3:])}]]"
    given = [] if items is None else [f"protocol.items={items}"]
    with initialize_config_module("segladder.conf", version_base="1.3"):
        return instantiate(compose("train", ["data=voc", "protocol=hsnet", folds, *given, *overrides]).protocol)


def test_pairs_are_items_whatever_a_rule_says(source, tmp_path):
    listed = ItemList.read(written(tmp_path / "list.txt", "z__01\nx__01\nx__02\n\ny__02\n"))
    items = listed.items(source, source.split("val"), "grid", 2048)
    assert items.ids == ("z", "x", "y") and items.kept == ((1,), (1, 2), (2,))
    assert items.present == ((1, 4), (1, 2), (2,))
    assert listed.items(source, ["y"], "grid", 2048).ids == ("y",)


def test_images_alone_keep_the_classes_of_the_rule_in_the_lists_order(source, tmp_path):
    lines = [f"JPEGImages/{i}.jpg SegmentationClassAug/{i}.png" for i in ("w", "x")]
    listed = ItemList.read(written(tmp_path / "list.txt", "\n".join(lines)))
    items = listed.items(source, source.split("val"), "grid", 2048)
    assert items.ids == ("w", "x") and items.kept == ((4, 5), (1,))


def test_numbers_are_the_data_sets_even_where_a_run_uses_some_classes(source, tmp_path):
    few = VOC(source.root, classes=[VOC_CLASSES[4], VOC_CLASSES[2]])
    listed = ItemList.read(written(tmp_path / "list.txt", "w__04\nx__01\nx__02\n"))
    items = listed.items(few, few.split("val"), "grid", 2048)
    assert items.ids == ("w", "x") and items.kept == ((1,), (2,))


def test_queries_and_supports_come_from_the_list(source, tmp_path):
    path = written(tmp_path / "list.txt", "z__01\nx__01\nx__02\ny__02\n")
    asked = protocol(path, "protocol.shots=1")
    items = asked.test_items(source, source.split("val"))
    episodes = asked.frozen_list(items, [1, 2], "standard", 6, 0)
    assert [(e.query, e.class_index) for e in episodes] == [("z", 1), ("x", 1), ("x", 2), ("y", 2), ("z", 1), ("x", 1)]
    assert [e.supports for e in episodes[:4]] == [("x",), ("z",), ("y",), ("x",)]


def test_the_items_are_part_of_the_hash_and_the_files_place_is_not(tmp_path):
    here = written(tmp_path / "here.txt", "z__01\nx__01\n")
    there = written(tmp_path / "deep" / "there.txt", "z__01\n\nx__01")
    other = written(tmp_path / "other.txt", "x__01\nz__01\n")
    hashes = {path.stem: protocol(path).hash for path in (here, there, other)}
    assert hashes["here"] == hashes["there"] != hashes["other"]
    assert protocol(None).hash not in hashes.values()
    assert "items" not in protocol(None).fields()
    assert str(tmp_path) not in str(protocol(here).described())


def test_a_folder_has_a_list_for_each_fold_and_one_hash(tmp_path):
    for fold, text in enumerate(("z__01\nx__02\n", "w__04\n")):
        written(tmp_path / f"fold{fold}.txt", text)
    assert [path.name for path in files_of(str(tmp_path), 2)] == ["fold0.txt", "fold1.txt"]
    before = {protocol(tmp_path).hash, protocol(tmp_path, "fold=1").hash}
    assert len(before) == 1
    written(tmp_path / "fold1.txt", "z__04\n")
    assert protocol(tmp_path).hash not in before


def test_each_fold_reads_its_own_list(source, tmp_path):
    for fold, text in enumerate(("z__01\nx__02\n", "w__04\nw__05\n")):
        written(tmp_path / f"fold{fold}.txt", text)
    assert protocol(tmp_path).test_items(source, source.split("val")).ids == ("z", "x")
    assert protocol(tmp_path, "fold=1").test_items(source, source.split("val")).ids == ("w",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x__01\nnonsense\n", r"list.txt:2: 'nonsense', expected ID__CLASS"),
        ("x__one\n", r"list.txt:1: 'x__one', expected"),
        ("a b c\n", r"list.txt:1: 'a b c', expected"),
        ("x__01\nJPEGImages/y.jpg SegmentationClass/y.png\n", r"list.txt:2: another form of line than .*list.txt:1"),
        ("x__01\n\nx__01\n", r"list.txt:3: the item of .*list.txt:1 again"),
        ("\n", r"list.txt: no line"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        protocol(written(tmp_path / "list.txt", text)).hash  # noqa: B018


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x__01\nq__01\n", r"list.txt:2: the split val has no image q"),
        ("x__01\nx__21\n", r"list.txt:2: class 21, expected 1..20"),
        ("x__00\n", r"list.txt:1: class 0, expected 1..20"),
        ("y__01\n", r"list.txt:1: y holds no aeroplane"),
    ],
)
def test_a_list_that_does_not_fit_the_data_is_named(source, tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        protocol(written(tmp_path / "list.txt", text)).test_items(source, source.split("val"))


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"protocol.items=.*absent.txt: no such file"):
        protocol(tmp_path / "absent.txt").hash  # noqa: B018


@pytest.mark.slow
@pytest.mark.real_data
def test_the_small_object_rule_on_all_masks_of_voc(real_data) -> None:
    """Pairs per fold; HSNet's lists hold 346, 451, 725, 346 of `val`, and 4, 1, 0, 3 pairs are in one of both alone."""
    folder = real_data("voc_masks")
    pairs = {split: np.zeros(21, int) for split in ("val", "train_aug")}
    for split, counted in pairs.items():
        for image_id in (folder / f"{split}.txt").read_text().split():
            with Image.open(folder / "SegmentationClassAug" / f"{image_id}.png") as picture:
                mask = np.array(picture)
            counted[[k for k in np.unique(mask) if 0 < k < 21 and keeps_object(mask == k)]] += 1
    of_folds = {split: [int(n[fold_classes(fold)].sum()) for fold in range(4)] for split, n in pairs.items()}
    assert of_folds == {"val": [346, 450, 725, 345], "train_aug": [2286, 3434, 5883, 2079]}
