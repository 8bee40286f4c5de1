"""Objects in COCO's format: polygons and run lengths become masks, and every fault is one line with file and id."""

import gc
import json
import tracemalloc

import numpy as np
import pytest
from dummy_data import save_image, save_mask

from segladder.data.inspection.checks import check_training_ready, only_ignored
from segladder.data.labels.kinds.masks import Masks
from segladder.data.sources import decoding
from segladder.data.sources.coco import Coco
from segladder.data.sources.coco_file import CocoFile
from segladder.errors import ConfigError, DataError

codec = pytest.importorskip("pycocotools.mask", reason="data=coco needs the extra `coco`")
HEIGHT, WIDTH = 20, 30
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]  # cat is 1, dog is 2


def box(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def filled(left, top, right, bottom):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def compressed(mask):
    code = codec.encode(np.asfortranarray(mask))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


def run_lengths(mask):
    """Of the columns one after another, the first run is of zeros."""
    flat, counts, value = mask.T.reshape(-1), [0], 0
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": [HEIGHT, WIDTH], "counts": counts}


OBJECTS = [  # of image a
    {"category_id": 3, "segmentation": box(2, 2, 12, 12)},
    {"category_id": 7, "segmentation": compressed(filled(10, 4, 16, 10))},  # smaller: on top of the first
    {"category_id": 3, "segmentation": run_lengths(filled(20, 1, 22, 3))},
    {"category_id": 7, "segmentation": compressed(filled(0, 12, 30, 20)), "iscrowd": 1},
    {"category_id": 7, "segmentation": box(1, 11, 5, 15)},  # on the crowd
]


def document(names=("a", "b/c"), objects=(OBJECTS, [])):
    images = [{"id": 40 + i, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for i, n in enumerate(names)]
    entries = [{**o, "image_id": 40 + i} for i, part in enumerate(objects) for o in part]
    return {
        "images": images,
        "categories": [dict(kind) for kind in CATEGORIES],
        "annotations": [{**o, "id": i + 1} for i, o in enumerate(entries)],
    }


def written(root, whole, split="val", names=("a", "b/c"), folder="images"):
    for name in names:
        save_image(root / folder / f"{name}.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    path = root / "annotations" / f"{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(whole))
    return root


@pytest.fixture
def root(tmp_path):
    written(tmp_path, document(("d",), (OBJECTS[:2],)), "train", ("d",))
    return written(tmp_path, document())


def test_masks_and_objects_are_what_was_outlined(root):
    source = Coco(root)
    assert source.classes == ("background", "cat", "dog")
    assert source.split("val") == ["a", "b/c"] and source.split("train") == ["d"]
    mask, found = source.mask("a"), source.instances("a")
    expected, numbers = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint16)
    for number, value, place in [
        (0, 2, filled(0, 12, 30, 20)),
        (1, 1, filled(2, 2, 12, 12)),
        (2, 2, filled(10, 4, 16, 10)),
        (4, 2, filled(1, 11, 5, 15)),
        (3, 1, filled(20, 1, 22, 3)),
    ]:
        expected[place > 0], numbers[place > 0] = value, number
    assert np.array_equal(mask, expected) and np.array_equal(found.map, numbers)
    assert found.classes.tolist() == [1, 2, 1, 2]
    assert not source.mask("b/c").any() and len(source.instances("b/c")) == 0
    assert source.tags("a").tolist() == [1, 1] and source.image("b/c").shape == (HEIGHT, WIDTH, 3)


def test_classes_in_use_are_renumbered_and_their_objects_too(root):
    source = Coco(root, classes=["dog"])
    found = source.instances("a")
    assert found.classes.tolist() == [1, 1] and set(np.unique(found.map)) == {0, 1, 2}
    assert source.mask("a")[3, 3] == 255 and found.map[3, 3] == 0


def test_an_object_that_others_hide_is_none(tmp_path):
    hidden = [{"category_id": 3, "segmentation": box(2, 2, 6, 6)}, {"category_id": 7, "segmentation": box(2, 2, 6, 6)}]
    written(tmp_path, document(("a",), (hidden,)), names=("a",))
    assert Coco(tmp_path).instances("a").classes.tolist() == [2]  # the later of equal ones has the pixels


def test_memory_holds_one_object_at_a_time(tmp_path):
    """Twenty times as many objects, about the same memory; which of them has a pixel is what painting them gives."""
    places = np.random.default_rng(0).integers(0, [WIDTH, HEIGHT], (80, 2, 2)).astype(int)
    boxes = [(*np.minimum(*ends).tolist(), *(np.maximum(*ends) + 1).tolist()) for ends in places]
    objects = [
        {"category_id": 3 + 4 * (k % 2), "segmentation": box(*b), "iscrowd": k % 5 == 0} for k, b in enumerate(boxes)
    ]
    painted, order = np.zeros((HEIGHT, WIDTH), np.uint8), [filled(*each) for each in boxes]
    for k in sorted(range(80), key=lambda k: (k % 5 != 0, -int(order[k].sum()), k)):
        painted[order[k] > 0] = 1 + k % 2
    peaks = {}
    for count in (4, 80):
        source = Coco(written(tmp_path, document(("a",), (objects[:count],)), names=("a",)))
        assert source.split("val") == ["a"]
        tracemalloc.start()
        mask = source.drawn_mask("a")
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert np.array_equal(mask, painted)
    assert peaks[80] < 2 * peaks[4]


def test_the_fingerprint_is_of_the_objects_alone(root):
    before = Coco(root).fingerprint(["a", "b/c"])
    whole = document(("a", "b/c", "e"), (OBJECTS, [], []))
    written(root, whole, names=("a", "b/c", "e"))
    assert Coco(root).fingerprint(["a", "b/c"]) == before
    whole["annotations"][0]["segmentation"][0][0] += 1
    written(root, whole, names=("a", "b/c", "e"))
    assert Coco(root).fingerprint(["a", "b/c"]) != before


def test_one_file_for_all_is_split_by_its_ids(tmp_path):
    names = tuple(f"im{i}" for i in range(40))
    written(tmp_path, document(names, ([],) * 40), "all", names)
    source = Coco(tmp_path, annotations="annotations/all.json", val_share=0.25)
    train, val = source.split("train"), source.split("val")
    assert sorted([*train, *val]) == sorted(names) and 0 < len(val) < len(train)
    with pytest.raises(DataError, match=r"all.json: holds all images, so that the splits are train and val, not test"):
        source.split("test")
    with pytest.raises(ConfigError, match=r"data.images=\{split\}: needs \{split\} in data.annotations"):
        Coco(tmp_path, annotations="annotations/all.json", images="{split}")


def test_of_few_images_neither_split_is_empty(tmp_path):
    for count in (2, 3, 4):
        names = tuple(f"im{i}" for i in range(count))
        written(tmp_path, document(names, ([],) * count), "all", names)
        for share in (0.01, 0.99):
            source = Coco(tmp_path, annotations="annotations/all.json", val_share=share)
            assert sorted(source.split("train") + source.split("val")) == sorted(names)


def test_an_id_of_two_images_is_refused(tmp_path):
    for split in ("train", "val", "test"):
        written(tmp_path, document(("0001",), (OBJECTS[:1],)), split, ("0001",), folder=f"images/{split}")
    source = Coco(tmp_path, images="images/{split}")
    for split in ("train", "test"):
        with pytest.raises(DataError, match=rf"{split}\.json: 0001 in .*val\.json too, .* expected names that no two"):
            source.split(split)
    assert Coco(tmp_path, images="images/val").split("test") == ["0001"]  # the same image


def test_masks_are_looked_at_before_training_without_reading_the_file_for_each(root, monkeypatch):
    read, path_read = [], decoding.content
    monkeypatch.setattr(decoding, "content", lambda path: (read.append(path), path_read(path))[1])
    assert only_ignored(Coco(root), ["b/c", "a"]) is None and not read
    check_training_ready(Coco(root), Masks())
    assert not read


def test_images_may_lie_by_split_and_further_splits_are_read(tmp_path):
    for split in ("val", "test"):
        written(tmp_path, document((split,), (OBJECTS,)), split, (split,), folder=f"{split}2017")
    source = Coco(tmp_path, images="{split}2017")
    assert source.split("test") == ["test"] and source.image_path("test").parts[-2:] == ("test2017", "test.png")


def test_pseudo_masks_replace_the_objects_of_training_images(root, tmp_path):
    save_mask(tmp_path / "pseudo" / "d.png", np.full((HEIGHT, WIDTH), 2, np.uint8))
    source = Coco(root).with_training_masks(tmp_path / "pseudo")
    assert (source.mask("d") == 2).all() and source.instances("d") is None
    assert len(source.instances("a")) == 4
    assert source.fingerprint(["d"]) != Coco(root).fingerprint(["d"])


SHORT = compressed(filled(20, 1, 22, 3))
LISTED = run_lengths(filled(20, 1, 22, 3))


@pytest.mark.parametrize(
    ("outline", "fault"),
    [
        ({**SHORT, "counts": SHORT["counts"][:-2]}, "broken run lengths: they end before the last of 600 pixels"),
        ({**SHORT, "counts": SHORT["counts"] + "99"}, "broken run lengths: they do not fit 600 pixels"),
        ({**SHORT, "counts": "\x7f~~~"}, "broken run lengths"),
        ({**SHORT, "counts": ""}, "broken run lengths: they end before"),
        ({**SHORT, "size": [WIDTH, HEIGHT]}, r"run lengths of size \[30, 20\], expected \[20, 30\]"),
        ({**LISTED, "counts": LISTED["counts"][:-1]}, "broken run lengths: they end before"),
        ({**LISTED, "counts": [600, -1, 1]}, "run lengths that are no whole numbers"),
        ({**LISTED, "counts": [599, "1"]}, "run lengths that are no whole numbers"),
        ({**LISTED, "counts": None}, "no counts"),
        ([], "no outline \\(a box alone\\)"),
        ([[1, 2, 3, 4]], "a polygon without three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon without three points"),
        ([[1, 2, 3, 4, 5, "6"]], "a polygon through '6'"),
        ([[1, 2, 3, 4, 5, 1e9]], "a polygon through 1000000000.0, far outside the 30x20 pixels"),
        ([[1, 2, 3, 4, 5, float("nan")]], "a polygon through nan"),
    ],
)
def test_a_broken_outline_names_file_object_and_image(tmp_path, outline, fault):
    written(tmp_path, document(("a",), ([{"category_id": 3, "segmentation": outline}],)), names=("a",))
    with pytest.raises(DataError, match=rf"val.json: annotation 1 of image 40 \(a.png\): {fault}") as caught:
        Coco(tmp_path).mask("a")
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(DataError, match=fault):
        Coco(tmp_path).instances("a")


def test_missing_images_are_named(root):
    (root / "images/b/c.png").unlink()
    with pytest.raises(DataError, match=r"val.json: no such file for image 41 \(.*images/b/c.png\); see data.images"):
        Coco(root).split("val")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda d: d["annotations"][0].update(image_id=99), "annotation 1: image 99 is not among the images"),
        (lambda d: d["annotations"][0].update(category_id=5), "annotation 1: category 5 is not among the categories"),
        (lambda d: d["annotations"][0].update(image_id=[40]), r"annotation 1: image \[40\] is not among the images"),
        (lambda d: d["annotations"][0].update(category_id=[3]), r"annotation 1: category \[3\] is not among"),
        (lambda d: d["annotations"][0].update(category_id={}), r"annotation 1: category \{\} is not among"),
        (lambda d: d["annotations"][0].pop("segmentation"), "annotation 1 of image 40: no segmentation"),
        (lambda d: d["annotations"][0].pop("id"), "annotation: id None, expected a whole number"),
        (lambda d: d["images"].append(d["images"][0]), r"image 40 \(a.png\) stands twice"),
        (
            lambda d: d["images"][0].update(file_name="../a.png"),
            "image 40: file_name '../a.png', expected a path below",
        ),
        (
            lambda d: d["images"][0].update(file_name="\ud800.png"),
            r"image 40: file_name '\\ud800.png', expected a path",
        ),
        (lambda d: d["images"][0].update(width=0), r"image 40 \(a.png\): 0x20 pixels"),
        (lambda d: d["images"][0].update(width=10**6, height=10**6), r"image 40 \(a.png\): 1000000x1000000 pixels"),
        (lambda d: d.pop("images"), "no list of images"),
        (lambda d: d["categories"].clear(), "categories without names and ids of their own"),
        (lambda d: d["categories"][0].update(name=" "), "category 7 has no name"),
        (lambda d: d["categories"][0].update(name="\ud800"), r"category 7 has no name, got '\\ud800'"),
    ],
)
def test_ids_that_do_not_fit_are_named(tmp_path, change, fault):
    whole = document()
    change(whole)
    with pytest.raises(DataError, match=f"val.json: {fault}"):
        Coco(written(tmp_path, whole))


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(DataError, match=r"val\.json: No such file or directory, expected a file in COCO's format"):
        Coco(tmp_path)
    written(tmp_path, {})
    (tmp_path / "annotations/val.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"val.json: damaged \(Expecting value"):
        Coco(tmp_path)


def test_splits_with_other_categories_are_refused(root):
    whole = document(("d",), ([],))
    whole["categories"] = [{"id": 3, "name": "horse"}]
    written(root, whole, "train", ("d",))
    with pytest.raises(DataError, match=r"train.json: categories horse, expected cat, dog as in .*val.json"):
        Coco(root).split("train")


def test_a_run_learns_from_it_and_a_broken_file_ends_in_one_line(root, segladder, tmp_path, capsys):
    small = ["backbone.width=8", "loader.augment.crop=32", "loader.batch_size=1", "loader.workers=0", "logger=none"]
    quick = ["trainer.steps=1", "trainer.progress=false", "trainer.panels=1", "protocol.bootstrap=20"]
    words = ["train", "data=coco", f"data.root={root}", f"runs={tmp_path / 'runs'}", *small, *quick]
    assert segladder(*words, "protocol=panoptic", f"hydra.run.dir={tmp_path / 'run'}") == 0
    record = json.loads((tmp_path / "run/record.json").read_text())
    assert record["data"]["classes"] == ["background", "cat", "dog"] and 0 <= record["metrics"]["PQ"]["value"] <= 1
    assert segladder("data", "action=check", "data=coco", f"data.root={root}") == 0
    whole = document()
    whole["annotations"][1]["segmentation"]["counts"] = SHORT["counts"][:-2]
    written(root, whole)
    capsys.readouterr()
    assert segladder("data", "action=check", "data=coco", f"data.root={root}") == 1
    assert "annotation 2 of image 40 (a.png): broken run lengths" in " ".join(capsys.readouterr().out.split())


def test_a_file_is_read_without_looking_for_garbage(root):
    """Among the millions of lists of a large file, all of which stay, that takes as long as making them."""
    path = root / "annotations" / "val.json"
    whole = json.loads(path.read_text())
    last = whole["annotations"][-1]
    whole["annotations"] += [{**last, "id": 1000 + k, "segmentation": box(0, 0, 9, 9)} for k in range(2000)]
    path.write_text("\ufeff" + json.dumps(whole))
    began = []
    gc.callbacks.append(lambda phase, _: began.append(phase))
    try:
        file = CocoFile.read(path)
    finally:
        gc.callbacks.pop()
    assert began.count("start") <= 1 and gc.isenabled()  # one is due once it is over
    assert sum(len(image.objects) for image in file.images.values()) == len(whole["annotations"])
