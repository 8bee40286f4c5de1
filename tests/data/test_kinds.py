"""What every kind of label promises; a new file in data/labels/kinds is tested without a new test."""

from __future__ import annotations

from dataclasses import is_dataclass

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from segladder.cli import choices
from segladder.data.labels.kinds import kinds
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.boxes import Boxes
from segladder.data.labels.kinds.components import components
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.prices import Prices
from segladder.data.training.dataset import SegmentationDataset
from segladder.data.training.views import Images

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


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_training_sees_of_a_mask_depends_on_nothing_else(kind):
    mask = drawn()
    seen = kind.of_image(mask, "a")
    assert np.array_equal(mask, drawn()) and seen.dtype == np.uint8 and seen.shape == mask.shape
    assert np.array_equal(seen, type(kind)().of_image(drawn(), "a"))


@pytest.mark.parametrize("name", choices("labels"))
def test_every_choice_is_a_kind_that_training_reads(name):
    with initialize_config_module("segladder.conf", version_base="1.3"):
        kind = instantiate(compose("train", [f"labels={name}"]).labels)
    assert kind == kinds()[name] and kind.shows


def test_every_kind_that_training_reads_is_a_choice():
    assert {kind.name for kind in KINDS if kind.shows} == set(choices("labels"))


class FilledBoxes(Boxes):
    """The example of docs/labels.md."""

    shows = "pixels"

    def of_image(self, mask: np.ndarray, image_id: str) -> np.ndarray:
        """Filled boxes, larger ones beneath."""
        seen = np.zeros_like(mask)
        found = [
            (k, box) for k in np.unique(mask) if 0 < k < 255 for box, _ in components((mask == k).astype(np.uint8))
        ]
        for k, box in sorted(found, key=lambda pair: -seen[pair[1]].size):
            seen[box] = k
        return seen


def test_a_new_kind_reaches_training_without_another_edit(shapes_root):
    from segladder.data.sources.shapes import Shapes

    source = Shapes(shapes_root, train_size=24, val_size=10, size=64)
    ids = source.split("train")[:6]
    full, boxes = (Images().dataset(source, ids, labels) for labels in (Masks(), FilledBoxes()))
    assert isinstance(boxes, SegmentationDataset) and isinstance(FilledBoxes(), Labels)
    for index, image_id in enumerate(ids):
        expected = FilledBoxes().of_image(source.mask(image_id), image_id)
        assert np.array_equal(boxes[index]["mask"].numpy(), expected)
        assert not np.array_equal(full[index]["mask"].numpy(), expected)
