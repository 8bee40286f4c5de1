"""On a CUDA device: every strategy trains, a method of each family answers there what it answers on the CPU."""

import json

import numpy as np
import pytest
import torch
from dummy_data import write_videos
from small_methods import configuration, small_words
from torch import nn

from segladder.configuration import choices
from segladder.methods.base import evaluating
from segladder.metrics.counts import Asked
from segladder.metrics.episodes import EpisodeCounts
from segladder.nets.answering import plain_strides
from segladder.runs import build
from segladder.runs.loading import load_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SMALL = [
    *("loader.batch_size=4", "trainer.steps=3", "trainer.progress=false", "trainer.panels=1", "logger=none"),
    *("trainer.watch.every=1", "loader.held_out=0.3", "protocol.bootstrap=20", "strategy=gpu"),
]
SHAPES = ["data.train_size=24", "data.val_size=10", "data.size=64"]
EPISODES = ["data.train_size=160", "data.val_size=60", "protocol=strict", "protocol.min_object=none"]
VIDEOS = ["data=davis", "data.parts=2", "data.train_split=rest", "data.val_split=part", "loader.augment.crop=48"]
FAMILIES = {
    "fcn8s": [*SHAPES, "protocol=semantic", "protocol.scales=[1,0.5]", "protocol.flip=true"],
    "deeplabv3plus": [*SHAPES, "protocol=semantic"],
    "kmeans_features": [*SHAPES, "protocol=semantic", "method.naming_images=5"],
    "cam": [*SHAPES, "protocol=cam_seeds", "protocol.scales=[1]"],
    "puzzle_cam": [*SHAPES, "protocol=cam_seeds", "protocol.scales=[1]"],
    "irn": [*SHAPES, "protocol=cam_seeds", "protocol.scales=[1]"],
    "sg_one": [*SHAPES, *EPISODES, "protocol.episodes=12", "protocol.seeds=[0]", "protocol.beside=2"],
    "spnet": [*SHAPES, "protocol=zero_shot"],
    "mask_rcnn": [*SHAPES, "protocol=instance"],
    "fusionseg_appearance": ["protocol=davis2016_automatic"],
}


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


@pytest.mark.parametrize("name", choices("strategy"))
def test_every_strategy_trains_and_scores(name, start_segladder, tmp_path):
    words = [*small_words("fcn8s"), *SHAPES, *SMALL, f"strategy={name}", f"hydra.run.dir={tmp_path / 'run'}"]
    process = start_segladder("train", *words)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    record = record_of(tmp_path / "run")
    on_device = record["config"]["strategy"]["accelerator"] == "gpu"
    assert record["status"] == "finished" and (record["device"] != "cpu") == on_device


@pytest.fixture(scope="module")
def trained(segladder, tmp_path_factory):
    """Trains a method on the device, after its parent; returns the folder."""
    runs, videos = tmp_path_factory.mktemp("runs"), write_videos(tmp_path_factory.mktemp("videos"))

    def trained(name):
        folder = runs / name
        if not folder.exists():
            data = [*VIDEOS, f"data.root={videos}"] if name.startswith("fusionseg") else []
            parent = [f"parent={trained('cam')}"] if name == "irn" else []
            words = [*small_words(name), *data, *FAMILIES[name], *SMALL, *parent]
            assert segladder("train", *words, f"hydra.run.dir={folder}") == 0
        return folder

    return trained


@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_of_each_family_scores_on_the_device_as_on_the_cpu(name, trained, segladder):
    folder = trained(name)
    for device in ("cuda", "cpu"):
        assert segladder("evaluate", f"run={folder}", f"device={device}", "progress=false", "panels=0") == 0
        (again,) = folder.glob("evaluations/*/record.json")
        found = json.loads(again.read_text())["metrics"]
        for key, score in record_of(folder)["metrics"].items():
            assert found[key]["value"] == pytest.approx(score["value"], abs=0.02, nan_ok=True), (device, key)


@pytest.mark.parametrize("name", ["fcn8s", "sg_one", "cam"])
def test_networks_answer_in_the_plain_format_there(name, trained, monkeypatch):
    method = load_run(trained(name))[2].cuda()
    seen = []
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: (seen.append((self.weight, x)), forward(self, x))[1])
    with evaluating(method), torch.inference_mode():
        images = method.normalize(torch.zeros(2, 3, 64, 48, dtype=torch.uint8, device="cuda"))
        (method.encode if name == "sg_one" else method.backbone if name == "cam" else method)(images)
    assert seen and all(each.stride() == plain_strides(each) for pair in seen for each in pair)


def test_episodes_are_counted_there_as_on_the_cpu():
    random = np.random.default_rng(0)
    truth = torch.from_numpy(random.choice(np.array([0, 1, 3, 255], np.uint8), (6, 40, 50)))
    probabilities = torch.from_numpy(random.random((6, 2, 40, 50), np.float32))
    predictions = torch.from_numpy(random.integers(0, 3, (6, 40, 50), np.uint8))
    asked = [Asked(f"q{n}", (1, 3)) for n in range(6)]
    tallies = [EpisodeCounts(4), EpisodeCounts(4)]
    for tally, device in zip(tallies, ("cpu", "cuda"), strict=True):
        tally.add(asked, *(each.to(device) for each in (predictions, probabilities, truth)))
    np.testing.assert_array_equal(tallies[0].counts.dense(), tallies[1].counts.dense())
    np.testing.assert_array_equal(tallies[0].histograms, tallies[1].histograms)


def test_training_goes_on_in_its_format_after_a_look():
    method = build.method(configuration("fcn8s"), 6).cuda().train()
    before = {name: each.stride() for name, each in method.named_parameters()}
    with evaluating(method), torch.inference_mode():
        method.predict(torch.zeros(1, 3, 64, 64, device="cuda"))
    assert {name: each.stride() for name, each in method.named_parameters()} == before
    method(method.normalize(torch.zeros(2, 3, 64, 64, device="cuda"))).sum().backward()
