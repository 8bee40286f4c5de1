"""The embedded data set: the same pixels everywhere, in any order; labels that say what was drawn."""

import hashlib
import io
import multiprocessing
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segladder.data.sources.palette import stored_png, voc_palette
from segladder.data.sources.shapes import SHAPES_CLASSES, Shapes, attribute_table, novel_classes
from segladder.data.sources.shapes_drawing import (
    HEAD_HUES,
    PENTAGON,
    SHAPES,
    TRIANGLE,
    Draws,
    distance,
    draw,
    rgb,
    with_borders,
)
from segladder.errors import ConfigError, DataError
from segladder.files import written

PINNED = {  # (seed, split, index, size): sha256 of image and mask
    (0, "train", 0, 96): "c89ace290e98e74033a72383d0ce64728adc27d9beb59e1751742f11a7013bf1",
    (0, "train", 999, 96): "770bdc3b7007a599704e6e9c3afd4a1bd767237d06f82694970701a9f3f47fbc",
    (0, "val", 7, 96): "aef85de886128877f99ed29f1be6f83ff6c3122b4b7d9751f310bb425b64688b",
    (3, "val", 0, 65): "9b00d9b4ba1c989165d035bce554406a5be57905d981234b056537338a4e050e",
}


@pytest.fixture(scope="module")
def shapes(shapes_root):
    return Shapes(shapes_root, train_size=60, val_size=8)


@pytest.mark.parametrize("key", PINNED, ids=str)
def test_pixels_are_the_same_on_every_machine(key):
    image, mask, _ = draw(*key)
    assert hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest() == PINNED[key], "raise shapes_drawing.VERSION"


def test_a_picture_depends_on_its_own_index_only(shapes):
    image, mask, _ = draw(0, "train", 7)
    assert np.array_equal(shapes.image("train_0007"), image)
    assert np.array_equal(shapes.mask("train_0007"), mask)


def test_split_index_and_seed_each_change_the_picture():
    pictures = [draw(*key)[0] for key in ((0, "train", 7), (0, "val", 7), (0, "train", 8), (1, "train", 7))]
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_files_are_the_same_bytes_each_time(shapes, tmp_path):
    again = Shapes(tmp_path, train_size=60, val_size=8)
    again.prepare()
    shapes.prepare()
    written = sorted(path.relative_to(shapes.root) for path in shapes.root.rglob("*.*"))
    assert len(written) == 2 * 68 + 2
    assert all((again.root / path).read_bytes() == (shapes.root / path).read_bytes() for path in written)


def test_two_processes_render_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=render_ten, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) == 1 and len(list(folders[0].rglob("*.png"))) == 20


def render_ten(root):
    assert len(Shapes(root, train_size=8, val_size=2).split("train")) == 8


def test_what_a_killed_rendering_left_is_replaced(tmp_path):
    source = Shapes(tmp_path, train_size=1, val_size=1, size=48)
    killed = written(source.root.parent)
    stale = killed.__enter__() / "VOC2012"
    stale.mkdir(parents=True)
    (stale / "half.png").write_bytes(b"\x89PNG")
    assert source.split("val") == ["val_0000"]
    assert not (source.root / "half.png").exists() and not stale.parent.exists()


def test_nothing_is_rendered_before_it_is_read(tmp_path):
    Shapes(tmp_path / "shapes")
    assert not (tmp_path / "shapes").exists()


def test_masks_hold_what_was_drawn_and_tags_say_so(shapes):
    for index, image_id in enumerate(shapes.split("train")):
        mask, drawn = shapes.mask(image_id), draw(0, "train", index)[2]
        assert set(np.unique(mask)) == {0, 255, *drawn}
        assert np.flatnonzero(shapes.tags(image_id)).tolist() == sorted(k - 1 for k in drawn)
        assert 1 <= len(drawn) <= 3 and len(set(drawn)) == len(drawn)


def test_every_class_and_every_count_appears(shapes):
    tags = np.stack([shapes.tags(image_id) for image_id in shapes.split("train")])
    assert (tags.sum(0) > 0).all()
    assert set(tags.sum(1)) == {1, 2, 3}


def test_shares_of_the_picture():
    masks = np.stack([draw(0, "train", index)[1] for index in range(60)])
    border = (masks == 255).mean()
    assert 0.18 < ((masks > 0) & (masks < 255)).mean() < 0.30
    assert 0.04 < border < 0.08


def test_splits_do_not_share_pictures(shapes):
    assert len(shapes.split("train")) == 60 and len(shapes.split("val")) == 8
    assert not set(shapes.split("train")) & set(shapes.split("val"))


def test_class_subset_hides_the_other_classes(shapes_root, shapes):
    chosen = ["star_dotted", "disc_solid"]
    subset = Shapes(shapes_root, train_size=60, val_size=8, classes=chosen, other_classes="background")
    star, disc = SHAPES_CLASSES.index("star_dotted"), SHAPES_CLASSES.index("disc_solid")
    for image_id in subset.split("train"):
        whole, part = shapes.mask(image_id), subset.mask(image_id)
        assert np.array_equal(part == 1, whole == star) and np.array_equal(part == 2, whole == disc)
    assert np.array_equal(subset.attributes(), attribute_table()[[star - 1, disc - 1]])


def test_an_unknown_split_names_its_list(shapes):
    with pytest.raises(DataError, match=r"trainval\.txt"):
        shapes.split("trainval")


def test_attributes_are_compositions():
    table = attribute_table()
    assert table.shape == (20, 19) and table.dtype == np.float32
    assert np.allclose(np.linalg.norm(table, axis=1), 1)
    assert len(np.unique(table, axis=0)) == 20
    row = table[SHAPES_CLASSES.index("triangle_dotted") - 1]  # triangle, dotted, body hue 2, head hue 3
    assert np.flatnonzero(row).tolist() == [2, 5 + 2, 9 + 2, 14 + 3]


