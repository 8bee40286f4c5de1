"""Careless annotators: each kind of carelessness does what it says and no more."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ladder_data import write_ladder

from segladder.data.inspection.agreement import agreement
from segladder.data.labels.annotation_cost import annotation_cost
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.labelled import Labelled, joined, seconds_of
from segladder.data.labels.noise import Noise, confused, displaced, dropped, objects, outlined, polygon
from segladder.data.labels.prices import VOC_PRICES
from segladder.data.sources.folder import Folder
from segladder.data.sources.instances import Instances
from segladder.data.sources.scene import Scene
from segladder.data.sources.shapes import Shapes
from segladder.data.training.cache import masks_of
from segladder.data.training.views import Episodes, Images, Recipe
from segladder.errors import ConfigError, DataError
from segladder.metrics.counts import Counts

CLASSES = range(1, 5)
CARELESS = {
    "dropped": {"dropped": 0.5},
    "confused": {"confused": 0.5},
    "corners": {"corners": 4},
    "boundary": {"boundary": 3.0},
    "all": {"dropped": 0.2, "confused": 0.2, "corners": 6, "boundary": 2.0},
}


@st.composite
def masks(draw):
    """Up to five ellipses of four classes, some with a border of 255, on a small image."""
    mask = np.zeros((draw(st.integers(20, 60)), draw(st.integers(20, 60))), np.uint8)
    for _ in range(draw(st.integers(0, 5))):
        centre = draw(st.integers(0, mask.shape[1])), draw(st.integers(0, mask.shape[0]))
        axes = draw(st.integers(1, 20)), draw(st.integers(1, 20))
        if draw(st.booleans()):
            cv2.ellipse(mask, centre, (axes[0] + 2, axes[1] + 2), 0, 0, 360, 255, -1)
        cv2.ellipse(mask, centre, axes, 0, 0, 360, draw(st.integers(1, 4)), -1)
    return mask


def before(mask: np.ndarray, image_id: str) -> Scene:
    """What the annotator of an image has before them."""
    return Scene(image_id, mask, lambda: np.zeros((*mask.shape, 3), np.uint8))


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def scene() -> np.ndarray:
    """Three discs of class 1, 2 and 3, the first with a border, and a square of class 4 that touches the second."""
    mask = np.zeros((90, 120), np.uint8)
    cv2.circle(mask, (25, 25), 17, 255, -1)
    for k, (centre, radius) in enumerate([((25, 25), 15), ((75, 30), 20), ((30, 70), 12)], start=1):
        cv2.circle(mask, centre, radius, k, -1)
    mask[50:80, 70:100] = 4
    return mask


@given(masks())
def test_no_carelessness_changes_nothing(mask):
    assert np.array_equal(Masks().of_image(before(mask, "a")), mask)
    for same in (
        dropped(mask, 0, generator()),
        confused(mask, 0, CLASSES, generator()),
        displaced(mask, 0, generator()),
    ):
        assert np.array_equal(same, mask)


@pytest.mark.parametrize("settings", CARELESS.values(), ids=CARELESS)
def test_a_careless_mask_follows_from_mask_id_and_seed_alone(settings):
    mask = scene()
    labels = Masks(noise=Noise(**settings)).naming(CLASSES)
    seen = labels.of_image(before(mask, "a"))
    assert np.array_equal(mask, scene()) and seen.dtype == np.uint8 and not np.array_equal(seen, mask)
    assert np.array_equal(seen, Masks(noise=Noise(**settings)).naming(CLASSES).of_image(before(scene(), "a")))
    if "corners" not in settings:  # no chance in that
        others = [
            Masks(noise=Noise(seed=n, **settings)).naming(CLASSES).of_image(before(mask, "a")) for n in range(1, 9)
        ]
        elsewhere = [labels.of_image(before(mask, f"image {n}")) for n in range(8)]
        assert len({m.tobytes() for m in others}) > 1 and len({m.tobytes() for m in elsewhere}) > 1


@given(masks(), st.floats(0, 8), st.integers(0, 99))
def test_a_displaced_boundary_changes_nothing_deeper_than_that(mask, pixels, seed):
    seen = displaced(mask, pixels, np.random.default_rng(seed))
    rows, columns = np.nonzero(seen != mask)
    for row, column in zip(rows[:20], columns[:20], strict=True):
        other_rows, other_columns = np.nonzero(mask == seen[row, column])
        assert np.hypot(other_rows - row, other_columns - column).min() <= pixels


def test_a_displaced_boundary_moves_by_about_a_third_of_the_most():
    half = np.zeros((300, 300), np.uint8)
    half[:, 150:] = 1
    moved = [np.abs(displaced(half, 6, np.random.default_rng(n)).argmax(1) - 150).mean() for n in range(20)]
    assert 1.2 < np.mean(moved) < 3


@given(masks(), st.integers(3, 9))
def test_polygons_have_few_corners(mask, corners):
    for _, _, inside in objects(mask):
        points = polygon(inside, corners)
        assert 1 <= len(points) <= corners and inside[points[:, 1], points[:, 0]].all()
    assert set(np.unique(outlined(mask, corners))) <= set(np.unique(mask)) | {0}


def test_a_polygon_of_many_corners_is_the_object_without_holes():
    ring = np.zeros((50, 50), np.uint8)
    cv2.circle(ring, (25, 25), 20, 2, -1)
    disc = ring.copy()
    cv2.circle(ring, (25, 25), 8, 0, -1)
    assert np.array_equal(outlined(ring, 500), disc)
    square = outlined(ring, 4)
    assert 0.5 < (square == 2).sum() / (disc == 2).sum() < 1


def test_a_small_object_lies_on_the_polygon_of_a_large_one():
    mask = np.zeros((40, 40), np.uint8)
    mask[5:35, 5:35], mask[15:20, 15:20] = 1, 2
    assert np.array_equal(outlined(mask, 4), mask)


@given(masks(), st.floats(0, 1), st.integers(0, 99))
def test_objects_are_missed_whole_with_their_border(mask, share, seed):
    seen = dropped(mask, share, np.random.default_rng(seed))
    for k, place, inside in objects(mask):
        left = np.unique(seen[place][inside])
        assert left.tolist() in ([0], [k])
    changed = (seen != mask) & (mask == 255)
    gone = ((seen == 0) & (mask > 0) & (mask < 255)).astype(np.uint8)
    assert not (changed & (cv2.dilate(gone, np.ones((11, 11), np.uint8)) == 0)).any()
    more = dropped(mask, min(1, share + 0.3), np.random.default_rng(seed))
    assert (more[(seen == 0)] == 0).all()


def test_a_missed_object_leaves_no_border():
    seen = dropped(scene(), 1.0, generator())
    assert not seen.any()


@given(masks(), st.floats(0, 1), st.integers(0, 99))
def test_objects_are_misnamed_whole(mask, share, seed):
    seen = confused(mask, share, (1, 2, 3), np.random.default_rng(seed))
    for k, place, inside in objects(mask):
        (name,) = np.unique(seen[place][inside])
        assert name in (1, 2, 3) if k != 4 else name == 4
    assert np.array_equal(seen[(mask == 0) | (mask == 255)], mask[(mask == 0) | (mask == 255)])


def test_shares_are_those_of_objects():
    discs = np.zeros((200, 200), np.uint8)
    for n in range(100):
        cv2.circle(discs, (10 + 20 * (n % 10), 10 + 20 * (n // 10)), 6, 1, -1)
    missed, misnamed = dropped(discs, 0.3, generator()), confused(discs, 0.3, CLASSES, generator())
    assert 18 <= 100 - sum(1 for _ in objects(missed)) <= 42
    assert 18 <= sum(k != 1 for k, _, _ in objects(misnamed)) <= 42
    assert {k for k, _, _ in objects(confused(discs, 1.0, CLASSES, generator()))} == {2, 3, 4}


@pytest.fixture(scope="module")
def source(shapes_root):
    return Shapes(shapes_root, train_size=24, val_size=10, size=64)


def test_agreement_is_that_of_the_pixels_that_both_label(source):
    ids = source.split("train")[:6]
    labels = Masks(noise=Noise(dropped=0.3, corners=5)).naming(range(1, 21))
    found = agreement(source, ids, labels)
    pairs = [(source.mask(i), labels.of_image(source.scene(i))) for i in ids]
    drawn, seen = (np.concatenate([pair[n].ravel() for pair in pairs]) for n in (0, 1))
    both = (drawn < 255) & (seen < 255)
    held = both & ((drawn > 0) | (seen > 0))
    assert found.same == pytest.approx((drawn[both] == seen[both]).mean())
    assert found.same_of_objects == pytest.approx((drawn[held] == seen[held]).mean())
    for k, iou in enumerate(found.iou):
        either = both & ((drawn == k) | (seen == k))
        assert np.isnan(iou) if not either.any() else iou == pytest.approx((drawn == seen)[either].mean())
    perfect = agreement(source, ids, Masks())
    assert perfect.same == perfect.same_of_objects == 1


def test_training_and_held_out_images_show_careless_masks(source):
    ids, labels = source.split("train")[:6], Masks(noise=Noise(corners=4, boundary=2))
    items, shown = Images().dataset(source, ids, labels), source.as_seen(labels)
    for index, image_id in enumerate(ids):
        expected = labels.of_image(source.scene(image_id))
        assert np.array_equal(items[index]["mask"].numpy(), expected)
        assert np.array_equal(shown.mask(image_id), expected)
        assert not np.array_equal(expected, source.mask(image_id))


@pytest.mark.parametrize("settings", CARELESS.values(), ids=CARELESS)
def test_single_objects_are_those_of_the_careless_mask(source, settings):
    """What a method of objects learns from, and what held-out images show: no drawn object is left beside it."""
    ids, labels = source.split("train")[:8], Masks(noise=Noise(**settings)).naming(range(1, 21))
    items, seen = Images().dataset(source, ids, labels, Recipe(objects=True)), source.as_seen(labels)
    for index, image_id in enumerate(ids):
        item, mask, found = items[index], seen.mask(image_id), seen.instances(image_id)
        assert np.array_equal(item["mask"].numpy(), mask) and np.array_equal(
            found.masks.any(0), (mask > 0) & (mask < 255)
        )
        assert all((mask[alone] == k).all() for alone, k in zip(found.masks, found.classes, strict=True))
        objects = item["objects"]
        assert np.array_equal(objects["classes"].numpy(), found.classes)
        assert np.array_equal(objects["masks"].numpy(), found.masks)
        assert np.array_equal(objects["boxes"].numpy(), found.boxes)
    drawn, careless = ([whole.instances(i) for i in ids] for whole in (source, seen))
    pairs = [
        (a.map.tobytes(), a.classes.tobytes(), b.map.tobytes(), b.classes.tobytes())
        for a, b in zip(drawn, careless, strict=True)
    ]
    assert any(pair[:2] != pair[2:] for pair in pairs)


PARTS = [(slice(2, 12), slice(2, 12)), (slice(2, 12), slice(20, 30)), (slice(12, 20), slice(2, 12))]


def in_parts() -> tuple[np.ndarray, Instances]:
    """An object in two parts, another of its class that touches it, and a pixel of no known object."""
    mask, map_ = np.zeros((30, 40), np.uint8), np.zeros((30, 40), np.uint16)
    for place, number in zip(PARTS, (1, 1, 2), strict=True):
        mask[place], map_[place] = 3, number
    mask[28, 38] = 2
    return mask, Instances(map_, np.array([3, 3], np.uint8))


def test_an_object_in_parts_is_missed_and_misnamed_whole_and_its_neighbour_is_not():
    mask, told = in_parts()
    kinds = {"dropped": set(), "confused": set()}
    for kind, names in kinds.items():
        for seed in range(40):
            noise = Noise(seed=seed, **{kind: 0.5})
            seen = noise.of(mask, "a", (3, 4), told)
            assert seen[28, 38] == 2
            first, second, third = (np.unique(seen[part]).tolist() for part in PARTS)
            assert first == second and len(first) == len(third) == 1
            names.add((first[0], third[0]))
    assert kinds == {"dropped": {(0, 0), (0, 3), (3, 0), (3, 3)}, "confused": {(3, 3), (3, 4), (4, 3), (4, 4)}}


def test_too_many_objects_are_refused():
    numbers = np.arange(1, 301, dtype=np.uint16).reshape(15, 20)
    with pytest.raises(DataError, match="a: 300 objects, expected less than 255"):
        Noise(dropped=0.5).of((numbers > 0).astype(np.uint8), "a", (1,), Instances(numbers, np.ones(300, np.uint8)))


def test_a_cache_holds_the_masks_of_one_annotator(shapes_root, tmp_path):
    source = Shapes(shapes_root, train_size=24, val_size=10, size=64, cache="memmap", cache_dir=tmp_path)
    ids = source.split("train")[:4]
    annotators = [Masks(), *(Masks(noise=Noise(boundary=3, seed=n)) for n in range(2))]
    keys = {source.as_seen(labels).fingerprint(ids) for labels in annotators}
    assert len(keys) == 3 and source.as_seen(Masks()).fingerprint(ids) == source.fingerprint(ids)
    for labels in annotators:
        cached = masks_of(source.as_seen(labels), ids)
        for index, image_id in enumerate(ids):
            assert np.array_equal(cached[index], labels.of_image(source.scene(image_id)))


def test_a_hurried_outline_costs_what_its_effort_says():
    hurried = Masks(noise=Noise(corners=4, effort=0.25, source="assumption"))
    held = {"a": ("cat",), "b": ()}
    careful = Labelled("set", "masks", ("cat",), held)
    careless = Labelled("set", "masks", ("cat",), held, effort=hurried.effort)
    outline = VOC_PRICES.objects_of_class * VOC_PRICES.mask
    assert hurried.price(VOC_PRICES) == pytest.approx(outline / 4)
    assert seconds_of([careful], VOC_PRICES) == pytest.approx(outline + 1)
    assert seconds_of(joined([careless]), VOC_PRICES) == pytest.approx(outline / 4 + 1)
    assert seconds_of(joined([careless, careful]), VOC_PRICES) == pytest.approx(outline + 1)  # the dearest counts
    assert Labelled.from_plain(careless.plain()) == careless and "effort" not in careful.plain()
    cost = annotation_cost(hurried, [careless])
    assert cost["seconds"] == pytest.approx(outline / 4 + 1, abs=0.06)
    assert cost["source"].endswith("; careless masks (4 corners) at 0.25 of the time of careful ones: assumption")


def test_an_effort_says_where_it_is_from():
    with pytest.raises(ConfigError, match=r"labels.noise.effort=0.5: say in labels.noise.source where that is from"):
        Noise(effort=0.5)


def test_episodes_show_careless_masks(tmp_path):
    source, labels = Folder(write_ladder(tmp_path)), Masks(noise=Noise(boundary=4))
    episodes = Episodes(novel=("cloud", "drum"), shots=1, min_object="none")
    dataset = episodes.dataset(source, source.split("train"), labels)
    item = dataset[0]
    for image_id, mask in ((item["id"], item["mask"]), (item["support_ids"][0], item["support_mask"][0])):
        drawn = source.mask(image_id)
        seen = labels.of_image(before(drawn, image_id))
        assert np.array_equal(mask.numpy() == 1, seen == item["class_index"])
        assert not np.array_equal(mask.numpy() == 1, drawn == item["class_index"])


SMALL = [
    *("data.train_size=24", "data.val_size=10", "data.size=64", "backbone=tiny", "backbone.width=8", "method=fcn8s"),
    *("loader.batch_size=4", "loader.workers=0", "loader.held_out=0.4", "selection=held_out", "protocol.bootstrap=20"),
    *("trainer.steps=1", "trainer.progress=false", "trainer.panels=0", "logger=none"),
]
HASTY = ["labels.noise.corners=4", "labels.noise.effort=0.1", "labels.noise.source=assumption"]


@pytest.fixture(scope="module")
def runs(segladder, tmp_path_factory):
    """A careful run and a hasty one."""
    folder = tmp_path_factory.mktemp("runs")
    for name, words in (("careful", []), ("hasty", HASTY)):
        assert segladder("train", *SMALL, *words, f"hydra.run.dir={folder / name}") == 0
    return folder


def test_a_run_says_how_careless_its_masks_are_and_is_scored_on_drawn_ones(runs, source):
    careful, hasty = (json.loads((runs / name / "record.json").read_text()) for name in ("careful", "hasty"))
    assert careful["label_access"]["labels"] == "masks"
    assert hasty["label_access"]["labels"] == "careless masks (4 corners)"
    assert (
        hasty["label_access"]["score"] != careful["label_access"]["score"]
    )  # of held-out images, as they are labelled
    assert hasty["data"]["train_fingerprint"] != careful["data"]["train_fingerprint"]
    assert hasty["data"]["val_fingerprint"] == careful["data"]["val_fingerprint"]
    truth = Counts.load(runs / "hasty" / "counts.npz").total().sum(1)
    drawn = np.concatenate([source.mask(i).ravel() for i in source.split("val")])
    assert np.array_equal(truth, np.bincount(drawn[drawn < 255], minlength=21))
    looks, outlines = (record["annotation_cost"]["seconds"] for record in (hasty, careful))
    assert looks < outlines / 3 and "assumption" in hasty["annotation_cost"]["source"]


def test_pseudo_masks_are_nobodys_careless_work(segladder, runs, tmp_path, capsys):
    words = [word for word in SMALL if not word.startswith(("method=", "selection="))]
    cam = tmp_path / "cam"
    assert segladder("train", *words, "method=cam", "protocol=cam_seeds", f"hydra.run.dir={cam}") == 0
    child = ["method=fcn8s", f"parent={cam}", *HASTY, f"hydra.run.dir={tmp_path / 'child'}"]
    assert segladder("train", *words, *child) == 2
    assert "reads pseudo-masks, which nobody draws" in capsys.readouterr().err
    assert segladder("data", "action=agreement", *SMALL[:3], "labels.noise.corners=4") == 0
    assert "careless masks (4 corners)" in capsys.readouterr().out
