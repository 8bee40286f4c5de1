"""Folders as other programs leave them become what `data=folder` reads, and are not touched themselves."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shlex
import shutil
import tracemalloc
import unicodedata
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dummy_data import picture, save_image, save_mask
from PIL import Image

from segladder.data.conversion import conversion
from segladder.data.conversion.conversion import Conversion, Done
from segladder.data.conversion.listing import Listing
from segladder.data.conversion.naming import given
from segladder.data.sources.folder import Folder
from segladder.data.sources.palette import chunk
from segladder.errors import ConfigError, DataError

SIZE = 40, 50
COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 128, 255)], np.uint8)


def drawn(index: int) -> np.ndarray:
    """Class values 0, 1, 2 with one rectangle of each class."""
    mask = np.zeros(SIZE, np.uint8)
    mask[2 + index : 20, 3:20] = 1
    mask[10:30, 25 : 40 + index] = 2
    return mask


def save_picture(path: Path, index: int = 0, exif: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}[path.suffix.lower()]
    Image.fromarray(picture(index, SIZE)[0]).save(path, kind, **({"exif": exif} if exif else {}))


def save(path: Path, pixels: np.ndarray, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, path.suffix[1:].upper().replace("JPG", "JPEG"), **how)


def run(source: Path, out: Path, classes: Any = None, form: str | None = None) -> tuple[Conversion, Done]:
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    done = Done()
    try:
        made = Conversion.of(source, out, form, given(classes), lambda things, *_: things)
        for each in made.write():
            done = each
    finally:
        assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before
    return made, done


def same(out: Path, image_id: str, mask: np.ndarray) -> bool:
    return np.array_equal(Folder(out).pair(image_id)[1], mask)


def in_two_folders(root: Path, table: np.ndarray, count: int = 3) -> Path:
    for index in range(count):
        save_picture(root / "images" / f"{index}.jpg", index)
        save(root / "masks" / f"{index}.png", table[drawn(index)])
    return root


def test_colours_are_found_black_first_and_written_as_values(tmp_path: Path) -> None:
    made, done = run(in_two_folders(tmp_path / "in", COLOURS), tmp_path / "out")
    assert [(c.value, c.name, c.looks) for c in made.reading.classes] == [
        (0, "background", "#000000"),
        (1, "class_1", "#0080ff"),
        (2, "class_2", "#ff0000"),
    ]
    assert made.reading.unnamed == "classes=\"{background: '#000000', class_1: '#0080ff', class_2: '#ff0000'}\""
    assert all(same(tmp_path / "out", str(k), np.array([0, 2, 1], np.uint8)[drawn(k)]) for k in range(3))
    assert (done.written, done.left_out) == (3, [])
    stored = (tmp_path / "out" / "images" / "0.jpg").read_bytes()
    assert stored == (tmp_path / "in" / "images" / "0.jpg").read_bytes()


def test_without_black_the_most_frequent_colour_is_the_background(tmp_path: Path) -> None:
    made, _ = run(
        in_two_folders(tmp_path / "in", np.array([(9, 9, 8), (1, 0, 0), (0, 2, 0)], np.uint8)), tmp_path / "out"
    )
    assert made.reading.classes[0].looks == "#090908"
    assert "most frequent" in made.reading.words


def test_names_of_colours_merge_reorder_and_ignore(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS)
    run(source, tmp_path / "a", {"ground": ["#000000", "0080FF"], "cat": [255, 0, 0]})
    assert same(tmp_path / "a", "0", (drawn(0) == 1).astype(np.uint8))
    assert Folder(tmp_path / "a").classes == ("ground", "cat")
    run(source, tmp_path / "b", {"ground": "#000000", "cat": "#ff0000", "ignore": "#0080ff"})
    assert same(tmp_path / "b", "0", np.array([0, 1, 255], np.uint8)[drawn(0)])


def test_a_colour_without_a_name_leaves_its_image_out_and_names_it(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS)
    odd = COLOURS[drawn(1)]
    odd[:3, :3] = 7
    save(source / "masks" / "1.png", odd)
    _, done = run(source, tmp_path / "out", {"ground": "#000000", "cat": "#ff0000", "dog": "#0080ff"})
    assert done.ids == ["0", "2"]
    assert done.left_out == [
        f"{source}/masks/1.png: colour #070707 (9 pixels) has no class; named are #000000, #ff0000, #0080ff"
    ]


@pytest.mark.parametrize("name", ["labelmap.txt", "label_colors.txt", "class_dict.csv"])
def test_a_file_of_colours_names_them(tmp_path: Path, name: str) -> None:
    lines = {
        "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:255,0,0::\ndog2:0,128,255::\n",
        "label_colors.txt": "255 0 0\tcat\n0 0 0\t\tbackground\n0 128 255 dog2\n",
        "class_dict.csv": "name,r,g,b\nbackground,0,0,0\ncat,255,0,0\ndog2,0,128,255\n",
    }
    source = in_two_folders(tmp_path / "in", COLOURS)
    (source / name).write_text(lines[name])
    made, _ = run(source, tmp_path / "out")
    assert made.names == ["background", "cat", "dog2"]
    assert made.reading.unnamed is None
    assert same(tmp_path / "out", "0", drawn(0))


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "LA", "deep"])
def test_binary_masks_of_any_mode(tmp_path: Path, mode: str) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS, 1)
    plain = np.where(drawn(0) > 0, 255, 0).astype(np.uint8)
    mask = Image.fromarray(plain).convert(mode) if mode != "deep" else Image.fromarray(plain.astype(np.uint16) * 257)
    mask.save(source / "masks" / "0.png")
    made, _ = run(source, tmp_path / "out")
    assert made.names == ["background", "foreground"]
    assert same(tmp_path / "out", "0", (drawn(0) > 0).astype(np.uint8))


def test_class_numbers_stay_and_255_is_ignored(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", np.array([0, 1, 255], np.uint8))
    made, _ = run(source, tmp_path / "out", ["sky", "tree", "road"])
    assert made.names == ["sky", "tree", "road"]
    assert same(tmp_path / "out", "1", np.array([0, 1, 255], np.uint8)[drawn(1)])


def test_palette_masks_are_numbers_unless_each_file_has_a_palette_of_its_own(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS, 2)
    for index in range(2):
        save_mask(source / "masks" / f"{index}.png", drawn(index))
    assert "numbers" in run(source, tmp_path / "same")[0].reading.words
    for index, order in enumerate(([0, 1, 2], [2, 1, 0])):
        mask = Image.fromarray(np.argsort(order).astype(np.uint8)[drawn(index)], "L")
        mask.putpalette(COLOURS[order].tobytes())
        mask.save(source / "masks" / f"{index}.png")
    _made, _ = run(source, tmp_path / "own", {"background": "#000000", "cat": "#ff0000", "dog": "#0080ff"})
    assert all(same(tmp_path / "own", str(k), drawn(k)) for k in range(2))


def test_palette_masks_with_gaps_are_numbered_anew(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS, 1)
    save_mask(source / "masks" / "0.png", np.array([0, 8, 12], np.uint8)[drawn(0)])
    made, _ = run(source, tmp_path / "out")
    assert made.names == ["background", "class_8", "class_12"]
    assert same(tmp_path / "out", "0", drawn(0))
    assert made.reading.unnamed == 'classes="{background: 0, class_8: 8, class_12: 12, ignore: 255}"'


def test_gray_of_four_bits_is_not_stretched(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS, 1)
    packed = (drawn(0)[:, 0::2] << 4) | drawn(0)[:, 1::2]
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = SIZE[1].to_bytes(4, "big") + SIZE[0].to_bytes(4, "big") + b"\x04\0\0\0\0"
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (source / "masks" / "0.png").write_bytes(data)
    run(source, tmp_path / "out")
    assert same(tmp_path / "out", "0", drawn(0))


def test_scattered_grays_are_asked_about_with_the_words_that_answer(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", np.array([0, 100, 200], np.uint8))
    with pytest.raises(DataError, match=r'classes="\{background: 0, class_100: 100, class_200: 200\}"'):
        run(source, tmp_path / "out")
    run(source, tmp_path / "out", {"background": 0, "cat": 100, "dog": 200})
    assert same(tmp_path / "out", "2", drawn(2))


def test_jpeg_masks_are_refused_with_the_reason(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS, 1)
    (source / "masks" / "0.png").unlink()
    save(source / "masks" / "0.jpg", COLOURS[drawn(0)])
    with pytest.raises(DataError, match=r"masks/0\.jpg: a JPEG, which stores colours approximately.*as PNG"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    image = np.array(Image.open(source / "masks" / "0.jpg"))
    (source / "masks" / "0.jpg").unlink()
    save(source / "masks" / "0.png", image)  # saved anew, the damage stays
    with pytest.raises(DataError, match=r"masks/0\.png: \d+ colours.*it was a JPEG once or has soft edges"):
        run(source, tmp_path / "out")


def test_soft_edges_and_half_transparent_masks_are_refused(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS, 1)
    plain = Image.fromarray(np.where(drawn(0) > 0, 255, 0).astype(np.uint8))
    soft = plain.resize((101, 77), Image.Resampling.BICUBIC).resize(SIZE[::-1], Image.Resampling.BICUBIC)
    soft.save(source / "masks" / "0.png")
    with pytest.raises(DataError, match="soft edges"):
        run(source, tmp_path / "out")
    clear = np.dstack([COLOURS[drawn(0)], np.where(drawn(0) > 0, 200, 0).astype(np.uint8)])
    save(source / "masks" / "0.png", clear)
    with pytest.raises(DataError, match=r"0\.png: half transparent"):
        run(source, tmp_path / "out")
    clear[..., 3] = np.where(drawn(0) > 0, 255, 0)
    save(source / "masks" / "0.png", clear)
    run(source, tmp_path / "out", {"background": "transparent", "cat": "#ff0000", "dog": "#0080ff"})
    assert same(tmp_path / "out", "0", drawn(0))


def test_names_with_spaces_accents_capitals_and_suffixes_in_one_folder(tmp_path: Path) -> None:
    place = tmp_path / "in" / "Été 1"
    for index, end in enumerate(("_mask.PNG", "-Label.png", " mask.png")):
        save_picture(place / unicodedata.normalize("NFD", f"Bäume.v2 {index}.JPG"), index)
        save(place / f"{unicodedata.normalize('NFC', f'Bäume.v2 {index}')}{end}", COLOURS[drawn(index)])
    save_picture(place / "._Bäume.v2 0.JPG", 0)  # what some systems leave beside each file
    _made, done = run(tmp_path / "in", tmp_path / "out", {"a": "#000000", "b": "#ff0000", "c": "#0080ff"})
    assert done.ids == [f"Été 1/Bäume.v2 {k}" for k in range(3)]
    assert all(same(tmp_path / "out", f"Été 1/Bäume.v2 {k}", drawn(k)) for k in range(3))
    assert not done.left_out


def test_png_beside_jpeg_of_one_name_is_its_mask(tmp_path: Path) -> None:
    for index in range(2):
        save_picture(tmp_path / "in" / f"{index}.jpeg", index)
        save(tmp_path / "in" / f"{index}.png", COLOURS[drawn(index)])
    made, done = run(tmp_path / "in", tmp_path / "out")
    assert "PNG beside JPEG" in made.reading.words
    assert done.ids == ["0", "1"]


def test_what_belongs_to_nothing_is_named_and_the_rest_converted(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS, 6)
    (source / "masks" / "0.png").unlink()
    (source / "images" / "1.jpg").unlink()
    save(source / "masks" / "2.png", COLOURS[drawn(2)[:30]])
    save_picture(source / "images" / "3.png", 3)
    (source / "masks" / "4.png").write_bytes(b"no picture")
    turned = Image.Exif()
    turned[0x0112] = 6
    save_picture(source / "images" / "5.jpg", 5, turned)
    save_picture(source / "images" / "6.jpg", 6)
    save(source / "masks" / "6.png", COLOURS[drawn(2)])
    _, done = run(source, tmp_path / "out")
    assert done.ids == ["6"]
    told = "\n".join(done.left_out)
    for line in (
        "images/0.jpg: an image without a mask",
        "masks/1.png: a mask without an image",
        "masks/2.png: size 50x30, expected 50x40",
        "images/3.jpg and",
        "masks/4.png: damaged or truncated mask",
        "images/5.jpg: EXIF orientation 6, expected 1",
    ):
        assert told.count(line) == 1, told


def test_cut_off_it_goes_on_and_mended_files_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = in_two_folders(tmp_path / "in", COLOURS), tmp_path / "out"
    write, calls = conversion.write_mask, []

    def stops(path: Path, mask: np.ndarray) -> None:
        calls.append(path)
        if path.stem == "1":
            raise KeyboardInterrupt
        write(path, mask)

    monkeypatch.setattr(conversion, "write_mask", stops)
    with pytest.raises(KeyboardInterrupt):
        run(source, out)
    assert not (out / "classes.txt").exists()  # half a conversion cannot be trained on
    monkeypatch.undo()
    assert run(source, out)[1].written == 2 + ("2" in {p.stem for p in calls} and -1)
    assert run(source, out)[1].written == 0
    Image.fromarray(COLOURS[drawn(0)[::-1]]).save(source / "masks" / "0.png")
    assert run(source, out)[1].written == 1
    assert same(out, "0", np.array([0, 2, 1], np.uint8)[drawn(0)[::-1]])


def test_files_that_a_power_failure_has_emptied_are_written_again(tmp_path: Path) -> None:
    source, out = in_two_folders(tmp_path / "in", COLOURS), tmp_path / "out"
    run(source, out)
    (out / "masks" / "1.png").write_bytes(b"")
    assert run(source, out)[1].written == 1 and same(out, "1", np.array([0, 2, 1], np.uint8)[drawn(1)])
    (out / "conversion.json").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds another conversion"):
        run(source, out)


def test_a_name_that_is_no_text_leaves_its_image_out(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS)
    for path in (source / "images" / "1.jpg", source / "masks" / "1.png"):
        path.rename(path.with_stem(os.fsdecode(b"caf\xe9")))
    done = run(source, tmp_path / "out")[1]
    assert done.ids == ["0", "2"]
    assert done.left_out == [f"{source}/images/caf\\xdce9.jpg: a name that is no text in UTF-8; rename the file"]


def test_places_that_would_mix_things_are_refused(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS)
    for out in (source, source / "out", tmp_path):
        with pytest.raises(ConfigError, match="neither inside the other"):
            run(source, out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("all of it")
    with pytest.raises(ConfigError, match=r"full: holds .*thesis\.tex"):
        run(source, tmp_path / "full")
    run(source, tmp_path / "out")
    with pytest.raises(ConfigError, match="holds another conversion"):
        run(source, tmp_path / "out", {"a": "#000000", "b": ["#ff0000", "#0080ff"]})
    shutil.rmtree(source)
    with pytest.raises(ConfigError, match="no such folder"):
        run(source, tmp_path / "new")


def test_pictures_alone_and_two_kinds_of_annotation_are_told(tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "a.jpg")
    with pytest.raises(DataError, match="1 pictures and no annotations; expected LabelMe or COCO JSON, or masks in"):
        run(tmp_path / "in", tmp_path / "out")
    save(tmp_path / "in" / "a_mask.png", COLOURS[drawn(0)])
    write_labelme(tmp_path / "in" / "a.json", "a.jpg", [])
    with pytest.raises(
        ConfigError, match=r"1 LabelMe files \(format=labelme\) and 1 images with masks \(format=masks\)"
    ):
        run(tmp_path / "in", tmp_path / "out")
    assert run(tmp_path / "in", tmp_path / "out", form="masks")[1].ids == ["a"]
    with pytest.raises(ConfigError, match="format=yolo: no such format; choose from coco, labelme, masks"):
        run(tmp_path / "in", tmp_path / "out", form="yolo")


def test_lists_and_folders_of_splits_are_kept(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS)
    (source / "train.txt").write_text("images/0.jpg masks/0.png\n1\n1.jpg\n")
    with pytest.raises(DataError, match=r"train\.txt: the only list"):
        run(source, tmp_path / "out")
    (source / "test.txt").write_text("2.jpg\nnobody\n")
    _, done = run(source, tmp_path / "out")
    assert (Folder(tmp_path / "out").split("train"), Folder(tmp_path / "out").split("test")) == (["0", "1"], ["2"])
    assert done.left_out == [f"{source}/test.txt: nobody names no images that have a mask, expected one"]
    for split, name in (("train", "a"), ("valid", "a"), ("valid", "b")):
        save_picture(tmp_path / "parts" / split / "images" / f"{name}.jpg")
        save(tmp_path / "parts" / split / "labels" / f"{name}.png", COLOURS[drawn(0)])
    run(tmp_path / "parts", tmp_path / "again")
    assert Folder(tmp_path / "again").split("val") == ["valid/a", "valid/b"]


def write_labelme(path: Path, image: str, shapes: list[dict[str, Any]], size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"version": "5.4", "shapes": shapes, "imagePath": image, "imageHeight": size[0], "imageWidth": size[1]}
    path.write_text(json.dumps(whole))


def shape(label: str, points: list[list[float]], kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, **more}


def test_labelme_shapes_of_every_kind(tmp_path: Path) -> None:
    stamp = io.BytesIO()
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).save(stamp, "PNG")
    told = base64.b64encode(stamp.getvalue()).decode()
    shapes = [
        shape("tree", [[2, 3], [12, 3], [12, 9], [2, 9]]),
        shape("car", [[20, 5], [30, 15]], "rectangle"),
        shape("car", [[2, 20], [12, 20], [12, 24], [2, 24]], "rectangle"),  # four corners, as X-AnyLabeling writes
        shape("tree", [[40, 30], [40, 34]], "circle"),
        shape("car", [[5, 30], [8, 33]], "mask", mask=told),
        shape("__ignore__", [[25, 5], [30, 15]], "rectangle"),
    ]
    save_picture(tmp_path / "in" / "pictures" / "ä 1.JPG")
    write_labelme(tmp_path / "in" / "json" / "ä 1.json", "..\\pictures\\ä 1.JPG", shapes)
    made, done = run(tmp_path / "in", tmp_path / "out")
    assert made.names == ["background", "car", "tree"]
    assert done.ids == ["ä 1"]
    mask = Folder(tmp_path / "out").mask("ä 1")
    expected = np.zeros(SIZE, np.uint8)
    expected[3:9, 2:12], expected[5:15, 20:25], expected[5:15, 25:30] = 2, 1, 255
    expected[20:24, 2:12] = 1
    expected[range(30, 34), range(5, 9)] = 1
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    expected[np.hypot(columns + 0.5 - 40, rows + 0.5 - 30) <= 4] = 2
    assert np.array_equal(mask, expected)


def test_labelme_faults_name_file_and_shape(tmp_path: Path) -> None:
    good = shape("tree", [[2, 3], [12, 3], [12, 9]])
    for index in range(4):
        save_picture(tmp_path / "in" / f"{index}.jpg", index)
    write_labelme(tmp_path / "in" / "0.json", "0.jpg", [good])
    write_labelme(tmp_path / "in" / "1.json", "1.jpg", [good, shape("path", [[1, 1], [2, 2]], "line")])
    write_labelme(tmp_path / "in" / "2.json", "2.jpg", [good], (40, 51))
    write_labelme(tmp_path / "in" / "gone.json", "../../etc/gone.jpg", [good])
    _, done = run(tmp_path / "in", tmp_path / "out")
    assert done.ids == ["0"]
    told = "\n".join(done.left_out)
    assert "1.json: shape 1 (path): a line has no area" in told
    assert "2.json: size 51x40, expected 50x40" in told
    assert "gone.json: no image ../../etc/gone.jpg below" in told
    assert "3.jpg: an image without a LabelMe file" in told
    _, done = run(tmp_path / "in", tmp_path / "named", ["background", "car"])
    assert any("0.json: label tree is not among classes=" in line for line in done.left_out)


def stamped(width: int, height: int) -> str:
    """A PNG that claims a size, as LabelMe keeps it."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\0\0\0\0"
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


