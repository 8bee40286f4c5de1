"""Runs on data without a background: what can work does, what cannot is refused in one line that names the key."""

import json

import numpy as np
import pytest
from dummy_data import write_streets
from PIL import Image

from segladder import load
from segladder.data.sources.camvid import COLOURS
from segladder.door.creating import datamodule
from segladder.errors import ConfigError, DataError
from segladder.report.record import Record

TINY = ("backbone=tiny", "strategy=cpu", "logger=none", "trainer.progress=false", "trainer.panels=1")
SMALL = ("loader.batch_size=2", "loader.workers=0", "loader.augment.crop=32", "trainer.steps=2")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_streets(tmp_path_factory.mktemp("streets"))


@pytest.fixture(scope="module")
def run(root, segladder, tmp_path_factory):
    """Trains on the streets; returns exit code and folder."""

    def train(*words):
        folder = tmp_path_factory.mktemp("runs") / "run"
        settings = (f"data.root={root}", f"hydra.run.dir={folder}", "data.expected=null")
        return segladder("train", "data=camvid", *settings, *TINY, *SMALL, *words), folder

    return train


@pytest.fixture(scope="module")
def trained(run):
    code, folder = run("method=fcn8s", "loss.class_weights=median_frequency")
    assert code == 0
    return folder


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


def test_every_class_is_scored_and_none_is_left_out(trained):
    record = record_of(trained)
    assert [row["class"] for row in record["per_class"]] == list(COLOURS)
    assert record["data"]["background"] is False and record["data"]["colours"][0] == list(COLOURS["sky"])
    metrics = {name: score["value"] for name, score in record["metrics"].items()}
    assert metrics["over_activation_foreground"] == metrics["over_activation"]
    assert metrics["under_activation_foreground"] == metrics["under_activation"]
    assert set(record["label_access"]["seen"]) == set(COLOURS)


def test_prediction_wears_the_colours_of_the_data_set(trained, root, segladder, tmp_path):
    assert segladder("predict", f"run={trained}", f"images={root / 'images'}", f"out={tmp_path}", "progress=false") == 0
    with Image.open(tmp_path / "masks" / "val00.png") as mask:
        assert mask.getpalette()[:6] == [*COLOURS["sky"], *COLOURS["building"]]
    model = load(trained)
    assert model.classes == tuple(COLOURS) and model.palette[3].tolist() == list(COLOURS["road"])


def test_the_published_split_is_scored_by_its_protocol(trained, segladder):
    assert segladder("evaluate", f"run={trained}", "protocol=camvid", "progress=false", "panels=0") == 0
    (place,) = (trained / "evaluations").iterdir()
    assert record_of(place)["protocol"]["fields"]["split"] == "test"


@pytest.mark.parametrize("words", [("method=kmeans", "method.naming_images=1"), ("labels=scribbles",)])
def test_what_needs_no_background_works(run, words):
    assert run(*words)[0] == 0


def test_answers_of_a_run_with_points_become_pseudo_masks(run):
    code, parent = run("method=fcn8s", "labels=points")
    assert code == 0
    assert run("method=fcn8s", f"parent={parent}")[0] == 0
    (mask,) = parent.glob("pseudo_masks/*/train00.png")
    with Image.open(mask) as picture:
        assert set(np.unique(picture)) <= {0, 1, 3, 8, 255}  # what the image holds, the sky among it
        assert picture.getpalette()[:6] == [*COLOURS["sky"], *COLOURS["building"]]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["method=cam"], "method=cam"),
        (["method=cam", "protocol=cam_seeds"], "protocol=cam_seeds"),
        (["labels=boxes"], "labels=boxes"),
        (["labels.noise.dropped=0.1"], "labels=careless masks"),
        (["method=prototype", "protocol=strict", "data.folds=[[car],[road]]"], "protocol=strict"),
        (["method=spnet", "protocol=zero_shot", "data.folds=[[car],[road]]"], "protocol=zero_shot"),
        (["protocol=ladder", "data.folds=[[car],[road]]"], "protocol=ladder"),
        (["protocol=instance", "method=mask_rcnn"], "protocol=instance"),
        (["method=mask_rcnn"], "method=mask_rcnn"),
        (["data.classes=[car]", "data.other_classes=background"], "data.other_classes=background"),
    ],
)
def test_what_needs_one_is_refused_by_its_key(run, capsys, words, key):
    assert run(*words)[0] != 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "needs a background" in line]
    assert len(lines) == 1 and key in lines[0] and "data=camvid has none" in lines[0]


def test_the_python_door_refuses_it_too(root):
    with pytest.raises(ConfigError, match="method=cam: needs a background"):
        datamodule("camvid", root, "cam")


def test_colours_of_a_foreign_record_are_checked():
    with pytest.raises(DataError, match=r"run x: data\.colours are no colours"):
        _ = Record(id="x", data={"colours": [[0, 0, 300]]}).colours
