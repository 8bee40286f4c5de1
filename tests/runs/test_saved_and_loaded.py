"""Saved and loaded, every method answers what it answered before: from the run's folder, for every yaml."""

import json
import shutil
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dummy_data import write_videos
from small_methods import configuration, small_words

from segladder.commands import train as train_command
from segladder.configuration import choices
from segladder.data.words.embeddings import Embeddings
from segladder.errors import DataError
from segladder.methods.few_shot.base import FewShotMethod
from segladder.ops import crf
from segladder.runs.build import method_class
from segladder.runs.loading import load_run

pytestmark = pytest.mark.long

SHAPES = ["data.train_size=20", "data.val_size=8", "data.size=64"]
SMALL = [
    *("loader.workers=0", "loader.batch_size=4"),
    *("trainer.steps=2", "trainer.progress=false", "trainer.panels=0", "logger=none", "protocol.bootstrap=20"),
]
EPISODES = ["protocol.min_object=none", "protocol.episodes=5", "protocol.seeds=[0]", "protocol.beside=1"]
USUAL = {  # settings of each supervision
    "full": ["protocol=semantic"],
    "image_level": ["protocol=cam_seeds", "protocol.scales=[1]"],
    "none": ["protocol=semantic", "method.naming_images=5"],
    "few_shot": ["data.train_size=160", "data.val_size=60", "protocol=strict", *EPISODES],
    "zero_shot": ["protocol=zero_shot", "protocol.transductive=true", "protocol.unseen_pixels=ignore"],
}
PARENTS = {"image_level": "cam", "zero_shot": "seen_classifier"}
STAGES = {"fusionseg_appearance": None, "fusionseg_motion": "fusionseg_appearance", "fusionseg": "fusionseg_motion"}
ON_VIDEOS = ["data=davis", "data.parts=2", "data.train_split=rest", "data.val_split=part", "loader.augment.crop=48"]
BACKGROUNDS = ("ignore", "seen")
QUICK = (
    "fcn8s",
    "fusionseg",
    "kmeans",
    "cam",
    "irn",
    "advcam",
    "dense_crf",
    "sg_one",
    "prototype",
    "spnet",
    "transductive",
    "zs3net",
    "cagnet",
    "attribute",
)


def cases():
    """Every method, zero-shot ones under both rules for the background; the quick ones are not slow."""
    for name in choices("method"):
        rules = BACKGROUNDS if configuration(name).method.supervision == "zero_shot" else (None,)
        marks = () if name in QUICK else pytest.mark.slow
        for background in rules:
            yield pytest.param(name, background, id="-".join(filter(None, (name, background))), marks=marks)


@pytest.fixture(scope="module")
def trained(segladder, tmp_path_factory):
    """Trains a method once, after its parent; returns the folder, and the method as it was in memory when scored."""
    runs, videos = tmp_path_factory.mktemp("runs"), write_videos(tmp_path_factory.mktemp("videos"))

    @cache
    def trained(name, background, *more):
        config = configuration(name)
        supervision = config.method.supervision
        data = [*SHAPES, *SMALL, *USUAL[supervision]]
        if name in STAGES:
            data = [*ON_VIDEOS, f"data.root={videos}", *SMALL, "protocol=davis2016_automatic"]
        words = [*small_words(name), *data, *more]
        if background:
            words.append(f"protocol.background={background}")
        if method_class(config).needs_parent:
            words.append(f"parent={trained(STAGES.get(name) or PARENTS[supervision], background).folder}")
        folder = runs / "-".join(filter(None, (name, background, *more))).replace("=", "").replace("/", "_")
        kept = []
        with pytest.MonkeyPatch.context() as patch:
            carry_out = train_command.carry_out
            patch.setattr(train_command, "carry_out", lambda run: (kept.append(run.method), carry_out(run)))
            assert segladder("train", *words, f"hydra.run.dir={folder}") == 0
        return SimpleNamespace(folder=folder, method=kept[0].eval())

    return trained


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


def answers(method):
    """What a method answers to two fixed images."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, 64, 80), dtype=torch.uint8, generator=random)
    masks = torch.zeros(2, 2, 64, 80)
    masks[:, :, :40, 30:] = 1
    supports = torch.randint(0, 256, (2, 2, 3, 64, 80), dtype=torch.uint8, generator=random)
    with torch.inference_mode():
        if method.reads_flow:
            return method.predict(pixels, torch.rand(2, 2, 64, 80, generator=random) - 0.5)
        return method.predict(pixels, supports, masks) if isinstance(method, FewShotMethod) else method.predict(pixels)


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.mark.parametrize(("name", "background"), cases())
def test_a_loaded_run_answers_and_scores_as_it_did(trained, segladder, name, background):
    run = trained(name, background)
    loaded = load_run(run.folder)[2]
    assert_equal(dict(loaded.named_buffers()), dict(run.method.named_buffers()))
    assert torch.equal(answers(loaded), answers(run.method))
    assert segladder("evaluate", f"run={run.folder}", "progress=false", "panels=0") == 0
    (again,) = run.folder.glob("evaluations/*")
    for key in ("metrics", "per_class", "curve"):
        assert record_of(again)[key] == record_of(run.folder)[key]


@pytest.mark.parametrize("name", ["spnet", "transductive", "attribute"])
def test_few_labels_are_known_after_loading(trained, name):
    run = trained(name, "ignore", "pool=1")
    assert_equal(dict(load_run(run.folder)[2].named_buffers()), dict(run.method.named_buffers()))


@pytest.mark.parametrize("name", ["transductive", "attribute", "zs3net", "cagnet"])
def test_a_run_of_an_older_version_says_what_was_seen_in_its_weights(trained, tmp_path, name):
    run = trained(name, "ignore")
    old = shutil.copytree(run.folder, tmp_path / "old")
    Embeddings.load(old / "embeddings.npz").save(old / "embeddings.npz")
    assert torch.equal(answers(load_run(old)[2]), answers(run.method))


def test_what_is_seen_must_fit_the_classes(trained, tmp_path):
    old = shutil.copytree(trained("spnet", "ignore").folder, tmp_path / "old")
    Embeddings.load(old / "embeddings.npz").save(old / "embeddings.npz", seen=np.ones(3, bool), few_labels=np.bool_(0))
    with pytest.raises(DataError, match=r"embeddings.npz: seen is bool \(3,\), expected bool for each of 21 classes"):
        load_run(old)


def test_a_choice_that_was_left_open_stays_what_it_came_to(trained, monkeypatch):
    folder = trained("dense_crf", None).folder
    monkeypatch.setattr(crf, "find_spec", lambda name: True)  # installed after the run was made
    assert load_run(folder)[2].resolved["backend"] == record_of(folder)["config"]["method"]["backend"]


@pytest.mark.parametrize("name", ["prototype", "fine_tune"])
def test_features_that_never_learn_lie_in_the_run_that_uses_them(trained, tmp_path, name):
    source = shutil.copytree(trained("panet", None).folder, tmp_path / "source")
    run = trained(name, None, f"backbone.weights={source}")
    learnt, used = (torch.load(place / "weights.pt", weights_only=True) for place in (source, run.folder))
    assert all(torch.equal(learnt[key], used[key]) for key in used)
    shutil.rmtree(source)
    assert torch.equal(answers(load_run(run.folder)[2]), answers(run.method))
