"""Few-shot runs from the command line: train on one fold, score under several protocols, rank."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from segladder.data.sources.decoding import read_mask
from segladder.data.sources.palette import voc_palette
from segladder.data.sources.shapes import Shapes
from segladder.runs import fitting
from segladder.runs.loading import load_run

EPISODES = ["protocol.min_object=none", "protocol.episodes=12", "protocol.seeds=[0]", "protocol.beside=4"]
SMALL = [
    *("data.train_size=160", "data.val_size=60", "data.size=64", "backbone.width=8", "loader.batch_size=4"),
    *("loader.workers=0", "trainer.steps=3", "trainer.progress=false", "trainer.panels=1", "logger=none"),
    *("method.guidance_channels=8", "method.side_channels=8", *EPISODES),
]


@pytest.fixture(scope="module")
def run(segladder, tmp_path_factory):
    """A finished run on fold 1."""
    folder = tmp_path_factory.mktemp("runs") / "sg_one"
    assert segladder("train", "method=sg_one", "protocol=strict", "fold=1", *SMALL, f"hydra.run.dir={folder}") == 0
    return folder


def test_record_says_which_fold_and_what_distractors_show(run):
    record = json.loads((run / "record.json").read_text())
    assert (record["status"], record["supervision"], record["fold"], record["shots"]) == ("finished", "few_shot", 1, 1)
    novel = ["disc_striped", "square_dotted", "triangle_checkered", "star_solid", "cross_striped"]
    assert [row["class"] for row in record["per_class"]] == ["background", *novel]
    assert "fold" not in record["protocol"]["fields"] and re.fullmatch("[0-9a-f]{16}", record["protocol"]["items"])
    assert {"average_precision", "hard_mIoU", "negative_area", "swap_follows"} <= set(record["metrics"])
    assert 0 < record["data"]["train_ids"] < 160  # images with a novel object are not used
    assert len(list((run / "panels").glob("*.png"))) == 4


def test_one_checkpoint_is_scored_under_several_protocols(segladder, run, capsys):
    protocols = "protocol=[hard,negative]"
    assert segladder("evaluate", f"run={run}", protocols, *EPISODES[:3], "progress=false", "panels=0") == 0
    out = capsys.readouterr().out
    assert "protocol hard" in out and "protocol negative" in out and "negative area" in out
    names = {path.name.split("-")[0] for path in (run / "evaluations").iterdir()}
    assert {"hard", "negative"} <= names
    assert segladder("leaderboard", f"runs={run}", "format=markdown") == 0
    out = capsys.readouterr().out
    assert len(re.findall("^### ", out, re.MULTILINE)) == 3
    assert "folds missing: seed 0: 0, 2, 3" in out and "| swap follows |" not in out  # no means of some folds


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["method=sg_one"],
            "protocol=semantic scores full, image_level, none methods, but method=sg_one is few_shot; choose",
        ),
        (
            ["protocol=strict"],
            "protocol=strict scores few_shot methods, but method=fcn8s is full; choose protocol= instance,",
        ),
        (["method=sg_one", "protocol=strict", "fold=4"], "fold=4: shapes has folds 0..3"),
    ],
)
def test_choices_that_do_not_fit_end_in_one_line(segladder, tmp_path, capsys, words, line):
    assert segladder("train", *SMALL[:9], *words, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert capsys.readouterr().err.startswith(f"segladder: {line}")


@pytest.mark.parametrize("name", ["strict", "generalised"])
def test_too_few_images_of_a_class_end_a_run_before_it_trains(segladder, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(fitting, "learn", None)
    words = ["method=sg_one", f"protocol={name}", "protocol.shots=60", *(SMALL if name == "strict" else SMALL[:-3])]
    assert segladder("train", *words, f"hydra.run.dir={tmp_path}") == 1
    assert re.search(r"class \w+ has \d+ of 60 images, 60-shot episodes need 61", capsys.readouterr().err)


@pytest.mark.parametrize("name", ["strict", "ladder"])
def test_too_few_held_out_images_end_a_run_before_it_trains(segladder, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(fitting.build, "trainer", lambda config, folder, callbacks, mirrors: None)
    words = [*SMALL[:-3], "protocol.shots=3", "selection=held_out", "loader.held_out=0.03"]
    assert segladder("train", "method=sg_one", f"protocol={name}", *words, f"hydra.run.dir={tmp_path}") != 0
    assert re.search(r"loader.held_out: no base class has 4 of \d+ held-out images", capsys.readouterr().err)


def test_a_backbone_comes_from_a_run_that_has_not_learnt_the_novel_classes(segladder, run, tmp_path, capsys):
    words = ["method=sg_one", "protocol=strict", *SMALL, f"backbone.weights={run}", "trainer.panels=0"]
    child = tmp_path / "child"
    assert segladder("train", *words, "fold=1", f"hydra.run.dir={child}") == 0
    record = json.loads((child / "record.json").read_text())
    assert record["parents"] == [json.loads((run / "record.json").read_text())["id"]]
    assert record["backbone"]["pretraining"] == "sg_one on shapes"
    assert segladder("train", *words, "fold=0", f"hydra.run.dir={tmp_path / 'leak'}") == 2
    error = capsys.readouterr().err
    assert "has learnt cross_solid, a novel class of fold=0" in error


def test_a_training_free_run_is_loaded_with_its_pretrained_backbone(segladder, run, tmp_path):
    words = ["method=prototype", "protocol=strict", "fold=1", *(w for w in SMALL if "channels" not in w)]
    folder = tmp_path / "prototype"
    assert segladder("train", *words, f"backbone.weights={run}", f"hydra.run.dir={folder}", "trainer.panels=0") == 0
    pretrained = torch.load(run / "weights.pt", weights_only=True)
    loaded = load_run(folder)[2].backbone.state_dict()
    prefix = "network.netB.backbone."
    assert all(torch.equal(loaded[key], pretrained[prefix + key]) for key in loaded)


def test_novel_labels_do_not_touch_the_weights(segladder, shapes_root, tmp_path):
    """Scramble the novel classes' labels in the training masks: the trained weights are the same bits."""
    options = dict(train_size=160, val_size=60, size=64)
    source = Shapes(shapes_root, **options)
    source.prepare()
    novel = np.array([source.classes.index(name) for name in ("disc_solid", "square_striped", "star_checkered")])
    weights = []
    for copy in ("true", "scrambled"):
        root = tmp_path / copy
        shutil.copytree(shapes_root, root)
        if copy == "scrambled":
            other = Shapes(root, **options)
            for image_id in other.split("train"):
                path = other.mask_path(image_id)
                mask = read_mask(path)
                places = np.isin(mask, novel)
                mask[places] = np.roll(novel, 1)[np.searchsorted(novel, mask[places])]
                image = Image.fromarray(mask, mode="P")
                image.putpalette(voc_palette().tobytes())
                image.save(path)
        folder = tmp_path / f"run-{copy}"
        words = ["method=sg_one", "protocol=strict", "protocol.novel_pixels=ignore", *SMALL, f"data.root={root}"]
        folds = "data.folds=[[disc_solid,square_striped,star_checkered]]"
        assert segladder("train", *words, folds, f"hydra.run.dir={folder}") == 0
        weights.append(torch.load(folder / "weights.pt", weights_only=True))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
