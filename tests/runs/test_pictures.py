"""What `segladder predict` reads from a folder of images."""

from __future__ import annotations

import pytest
from dummy_data import picture, save_image

from segladder.errors import ConfigError
from segladder.files import written
from segladder.runs.pictures import listed


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
