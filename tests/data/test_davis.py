"""Reading videos in the layout of DAVIS."""

from pathlib import Path

import numpy as np
import pytest
from dummy_data import picture, save_image, save_mask, write_list
from hydra import compose, initialize_config_module
from PIL import Image

from segladder.data.sources.davis import Davis
from segladder.errors import DataError
from segladder.runs import build


@pytest.fixture
def root(tmp_path):
    """Three sequences of 3, 2 and 2 frames with gray annotations of 0 and 255, and both kinds of lists."""
    for s, (sequence, count) in enumerate({"swan": 3, "bear": 2, "dog": 2}.items()):
        for frame in range(count):
            image, mask = picture(10 * s + frame, values=(1,))
            save_image(tmp_path / "JPEGImages" / "480p" / sequence / f"{frame:05d}.jpg", image)
            mask = 255 * (mask == 1).astype(np.uint8)
            save_mask(tmp_path / "Annotations" / "480p" / sequence / f"{frame:05d}.png", mask, palette=False)
    lines = [f"/JPEGImages/480p/{i}.jpg /Annotations/480p/{i}.png" for i in ("swan/00000", "swan/00001", "bear/00000")]
    write_list(tmp_path / "ImageSets" / "480p" / "val.txt", lines)
    write_list(tmp_path / "ImageSets" / "2016" / "train.txt", ["dog"])
    return tmp_path


def annotation(root, frame="swan/00001"):
    return root / "Annotations" / "480p" / f"{frame}.png"


def test_sequences_and_frames_come_in_the_order_of_lists_and_of_time(root):
    (root / "JPEGImages" / "480p" / "swan" / "._00000.jpg").write_bytes(b"what a Mac writes beside")
    (root / "JPEGImages" / "480p" / ".ipynb_checkpoints").mkdir()
    davis = Davis(root)
    assert davis.sequences() == ["swan", "bear"]
    assert davis.sequences("train") == ["dog"]
    assert davis.sequences("all") == ["bear", "dog", "swan"]
    assert davis.frames("swan") == ["swan/00000", "swan/00001", "swan/00002"]
    assert davis.split("val") == [*davis.frames("swan"), *davis.frames("bear")]


def test_pixels_are_those_of_the_files(root):
    davis = Davis(root)
    image, mask = davis.pair("swan/00001")
    stored = np.array(Image.open(annotation(root)))
    assert np.array_equal(image, np.array(Image.open(root / "JPEGImages" / "480p" / "swan" / "00001.jpg")))
    assert mask.dtype == np.uint8 and np.array_equal(mask, stored > 0) and 0 < mask.mean() < 1


@pytest.mark.parametrize("mode", ["P", "L", "1", "RGB", "RGBA"])
def test_whatever_is_annotated_is_the_object(root, mode):
    davis = Davis(root)
    truth = davis.mask("swan/00001")
    if mode == "P":  # two objects, as in DAVIS-2017
        objects = truth.copy()
        objects[: len(objects) // 2] *= 2
        save_mask(annotation(root), objects)
    else:
        Image.fromarray(255 * truth, "L").convert(mode).save(annotation(root))
    assert np.array_equal(davis.mask("swan/00001"), truth)


def test_faults_name_the_file(root):
    davis = Davis(root)
    with pytest.raises(DataError, match=r"480p/test.txt: no such list.*all"):
        davis.sequences("test")
    with pytest.raises(DataError, match=r"480p/cow: no frames"):
        davis.frames("cow")
    with pytest.raises(DataError, match=r"1080p: no sequences.*data.resolution"):
        Davis(root, resolution="1080p").sequences("all")
    write_list(root / "ImageSets" / "480p" / "none.txt", [])
    with pytest.raises(DataError, match=r"none.txt: empty list"):
        davis.sequences("none")
    annotation(root).write_bytes(annotation(root).read_bytes()[:60])
    with pytest.raises(DataError, match=r"swan/00001.png: damaged or truncated"):
        davis.mask("swan/00001")
    annotation(root).unlink()
    with pytest.raises(DataError, match=r"swan/00001.png: no such file"):
        davis.mask("swan/00001")


def test_is_built_from_its_configuration(root):
    with initialize_config_module("segladder.conf", version_base="1.3"):
        config = compose("train", overrides=["data=davis", f"data.root={root}"])
    davis = build.source(config)
    assert davis.classes == ("background", "object") and davis.expected == {"train": 2079, "val": 1376}
    assert davis.split(davis.val_split) == Davis(Path(root)).split("val")
