"""What every kind of label promises; a new file in data/labels/kinds is tested without a new test."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from segladder.cli import choices
from segladder.data.labels.kinds import kinds
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.prices import Prices
from segladder.data.sources.scene import ObjectBoxes, Scene
from segladder.data.training.views import Images

SHOWS = {"nothing", "tags", "pixels", ""}
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
    """An image of noise with darker objects, and boxes (class, left, top, right, bottom) where they are told."""
    image = np.random.default_rng(0).integers(100, 255, (*mask.shape, 3), np.uint8)
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
    from segladder.data.sources.shapes import Shapes

    source = Shapes(shapes_root, train_size=24, val_size=10, size=64)
    ids = source.split("train")[:6]
    full, corners = (Images().dataset(source, ids, labels) for labels in (Masks(), Corners()))
    for index, image_id in enumerate(ids):
        expected = Corners().of_image(scene(source.mask(image_id)))
        assert np.array_equal(corners[index]["mask"].numpy(), expected)
        assert not np.array_equal(full[index]["mask"].numpy(), expected)