TRIANGLE = [[2, 3], [12, 3], [12, 9]]


@pytest.mark.parametrize(
    ("damaged", "size", "fault"),
    [
        (shape("tree", TRIANGLE), (10**6, 10**6), "1000000x1000000 pixels, expected 1 to 150,000,000"),
        (shape("tree", TRIANGLE), (10**12, 10**12), "1000000000000x1000000000000 pixels"),
        (shape("tree", [[10**400, 0], [1, 1], [2, 2]]), SIZE, r"shape 0 \(tree\): polygon with points that are none"),
        (shape("tree", [[float("nan"), 0], [1, 1], [2, 2]]), SIZE, "polygon with points that are none"),
        (
            {**shape("tree", TRIANGLE), "shape_type": ["polygon"]},
            SIZE,
            r"shape 0 \(tree\): shape_type \['polygon'\], exp",
        ),
        (shape("\ud800", TRIANGLE), SIZE, "shape 0: no label"),
    ],
)
def test_labelme_values_that_are_none_end_in_one_line(
    tmp_path: Path, damaged: dict[str, Any], size: tuple[int, int], fault: str
) -> None:
    save_picture(tmp_path / "in" / "0.jpg")
    write_labelme(tmp_path / "in" / "0.json", "0.jpg", [damaged], size)
    with pytest.raises(DataError, match=f"in/0.json: .*{fault}"):
        run(tmp_path / "in", tmp_path / "out")
    save_picture(tmp_path / "in" / "1.jpg", 1)
    write_labelme(tmp_path / "in" / "1.json", "1.jpg", [shape("tree", TRIANGLE)])
    assert run(tmp_path / "in", tmp_path / "out")[1].ids == ["1"]  # the others are converted


