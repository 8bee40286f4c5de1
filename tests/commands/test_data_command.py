"""`segladder data`: faults are named one a line, SBD is converted, the preview shows what the network is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dummy_data import picture, save_mask, write_folder, write_list, write_sbd, write_voc, write_xml
from hydra import compose, initialize_config_module
from PIL import Image

from segladder.commands.data import run
from segladder.data.inspection import checks
from segladder.data.inspection.preview import overlay
from segladder.data.sources.decoding import read_mask
from segladder.data.sources.palette import voc_palette
from segladder.data.sources.sbd import read_sbd_mask
from segladder.errors import ConfigError


def data(*overrides: str) -> int:
    with initialize_config_module("segladder.conf", version_base="1.3"):
        return run(compose("data", [*overrides]))


def voc_command(voc: Path, *overrides: str) -> int:
    return data("data=voc", f"data.root={voc}", "data.train_split=train", "data.expected=null", "workers=1", *overrides)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc(tmp_path)


def lines(text: str, kind: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(kind)]


def test_a_whole_data_set_passes_with_its_counts(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert voc_command(voc) == 0
    out = capsys.readouterr().out
    assert "0 faults, 0 remarks" in out
    assert "train: 4 ids, width 80..80, height 64..64" in out
    cats = sum((picture(seed)[1] == 8).any() for seed in range(4))
    share = np.mean([(picture(seed)[1] == 8).mean() for seed in range(4)])
    (row,) = [line for line in out.splitlines() if " cat " in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:3] == ["cat", str(cats), f"{share:.2%}"]


def test_any_data_set_may_say_how_many_images_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(tmp_path)
    assert data("data=folder", f"data.root={root}", "+data.expected={train: 99}", "workers=1") == 1
    (fault,) = lines(capsys.readouterr().out, "fault: ")
    assert fault.endswith("ids, expected 99 (data.expected)")


def test_what_needs_no_preparation_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="action=prepare: folder needs none; prepare is for VOC with SBD and for sh"):
        data("data=folder", f"data.root={write_folder(tmp_path)}", "action=prepare")


def test_every_kind_of_damage_is_one_line_that_names_its_file(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jpeg = voc / "JPEGImages" / "2007_train00.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:-300])
    masks = voc / "SegmentationClass"
    save_mask(masks / "2007_train01.png", np.zeros((64, 81), np.uint8))
    save_mask(masks / "2007_train02.png", np.full((64, 80), 37, np.uint8))
    (voc / "JPEGImages" / "2007_train03.jpg").unlink()
    (masks / "2007_val00.png").unlink()
    save_mask(masks / "2007_val01.png", np.zeros((64, 80), np.uint8))
    assert voc_command(voc) == 1
    out = capsys.readouterr().out
    expected = (
        "2007_train00.jpg: damaged or truncated",
        "2007_train01.png: size 81x64, expected 80x64",
        "2007_train02.png: value 37, expected 0..20 or 255",
        "2007_train03.jpg: no such file",
        "2007_val00.png: no such file",
    )
    faults = lines(out, "fault: ")
    assert len(faults) == len(expected)
    for fault, what in zip(faults, expected, strict=True):
        assert what in fault
    remarks = lines(out, "remark: ")
    assert [Path(line.split(": ")[1]).name for line in remarks] == ["2007_train01.png", "2007_val01.png"]
    assert all("no foreground" in line for line in remarks)


def test_lists_are_checked_for_emptiness_overlap_and_number(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert voc_command(voc, "data.train_split=trainval", "data.expected={trainval: 7}") == 1
    faults = lines(capsys.readouterr().out, "fault: ")
    assert faults[0] == "fault: voc trainval: 6 ids, expected 7 (data.expected)"
    assert faults[1] == "fault: voc: 2007_val00, 2007_val01 in both trainval and val"
    write_list(voc / "ImageSets" / "Segmentation" / "val.txt", [])
    assert voc_command(voc) == 1
    assert "val.txt: empty list" in lines(capsys.readouterr().out, "fault: ")[0]


def test_disagreement_of_xml_and_masks_is_reported(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_xml(voc / "Annotations" / "2007_train00.xml", ["cat", "person"])
    assert voc_command(voc) == 0
    remarks = lines(capsys.readouterr().out, "remark: ")
    assert remarks[0].endswith("2007_train00.xml: person among the tags, not in the mask")
    assert remarks[1].endswith("2007_train00.xml: dog in the mask, not among the tags")


def test_several_processes_find_what_one_finds(
    voc: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (voc / "JPEGImages" / "2007_train01.jpg").write_bytes(b"")
    assert voc_command(voc) == 1
    alone = capsys.readouterr().out
    monkeypatch.setattr(checks, "SMALL", 0)
    assert voc_command(voc, "workers=2") == 1
    assert capsys.readouterr().out == alone


def test_folders_are_checked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(tmp_path, lists=True)
    assert data("data=folder", f"data.root={root}") == 0
    assert "width 66..80, height 64..70" in capsys.readouterr().out


def test_prepare_converts_sbd_and_goes_on_where_it_stopped(
    tmp_path: Path, voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sbd = write_sbd(tmp_path, voc, train=["2008_1", "2008_2"], val=["2008_3"])
    masks = voc / "SegmentationClassAug"
    save_mask(masks / "2008_1.png", np.full((64, 80), 7, np.uint8))  # done before
    (masks / ".2008_2.0123abcd.partial.png").write_bytes(b"torn")
    damaged = sbd / "dataset" / "cls" / "2008_3.mat"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:300])
    assert voc_command(voc, "action=prepare", f"data.sbd={sbd}") == 1
    out = capsys.readouterr().out
    assert "2008_3.mat: damaged" in lines(out, "fault: ")[0]
    assert "1 masks written, 1 faults" in out
    assert (read_mask(masks / "2008_1.png") == 7).all()
    damaged.write_bytes(whole)
    assert voc_command(voc, "action=prepare", f"data.sbd={sbd}") == 0
    for image_id in ("2008_2", "2008_3"):
        assert np.array_equal(
            read_mask(masks / f"{image_id}.png"), read_sbd_mask(sbd / "dataset" / "cls" / f"{image_id}.mat")
        )
    with Image.open(masks / "2008_2.png") as image:
        assert image.mode == "P"
        assert image.getpalette() == voc_palette().reshape(-1).tolist()
    assert voc_command(voc, "data.train_split=train_aug") == 0


def test_prepare_downloads_only_when_asked_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision import datasets

    calls = []

    def voc_segmentation(root: str, **settings: object) -> None:
        calls.append("voc")
        write_voc(Path(root))

    def sb_dataset(root: str, **settings: object) -> None:
        calls.append("sbd")
        release = write_sbd(Path(root), tmp_path / "spare", train=["2008_1"], val=[])
        (release / "dataset" / "cls").rename(Path(root) / "cls")

    monkeypatch.setattr(datasets, "VOCSegmentation", voc_segmentation)
    monkeypatch.setattr(datasets, "SBDataset", sb_dataset)
    root = tmp_path / "new" / "VOCdevkit" / "VOC2012"
    with pytest.raises(ConfigError, match=r"data\.sbd=null: nothing to convert"):
        voc_command(root, "action=prepare")
    for _ in range(2):
        assert voc_command(root, "action=prepare", "download=true") == 0
    assert calls == ["voc", "sbd"]
    assert (root / "SegmentationClassAug" / "2008_1.png").is_file()
    assert (tmp_path / "new" / "sbd" / "cls" / "2008_1.mat").is_file()


def test_preview_writes_a_sheet_of_augmented_training_images(voc: Path, tmp_path: Path) -> None:
    out = tmp_path / "folder" / "sheet.png"
    overrides = ["loader.augment.crop=64", "count=4", "columns=2", f"out={out}"]
    assert voc_command(voc, "action=preview", *overrides) == 0
    first = out.read_bytes()
    with Image.open(out) as sheet:
        assert sheet.width == 2 * (2 * 240 + 8 + 8) + 8
        assert sheet.height > 2 * 240
        assert len(sheet.convert("RGB").getcolors(10**6) or []) > 1000
    voc_command(voc, "action=preview", *overrides)
    assert out.read_bytes() == first
    voc_command(voc, "action=preview", "seed=1", *overrides)
    assert out.read_bytes() != first


def test_overlay_mixes_the_palette_over_the_foreground_only() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    drawn = overlay(image, np.array([[0, 1], [2, 255]], np.uint8))
    assert drawn.tolist() == [[[100] * 3, [114, 50, 50]], [[50, 114, 50], [162, 162, 146]]]


def test_an_unknown_action_is_named_with_those_there_are(voc: Path) -> None:
    with pytest.raises(ConfigError, match="action=chek: expected one of check, prepare, preview"):
        voc_command(voc, "action=chek")
