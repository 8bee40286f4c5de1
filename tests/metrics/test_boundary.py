"""Boundary IoU against its definition, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segladder.metrics.boundary import boundary_counts, boundary_width


def slow_boundary(mask, distance):
    """Pixels of a mask within `distance` (maximum norm) of a pixel outside it; beyond the image is outside."""
    boundary = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        for j in range(y - distance, y + distance + 1):
            for i in range(x - distance, x + distance + 1):
                inside = 0 <= j < mask.shape[0] and 0 <= i < mask.shape[1]
                boundary[y, x] |= not inside or not mask[j, i]
    return boundary


def slow_counts(pred, target, classes, distance):
    counts = []
    for k in range(classes):
        truth, guess = (slow_boundary((m == k) & (target != 255), distance) for m in (target, pred))
        counts.append([(truth & guess).sum(), (truth | guess).sum()])
    return np.array(counts)


def blobs(seed, height=20, width=26, classes=4):
    random = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.uint8)
    for _ in range(random.integers(0, 6)):
        y, x = random.integers(0, height), random.integers(0, width)
        labels[y : y + random.integers(1, 14), x : x + random.integers(1, 14)] = random.choice([*range(classes), 255])
    return labels


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.06, 0.1]))
def test_equals_the_definition(seed, width):
    target = blobs(seed)
    pred = np.where((other := blobs(seed + 1)) == 255, 0, other)
    distance = boundary_width(*target.shape, width)
    counts = boundary_counts(pred, target, 4, width=width)
    assert counts.dtype == np.int64
    assert np.array_equal(counts, slow_counts(pred, target, 4, distance))


def test_width_is_two_percent_of_the_diagonal_and_at_least_a_pixel():
    assert boundary_width(300, 400) == 10
    assert boundary_width(375, 500) == 12  # 12.5, rounded to even
    assert boundary_width(20, 20) == 1


def test_a_filled_image_has_a_frame_as_boundary():
    labels = np.ones((30, 40), np.uint8)
    counts = boundary_counts(labels, labels, 2, width=0.04)  # 2 pixels
    assert counts.tolist() == [[0, 0], [30 * 40 - 26 * 36] * 2]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_right_on_every_counted_pixel_is_perfect_whatever_is_said_on_ignored_ones(seed):
    target = blobs(seed)
    for value in range(4):
        counts = boundary_counts(np.where(target == 255, value, target), target, 4)
        assert np.array_equal(counts[:, 0], counts[:, 1])


def test_the_interior_of_large_objects_does_not_count():
    target = np.zeros((100, 100), np.int64)
    target[20:80, 20:80] = 1
    hollow = target.copy()
    hollow[40:60, 40:60] = 0  # an inner hole, far from the outline
    filled, holed = (boundary_counts(p, target, 2)[1] for p in (target, hollow))
    assert filled[0] == filled[1] == 60 * 60 - 54 * 54  # width 3
    assert holed[0] == filled[0]
    assert holed[1] == filled[1] + 26 * 26 - 20 * 20


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_any_integer_type(dtype):
    target, pred = blobs(3), np.where(blobs(4) == 255, 0, blobs(4))
    assert np.array_equal(
        boundary_counts(pred.astype(dtype), target.astype(dtype), 4), boundary_counts(pred, target, 4)
    )
