"""Labels that score a run are none that it, or a run that it builds on, has learnt from."""

import pytest
from dummy_data import write_list
from ladder_data import write_ladder

from segladder.report import record as records

pytestmark = pytest.mark.long

SMALL = [
    *("data=folder", "data.folds=[[apple,brick],[cloud,drum]]", "backbone.width=8", "protocol.bootstrap=20"),
    *("loader.workers=0", "loader.augment.crop=64", "loader.augment.scale=[1,1]", "loader.batch_size=4"),
    *("trainer.steps=1", "trainer.progress=false", "trainer.panels=0", "logger=none"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = write_ladder(tmp_path_factory.mktemp("data"))
    write_list(root / "splits" / "mixed.txt", ["train00", "train01", "val00"])
    write_list(root / "splits" / "half.txt", [f"train{i:02d}" for i in range(2, 20)])
    write_list(root / "splits" / "other.txt", [f"train{i:02d}" for i in range(20, 40)])
    return root


@pytest.fixture(scope="module")
def train(segladder, root):
    """Trains a run with some words; returns the exit code."""
    return lambda folder, *words: segladder("train", *SMALL, *words, f"data.root={root}", f"hydra.run.dir={folder}")


@pytest.fixture(scope="module")
def on_val(train, tmp_path_factory):
    """Runs that have learnt from masks of `val`, the second through the first, both scored elsewhere."""
    folder = tmp_path_factory.mktemp("runs")
    assert train(folder / "hop1", "method=fcn8s", "data.train_split=val", "protocol.split=train") == 0
    words = ["data.val_split=mixed", "data.train_split=half", "protocol.split=other"]
    assert train(folder / "hop2", "method=fcn8s", *words, f"backbone.weights={folder}/hop1") == 0
    return folder


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["method=fcn8s", "data.train_split=val"], "data.train_split=val: that split is scored"),
        (["method=cam", "data.train_split=val"], "for tags protocol=cam_seeds, which scores training images"),
        (
            ["method=fcn8s", "data.train_split=val", "protocol.split=mixed"],
            "val00 in both val and mixed; expected none",
        ),
        (["method=fcn8s", "protocol.split=mixed"], "train00, train01 in both train and mixed; expected none"),
        (["method=sg_one", "protocol=generalised", "protocol.split=train"], "whose masks training has seen"),
        (["method=cam", "protocol=cam_seeds", "data.train_split=val", "protocol.split=val"], None),
        (["method=cam", "protocol=cam_seeds"], None),
        (
            ["method=sg_one", "protocol=strict", "protocol.split=train", "protocol.episodes=4", "protocol.beside=0"],
            None,
        ),
        (
            ["method=prototype", "protocol=strict", "data.train_split=val", "protocol.episodes=4", "protocol.beside=0"],
            None,
        ),
    ],
)
def test_training_does_not_see_the_labels_that_score_it(train, tmp_path, capsys, words, complaint):
    few_shot = ["protocol.seeds=[0]", "protocol.min_object=none"]
    code = train(tmp_path, *words, *(few_shot if {"protocol=strict", "protocol=generalised"} & {*words} else ()))
    assert (code != 0) == (complaint is not None)
    assert complaint is None or complaint in capsys.readouterr().err


@pytest.mark.parametrize("hops", [1, 2])
def test_labels_that_score_a_run_are_not_behind_it(train, on_val, tmp_path, capsys, hops):
    assert train(tmp_path / "run", "method=fcn8s", f"backbone.weights={on_val}/hop{hops}") == 2
    assert "protocol=semantic scores val00, val01, val02 ... (20 in all) of val, whose masks training has seen" in (
        capsys.readouterr().err
    )


def test_what_an_oracle_chose_stays_its_choice_through_any_number_of_hops(segladder, train, tmp_path):
    """Weights that the scored labels chose are chosen by them, whoever trains on from them."""
    words = ["method=fcn8s", "protocol=semantic"]
    assert train(tmp_path / "hop0", *words, "selection=oracle") == 0
    assert train(tmp_path / "hop1", *words, f"start={tmp_path}/hop0") == 0
    held_out = ["selection=held_out", "loader.held_out=.2", "trainer.steps=null", "trainer.epochs=1"]
    assert train(tmp_path / "hop2", *words, *held_out, f"backbone.weights={tmp_path}/hop1") == 0
    assert train(tmp_path / "other", *words, "data.name=other", f"start={tmp_path}/hop0") == 0
    assert train(tmp_path / "back", *words, f"start={tmp_path}/other") == 0
    evaluate = ["evaluate", f"run={tmp_path}/hop1", "progress=false", "panels=0", "protocol=semantic"]
    assert segladder(*evaluate) == 0
    (scored,) = (tmp_path / "hop1" / "evaluations").iterdir()
    said = {place: records.read(place).label_access for place in (*(tmp_path.glob("*")), scored)}
    assert {place.name: access["selection"] for place, access in said.items()} == {
        **dict.fromkeys(("hop0", "hop1", "hop2", "back", scored.name), "oracle"),
        "other": "fixed",
    }
    assert all(access["oracles"] == ["folder"] for access in said.values())


def test_tags_of_scored_images_are_not_behind_a_run_either(segladder, train, tmp_path, capsys):
    on_val = ["method=cam", "protocol=cam_seeds", "data.train_split=val", "protocol.split=val"]
    assert train(tmp_path / "cam", *on_val) == 0
    for number, words in enumerate((["method=fcn8s", "parent=CAM"], ["method=cam", "start=CAM"])):
        words = [word.replace("CAM", str(tmp_path / "cam")) for word in words]
        assert train(tmp_path / f"run{number}", "protocol=semantic", *words) == 2
        assert "of val, whose tags training has seen" in capsys.readouterr().err


@pytest.mark.parametrize("hops", [1, 2])
def test_a_run_is_not_scored_again_on_labels_behind_it(segladder, on_val, capsys, hops):
    words = ["evaluate", f"run={on_val}/hop{hops}", "progress=false", "panels=0", "protocol=semantic"]
    assert segladder(*words, "protocol.split=val") == 2
    assert "of val, whose masks training has seen" in capsys.readouterr().err


def test_a_run_is_not_asked_for_classes_that_it_has_learnt(segladder, train, tmp_path, capsys):
    words = ["protocol.seeds=[0]", "protocol.beside=0", "protocol.episodes=4", "protocol.min_object=none"]
    assert train(tmp_path, "method=sg_one", "protocol=strict", *words) == 0
    again = ["evaluate", f"run={tmp_path}", "progress=false", "panels=0", "protocol=strict", *words]
    assert segladder(*again, "protocol.folds=[[apple,brick],[cloud,drum]]", "protocol.fold=1") == 2
    assert "has learnt cloud, a novel class" in capsys.readouterr().err
