"""What every kind of label promises; a new file in data/labels/kinds is tested without a new test."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from segladder.configuration import choices
from segladder.data.labels.kinds import kinds
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.boxes import Boxes
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.kinds.points import Points, depth_of
from segladder.data.labels.kinds.scribbles import Scribbles, longest_way
from segladder.data.labels.prices import Prices
from segladder.data.sources.scene import ObjectBoxes, Scene
from segladder.data.sources.shapes import Shapes
from segladder.data.training.views import BesideMasks, Images
from segladder.errors import DataError

SHOWS = {"images", "nothing", "tags", "pixels", ""}
KINDS = list(kinds().values())


def drawn() -> np.ndarray:
    """Two discs of class 1, a square of class 2, border pixels."""
    mask = np.zeros((80, 100), np.uint8)
    cv2.circle(mask, (25, 25), 15, 1, -1)
    cv2.circle(mask, (75, 30), 10, 1, -1)
    mask[55:75, 30:60] = 2
    mask[54, 30:60] = 255
    return mask


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_says_everything_about_itself(kind):
    assert is_dataclass(kind) and kind.shows in SHOWS
    assert len({other.rank for other in KINDS}) == len({other.colour for other in KINDS}) == len(KINDS)
    assert kind.price(Prices()) >= 0 and kind.seconds(Prices(), 10, 20, 15.0) >= 0


def scene(mask: np.ndarray, boxes: list[tuple[int, ...]] | None = None, image_id: str = "a") -> Scene:
    """A grainy image with darker objects, and boxes (class, left, top, right, bottom) where they are told."""
    image = np.random.default_rng(0).integers(180, 220, (*mask.shape, 3), np.uint8)
    image[(mask > 0) & (mask < 255)] //= 4
    told = None
    if boxes is not None:
        told = ObjectBoxes(tuple(box[0] for box in boxes), np.array([box[1:] for box in boxes]), Path("a.xml"))
    return Scene(image_id, mask, lambda: image, lambda: told, Path("a.png"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_training_sees_of_a_mask_depends_on_nothing_else(kind):
    mask = drawn()
    seen = kind.of_image(scene(mask))
    assert np.array_equal(mask, drawn()) and seen.dtype == np.uint8 and seen.shape == mask.shape
    assert np.array_equal(seen, type(kind)().of_image(scene(drawn())))


@pytest.mark.parametrize("name", choices("labels"))
def test_every_choice_is_a_kind_that_training_reads(name):
    with initialize_config_module("segladder.conf", version_base="1.3"):
        kind = instantiate(compose("train", [f"labels={name}"]).labels)
    assert kind == kinds()[name] and kind.shows


def test_every_kind_that_training_reads_is_a_choice():
    assert {kind.name for kind in KINDS if kind.shows} == set(choices("labels"))


@dataclass(frozen=True)
class Corners(Labels):
    """A kind of its own: the first object pixel of each class."""

    name: str = "corners"
    rank = 35
    shows = "pixels"

    def price(self, prices: Prices, acts: float | None = None) -> float:
        return 0.0

    def of_image(self, scene: Scene) -> np.ndarray:
        seen = np.full_like(scene.mask, 255)
        for k in np.unique(scene.mask):
            seen[tuple(np.argwhere(scene.mask == k)[0])] = k
        return seen


def test_a_new_kind_reaches_training_without_another_edit(shapes_root):
    source = Shapes(shapes_root, train_size=24, val_size=10, size=64)
    ids = source.split("train")[:6]
    full, corners = (Images().dataset(source, ids, labels) for labels in (Masks(), Corners()))
    for index, image_id in enumerate(ids):
        expected = Corners().of_image(scene(source.mask(image_id)))
        assert np.array_equal(corners[index]["mask"].numpy(), expected)
        assert not np.array_equal(full[index]["mask"].numpy(), expected)


@pytest.mark.parametrize("amount", [1, 3])
def test_clicks_lie_deep_inside_the_largest_components_of_their_class(amount):
    mask = drawn()
    seen = Points(amount=amount, radius=0.0).of_image(scene(mask))
    assert {k: int((seen == k).sum()) for k in (0, 1, 2)} == dict.fromkeys((0, 1, 2), amount)
    assert (seen[seen != 255] == mask[seen != 255]).all()
    discs = [np.hypot(*(np.argwhere(seen == 1) - (y, x)).T) for y, x in ((25, 25), (30, 75))]
    assert (np.minimum(*discs) < 9).all()  # half as deep as the middle of the larger one, and deeper
    assert [int((near < 15).sum()) for near in discs] == ([1, 0] if amount == 1 else [2, 1])


def test_a_click_labels_a_disk_that_stays_inside_and_moves_with_the_annotator():
    mask = drawn()
    seen = Points(radius=0.1).of_image(scene(mask))
    assert (seen[seen != 255] == mask[seen != 255]).all() and (seen == 1).sum() > 300
    found = {Points(seed=seed, radius=0.0).of_image(scene(mask, image_id=i)).tobytes() for seed in (0, 1) for i in "ab"}
    assert len(found) == 4


def test_strokes_are_lines_along_the_largest_components_of_their_class():
    mask = drawn()
    for amount in (1, 2):
        seen = Scribbles(amount=amount).of_image(scene(mask))
        assert (seen[seen != 255] == mask[seen != 255]).all()
        for k, strokes in ((1, amount), (2, 1)):  # two on the square of class 2 lie on one line
            lines, _ = cv2.connectedComponents((seen == k).astype(np.uint8), connectivity=8)
            assert lines - 1 == strokes
    assert (seen[55:75, 30:60] == 2).any(axis=0).sum() >= 6  # along the square, whose skeleton is 11 pixels long
    assert (seen == 0).any() and not (Scribbles(background=False).of_image(scene(mask)) == 0).any()


def test_the_longest_way_through_a_cross_joins_its_farthest_ends():
    skeleton = np.zeros((9, 12), np.uint8)
    skeleton[4, :] = skeleton[2:8, 3] = 1
    way = longest_way(skeleton)
    assert {way[0], way[-1]} == {(4, 0), (4, 11)} and len(way) == 12
    assert all(skeleton[pixel] for pixel in way) and (np.abs(np.diff(way, axis=0)).max(1) == 1).all()


@pytest.mark.parametrize("kind", [Points(), Scribbles(), Boxes(), Boxes(becomes="grabcut")], ids=repr)
@pytest.mark.parametrize(
    "mask", [np.zeros((5, 7), np.uint8), np.full((5, 7), 255, np.uint8), np.eye(4, dtype=np.uint8)]
)
def test_an_image_without_objects_or_of_pixels_alone_has_a_label(kind, mask):
    seen = kind.of_image(scene(mask))
    assert set(np.unique(seen[mask == 255])) <= {0, 255}
    assert set(np.unique(seen)) <= {*np.unique(mask), 0, 255}


def test_boxes_are_filled_smaller_ones_above():
    mask = np.zeros((20, 30), np.uint8)
    mask[2:12, 3:20] = 1
    mask[5:8, 4:9] = 2
    expected = mask.copy()
    mask[6, 6] = 255  # void inside, which no box knows of
    assert np.array_equal(Boxes().of_image(scene(mask)), expected)


def test_told_boxes_are_taken_before_components():
    mask = drawn()
    seen = Boxes().of_image(scene(mask, [(1, 10, 10, 86, 41)]))  # one object of class 1, none of class 2
    expected = np.zeros_like(mask)
    expected[10:41, 10:86] = 1
    assert np.array_equal(seen, expected)


def test_grabcut_sees_the_picture_inside_the_box_and_no_mask():
    mask, boxes = drawn(), [(1, 8, 8, 43, 43), (1, 63, 18, 88, 43), (2, 28, 52, 62, 77)]
    kind = Boxes(becomes="grabcut")
    seen = kind.of_image(scene(mask, boxes))
    outside = np.ones(mask.shape, bool)
    for k, left, top, right, bottom in boxes:
        cut, truth = (labels[top:bottom, left:right] == k for labels in (seen, mask))
        assert (cut & truth).sum() / (cut | truth).sum() > 0.9
        outside[top:bottom, left:right] = False
    assert not seen[outside].any()
    told = scene(mask, boxes)
    other = Scene("a", np.zeros_like(mask), lambda: told.image, lambda: told.boxes)
    assert np.array_equal(kind.of_image(other), seen)


@pytest.mark.parametrize("box", [(1, -1, 0, 5, 5), (1, 0, 0, 101, 5), (1, 5, 5, 5, 9)])
def test_a_box_outside_the_image_names_file_and_id(box):
    with pytest.raises(DataError, match=r"^a\.xml: a has a box from .* expected one inside its 100x80 pixels$"):
        Boxes().of_image(scene(drawn(), [box]))


def test_a_picture_of_another_size_names_the_mask():
    small = Scene("a", drawn(), lambda: np.zeros((8, 9, 3), np.uint8), path=Path("masks/a.png"))
    with pytest.raises(DataError, match=r"masks/a\.png: size 100x80, expected 9x8"):
        Boxes(becomes="grabcut").of_image(small)


def test_answers_of_a_network_keep_to_the_label():
    mask = drawn()
    points, boxes = Points(), Boxes()
    told = points.of_image(scene(mask))
    allowed = points.allowed(scene(mask), 3)
    assert (
        np.array_equal(allowed.sum(0) == 1, told != 255) and (allowed.argmax(0)[told != 255] == told[told != 255]).all()
    )
    allowed = boxes.allowed(scene(mask), 3)
    assert allowed[0].all() and np.array_equal(allowed[2], boxes.of_image(scene((mask == 2) * mask)) == 2)
    answer = np.where(allowed[1], 1, 0).astype(np.uint8)  # nothing of class 2
    assert np.array_equal(boxes.settled(answer, scene(mask)), np.where(allowed[2], 2, answer))
    assert points.settled(answer, scene(mask)) is answer


def test_beside_masks_only_the_classes_asked_for_have_labels():
    mask = drawn()
    seen = BesideMasks(Boxes(), (2,)).of_image(scene(mask))
    expected = np.where(mask == 1, 1, 0)
    expected[55:75, 30:60] = 2
    assert np.array_equal(seen, expected)
    clicks = BesideMasks(Points(radius=0.0), (2,)).of_image(scene(mask))
    assert (clicks[mask == 1] == 1).all() and [(clicks == k).sum() for k in (0, 2)] == [1, 1]
    base = np.where(mask == 2, 0, mask)
    assert np.array_equal(BesideMasks(Boxes(), (2,)).of_image(scene(base)), base)


def test_a_cache_of_labels_knows_their_settings(shapes_root, tmp_path):
    source = Shapes(shapes_root, train_size=24, val_size=10, size=64, cache="memmap", cache_dir=tmp_path)
    ids = source.split("train")[:3]
    for labels in (Masks(), Points(), Points(seed=1), Boxes(), Boxes(becomes="grabcut")):
        items = Images().dataset(source, ids, labels)
        for index, image_id in enumerate(ids):
            assert np.array_equal(items[index]["mask"].numpy(), labels.of_image(source.scene(image_id)))
    assert len(list(tmp_path.glob("*-masks/*.u8"))) == 5


def test_the_depth_of_a_pixel_is_a_whole_number_and_the_same_each_time():
    generator = np.random.default_rng(0)
    for _ in range(20):
        component = np.zeros((40, 50), np.uint8)
        center, axes = generator.integers(10, 30, 2).tolist(), generator.integers(5, 30, 2).tolist()
        cv2.ellipse(component, center, axes, int(generator.integers(180)), 0, 360, 1, -1)
        outside = np.argwhere(np.pad(component, 1) == 0) - 1  # (n, 2)
        inside = np.argwhere(component)  # (m, 2)
        nearest = np.square(inside[:, None] - outside).sum(2).min(1)
        for _ in range(5):
            assert (depth_of(component)[component > 0] == nearest).all()


def test_clicks_are_the_same_each_time(tmp_path):
    source = Shapes(tmp_path, train_size=120, val_size=1, size=64)
    clicks = Points(radius=0.0)
    scenes = [source.scene(image_id) for image_id in source.split("train")]
    first = [clicks.of_image(scene) for scene in scenes]
    for _ in range(3):
        assert all((clicks.of_image(s) == seen).all() for s, seen in zip(scenes, first, strict=True))
