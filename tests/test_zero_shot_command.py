"""Zero-shot runs from the command line: class vectors, label access, stages, self-training."""

import json

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from PIL import Image

from segladder.commands.self_training import surest
from segladder.data.embeddings import Embeddings

SMALL = ["data.train_size=20", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=0"]
SMALL += ["logger=none", "trainer.progress=false", "trainer.panels=1", "loader.batch_size=4", "trainer.epochs=1"]
SMALL += ["protocol.bootstrap=20", "protocol.gamma_images=4"]
OPEN = ["protocol=zero_shot", "protocol.transductive=true", "protocol.unseen_pixels=ignore"]
UNSEEN = ["disc_solid", "square_striped", "triangle_dotted", "star_checkered", "cross_solid"]


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


@pytest.fixture(scope="module")
def runs(segladder, tmp_path_factory):
    """SPNet, a second stage on its surest answers, and a generator on a seen classifier's features."""
    folder = tmp_path_factory.mktemp("runs")

    def train(name, *words):
        assert segladder("train", *SMALL, f"hydra.run.dir={folder / name}", *words) == 0

    train("first", "method=spnet", *OPEN)
    train(
        "second",
        "method=spnet",
        "method.softmax_over=all",
        f"parent={folder / 'first'}",
        "pseudo_masks.surest=0.25",
        *OPEN,
    )
    train("seen", "method=seen_classifier", *OPEN)
    train("zs3net", "method=zs3net", f"parent={folder / 'seen'}", *OPEN)
    return folder


def test_a_record_says_which_vectors_and_which_classes_were_hidden(runs):
    record = record_of(runs / "first")
    assert record["label_access"]["hidden"] == UNSEEN and record["fold"] == 0
    assert record["label_access"]["embeddings"]["control"] == "none"
    assert Embeddings.load(runs / "first" / "embeddings.npz").vectors.shape == (21, 19)
    assert record["protocol"]["ranked_by"] == "harmonic_mIoU" and record["curve"]
    assert {row["class"] for row in record["per_class"] if row["group"] == "unseen"} == set(UNSEEN)


def test_a_run_is_scored_again_without_the_files_of_its_vectors(runs, segladder):
    words = ["protocol=zero_shot", "progress=false", "panels=0", *SMALL[-2:], *OPEN[1:]]
    assert segladder("evaluate", f"run={runs / 'first'}", *words) == 0
    (again,) = (runs / "first" / "evaluations").glob("*/record.json")
    assert json.loads(again.read_text())["metrics"] == record_of(runs / "first")["metrics"]


def test_self_training_labels_unseen_pixels_alone_and_only_the_surest(runs, shapes_root):
    (manifest,) = (runs / "first").glob("pseudo_masks/*/manifest.json")
    with initialize_config_module("segladder.conf", version_base="1.3"):
        drawn = instantiate(compose("train", [*SMALL[:3], f"data.root={shapes_root}"]).data)
    made = drawn.with_training_masks(manifest.parent)
    hidden = [drawn.classes.index(name) for name in UNSEEN]
    named, free = 0, 0
    for image_id in drawn.split("train"):
        before, after = drawn.mask(image_id), made.mask(image_id)
        seen = ~np.isin(before, [0, 255, *hidden])
        assert (after[seen] == before[seen]).all()
        assert np.isin(after[~seen], [255, *hidden]).all()
        named, free = named + np.isin(after[~seen], hidden).sum(), free + (~seen).sum()
    assert 0.2 < named / free < 0.35
    assert record_of(runs / "second")["label_access"]["labels"] == "masks and pseudo-masks"
    assert record_of(runs / "second")["lineage"] == ["spnet"]


def test_the_surest_share_is_taken_of_each_class():
    counts = np.zeros((3, 1000), int)
    counts[0, [10, 500, 900]] = 50, 30, 20
    counts[1, 999] = 7
    limits = surest(counts, 0.5)
    assert 10 < limits[0] <= 500 and counts[0, limits[0] :].sum() == 50
    assert limits[1] <= 999 and counts[1, limits[1] :].sum() == 7


def test_a_generator_keeps_the_visual_network_of_its_parent(runs):
    parent = torch.load(runs / "seen" / "weights.pt", weights_only=True)
    child = torch.load(runs / "zs3net" / "weights.pt", weights_only=True)
    shared = [key for key in parent if key.startswith("features.")]
    assert shared and all(torch.equal(parent[key], child[key]) for key in shared)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["method=spnet", "parent=FIRST", "pseudo_masks.surest=0.25", "protocol=zero_shot"],
            "set protocol.transductive",
        ),
        (["method=spnet", "parent=FIRST", "protocol=zero_shot"], "has seen images that hold"),
        (["method=spnet", "parent=FIRST", *OPEN, "fold=1"], "has learnt cross_striped, a novel class of fold=1"),
        (["method=spnet", "parent=FIRST", "pseudo_masks.surest=2", *OPEN], "pseudo_masks.surest=2"),
        (["method=zs3net", *OPEN], "method=zs3net builds on another run"),
        (["method=spnet"], "protocol=semantic scores full and image_level methods, but method=spnet is zero_shot"),
    ],
)
def test_leaks_and_what_does_not_fit_are_refused(runs, segladder, tmp_path, capsys, words, complaint):
    words = [w.replace("FIRST", str(runs / "first")) for w in words]
    small = SMALL if any("zero_shot" in w for w in words) else SMALL[:-2]
    assert segladder("train", *small, f"hydra.run.dir={tmp_path}", *words) == 2
    assert complaint in capsys.readouterr().err


def test_labels_of_unseen_classes_change_nothing_that_was_learnt(segladder, tmp_path):
    weights = []
    for name in ("drawn", "scrambled"):
        root = tmp_path / "shapes"
        if name == "scrambled":
            scramble(root)
        folder = tmp_path / name
        words = ["method=transductive", *OPEN, f"data.root={root}", f"hydra.run.dir={folder}"]
        assert segladder("train", *SMALL, *words) == 0
        weights.append(torch.load(folder / "weights.pt", weights_only=True))
    assert all(torch.equal(first, second) for first, second in zip(*(w.values() for w in weights), strict=True))


def scramble(root):
    """Give every unseen pixel of the training masks another unseen class, or none (255)."""
    random = np.random.default_rng(0)
    for path in root.rglob("SegmentationClass/train_*.png"):
        with Image.open(path) as drawn:
            mask, palette = np.array(drawn), drawn.getpalette()
        hidden = np.isin(mask, [1, 6, 11, 16, 17])
        mask[hidden] = random.choice([1, 6, 11, 16, 17, 255], hidden.sum())
        shuffled = Image.fromarray(mask, "P")
        shuffled.putpalette(palette)
        shuffled.save(path)
