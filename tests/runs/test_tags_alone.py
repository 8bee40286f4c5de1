"""Own images of which some have tags and no mask: a list of tags is enough to train from."""

import json

import pytest
from dummy_data import write_folder, write_list

from segladder.data.inspection.checks import check_items, check_splits, check_training_ready
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.kinds.tags import Tags
from segladder.data.sources.folder import Folder
from segladder.errors import ConfigError, DataError

IDS = [f"site{i % 2}/item {i}" for i in range(10)]
MASKED = IDS[6:]  # the others have tags alone
TINY = ("backbone=tiny", "strategy=cpu", "logger=none", "trainer.progress=false", "trainer.panels=1", "trainer.steps=2")
SMALL = ("loader.batch_size=2", "loader.workers=0", "loader.augment.crop=32", "protocol.bootstrap=20")


@pytest.fixture
def root(tmp_path):
    """Six images with tags alone, four with masks, of which two are listed with tags that differ."""
    write_folder(tmp_path, [(64, 64 + i) for i in range(10)])
    for image_id in IDS[:6]:
        (tmp_path / "masks" / f"{image_id}.png").unlink()
    lines = ["site0/item 0.jpg, road", "images/site1/item 1.png,tree,road", "", *(f"{i},tree" for i in IDS[2:5])]
    write_list(tmp_path / "tags.csv", [*lines, IDS[5], *(f"{i},road" for i in MASKED[:2])])
    return tmp_path


def folder(root, **settings):
    return Folder(root, tags=str(root / "tags.csv"), **settings)


def test_an_image_has_the_tags_of_the_list_or_of_its_mask(root):
    data = folder(root)
    found = {image_id: data.tags(image_id).tolist() for image_id in IDS}
    assert found == {
        **{IDS[0]: [1, 0], IDS[1]: [1, 1], IDS[5]: [0, 0]},
        **{image_id: [0, 1] for image_id in IDS[2:5]},
        **{image_id: [1, 0] for image_id in MASKED[:2]},
        **{image_id: [1, 1] for image_id in MASKED[2:]},
    }
    assert folder(root, classes=["tree"]).tags(IDS[1]).tolist() == [1]


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_images_without_a_mask_are_trained_on(root, share):
    data = Folder(root, tags="tags.csv", val_share=share)
    train, val = data.split("train"), data.split("val")
    assert set(val) <= set(MASKED) and val
    assert sorted(train + val) == sorted(IDS)
    check_training_ready(data, Tags())
    with pytest.raises(DataError, match="have tags alone, labels=masks are made of masks; train method=cam first"):
        check_training_ready(data, Masks())
    with pytest.raises(DataError, match=r"no mask for .* \(6 in all\); expected one of the same name, or splits/"):
        Folder(root).split("train")


def test_the_fingerprint_of_training_is_of_the_tags(root):
    seen, masks = folder(root).as_seen(Tags()), folder(root)
    before, drawn = seen.fingerprint(IDS), masks.fingerprint(MASKED)
    (root / "tags.csv").write_text((root / "tags.csv").read_text().replace(f"{MASKED[0]},road", f"{MASKED[0]},tree"))
    assert folder(root).as_seen(Tags()).fingerprint(IDS) != before
    assert folder(root).fingerprint(MASKED) == drawn


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("site0/item 99,road", r"tags.csv:10: no image site0/item 99 in .*images"),
        ("site0/item 8,raod", r"tags.csv:10: no such class raod \(did you mean road\?\); expected road, tree"),
        ("site0/item 0.jpg,tree", "tags.csv:10: site0/item 0 is listed twice"),
        ('site0/item 8,"road', "tags.csv: no text in UTF-8 with commas"),
    ],
)
def test_a_line_at_fault_is_named(root, line, fault):
    with (root / "tags.csv").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataError, match=fault):
        folder(root).split("train")


def test_what_is_missing_is_named(root):
    with pytest.raises(ConfigError, match=r"data\.tags=tags\.txt: expected masks or FILE\.csv"):
        Folder(root, tags="tags.txt")
    with pytest.raises(DataError, match=r"nothing\.csv: No such file"):
        Folder(root, tags=str(root / "nothing.csv")).split("train")
    write_list(root / "tags.csv", IDS[1:])
    with pytest.raises(
        DataError, match=r"no mask for site0/item 0; expected one of the same name, tags in .*tags\.csv"
    ):
        folder(root).split("train")
    write_list(root / "tags.csv", IDS)
    for image_id in MASKED:
        (root / "masks" / f"{image_id}.png").unlink()
    with pytest.raises(DataError, match="no mask of any image, expected some: a score needs them"):
        folder(root).split("val")


def test_the_check_tells_tags_alone_and_where_they_differ(root, segladder, capsys):
    data = folder(root, val_share=0.5)
    train, _ = check_splits(data)
    train.items = list(check_items(data, train.ids, 0))
    assert not [fault for item in train.items for fault in item.faults]
    assert sum(item.tags_alone for item in train.items) == 6
    assert train.images[[1, 2]].tolist() == [2 + len(train.ids) - 6, 4 + len(train.ids) - 6]
    words = (f"data.root={root}", f"data.tags={root / 'tags.csv'}", "workers=0")
    assert segladder("data", "action=check", "data=folder", *words) == 0
    told = capsys.readouterr().out
    assert "6 with tags alone" in told
    assert f"tags.csv, {MASKED[0]}: tree in the mask, not among the tags" in told


def test_class_maps_and_a_network_learn_from_tags_alone(root, segladder, tmp_path_factory, capsys):
    runs = tmp_path_factory.mktemp("runs")
    own = ("data=folder", f"data.root={root}", f"data.tags={root / 'tags.csv'}", *TINY, *SMALL)
    cam = ("train", "method=cam", "protocol=cam_seeds", f"hydra.run.dir={runs / 'cam'}", *own)
    assert segladder(*cam) == 2
    assert "protocol.split=train: 6 of its images have tags and no mask" in capsys.readouterr().err
    assert segladder(*cam, "protocol.split=val") == 0
    words = ("method=fcn8s", f"parent={runs / 'cam'}", f"hydra.run.dir={runs / 'net'}")
    assert segladder("train", *words, *own) == 0
    for name in ("cam", "net"):
        record = json.loads((runs / name / "record.json").read_text())
        assert record["status"] == "finished"
        assert record["annotation_cost"]["labels"] == "tags"
        assert record["annotation_cost"]["seconds"] == 2 * record["data"]["train_ids"]
