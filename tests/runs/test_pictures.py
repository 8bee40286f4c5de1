"""What `segladder predict` reads from a folder of images."""

from __future__ import annotations

import os

import numpy as np
import pytest
from dummy_data import picture, save_image

from segladder.errors import ConfigError
from segladder.files import written
from segladder.runs.pictures import listed, save, segment_each


def test_images_that_are_still_being_written_are_not_listed(tmp_path):
    save_image(tmp_path / "a.png", picture(0)[0])
    with written(tmp_path / "b.png") as partial:
        save_image(partial, picture(1)[0])
        assert listed("images", tmp_path) == [tmp_path / "a.png"]
    assert listed("images", tmp_path) == [tmp_path / "a.png", tmp_path / "b.png"]


def test_a_folder_of_hidden_files_holds_no_image(tmp_path):
    save_image(tmp_path / ".a.png", picture(0)[0])
    with pytest.raises(ConfigError, match="no image there"):
        listed("images", tmp_path)


def test_an_image_replaced_by_an_older_one_is_segmented_again(tmp_path):
    image, out = tmp_path / "images" / "a.png", tmp_path / "out"
    save_image(image, picture(0)[0])
    seen = []

    def segment(path, pixels):
        seen.append(path.name)
        save(out, path, pixels, np.zeros(pixels.shape[:2], np.uint8))

    for _ in range(2):
        assert segment_each([image], out, segment, {"run": "one"}, progress=False) == 0
    assert seen == ["a.png"]
    older = tmp_path / "older.png"
    save_image(older, picture(1)[0])
    os.utime(older, (1, 1))
    older.replace(image)
    assert segment_each([image], out, segment, {"run": "one"}, progress=False) == 0
    assert seen == ["a.png", "a.png"]


def test_two_endings_of_one_name_are_found_among_many_by_reading_each_stem_once(tmp_path, monkeypatch):
    for name in [*(f"{n:02}.png" for n in range(20)), "07.jpg", "03.jpg"]:
        (tmp_path / name).touch()
    compared = []

    class Stem(str):
        def __eq__(self, other):
            compared.append(other)
            return str(self) == str(other)

        __hash__ = str.__hash__

    stem = type(tmp_path).stem.fget
    monkeypatch.setattr(type(tmp_path), "stem", property(lambda path: Stem(stem(path))))
    with pytest.raises(ConfigError, match="03 exists with several endings"):
        listed("images", tmp_path)
    assert len(compared) < 40
