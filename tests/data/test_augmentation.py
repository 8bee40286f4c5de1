"""Augmentation: a pure function of the seed, exact in scale, aligned, padded with 255."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from dummy_data import picture
from hypothesis import given, settings
from hypothesis import strategies as st

from segladder.data.training.augmentation import TrainAugmentation
from segladder.errors import ConfigError

EVERYTHING = {
    "scale": (0.5, 2.0),
    "crop": 64,
    "flip": 0.5,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "hue": 0.1,
}


def ramps(height: int = 120, width: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red is the column and green the row, and a mask that is the column."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([columns, rows, np.zeros_like(rows)], axis=-1), columns


def slope(line: np.ndarray) -> float:
    """Source pixels per result pixel along a line, where the ramp is not clamped at a border."""
    return float(np.polyfit(np.arange(len(line))[2:-2], line[2:-2].astype(float), 1)[0])


def test_same_seed_same_result_in_any_order() -> None:
    augment = TrainAugmentation(**EVERYTHING)
    image, mask = picture(0)
    first = {seed: augment(image, mask, seed) for seed in (3, 1, 2)}
    for seed in (1, 2, 3):
        again = TrainAugmentation(**EVERYTHING)(image, mask, seed)
        assert np.array_equal(first[seed][0], again[0])
        assert np.array_equal(first[seed][1], again[1])
    assert not np.array_equal(first[1][0], first[2][0])


def test_image_is_augmented_alike_with_and_without_its_mask() -> None:
    augment = TrainAugmentation(**EVERYTHING)
    image, mask = picture(0)
    for seed in range(5):
        alone, nothing = augment(image, None, seed)
        assert nothing is None
        assert np.array_equal(alone, augment(image, mask, seed)[0])


def test_input_is_not_written_to() -> None:
    image, mask = picture(0)
    image.setflags(write=False)
    mask.setflags(write=False)
    for seed in range(5):
        TrainAugmentation(**EVERYTHING)(image, mask, seed)


@pytest.mark.parametrize("scale", [0.5, 0.77, 1.0, 1.3, 2.0])
def test_mask_stays_aligned_with_the_image(scale: float) -> None:
    _, mask = picture(1, (90, 120), values=(40, 80, 120))
    image = np.repeat(mask[..., None], 3, axis=2)
    augment = TrainAugmentation(scale=(scale, scale), crop=80, flip=0.5, fill=(255, 255, 255))
    for seed in range(6):
        moved, moved_mask = augment(image, mask, seed)
        kernel = np.ones((5, 5), np.uint8)
        flat = cv2.erode(moved_mask, kernel) == cv2.dilate(moved_mask, kernel)  # away from class borders
        flat[[0, -1]] = flat[:, [0, -1]] = False  # whose neighbours are not seen
        assert flat.mean() > 0.3
        assert np.array_equal(moved[flat][:, 0], moved_mask[flat])


@pytest.mark.parametrize("scale", [0.5, 0.6, 1.0, 1.37, 2.0])
def test_scale_is_exact_and_square(scale: float) -> None:
    image, mask = ramps()
    for seed in range(4):
        moved, moved_mask = TrainAugmentation(scale=(scale, scale), crop=48)(image, mask, seed)
        assert slope(moved[20, :, 0]) == pytest.approx(1 / scale, rel=0.02)
        assert slope(moved[:, 20, 1]) == pytest.approx(1 / scale, rel=0.02)
        assert np.abs(moved[:, 2:-2, 0].astype(int) - moved_mask[:, 2:-2]).max() <= 1  # same pixel centres
        steps = moved_mask[0].astype(int) - moved_mask[0, 0]
        assert steps.tolist() == [int((i + 0.5) / scale) - int(0.5 / scale) for i in range(48)]


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_crop_before_resize_equals_resize_before_crop(scale: float) -> None:
    image, mask = picture(3, (96, 120))
    moved, moved_mask = TrainAugmentation(scale=(scale, scale), crop=40)(image, mask, 7)
    found = []
    for down, across in itertools.product((0, 1), repeat=2):  # the window begins at any whole source pixel
        whole = cv2.resize(image[down:, across:], None, fx=scale, fy=scale)
        at_row, at_column = (((np.arange(size) + 0.5) // scale).astype(int) for size in whole.shape[:2])
        labels = mask[down:, across:][at_row.clip(max=95 - down)][:, at_column.clip(max=119 - across)]
        for top, left in itertools.product(range(whole.shape[0] - 39), range(whole.shape[1] - 39)):
            if np.array_equal(whole[top + 1 : top + 40, left + 1 : left + 40], moved[1:, 1:]):
                found.append(np.array_equal(labels[top : top + 40, left : left + 40], moved_mask))
    assert found
    assert all(found)


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    crop=st.integers(1, 60),
    scale=st.floats(0.2, 3.0),
    seed=st.integers(0, 2**31 - 1),
)
@settings(deadline=None, max_examples=150)
def test_result_has_the_size_asked_for_and_255_only_as_padding(
    height: int, width: int, crop: int, scale: float, seed: int
) -> None:
    image = np.full((height, width, 3), 9, np.uint8)
    mask = np.full((height, width), 3, np.uint8)
    augment = TrainAugmentation(scale=(scale, scale), crop=crop, fill=(1, 2, 4))
    moved, moved_mask = augment(image, mask, seed)
    assert moved.shape == (crop, crop, 3)
    assert moved_mask.shape == (crop, crop)
    inside = moved_mask == 3
    assert (moved_mask[~inside] == 255).all()
    assert (moved[inside] == 9).all()
    assert (moved[~inside] == (1, 2, 4)).all()
    factor = max(scale, 1 / min(height, width))
    expected = [min(crop, length * factor) for length in (height, width)]
    assert abs(inside.any(axis=1).sum() - expected[0]) <= 0.5 + 1e-9
    assert abs(inside.any(axis=0).sum() - expected[1]) <= 0.5 + 1e-9


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.9])
def test_results_are_written_where_they_are_asked_to_be(scale: float) -> None:
    image, mask = picture(0)
    augment = TrainAugmentation(scale=(scale, scale), crop=70, flip=0.5)
    images, masks = np.zeros((4, 70, 70, 3), np.uint8), np.zeros((4, 70, 70), np.uint8)
    for seed in range(4):
        augment(image, mask, seed, (images[seed], masks[seed]))
    for seed in range(4):
        moved, moved_mask = augment(image, mask, seed)
        assert np.array_equal(images[seed], moved)
        assert np.array_equal(masks[seed], moved_mask)


def test_padding_lies_at_random_places() -> None:
    image, mask = picture(0, (20, 20), values=())
    augment = TrainAugmentation(crop=40)
    tops = {int(np.flatnonzero((augment(image, mask, seed)[1] == 0).any(axis=1))[0]) for seed in range(100)}
    assert min(tops) < 4
    assert max(tops) > 16


def test_long_side_is_within_its_range_and_keeps_the_aspect() -> None:
    image, mask = ramps(100, 150)
    sides = []
    for seed in range(30):
        moved, moved_mask = TrainAugmentation(long_side=(60, 90))(image, mask, seed)
        assert moved.shape[:2] == moved_mask.shape
        assert moved.shape[0] / moved.shape[1] == pytest.approx(100 / 150, abs=0.02)
        sides.append(max(moved.shape))
    assert min(sides) >= 60
    assert max(sides) <= 90
    assert len(set(sides)) > 10


def test_flip_is_fair_and_independent_of_the_scale() -> None:
    image, mask = ramps()
    augment = TrainAugmentation(scale=(0.5, 2.0), crop=40, flip=0.5)
    slopes = np.array([slope(augment(image, mask, seed)[0][20, :, 0]) for seed in range(400)])
    flipped, small = slopes < 0, np.abs(slopes) > np.median(np.abs(slopes))
    assert 0.4 < flipped[small].mean() < 0.6
    assert 0.4 < flipped[~small].mean() < 0.6


def test_nothing_asked_for_changes_nothing() -> None:
    image, mask = picture(0)
    moved, moved_mask = TrainAugmentation()(image, mask, 5)
    assert np.array_equal(moved, image)
    assert np.array_equal(moved_mask, mask)


def test_colour_jitter_changes_colours_within_its_strength_and_no_mask() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    levels = []
    for seed in range(40):
        moved, moved_mask = TrainAugmentation(brightness=0.3)(image, mask, seed)
        assert np.array_equal(moved_mask, mask)
        assert len(np.unique(moved)) == 1
        levels.append(int(moved[0, 0, 0]))
    assert 70 <= min(levels) < 80
    assert 120 < max(levels) <= 130


def test_contradicting_or_impossible_ranges_are_refused() -> None:
    with pytest.raises(ConfigError, match="scale and long_side exclude each other"):
        TrainAugmentation(scale=(0.5, 2), long_side=(320, 640))
    with pytest.raises(ConfigError, match=r"loader.augment.scale=\[2, 1\]: expected \[low, high\]"):
        TrainAugmentation(scale=(2, 1))


def test_padding_is_not_jittered() -> None:
    image, _ = picture(0, (20, 20))
    mask = np.zeros((20, 20), np.uint8)
    for seed in range(5):
        moved, moved_mask = TrainAugmentation(crop=40, fill=(9, 8, 7), brightness=0.5, hue=0.2)(image, mask, seed)
        assert (moved[moved_mask == 255] == (9, 8, 7)).all()
        assert not np.array_equal(moved[moved_mask == 0].reshape(20, 20, 3), image)


EXTRA = [
    {"name": "GaussianBlur", "p": 0.5},
    {"name": "CoarseDropout", "p": 0.7},
    {"name": "Affine", "rotate": [-30, 30]},
]


def test_extra_transforms_are_a_pure_function_of_the_seed() -> None:
    augment = TrainAugmentation(**EVERYTHING, extra=EXTRA)
    image, mask = picture(0)
    first = {seed: augment(image, mask, seed) for seed in range(8)}
    for seed in reversed(range(8)):
        again, again_mask = TrainAugmentation(**EVERYTHING, extra=EXTRA)(image, mask, seed)
        assert np.array_equal(first[seed][0], again)
        assert np.array_equal(first[seed][1], again_mask)
        alone, nothing = augment(image, None, seed)  # of items with tags
        assert nothing is None
        assert np.array_equal(alone, again)


def test_extra_transforms_come_after_the_geometry_and_leave_its_draws_alone() -> None:
    image, mask = picture(0)
    for seed in range(6):
        plain, plain_mask = TrainAugmentation(**EVERYTHING)(image, mask, seed)
        turned, turned_mask = TrainAugmentation(**EVERYTHING, extra=[{"name": "VerticalFlip", "p": 1}])(
            image, mask, seed
        )
        assert np.array_equal(turned, plain[::-1])
        assert np.array_equal(turned_mask, plain_mask[::-1])


def test_an_extra_transform_happens_with_its_probability_and_its_own_draws() -> None:
    image, mask = picture(0, values=())
    flips = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "VerticalFlip", "p": 0.5}]
    augment = TrainAugmentation(extra=flips)
    outcomes = {augment(image, mask, seed)[0].tobytes() for seed in range(60)}
    assert outcomes == {view.tobytes() for view in (image, image[::-1], image[:, ::-1], image[::-1, ::-1])}


@pytest.mark.parametrize(
    "item",
    [
        {"name": "Affine", "rotate": [20, 40], "scale": [0.7, 1.3], "translate_px": 9},
        {"name": "Rotate", "limit": [20, 60]},
        {"name": "Perspective", "scale": 0.2},
        {"name": "ElasticTransform", "alpha": 200, "sigma": 8},
        {"name": "GridDistortion", "distort_limit": 0.5},
        {"name": "CropAndPad", "percent": [0.1, 0.3]},
        {"name": "CoarseDropout", "num_holes_range": [3, 6]},
        {"name": "RandomGridShuffle"},
    ],
    ids=lambda item: item["name"],
)
def test_masks_move_with_images_and_what_is_new_is_ignored(item: dict) -> None:
    _, mask = picture(1, (90, 90), values=(40, 80, 120))
    image = np.repeat(mask[..., None], 3, axis=2)
    sampled = {} if item["name"] in ("CoarseDropout", "RandomGridShuffle") else {"interpolation": cv2.INTER_NEAREST}
    filled = {} if item["name"] == "RandomGridShuffle" else {"fill": [255, 255, 255]}
    augment = TrainAugmentation(extra=[{**item, **sampled, **filled, "p": 1.0}])
    for seed in range(5):
        moved, moved_mask = augment(image, mask, seed)
        assert not np.array_equal(moved_mask, mask)
        assert np.array_equal(moved, np.repeat(moved_mask[..., None], 3, axis=2))


def test_what_is_cut_out_may_keep_its_class() -> None:
    image, mask = picture(1)
    augment = TrainAugmentation(extra=[{"name": "CoarseDropout", "fill_mask": None, "p": 1.0}])
    dropped, kept = augment(image, mask, 3)
    assert not np.array_equal(dropped, image)
    assert np.array_equal(kept, mask)


def test_results_of_extra_transforms_are_written_where_they_are_asked_to_be() -> None:
    image, mask = picture(0)
    augment = TrainAugmentation(**EVERYTHING, extra=EXTRA)
    images, masks = np.zeros((4, 64, 64, 3), np.uint8), np.zeros((4, 64, 64), np.uint8)
    for seed in range(4):
        moved, moved_mask = augment(image, mask, seed, (images[seed], masks[seed]))
        assert np.shares_memory(moved, images) and np.shares_memory(moved_mask, masks)
        again, again_mask = augment(image, mask, seed)
        assert np.array_equal(images[seed], again)
        assert np.array_equal(masks[seed], again_mask)


def test_extra_transforms_do_not_write_to_their_input() -> None:
    image, mask = picture(0)
    image.setflags(write=False)
    mask.setflags(write=False)
    for seed in range(5):
        TrainAugmentation(extra=EXTRA)(image, mask, seed)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"name": "GausianBlur"}, "no transform GausianBlur in albumentations (did you mean GaussianBlur or "),
        ({"name": "ImageOnlyTransform"}, "no transform ImageOnlyTransform"),
        ({"name": "CenterCrop3D", "size": [2, 2, 2]}, "no transform CenterCrop3D"),
        ({"name": "Morphological"}, "Morphological: takes the least or greatest class number around a pixel"),
        ("GaussianBlur", "GaussianBlur: expected {name: TRANSFORM, ARGUMENT: VALUE, ...}"),
        ({"p": 0.5}, "{'p': 0.5}: expected {name: TRANSFORM"),
        (
            {"name": "GaussianBlur", "blur_limits": 3},
            "GaussianBlur: no argument blur_limits (did you mean blur_limit?); allowed: blur_limit, p, sigma_limit",
        ),
        ({"name": "GaussianBlur", "p": 3}, "GaussianBlur: p: Input should be less than or equal to 1"),
        ({"name": "Resize"}, "Resize: height: Field required; width: Field required"),
        (
            {"name": "Affine", "mask_interpolation": 1},
            "Affine: masks hold class numbers, expected mask_interpolation=0",
        ),
    ],
)
def test_impossible_extra_transforms_are_refused_before_training(item: dict, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainAugmentation(extra=[item])
    assert str(caught.value).startswith(f"loader.augment.extra: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (
            {"name": "RandomCrop", "height": 32, "width": 30},
            "RandomCrop: makes the image (32, 30, 3) uint8, expected (64,",
        ),
        ({"name": "ToFloat"}, "ToFloat: makes the image (64, 80, 3) float32, expected (64, 80, 3) uint8"),
        ({"name": "Transpose"}, "Transpose: makes the image (80, 64, 3) uint8"),
        ({"name": "FDA"}, "FDA: FDA requires ['fda_metadata']"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_extra_transforms_that_change_the_size_or_need_more_are_refused(item: dict, said: str) -> None:
    image, mask = picture(0)
    with pytest.raises(ConfigError) as caught:
        TrainAugmentation(extra=[{**item, "p": 1.0}])(image, mask, 0)
    assert str(caught.value).startswith(f"loader.augment.extra: {said}")