@pytest.mark.parametrize(
    ("width", "height", "fault"), [(20000, 20000, "400000000 pixels"), (9000, 9000, r"9000x9000 at \(5, 30\), outside")]
)
def test_the_picture_of_a_shape_is_not_decoded_beyond_its_image(
    tmp_path: Path, width: int, height: int, fault: str
) -> None:
    save_picture(tmp_path / "in" / "0.jpg")
    stamp = shape("car", [[5, 30], [8, 33]], "mask", mask=stamped(width, height))
    write_labelme(tmp_path / "in" / "0.json", "0.jpg", [stamp])
    [line] = run(tmp_path / "in", tmp_path / "out")[1].left_out
    assert re.search(rf"in/0.json: shape 0 \(car\): .*{fault}", line)


def with_classes(folder: Path, form: str, count: int) -> Path:
    """An image with an object of the last of some classes, in some format."""
    save_picture(folder / "0.jpg")
    names = [f"c{k:03}" for k in range(1, count + 1)]
    if form == "labelme":
        write_labelme(folder / "a.json", "0.jpg", [shape(name, TRIANGLE) for name in names])
        return folder
    outline = {"id": 1, "image_id": 1, "category_id": count, "segmentation": [[2, 3, 12, 3, 12, 9, 2, 9]]}
    whole = {
        "images": [{"id": 1, "file_name": "0.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": k, "name": name} for k, name in enumerate(names, 1)],
        "annotations": [outline],
    }
    (folder / "a.json").write_text(json.dumps(whole))
    return folder


