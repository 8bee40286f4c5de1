"""What chooses weights and settings on held-out images: labels that the run pays for, whatever the protocol."""

import json
import shutil

import numpy as np
import pytest
import torch
from dummy_data import save_mask
from ladder_data import write_ladder

from segladder.data.sources.decoding import read_mask
from segladder.processes import parallel

pytestmark = pytest.mark.long

SMALL = [
    *("data=folder", "data.folds=[[apple,brick],[cloud,drum]]", "backbone.width=8", "protocol.bootstrap=20"),
    *("loader.workers=0", "loader.augment.crop=64", "loader.augment.scale=[1,1]", "loader.batch_size=4"),
    *("trainer.epochs=3", "trainer.progress=false", "trainer.panels=0"),
]
LADDER = ["protocol=ladder", "pool=12", "protocol.gamma_images=4"]
HELD_OUT = ["logger=none", "selection=held_out", "loader.held_out=0.3"]
TAGS = {
    "semantic": ["protocol=semantic", "method.optimizer.lr=0.01"],
    "cam_seeds": ["protocol=cam_seeds", "method.optimizer.lr=0.01"],
    "ladder": [*LADDER, "method.optimizer.lr=0.01"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_ladder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def scattered(root, tmp_path_factory):
    """The same images with the same tags; every pixel of every training mask has moved."""
    return moved(root, tmp_path_factory.mktemp("scattered"), hidden=range(256))


@pytest.fixture(scope="module")
def novel_scattered(root, tmp_path_factory):
    """The same images with the same tags; objects of fold 0 and their outlines have moved, all others have not."""
    return moved(root, tmp_path_factory.mktemp("novel"), hidden=(0, 1, 2, 255), only_with=(1, 2))


def moved(root, place, hidden, only_with=range(256)):
    copy, random = place / "data", np.random.default_rng(0)
    shutil.copytree(root, copy)
    for path in sorted((copy / "masks").glob("train*.png")):
        mask = read_mask(path)
        if np.isin(mask, list(only_with)).any():
            free = np.isin(mask, list(hidden))
            mask[free] = random.permutation(mask[free])
            save_mask(path, mask)
    return copy


def trained(segladder, root, folder, *words):
    """Weights and what chose them."""
    vectors = f"embeddings.sources=[{root}/vectors.csv]"
    assert segladder("train", *SMALL, *HELD_OUT, *words, f"data.root={root}", vectors, f"hydra.run.dir={folder}") == 0
    access = json.loads((folder / "record.json").read_text())["label_access"]
    return torch.load(folder / "weights.pt", weights_only=True), (access["epoch"], access["score"])


def assert_equal(first, second):
    assert first[1] == second[1]
    assert all(torch.equal(first[0][key], second[0][key]) for key in first[0])


@pytest.mark.parametrize("protocol", TAGS)
def test_moving_every_mask_changes_nothing_in_a_run_of_tags(segladder, root, scattered, tmp_path, protocol):
    first, second = (
        trained(segladder, place, tmp_path / name, "method=cam", *TAGS[protocol])
        for name, place in (("drawn", root), ("scattered", scattered))
    )
    assert_equal(first, second)
    assert first[1][1] > 0


def test_moving_every_mask_changes_nothing_in_a_network_on_pseudo_masks(segladder, root, scattered, tmp_path):
    found = []
    for name, place in (("drawn", root), ("scattered", scattered)):
        seeds, net = tmp_path / f"{name}_seeds", tmp_path / f"{name}_net"
        trained(segladder, place, seeds, "method=cam", *TAGS["semantic"])
        found.append(trained(segladder, place, net, "method=fcn8s", f"parent={seeds}", "protocol=semantic"))
    assert_equal(*found)


@pytest.mark.parametrize("rung", ["names", "supports", "floor", "tags"])
def test_moving_novel_objects_changes_nothing_in_a_rung_without_their_masks(
    segladder, root, novel_scattered, tmp_path, rung
):
    found = []
    for name, place in (("drawn", root), ("scattered", novel_scattered)):
        plain = {"names": ["method=spnet"], "supports": ["method=sg_one"], "floor": ["method=fcn8s", "pool=0"]}
        own = plain.get(rung)
        if own is None:
            seeds = tmp_path / f"{name}_seeds"
            trained(segladder, place, seeds, "method=cam", *TAGS["ladder"])
            own = ["method=fcn8s", f"parent={seeds}", "pseudo_masks.classes=novel", "pseudo_masks.background=base"]
        found.append(trained(segladder, place, tmp_path / name, *LADDER, *own))
    assert_equal(*found)


@pytest.mark.parametrize("protocol", ["semantic", pytest.param("ladder", marks=pytest.mark.slow)])
def test_moving_every_mask_changes_nothing_in_a_search_of_tag_runs(
    segladder, root, scattered, tmp_path, monkeypatch, protocol
):
    pytest.importorskip("optuna")

    class Child:
        def __init__(self, words, environment, log):
            self.returncode = segladder(*words)

        def poll(self):
            return self.returncode

        wait = poll

    monkeypatch.setattr(parallel, "POLL", 0)
    monkeypatch.setattr(parallel, "start_child", Child)
    told = []
    for place in (root, scattered):
        runs = tmp_path / place.parent.name
        words = [*SMALL, "logger=none", "method=cam", *TAGS[protocol][:-1], f"data.root={place}", f"runs={runs}"]
        space = "space={method.optimizer.lr: [0.01, 0.001]}"
        assert segladder("search", *words, space, "trials=2", "sampler=random", "loader.held_out=0.3") == 0
        records = [json.loads(path.read_text()) for path in sorted(runs.glob("search/*/*/record.json"))]
        told.append([(r["config"]["method"]["optimizer"]["lr"], r["label_access"]["score"]) for r in records])
    assert sorted(told[0]) == sorted(told[1]) and told[0]
