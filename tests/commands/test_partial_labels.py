"""Training on points, scribbles and boxes: what the label does not show changes nothing, and what it costs is told."""

import json
import shutil

import numpy as np
import pytest
import torch
from dummy_data import save_mask
from ladder_data import write_ladder

from segladder.data.labels.kinds import kinds
from segladder.data.sources.decoding import read_mask
from segladder.data.sources.folder import Folder
from segladder.stages import chain as chains

pytestmark = pytest.mark.long

SMALL = [
    *("data=folder", "data.folds=[[apple,brick],[cloud,drum]]", "backbone.width=8", "protocol.bootstrap=20"),
    *("loader.workers=0", "loader.augment.crop=64", "loader.augment.scale=[1,1]", "loader.batch_size=4", "logger=none"),
    *("trainer.epochs=1", "trainer.progress=false", "trainer.panels=0", "method=fcn8s", "method.optimizer.lr=0.01"),
]
HELD_OUT = ["selection=held_out", "loader.held_out=0.3"]
LADDER = ["protocol=ladder", "pool=12", "protocol.gamma_images=4"]
NOVEL = (1, 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_ladder(tmp_path_factory.mktemp("data"), train=30, val=10)


def copied(root, place, change):
    """A copy of the data whose training masks are changed."""
    shutil.copytree(root, place)
    for path in sorted((place / "masks").glob("train*.png")):
        save_mask(path, change(read_mask(path)))
    return place


@pytest.fixture(scope="module")
def permuted(root, tmp_path_factory):
    """The same images; every pixel of every training mask has moved."""
    random = np.random.default_rng(0)
    return copied(root, tmp_path_factory.mktemp("permuted") / "data", random.permuted)


def hollow(classes):
    """Objects of some classes lose their frames of 255, and all pixels but the outermost."""
    random = np.random.default_rng(1)

    def change(mask):
        for k in classes:
            if (mask == k).any():
                (top, left), (bottom, right) = (f(np.argwhere(mask == k), 0) for f in (np.min, np.max))
                mask[top - 1 : bottom + 2, left - 1 : right + 2][
                    mask[top - 1 : bottom + 2, left - 1 : right + 2] == 255
                ] = 0
                inside = mask[top + 1 : bottom, left + 1 : right]
                inside[:] = random.choice([0, 255], inside.shape)
        return mask

    return change


def trained(segladder, root, folder, *words):
    """Weights and record."""
    assert segladder("train", *SMALL, *words, f"data.root={root}", f"hydra.run.dir={folder}") == 0
    return torch.load(folder / "weights.pt", weights_only=True), json.loads((folder / "record.json").read_text())


def assert_equal(first, second):
    assert all(torch.equal(first[0][key], second[0][key]) for key in first[0])
    assert [first[1]["label_access"].get(key) for key in ("epoch", "score")] == [
        second[1]["label_access"].get(key) for key in ("epoch", "score")
    ]


@pytest.mark.parametrize("name", ["points", "scribbles"])
def test_moving_every_pixel_that_a_stroke_or_click_does_not_show_changes_nothing(
    segladder, root, permuted, tmp_path, monkeypatch, name
):
    source, kind = Folder(root), kinds()[name]
    given = {i: kind.of_image(source.scene(i)) for i in source.split("train")}
    words = [f"labels={name}", "loss=gated_crf", *HELD_OUT]
    first = trained(segladder, root, tmp_path / "drawn", *words)
    monkeypatch.setattr(type(kind), "of_image", lambda self, scene: given[scene.image_id])
    assert_equal(first, trained(segladder, permuted, tmp_path / "permuted", *words))
    assert first[1]["label_access"]["chosen_by"] == "pixels" and first[1]["label_access"]["kind"] == name


@pytest.mark.parametrize("becomes", ["filled", "grabcut"])
def test_masks_inside_equal_boxes_change_nothing(segladder, root, tmp_path, becomes):
    words = ["labels=boxes", f"labels.becomes={becomes}", *HELD_OUT]
    other = copied(root, tmp_path / "data", hollow(range(1, 5)))
    first, second = (trained(segladder, place, tmp_path / str(n), *words) for n, place in enumerate((root, other)))
    assert_equal(first, second)
    assert first[1]["label_access"]["objects"] == {"components": first[1]["data"]["train_ids"]}


def test_boxes_of_novel_classes_are_a_rung_with_masks_of_base_classes(segladder, root, tmp_path):
    other = copied(root, tmp_path / "data", hollow(NOVEL))
    words = [*LADDER, "labels=boxes"]
    first, second = (trained(segladder, place, tmp_path / str(n), *words) for n, place in enumerate((root, other)))
    assert_equal(first, second)
    access, cost = first[1]["label_access"], first[1]["annotation_cost"]
    assert access["seen"] == {"apple": ["boxes"], "brick": ["boxes"], "cloud": ["masks"], "drum": ["masks"]}
    assert access["labels"] == "masks of base classes and boxes of novel ones"
    assert (cost["labels"], cost["novel_labels"]) == ("masks", ["boxes"])


def test_rounds_of_network_and_boxes_pay_for_boxes_alone(segladder, root, tmp_path, monkeypatch):
    monkeypatch.setattr(chains, "run_child", lambda words: segladder(*words))
    words = ["experiment=box_pipeline", f"runs={tmp_path}", f"data.root={root}", "~stages.round_2"]
    assert segladder("train", *SMALL, *words) == 0
    found = {path.parent.name.split("-")[0]: path.parent for path in tmp_path.glob("*/record.json")}
    records = {name: json.loads((folder / "record.json").read_text()) for name, folder in found.items()}
    assert {r["label_access"]["kind"] for r in records.values()} == {"boxes"}
    assert len({r["annotation_cost"]["seconds"] for r in records.values()}) == 1
    source, boxes = Folder(root), kinds()["boxes"]
    (masks,) = found["boxes"].glob("pseudo_masks/*/manifest.json")
    for image_id in source.split("train"):
        answer = read_mask(masks.parent / f"{image_id}.png")
        allowed = boxes.allowed(source.scene(image_id), len(source.classes))
        assert np.take_along_axis(allowed, answer[None].astype(int), 0).all()
        assert {*np.unique(answer)} >= {*np.unique(source.mask(image_id))} - {0, 255}  # no box is left empty


@pytest.mark.parametrize("words", [["labels=points"], ["labels=scribbles", "labels.amount=2"]])
def test_clicks_and_strokes_are_paid_for_each_class_and_the_background(segladder, root, tmp_path, words):
    record = trained(segladder, root, tmp_path, *words, "trainer.steps=1")[1]
    source = Folder(root)
    ids = source.split("train")
    held, amount = sum(int(source.tags(i).sum()) for i in ids), 1 + (len(words) > 1)
    act = amount * {"points": 2.4, "scribbles": 10.9}[record["label_access"]["kind"]]
    expected = 4 * len(ids) - held + (held + len(ids)) * act
    assert record["annotation_cost"]["seconds"] == pytest.approx(expected, abs=0.1)
    assert record["label_access"]["settings"]["amount"] == amount


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["labels=points", "method=panet"],
            "labels=points: method=panet is taught by episodes, which need whole masks",
        ),
        (["labels=boxes", "method=cam"], "labels=boxes: method=cam does not learn from them; choose labels=tags"),
    ],
)
def test_what_cannot_learn_from_them_says_so(segladder, root, tmp_path, capsys, words, complaint):
    words = [word for word in (*SMALL, *words) if word != "method=fcn8s"]
    assert segladder("train", *words, f"data.root={root}", f"hydra.run.dir={tmp_path}") == 2
    assert complaint in capsys.readouterr().err


