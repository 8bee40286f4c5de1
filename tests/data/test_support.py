"""Supports as users bring them: every way to write a mask, and a clear line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dummy_data import picture, save_image, save_mask

from segladder.data.sources.support import read_support, read_supports
from segladder.errors import ConfigError, DataError

WHERE = picture(0, values=(1,))[1] == 1  # (64, 80)


def write_support(folder: Path, name: str, values: np.ndarray, suffix: str = ".jpg", palette: bool = True) -> Path:
    """A pair of a picture and a mask with these values; returns the mask's file."""
    save_image(folder / "images" / f"{name}{suffix}", picture(3, values.shape)[0])
    path = folder / "masks" / f"{name}.png"
    save_mask(path, values.astype(np.uint8), palette)
    return path


@pytest.mark.parametrize("palette", [True, False])
@pytest.mark.parametrize("value", [1, 15, 254, 255])
def test_the_only_value_is_the_class(tmp_path, value, palette):
    write_support(tmp_path, "a", WHERE * value, palette=palette)
    (support,) = read_supports(tmp_path)
    assert np.array_equal(support.mask, WHERE) and support.value == value and support.name == "a"
    assert support.image.shape == (64, 80, 3)


def test_255_beside_another_value_is_ignored(tmp_path):
    values = np.where(WHERE, 8, 0)
    values[:5] = 255
    write_support(tmp_path, "a", values)
    expected = WHERE.astype(np.uint8)
    expected[:5] = 255
    assert np.array_equal(read_supports(tmp_path)[0].mask, expected)
    assert np.array_equal(read_supports(tmp_path, 255)[0].mask, values == 255)


def test_one_of_several_classes_is_chosen_by_its_value(tmp_path):
    values = np.where(WHERE, 8, 0)
    values[:5] = 12
    path = write_support(tmp_path, "a", values)
    both = read_supports(tmp_path)
    assert [(s.value, s.name) for s in both] == [(8, "a"), (12, "a")]
    assert all(np.array_equal(s.mask, values == s.value) for s in both)
    with pytest.raises(ConfigError, match=rf"{path}: holds the classes 8, 12, expected one; .*support_class=VALUE"):
        read_support(tmp_path / "images" / "a.jpg", path)
    assert np.array_equal(read_supports(tmp_path, 12)[0].mask, values == 12)
    with pytest.raises(DataError, match=rf"{path}: no pixel of support_class=3, it holds 8, 12"):
        read_supports(tmp_path, 3)


def test_several_supports_of_any_size_come_by_name(tmp_path):
    write_support(tmp_path, "b", WHERE * 255, ".png")
    write_support(tmp_path, "a", np.pad(WHERE, 9), ".JPEG")
    supports = read_supports(tmp_path)
    assert [(s.name, s.mask.shape, int(s.mask.sum())) for s in supports] == [
        ("a", (82, 98), WHERE.sum()),
        ("b", (64, 80), WHERE.sum()),
    ]


def test_faults_name_the_file(tmp_path):
    with pytest.raises(ConfigError, match=rf"support={tmp_path}: no pair there"):
        read_supports(tmp_path)
    path = write_support(tmp_path, "a", WHERE * 0)
    with pytest.raises(DataError, match=rf"{path}: empty mask"):
        read_supports(tmp_path)
    save_mask(path, WHERE[:60].astype(np.uint8))
    with pytest.raises(DataError, match=rf"{path}: size 80x60, expected 80x64"):
        read_supports(tmp_path)
    save_mask(path, 8 * WHERE.astype(np.uint8))
    other = write_support(tmp_path, "b", WHERE * 12)
    assert [(s.value, s.name) for s in read_supports(tmp_path)] == [(8, "a"), (12, "b")]
    void = write_support(tmp_path, "c", WHERE * 255)
    with pytest.raises(
        DataError, match=rf"{void}: holds 255 alone, which is ignored beside other classes, expected pix"
    ):
        read_supports(tmp_path)
    (tmp_path / "images" / "c.jpg").unlink()
    other.unlink()
    with pytest.raises(DataError, match=rf"{other}: no such file, expected the mask of .*b.jpg"):
        read_supports(tmp_path)
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(DataError, match=rf"{path}: damaged or truncated mask"):
        read_supports(tmp_path)


def test_two_images_of_one_mask_are_refused_and_hidden_ones_passed_over(tmp_path):
    path = write_support(tmp_path, "a", WHERE)
    (tmp_path / "images" / "._a.jpg").write_bytes(b"left by a computer")
    path.rename(path.with_suffix(".PNG"))
    assert [support.name for support in read_supports(tmp_path)] == ["a"]
    save_image(tmp_path / "images" / "a.png", picture(4, WHERE.shape)[0])
    with pytest.raises(DataError, match=r"a\.jpg and a\.png are both a, expected one file per name"):
        read_supports(tmp_path)
