"""Boxes, scribbles and points made of masks: known objects, and what holds for any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label

from segladder.data.labels.kinds import of_supports
from segladder.errors import ConfigError

CHEAP = ("box", "scribble", "point")
MASKS = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 1))


def empty(height: int = 100, width: int = 120) -> np.ndarray:
    return np.zeros((height, width), np.uint8)


def disk(centre: tuple[int, int], radius: float) -> np.ndarray:
    rows, columns = np.ogrid[:100, :120]
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2).astype(np.uint8)


def test_a_mask_stays_as_it_is():
    mask = disk((40, 50), 20)
    np.testing.assert_array_equal(of_supports("mask").of_object(mask), mask)


def test_every_component_gets_a_box_but_specks_do_not():
    mask = disk((40, 40), 20) | disk((80, 100), 10)
    mask[2:4, 2:4] = 1  # 4 of some 1600 pixels
    expected = empty()
    expected[20:61, 20:61] = 1
    expected[70:91, 90:111] = 1
    np.testing.assert_array_equal(of_supports("box").of_object(mask), expected)


def test_pixels_that_touch_at_corners_are_one_object():
    mask = np.eye(9, dtype=np.uint8)
    np.testing.assert_array_equal(of_supports("box").of_object(mask), np.ones((9, 9), np.uint8))


def test_an_object_of_specks_keeps_the_largest():
    mask = empty(200, 200)
    mask[::10, ::10] = 1  # 400 specks
    mask[50, 50:52] = 1
    expected = empty(200, 200)
    expected[50, 50:52] = 1
    np.testing.assert_array_equal(of_supports("box").of_object(mask), expected)


def test_a_scribble_runs_along_the_middle():
    mask = empty()
    mask[40:61, 10:110] = 1
    scribble = of_supports("scribble").of_object(mask)
    rows = np.flatnonzero(scribble[:, 40:80].all(1))
    np.testing.assert_array_equal(rows, [49, 50, 51])  # 3 % of 100
    assert scribble[50, 25:95].all() and scribble[:, 25:95].sum() == 3 * 70


def test_each_component_has_its_scribble():
    mask = disk((40, 40), 20) | disk((80, 100), 10)
    scribble = of_supports("scribble").of_object(mask)
    assert scribble[disk((40, 40), 20) > 0].any() and scribble[disk((80, 100), 10) > 0].any()


def test_a_point_is_the_middle_of_the_largest_component():
    mask = disk((40, 50), 20) | disk((80, 100), 10)
    np.testing.assert_array_equal(of_supports("point").of_object(mask), disk((40, 50), 4.69))  # 3 % of 156
    ring = disk((50, 60), 40) - disk((50, 60), 20)
    rows, columns = np.nonzero(of_supports("point").of_object(ring))
    assert np.hypot(rows.mean() - 50, columns.mean() - 60) == pytest.approx(30, abs=2)


def test_the_border_of_the_image_is_no_inside():
    mask = empty()
    mask[:, :41] = 1
    rows, columns = np.nonzero(of_supports("point").of_object(mask))
    assert (rows.mean(), columns.mean()) == (20, 20)


@settings(max_examples=100, deadline=None)
@given(MASKS, st.sampled_from(CHEAP))
def test_annotations_are_there_where_the_object_is(mask, kind):
    before = mask.copy()
    found = of_supports(kind).of_object(mask)
    np.testing.assert_array_equal(mask, before)
    np.testing.assert_array_equal(of_supports(kind).of_object(mask), found)
    assert found.dtype == np.uint8 and found.shape == mask.shape
    assert found.any() == mask.any() and found.max(initial=0) <= 1
    if kind != "box":
        assert (found <= mask).all()


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_boxes_equal_those_of_scikit_image(mask):
    labels = label(mask, connectivity=2)
    sizes = np.bincount(labels.reshape(-1))[1:]
    expected = np.zeros_like(mask)
    for k, size in enumerate(sizes, 1):
        if size >= 0.01 * sizes.sum():
            rows, columns = np.nonzero(labels == k)
            expected[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 1
    np.testing.assert_array_equal(of_supports("box").of_object(mask), expected)


def test_an_unknown_kind_is_named():
    with pytest.raises(ConfigError, match="support_annotation=polygon: choose from point, scribble, box, mask"):
        of_supports("polygon").of_object(empty())