@pytest.mark.parametrize("form", ["coco", "labelme"])
def test_no_class_gets_the_value_that_is_ignored(tmp_path: Path, form: str) -> None:
    pytest.importorskip("pycocotools")
    made, _ = run(with_classes(tmp_path / "most", form, 254), tmp_path / "out")
    assert (len(made.names), made.names[-1]) == (255, "c254")
    assert Folder(tmp_path / "out").mask("0")[4, 10] == 254
    for count in (255, 256, 300):
        with pytest.raises(DataError, match=rf"a\.json: {count} classes and the background, expected 254 at most"):
            run(with_classes(tmp_path / f"{count}", form, count), tmp_path / "no")
    with pytest.raises(ConfigError, match="classes: 255 classes and the background, expected 254 at most"):
        given([f"c{k}" for k in range(256)])


def test_a_coco_category_called_background_is_the_background(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    source = with_classes(tmp_path / "in", "coco", 2)
    (source / "a.json").write_text((source / "a.json").read_text().replace("c001", "background"))
    made, _ = run(source, tmp_path / "out")
    assert made.names == ["background", "c002"]
    assert Folder(tmp_path / "out").mask("0")[4, 10] == 1


def test_the_first_of_given_classes_has_no_object(tmp_path: Path) -> None:
    """A list that forgets the background would give the pixels of its first class to it."""
    _, done = run(with_classes(tmp_path / "labelme", "labelme", 2), tmp_path / "out", ["c001", "c002"])
    assert any("label c001 is not among classes=" in line for line in done.left_out)
    pytest.importorskip("pycocotools")
    with pytest.raises(ConfigError, match="category c001 is not among classes="):
        run(with_classes(tmp_path / "coco", "coco", 2), tmp_path / "out", ["c001", "c002"])


def test_two_coco_files_of_too_many_classes_are_refused_by_their_folder(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    source = with_classes(tmp_path / "in", "coco", 200)
    other = (source / "a.json").read_text().replace('"name": "c', '"name": "d').replace("0.jpg", "1.jpg")
    (source / "b.json").write_text(other)
    with pytest.raises(DataError, match="in: 400 classes and the background, expected 254 at most"):
        run(source, tmp_path / "out")


def test_masks_that_are_photographs_are_left_out_before_their_colours_fill_the_memory(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS)
    save(source / "masks" / "1.png", np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))
    _, done = run(source, tmp_path / "out")
    assert done.ids == ["0", "2"]
    assert re.search(r"masks/1\.png: \d+ colours, expected 1024 at most: it is a photograph", done.left_out[0])


def test_files_are_looked_at_one_by_one(tmp_path: Path) -> None:
    for index in range(8):
        (tmp_path / f"{index}.json").write_text('{"shapes": [], "imagePath": "' + "A" * 1_000_000 + '"}')
    tracemalloc.start()
    assert len(Listing(tmp_path).jsons("shapes", "imagePath")) == 8
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_coco_files_by_split_with_polygons_and_run_lengths(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    source = tmp_path / "in"
    for split, names in (("train", ("a", "b")), ("val", ("c",))):
        for index, name in enumerate(names):
            save_picture(source / split / f"{name}.jpg", index)
        square = {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "segmentation": [[2, 3, 12, 3, 12, 9, 2, 9]]}
        runs = {"size": [*SIZE], "counts": [40 * 20, 40 * 5, 40 * 25]}
        crowd = {"id": 2, "image_id": 1, "category_id": 3, "iscrowd": 1, "segmentation": runs}
        whole = {
            "images": [
                {"id": k, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]}
                for k, name in enumerate((*names, "lost")[: len(names) + (split == "val")], 1)
            ],
            "categories": [{"id": 7, "name": "tree"}, {"id": 3, "name": "car"}],
            "annotations": [square, crowd],
        }
        (source / split / "_annotations.coco.json").write_text(json.dumps(whole))
    made, done = run(source, tmp_path / "out")
    assert made.names == ["background", "car", "tree"]
    expected = np.zeros(SIZE, np.uint8)
    expected[3:9, 2:12], expected[:, 20:25] = 2, 1
    assert same(tmp_path / "out", "train/a", expected)
    assert same(tmp_path / "out", "train/b", np.zeros(SIZE, np.uint8))
    assert Folder(tmp_path / "out").split("val") == ["val/c"]
    assert len(done.left_out) == 1
    assert "no file lost.jpg of image 2" in done.left_out[0]


def test_the_command_shows_what_it_did_and_its_last_line_trains(
    segladder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_two_folders(tmp_path / "in", COLOURS, 4)
    out = tmp_path / "it's (mine)"
    told = "classes={background: '#000000', cat: '#ff0000', dog: '#0080ff'}"
    place = str(out).replace("'", "\\'")
    assert segladder("data", "action=convert", f"from={tmp_path / 'in'}", f"out='{place}'", told) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "4 images written" in "\n".join(lines)
    assert (out / "check.png").is_file()
    assert lines[-1].startswith("train: segladder train data=folder")
    words = shlex.split(lines[-1].removeprefix("train: segladder "))
    assert "loader.augment.crop=32" in words
    small = ["trainer.steps=1", "logger=none", "loader.workers=0", "trainer.panels=0", f"runs={tmp_path / 'runs'}"]
    assert segladder(*words, *small) == 0


def test_what_the_command_needs_is_asked_for(segladder: Any, tmp_path: Path, capsys: Any) -> None:
    assert segladder("data", "action=convert", f"from={tmp_path}") == 2
    assert "out: is missing" in capsys.readouterr().err
    save_image(tmp_path / "in" / "a.png", picture(0, SIZE)[0])
    words = ["action=convert", f"from={tmp_path / 'in'}", f"out={tmp_path / 'out'}"]
    assert segladder("data", *words, "classes={a: '#00'}") == 2
    assert "classes.a=#00: expected a colour such as" in capsys.readouterr().err
    assert segladder("data", *words) == 1
    assert "no annotations" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "masks", "ids"),
    [
        ("images/img_{}", "masks/mask_{}", ["img_0", "img_1", "img_2"]),
        ("train/{}", "train_labels/{}_L", ["train/0", "train/1", "train/2"]),
        ("train_images/{}", "train_masks/{}", ["train/0", "train/1", "train/2"]),
        ("image_{}", "label_{}", ["image_0", "image_1", "image_2"]),
    ],
)
def test_words_before_names_and_behind_splits_say_what_a_picture_is(
    tmp_path: Path, images: str, masks: str, ids: list[str]
) -> None:
    for index in range(3):
        save_picture(tmp_path / "from" / f"{images.format(index)}.png", index)
        save(tmp_path / "from" / f"{masks.format(index)}.png", drawn(index))
    run(tmp_path / "from", tmp_path / "out")
    data = Folder(tmp_path / "out")
    assert sorted([*data.split("train"), *data.split("val")]) == ids
    assert all(same(tmp_path / "out", image_id, drawn(index)) for index, image_id in enumerate(ids))


