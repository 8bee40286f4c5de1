"""Ids of split lists name files below their folder, whatever a list says."""

import json
import os

import numpy as np
import pytest
from dummy_data import save_image, save_mask, write_folder, write_list, write_sbd, write_voc
from hypothesis import given
from hypothesis import strategies as st

from segladder.data.sources.davis import Davis
from segladder.data.sources.folder import Folder, read_class_names
from segladder.data.sources.item_lists import ItemList
from segladder.data.sources.lists import read_ids
from segladder.data.sources.tag_file import read_tag_file
from segladder.data.sources.voc import VOC, read_objects
from segladder.errors import DataError
from segladder.foreign import files_below, json_values, printable, printable_values, stays_inside

OUTSIDE = ("../../../esc", "..", ".", "a/../../b", "/etc/passwd", "..\\esc", "C:\\esc", "C:esc", "a\0b", "a\x1b[31mb")


@pytest.mark.parametrize("name", [*OUTSIDE, ""])
def test_a_name_that_leads_out_is_told(name):
    assert not stays_inside(name)


@pytest.mark.parametrize("name", ["2007_000032", "bear/00000", "a b.c", "..a", "Größe", "hf-hub:x/y"])
def test_a_name_below_a_folder_is_one(name):
    assert stays_inside(name)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_folder_s_list_is_refused_with_file_and_line(tmp_path, name):
    root = write_folder(tmp_path, lists=True)
    path = root / "splits" / "train.txt"
    path.write_text(f"{path.read_text()}{name}\n")
    line = len(path.read_text().strip().split("\n"))
    with pytest.raises(DataError) as error:
        Folder(root).split("train")
    assert str(error.value) == f"{path}:{line}: id {printable(name)} leads out of its folder, expected a name below"


def test_voc_takes_the_stem_of_a_path_and_no_id_that_is_none(tmp_path):
    root = write_voc(tmp_path)
    path = root / "ImageSets" / "Segmentation" / "odd.txt"
    write_list(path, ["../../../esc"])
    assert VOC(root).split("odd") == ["esc"]
    write_list(path, ["a", "x/.."])
    with pytest.raises(DataError, match=r"odd\.txt:2: id \.\. leads out of its folder"):
        VOC(root).split("odd")


def test_sbd_s_lists_are_checked(tmp_path):
    root = write_voc(tmp_path)
    sbd = write_sbd(tmp_path, root, ["extra"], [])
    (path,) = sbd.rglob("train.txt")
    path.write_text(f"{path.read_text()}../../esc\n")
    with pytest.raises(DataError, match=r"train\.txt:2: id \.\./\.\./esc leads out of its folder"):
        VOC(root, sbd=sbd).split("train_aug")


def test_davis_lists_are_checked(tmp_path):
    (tmp_path / "ImageSets" / "480p").mkdir(parents=True)
    (tmp_path / "ImageSets" / "480p" / "val.txt").write_text("/JPEGImages/480p/../00000.jpg\n")
    with pytest.raises(DataError, match=r"val\.txt:1: id \.\. leads out of its folder"):
        Davis(tmp_path).sequences("val")


def test_check_refuses_a_list_that_leads_out(segladder, tmp_path, capsys):
    root = write_folder(tmp_path / "data", lists=True)
    save_image(tmp_path / "esc.jpg", np.zeros((8, 8, 3), np.uint8))
    save_mask(tmp_path / "esc.png", np.zeros((8, 8), np.uint8))
    path = root / "splits" / "val.txt"
    path.write_text(f"{path.read_text()}../../esc\n")
    assert segladder("data", "action=check", "data=folder", f"data.root={root}", "workers=1") != 0
    said = capsys.readouterr()
    assert "id ../../esc leads out of its folder" in said.out + said.err


def test_files_below_a_folder_are_no_links_to_elsewhere(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    for folder in (run, other):
        folder.mkdir()
        (folder / "a.png").write_text("")
    (run / "b.png").symlink_to(other / "a.png")
    (run / "c.png").symlink_to(run / "a.png")
    (run / "panels").symlink_to(other)
    assert files_below(run, "*.png") == [run / "a.png", run / "c.png"] and not files_below(run, "panels/*.png")
    (tmp_path / "link").symlink_to(run)
    assert files_below(tmp_path / "link", "a.png")


def test_text_drives_no_terminal():
    assert printable("a\x1b[31m\u202eb\x9b\tc\n") == "a\\x1b[31m\\x202eb\\x9b\tc\n"
    assert printable_values({"\x07": ["\x00", 1, None]}) == {"\\x07": ["\\x00", 1, None]}


@given(st.text(), st.booleans())
def test_json_is_read_with_every_text_printable(words, escaped):
    value = {words: [words, 1, None, {"key": words}]}
    assert json_values(json.dumps(value, ensure_ascii=escaped).encode()) == printable_values(value)


NUMBERS = st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(), st.lists)


@given(NUMBERS, st.sampled_from(["utf-8", "utf-16", "utf-32"]))
def test_json_has_the_values_that_pythons_own_reader_finds(value, encoding):
    written = json.dumps(value)  # floats: NaN and infinities too, which are null
    assert repr(json_values(written.encode(encoding))) == repr(json.loads(written, parse_constant=lambda name: None))


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1,]", b"\xff", b"[" * 100_000], ids=["empty", "cut", "comma", "bytes", "deep"]
)
def test_json_at_fault_is_told(text):
    with pytest.raises((ValueError, RecursionError)):
        json_values(text)


@pytest.mark.parametrize("number", [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)])
def test_no_control_character_of_json_is_overlooked(number):
    for escaped in (True, False):
        assert json_values(json.dumps([chr(number)], ensure_ascii=escaped).encode()) == [printable(chr(number))]


def test_a_byte_order_mark_is_no_part_of_an_id(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf2007_000032\r\n2007_000033\r\n")
    assert read_ids(tmp_path / "list.txt") == ["2007_000032", "2007_000033"]
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfbackground\r\nroad\r\n")
    assert read_class_names(tmp_path / "classes.txt") == ["background", "road"]
    (tmp_path / "items.txt").write_bytes(b"\xef\xbb\xbf2007_000033__01\n")
    assert ItemList.read(tmp_path / "items.txt").lines[0].image_id == "2007_000033"


@pytest.mark.parametrize("content", [b"\xff\xfea\0b\0", b"a\xffb\n", b"a\0b\n"])
def test_a_list_that_is_no_text_is_named(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"list\.txt"):
        read_ids(tmp_path / "list.txt")


def test_class_names_that_are_no_text_are_named(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"background\nr\xffd\n")
    with pytest.raises(DataError, match=r"classes\.txt: no text in UTF-8, expected class names"):
        read_class_names(tmp_path / "classes.txt")


@pytest.mark.parametrize("read", [read_ids, read_class_names, read_objects, lambda path: read_tag_file(path, 20)])
def test_a_pipe_is_no_list(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match=r"pipe\.txt: no regular file, expected"):
        read(tmp_path / "pipe.txt")


@pytest.mark.parametrize("encoding", ["nonsense", "utf-7", "gb2312", "idna"])
def test_an_annotation_in_an_encoding_that_nobody_knows_is_named(tmp_path, encoding):
    (tmp_path / "a.xml").write_text(f'<?xml version="1.0" encoding="{encoding}"?><annotation/>')
    with pytest.raises(DataError, match=r"a\.xml: damaged XML"):
        read_objects(tmp_path / "a.xml")