def test_every_attribute_of_an_unseen_class_is_seen_elsewhere():
    table, parts = attribute_table() > 0, []
    for fold in range(4):
        unseen = np.array(novel_classes(fold)) - 1
        seen = np.setdiff1d(np.arange(20), unseen)
        assert not (table[unseen].any(0) & ~table[seen].any(0)).any()
        assert [k // 4 for k in unseen] == [0, 1, 2, 3, 4]  # one of each shape
        parts += novel_classes(fold)
    assert sorted(parts) == list(range(1, 21))
    with pytest.raises(ConfigError, match=r"folds 0\.\.3"):
        novel_classes(4)


def test_the_head_alone_names_the_class():
    """Ring and core colours differ between any two classes: ring by shape, core by texture."""
    assert len(set(HEAD_HUES)) == 4
    image, mask, drawn = draw(0, "train", 1)
    assert [SHAPES_CLASSES[k] for k in drawn] == ["disc_solid"]
    saturated = image[mask == drawn[0]].astype(int)
    red = (saturated[:, 0] > 180) & (saturated[:, 1:].max(1) < 100)
    assert red.mean() > 0.1  # ring and core of disc_solid


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 10_000))
def test_draws_are_in_range_and_repeatable(seed, index):
    first, second = Draws(seed, 0, index), Draws(seed, 0, index)
    units = first.units(50)
    assert np.array_equal(units, second.units(50)) and (units >= 0).all() and (units < 1).all()
    assert sorted(first.order(20)) == list(range(20))
    assert np.hypot(*first.direction()) == pytest.approx(1)


def test_bell_is_nearly_normal():
    noise = Draws(0).bell(100_000)
    assert noise.mean() == pytest.approx(0, abs=0.02) and noise.std() == pytest.approx(1, abs=0.02)
    assert np.mean(np.abs(noise) < 1) == pytest.approx(0.6827, abs=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fit_the_window_they_are_painted_in(shape):
    axis = (np.arange(400) - 199.5) / 100
    u, v = axis[None, :], axis[:, None]
    inside = distance(shape, u, v) < 0
    assert inside[200, 200] and np.hypot(u, v)[inside].max() < 1.3
    assert np.array_equal(inside, inside[:, ::-1])  # upright and symmetric
    assert 1.4 < inside.mean() * 16 < 3.3  # its area for radius 1


def test_sides_have_unit_normals():
    for normals in (TRIANGLE, PENTAGON):
        assert np.allclose(np.hypot(*np.transpose(normals)), 1) and np.allclose(np.sum(normals, axis=0), 0)


def test_colours_follow_the_hsv_definition():
    import colorsys

    for hue in range(0, 360, 17):
        assert np.allclose(rgb(hue, 0.7, 0.9), np.array(colorsys.hsv_to_rgb(hue / 360, 0.7, 0.9)) * 255)


def test_borders_are_two_pixels_wide():
    instances = np.zeros((8, 8), np.uint8)
    instances[:, 4:] = 1
    assert np.flatnonzero(with_borders(instances)[0]).tolist() == [3, 4]
    assert not with_borders(np.ones((5, 5), np.uint8)).any()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**31))
def test_stored_png_is_read_back(height, width, seed):
    random = np.random.default_rng(seed)
    mask = random.integers(0, 256, (height, width), np.uint8)
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    with Image.open(io.BytesIO(stored_png(mask))) as read:
        assert read.mode == "P" and np.array_equal(np.array(read), mask)
        assert read.getpalette() == voc_palette().reshape(-1).tolist()
    with Image.open(io.BytesIO(stored_png(image))) as read:
        assert np.array_equal(np.array(read), image)


def test_palette_is_vocs():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    for value, color in known.items():
        assert tuple(voc_palette()[value].tolist()) == color


INTERRUPTED = """
import os, signal
from segladder.data.sources import shapes
track = shapes.track
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell started in the background

def interrupting(drawn, *words, **settings):
    for number, item in enumerate(track(drawn, *words, **settings)):
        if number == 20:
            os.killpg(0, signal.{stop})
        yield item

shapes.track = interrupting
"""


@pytest.mark.parametrize(
    ("stop", "code"), [("SIGINT", 130), pytest.param("SIGTERM", -signal.SIGTERM, marks=pytest.mark.long)]
)
def test_interrupted_rendering_ends_in_one_line(start_segladder, tmp_path, stop, code):
    words = ["data.train_size=400", "data.val_size=10", "data.size=64", f"data.root={tmp_path}"]
    process = start_segladder("data", "action=prepare", "data=shapes", *words, first=INTERRUPTED.format(stop=stop))
    _, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (code, "segladder: interrupted\n" if stop == "SIGINT" else "")
    assert not list(tmp_path.glob("v*-10")) and (stop == "SIGTERM" or not list(tmp_path.glob(".*partial*")))


@pytest.mark.long
def test_the_first_run_that_renders_leaves_standard_error_empty(start_segladder, tmp_path):
    words = ["data.train_size=200", "data.val_size=4", "data.size=48", f"data.root={tmp_path}", "backbone.width=8"]
    quick = ["trainer.steps=1", "trainer.panels=0", "logger=none", "loader.workers=0", "protocol.bootstrap=20"]
    process = start_segladder("train", *words, *quick, f"runs={tmp_path / 'runs'}")
    _, error = process.communicate(timeout=240)
    assert (process.returncode, error) == (0, "")
