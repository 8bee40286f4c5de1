"""Ids of split lists name files below their folder, whatever a list says."""

import numpy as np
import pytest
from dummy_data import save_image, save_mask, write_folder, write_list, write_sbd, write_voc

from segladder.data.sources.davis import Davis
from segladder.data.sources.folder import Folder
from segladder.data.sources.voc import VOC
from segladder.errors import DataError
from segladder.foreign import files_below, printable, printable_values, stays_inside

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