def test_a_mask_that_two_images_could_have_is_nobody_s(tmp_path: Path) -> None:
    for index, name in enumerate(("img_1", "photo_1", "img_2")):
        save_picture(tmp_path / "from" / "images" / f"{name}.jpg", index)
    for name in ("mask_1", "mask_2"):
        save(tmp_path / "from" / "masks" / f"{name}.png", drawn(0))
    _, done = run(tmp_path / "from", tmp_path / "out")
    assert any("mask_1.png: a mask without an image" in line for line in done.left_out)
    assert [path.stem for path in (tmp_path / "out" / "masks").rglob("*.png")] == ["img_2"]


def test_pictures_that_do_not_pair_are_named(tmp_path: Path) -> None:
    save_picture(tmp_path / "images" / "one.jpg")
    save(tmp_path / "masks" / "two.png", COLOURS[drawn(0)])
    told = "2 pictures and no annotations .*one.jpg: an image without a mask; .*two.png: a mask without an image"
    with pytest.raises(DataError, match=told):
        run(tmp_path, tmp_path.parent / "out")


def test_masks_of_0_and_1_beside_masks_of_0_and_255_are_asked_about(tmp_path: Path) -> None:
    for index in range(3):
        save_picture(tmp_path / "from" / "images" / f"{index}.jpg", index)
        save(tmp_path / "from" / "masks" / f"{index}.png", (drawn(index) > 0) * np.uint8(255 if index == 2 else 1))
    told = r"0.png holds 1 and never 255, .*2.png 255 and never 1: are both the class, or is 255 ignored\?"
    with pytest.raises(DataError, match=told):
        run(tmp_path / "from", tmp_path / "out")
    run(tmp_path / "from", tmp_path / "out", {"background": 0, "foreground": [1, 255]})
    assert all(same(tmp_path / "out", str(index), drawn(index) > 0) for index in range(3))


