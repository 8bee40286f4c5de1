"""Panels: colours mean what the legend says, and the images shown are the best, median and worst."""

import json

import numpy as np
import pytest
from PIL import Image

from segladder.data.sources.palette import voc_palette
from segladder.metrics.counts import Asked, Counts
from segladder.report.pictures.panels import (
    ERRORS,
    GAP,
    HEADINGS,
    IGNORED,
    PAPER,
    PLACES,
    chosen,
    error_map,
    panel,
    save_panels,
    shared,
)

CLASSES = ("background", "cat", "dog")
COLUMNS = (
    (0, 0, PAPER),
    (1, 1, "correct"),
    (1, 0, "missed"),
    (0, 2, "invented"),
    (1, 2, "confused"),
    (255, 2, IGNORED),
)


def test_each_kind_of_error_has_its_colour():
    truth, prediction = (np.array([[column[i] for column in COLUMNS]], np.uint8) for i in (0, 1))
    colours = [ERRORS[c] if isinstance(c, str) else c for _, _, c in COLUMNS]
    assert error_map(truth, prediction).tolist() == [[list(colour) for colour in colours]]


def test_colours_differ_in_lightness():
    lightness = sorted(0.299 * r + 0.587 * g + 0.114 * b for r, g, b in (*ERRORS.values(), IGNORED, PAPER))
    assert min(np.diff(lightness)) > 5


def test_four_pictures_stand_side_by_side_at_full_size():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (240, 300, 3), dtype=np.uint8)
    truth = np.repeat(np.repeat(random.integers(0, 3, (24, 30), dtype=np.uint8), 10, 0), 10, 1)
    prediction = np.roll(truth, 10, 1)
    truth[:5] = 255
    sheet = panel(image, truth, prediction, CLASSES)
    palette = voc_palette()
    shown = [image, np.where(truth[..., None] == 255, np.uint8(224), palette[truth]), palette[prediction]]
    top = next(y for y in range(60) if np.array_equal(sheet[y : y + 240, GAP : GAP + 300], image))
    for i, picture in enumerate([*shown, error_map(truth, prediction)]):
        left = GAP + i * (300 + GAP)
        assert np.array_equal(sheet[top : top + 240, left : left + 300], picture), HEADINGS[i]
    legend = sheet[top + 242 :].reshape(-1, 3)
    for colour in (*palette[:3], *ERRORS.values(), IGNORED):
        assert (legend == colour).all(1).any()


def test_the_legend_names_only_what_is_there():
    image, labels = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    sheet = panel(image, labels, labels, CLASSES, "a title")
    for colour in (*voc_palette()[1:3], *ERRORS.values()):
        assert not (sheet == colour).all(-1).any()
    assert panel(image, labels, labels, CLASSES).shape[0] < sheet.shape[0]


def test_names_of_classes_are_drawn_in_their_own_alphabets():
    image, labels = np.zeros((64, 80, 3), np.uint8), np.ones((64, 80), np.uint8)
    boxed, *drawn = (panel(image, labels, labels, ("background", name)).tobytes() for name in ("\uffff", "ß", "ж", "λ"))
    assert len({boxed, *drawn}) == 4


@pytest.mark.parametrize("size", [(64, 64), (37, 500), (500, 37), (1200, 900), (1, 1)])
@pytest.mark.parametrize("classes", [CLASSES, tuple(f"a class with a long name {k}" for k in range(21))])
def test_any_size_fits(size, classes):
    labels = np.random.default_rng(0).integers(0, len(classes), size, dtype=np.uint8)
    sheet = panel(np.zeros((*size, 3), np.uint8), labels, labels, classes)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] <= GAP + 4 * (512 + GAP)


def ranked_counts(number):
    counts = Counts(2)
    for i in range(number):
        counts.add(f"im{i}", [[10, 0], [10 - i, i]])  # the more right, the later
    return counts


def test_chosen_are_the_ends_and_the_middle():
    counts = ranked_counts(9)
    counts.add("nothing counted", [[0, 0], [0, 0]])
    assert [(kind, asked.image) for kind, asked, _ in chosen(counts, 2)] == [
        ("best", "im8"),
        ("best", "im7"),
        ("median", "im5"),
        ("median", "im4"),
        ("worst", "im0"),
        ("worst", "im1"),
    ]
    assert chosen(counts, 1)[0][2] == pytest.approx((10 / 12 + 8 / 10) / 2)
    for number in range(8):
        picked = [asked for _, asked, _ in chosen(ranked_counts(number), 2)]
        assert len(picked) == len(set(picked)) == min(number, 6)
    assert chosen(counts, 0) == []


def test_panels_are_written_for_them(tmp_path):
    labels = np.zeros((32, 32), np.uint8)
    asked = []

    def load(item):
        asked.append(item.image)
        return np.zeros((32, 32, 3), np.uint8), labels, labels, {}

    files = save_panels(tmp_path / "panels", ranked_counts(3), 1, load, ("background", "cat"))
    names = ["best-1-im2.png", "median-1-im1.png", "worst-1-im0.png", "same-1-im1.png"]
    assert [file.name for file in files] == names
    assert asked == ["im2", "im1", "im0", "im1"]
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == sorted(file.name for file in files)
    with Image.open(files[0]) as picture:
        assert picture.mode == "RGB"
    odd = Counts(2)
    odd.add(Asked("../cat, front|1", (1,)), [[1, 0], [0, 1]])
    file, _ = save_panels(tmp_path / "panels", odd, 1, load, ("background", "cat"))
    assert file == tmp_path / "panels" / "best-1-.._cat_front_1_cat.png"


def test_some_images_are_the_same_for_every_run():
    right, wrong = Counts(2), Counts(2)
    for number in range(20):
        holds = number % 2
        right.add(f"im{number}", [[9, 0], [0, holds]])
        wrong.add(f"im{number}", [[number % 5, 9 - number % 5], [holds, 0]])
    found = [[asked.image for _, asked, _ in shared(counts, 4)] for counts in (right, wrong)]
    assert found[0] == found[1] and len(set(found[0])) == 4
    assert all(int(image.removeprefix("im")) % 2 for image in found[0])  # they hold an object
    assert len(shared(right, 20)) == 10 and len(shared(right, 20, background=False)) == 20


def test_a_panel_says_where_its_pictures_lie(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (240, 300, 3), dtype=np.uint8)
    labels = np.zeros((240, 300), np.uint8)
    labels[50:90, 60:200] = 1
    save_panels(tmp_path, ranked_counts(1), 1, lambda _: (image, labels, labels, {"support": image[::-1]}), CLASSES)
    with Image.open(tmp_path / "best-1-im0.png") as sheet:
        boxes = json.loads(sheet.text[PLACES])
        assert list(boxes) == ["support", *HEADINGS]
        assert np.array_equal(sheet.crop(boxes["image"]), image)
        assert np.array_equal(sheet.crop(boxes["support"]), image[::-1])
        assert np.array_equal(sheet.crop(boxes["prediction"]), voc_palette()[labels])


@pytest.mark.real_data
def test_a_photograph_is_shown_unchanged(real_data):
    root = real_data("voc_animals/VOCdevkit/VOC2012")
    with Image.open(next(iter(sorted((root / "JPEGImages").glob("*.jpg"))))) as picture:
        image = np.asarray(picture.convert("RGB"))
    labels = np.zeros(image.shape[:2], np.uint8)
    sheet = panel(image, labels, labels, CLASSES)
    height, width = labels.shape
    assert any(np.array_equal(sheet[y : y + height, GAP : GAP + width], image) for y in range(60))
