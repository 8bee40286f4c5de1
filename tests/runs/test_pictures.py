"""What `segladder predict` reads from a folder of images."""

from __future__ import annotations

import os

import numpy as np
import pytest
from dummy_data import picture, save_image

from segladder.errors import ConfigError, DataError
from segladder.files import written
from segladder.runs.pictures import MAKER, listed, note_maker, save, segment_each


def test_images_that_are_still_being_written_are_not_listed(tmp_path):
    save_image(tmp_path / "a.png", picture(0)[0])
    with written(tmp_path / "b.png") as partial:
        save_image(partial, picture(1)[0])
        assert listed("images", tmp_path) == {"a": tmp_path / "a.png"}
    assert listed("images", tmp_path) == {"a": tmp_path / "a.png", "b": tmp_path / "b.png"}


def test_a_folder_of_hidden_files_holds_no_image(tmp_path):
    save_image(tmp_path / ".a.png", picture(0)[0])
    with pytest.raises(ConfigError, match="no image there"):
        listed("images", tmp_path)


def test_an_image_replaced_by_an_older_one_is_segmented_again(tmp_path):
    image, out = tmp_path / "images" / "a.png", tmp_path / "out"
    save_image(image, picture(0)[0])
    seen = []

    def segment(name, pixels):
        seen.append(name)
        save(out, name, pixels, np.zeros(pixels.shape[:2], np.uint8))

    for _ in range(2):
        assert segment_each({"a": image}, out, segment, {"run": "one"}, progress=False) == 0
    assert seen == ["a"]
    older = tmp_path / "older.png"
    save_image(older, picture(1)[0])
    os.utime(older, (1, 1))
    older.replace(image)
    assert segment_each({"a": image}, out, segment, {"run": "one"}, progress=False) == 0
    assert seen == ["a", "a"]


def test_two_endings_of_one_name_are_refused(tmp_path):
    for name in ("a.png", "b.png", "b.jpg"):
        save_image(tmp_path / name, picture(0)[0])
    with pytest.raises(DataError, match=r"b\.jpg and b\.png are both b"):
        listed("images", tmp_path)


def test_pictures_of_other_formats_are_named_and_previews_are_not(tmp_path, capsys):
    made = tmp_path / "predicted"
    made.mkdir()
    for path in (
        tmp_path / "a.png",
        tmp_path / "b.HEIC",
        tmp_path / "day" / "c.gif",
        made / MAKER,
        made / "preview.gif",
    ):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    listed("images", tmp_path)
    said = f"segladder: images={tmp_path}: not read: b.HEIC, day/c.gif; expected files ending in .jpg .jpeg"
    assert capsys.readouterr().err.startswith(said)


def test_images_are_named_by_their_place_and_results_are_none(tmp_path):
    made = tmp_path / "day" / "found"
    for place in (tmp_path / "b.c.png", tmp_path / "day" / "masks" / "a.PNG", made / "masks" / "day" / "a.png"):
        save_image(place, picture(0)[0])
    note_maker(made, {"run": "one"})
    assert list(listed("images", tmp_path)) == ["b.c", "day/masks/a"]
    assert list(listed("images", made / "masks")) == ["day/a"]
    assert list(listed("video", tmp_path, below=False)) == ["b.c"]