def test_classes_txt_names_numbers_in_its_order(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", np.arange(3, dtype=np.uint8))
    (source / "classes.txt").write_text("ground\nvoid\ncat\n")
    made, _ = run(source, tmp_path / "out")
    assert (Folder(tmp_path / "out").classes, made.reading.unnamed) == (("ground", "cat"), None)
    assert same(tmp_path / "out", "0", np.array([0, 255, 1], np.uint8)[drawn(0)])
    made, _ = run(source, tmp_path / "told", ["ground", "dog", "cat"])
    assert made.names == ["ground", "dog", "cat"]


def test_classes_txt_with_fewer_names_than_numbers_is_refused(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", np.arange(3, dtype=np.uint8))
    (source / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"classes\.txt: 2 names, but \S+0\.png holds value 2"):
        run(source, tmp_path / "out")


def test_classes_txt_names_two_colours_and_no_more(tmp_path: Path) -> None:
    source = in_two_folders(tmp_path / "in", COLOURS[[0, 1, 1]])
    (source / "classes.txt").write_text("ground\ncat\n")
    assert run(source, tmp_path / "two")[0].names == ["ground", "cat"]
    save(source / "masks" / "1.png", COLOURS[drawn(1)])
    (source / "classes.txt").write_text("ground\ncat\ndog\n")
    made, _ = run(source, tmp_path / "three")
    assert made.names == ["background", "class_1", "class_2"]
    assert "classes.txt does not say which name is of which colour" in made.reading.words


@pytest.mark.parametrize("form", ["labelme", "coco"])
def test_classes_txt_orders_what_is_named_already(tmp_path: Path, form: str) -> None:
    source = with_classes(tmp_path / "in", form, 3)
    before = run(source, tmp_path / "before")[0].names
    (source / "classes.txt").write_text("\n".join([before[0], *reversed(before[1:])]))
    assert run(source, tmp_path / "out")[0].names == [before[0], *reversed(before[1:])]