def test_weights_that_have_seen_boxes_start_no_run_of_points(segladder, root, tmp_path, capsys):
    trained(segladder, root, tmp_path / "boxes", "labels=boxes", "trainer.steps=1")
    words = ["labels=points", f"backbone.weights={tmp_path / 'boxes'}"]
    assert segladder("train", *SMALL, *words, f"data.root={root}", f"hydra.run.dir={tmp_path / 'points'}") == 2
    assert "has learnt apple from boxes" in capsys.readouterr().err
    path = tmp_path / "boxes" / "record.json"
    path.write_text(path.read_text().replace('"becomes": "filled"', '"becomes": "outlined"'))
    words = [f"parent={tmp_path / 'boxes'}", f"hydra.run.dir={tmp_path / 'child'}"]
    assert segladder("train", *SMALL, *words, f"data.root={root}") == 1
    assert "label_access.settings do not fit labels=boxes" in capsys.readouterr().err


def test_a_preview_shows_the_labels_that_training_sees(segladder, root, tmp_path, capsys):
    words = ["action=preview", "data=folder", f"data.root={root}", f"out={tmp_path / 'sheet.png'}"]
    assert segladder("data", *words, "labels=scribbles") == 0 and (tmp_path / "sheet.png").exists()
    assert segladder("data", *words, "labels=tags") == 2
    assert "labels=tags: action=preview is for labels that show pixels" in capsys.readouterr().err
