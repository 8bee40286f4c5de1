"""Zero-shot runs from the command line: class vectors, label access, stages, self-training, few labels."""

import json
import shutil

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from PIL import Image

from segladder.data.labels.annotation_cost import supports
from segladder.data.training.views import HiddenClasses
from segladder.data.words.embeddings import Embeddings
from segladder.report.leaderboard import rank
from segladder.report.record import find_records
from segladder.stages.self_training import answered, surest

SMALL = ["data.train_size=20", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=0"]
SMALL += ["logger=none", "trainer.progress=false", "trainer.panels=1", "loader.batch_size=4", "trainer.epochs=1"]
SMALL += ["protocol.bootstrap=20", "protocol.gamma_images=4"]
OPEN = ["protocol=zero_shot", "protocol.transductive=true", "protocol.unseen_pixels=ignore"]
VALUES = {"disc_solid": 1, "square_striped": 6, "triangle_dotted": 11, "star_checkered": 16, "cross_solid": 17}
UNSEEN = list(VALUES)


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


@pytest.fixture(scope="module")
def runs(segladder, tmp_path_factory):
    """SPNet, a second stage on its surest answers, one on few labels, and a generator on a seen classifier."""
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
    train("few", "method=spnet", f"parent={folder / 'first'}", "pool=1", *OPEN)
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


def test_a_generator_trains_itself_on_its_surest_answers(runs, segladder, tmp_path):
    """ZS5: the second run starts from the first one's weights, and labels of unseen classes teach its classifier."""
    words = ["method=zs3net", f"parent={runs / 'zs3net'}", "pseudo_masks.surest=0.25", *OPEN]
    assert segladder("train", *SMALL, *words, f"hydra.run.dir={tmp_path}") == 0
    record = record_of(tmp_path)
    assert record["lineage"] == ["seen_classifier", "zs3net"]
    assert record["label_access"]["labels"] == "masks and pseudo-masks"
    assert list((runs / "zs3net").glob("pseudo_masks/*/manifest.json"))


@pytest.mark.parametrize("background", ["ignore", "seen"])
def test_a_background_that_is_no_class_takes_no_probability(segladder, runs, shapes_root, background):
    class Fixed(torch.nn.Module):
        """Logits of background, a seen and an unseen class."""

        def predict(self, images):
            return torch.tensor([3.0, 1.0, 2.0]).view(1, 3, 1, 1).expand(len(images), -1, *images.shape[-2:]).clone()

    with initialize_config_module("segladder.conf", version_base="1.3"):
        drawn = instantiate(compose("train", [*SMALL[:3], f"data.root={shapes_root}"]).data)
    table = HiddenClasses(["b"], background, transductive=True).table(["background", "a", "b"])
    ((_, answers, sureness, _),) = answered(Fixed(), drawn, drawn.split("train")[:1], [2], table)
    competing = np.exp([1.0, 2.0] if background == "ignore" else [3.0, 1.0, 2.0])
    assert (answers == 2).all() and np.allclose(sureness, np.exp(2.0) / competing.sum())


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


def test_few_labels_are_recorded_paid_for_and_no_zero_shot_row(runs):
    strict, few = record_of(runs / "first"), record_of(runs / "few")
    access = few["label_access"]
    assert access["hidden"] == [] and access["labels"] == "masks, few of unseen classes"
    assert sorted(name for names in access["shown"].values() for name in names) == sorted(UNSEEN)
    assert "shown" not in strict["label_access"] and strict["annotation_cost"]["novel_seconds"] == 0
    cost = supports(1, len(UNSEEN)).seconds()
    assert few["annotation_cost"]["novel_seconds"] == pytest.approx(cost, abs=0.1)
    assert few["annotation_cost"]["seconds"] - strict["annotation_cost"]["seconds"] == pytest.approx(cost, abs=0.2)
    assert few["protocol"]["hash"] == strict["protocol"]["hash"]
    (table,) = rank(record for record, folder in find_records(runs)[0] if folder.name in ("first", "few"))
    rows = {(row.supervision, row.shots, row.lineage) for row in table.rows}
    assert rows == {("zero_shot", None, ()), ("few_shot", 1, ("spnet",))}


def test_few_labels_scored_again_are_few_labels_still(runs, segladder):
    words = ["protocol=zero_shot", "progress=false", "panels=0", *SMALL[-2:], *OPEN[1:]]
    assert segladder("evaluate", f"run={runs / 'few'}", *words) == 0
    (again,) = (runs / "few" / "evaluations").glob("*/record.json")
    again, first = json.loads(again.read_text()), record_of(runs / "few")
    assert again["metrics"] == first["metrics"]
    assert all(again[key] == first[key] for key in ("supervision", "shots", "label_access", "annotation_cost"))


def test_a_run_is_not_scored_as_one_of_other_labels(runs, segladder, capsys):
    """Labels that training never had are no shots of the row."""
    words = ["protocol=zero_shot", "protocol.pool=2", "progress=false", "panels=0", *SMALL[-2:], *OPEN[1:]]
    for run, shown, pool in (("first", "no", "null"), ("few", "1", "1")):
        assert segladder("evaluate", f"run={runs / run}", *words) == 2
        said = capsys.readouterr().err
        assert (
            f"shown {shown} masks of each unseen class, but the protocol says pool=2; give protocol.pool={pool}" in said
        )


def test_labels_that_are_not_among_the_few_change_nothing_that_was_learnt(runs, segladder, shapes_root, tmp_path):
    root, shown = tmp_path / "shapes", record_of(runs / "few")["label_access"]["shown"]
    shutil.copytree(shapes_root, root)
    scatter(root, {image_id: [VALUES[name] for name in names] for image_id, names in shown.items()})
    words = ["method=spnet", f"parent={runs / 'first'}", "pool=1", *OPEN, f"data.root={root}"]
    assert segladder("train", *SMALL, *words, f"hydra.run.dir={tmp_path / 'few'}") == 0
    first, second = (torch.load(place / "few" / "weights.pt", weights_only=True) for place in (runs, tmp_path))
    assert record_of(tmp_path / "few")["label_access"]["shown"] == shown
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["method=spnet", "parent=FEW", "pool=1", *OPEN], "has learnt cross_solid, a novel class of fold=0"),
        (["method=spnet", "parent=FEW", *OPEN], "has learnt cross_solid, a novel class of fold=0"),
        (["method=spnet", "parent=FIRST", "pool=2", *OPEN], "pool=2: class triangle_dotted is in 1 training images"),
        (["method=variational", "pool=1", *OPEN], "method=variational does not learn from masks of unseen"),
        (["method=spnet", "parent=FIRST", "pool=1", "pseudo_masks.surest=0.5", *OPEN], "leave one out"),
        (["method=spnet", "parent=FIRST", "pseudo_masks.surest=0.5", *OPEN], "learns nothing from labels of unseen"),
        (
            ["method=spnet", "parent=FIRST", "pseudo_masks.surest=0.25", "protocol=zero_shot"],
            "set protocol.transductive",
        ),
        (["method=spnet", "parent=FIRST", "protocol=zero_shot"], "has seen images that hold"),
        (["method=spnet", "parent=FIRST", *OPEN, "fold=1"], "has learnt cross_striped, a novel class of fold=1"),
        (["method=spnet", "parent=FIRST", "pseudo_masks.surest=2", *OPEN], "pseudo_masks.surest=2"),
        (["method=zs3net", *OPEN], "method=zs3net builds on another run"),
        (
            ["method=spnet"],
            "protocol=semantic scores full, image_level, none methods, but method=spnet is zero_shot",
        ),
    ],
)
def test_leaks_and_what_does_not_fit_are_refused(runs, segladder, tmp_path, capsys, words, complaint):
    words = [w.replace("FIRST", str(runs / "first")).replace("FEW", str(runs / "few")) for w in words]
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
    for path in training_masks(root):
        mask, palette = read_palette_image(path)
        hidden = np.isin(mask, list(VALUES.values()))
        mask[hidden] = random.choice([*VALUES.values(), 255], hidden.sum())
        write_palette_image(path, mask, palette)


def scatter(root, shown):
    """Move every unseen pixel of the training masks, but those that an image shows, to where no label is seen."""
    random = np.random.default_rng(0)
    for path in training_masks(root):
        mask, palette = read_palette_image(path)
        hidden = np.setdiff1d(list(VALUES.values()), shown.get(path.stem, []))
        free = np.isin(mask, [0, 255, *hidden])
        mask[free] = random.permutation(mask[free])
        write_palette_image(path, mask, palette)


def training_masks(root):
    return sorted(root.rglob("SegmentationClass/train_*.png"))


def read_palette_image(path):
    with Image.open(path) as drawn:
        return np.array(drawn), drawn.getpalette()


def write_palette_image(path, values, palette):
    image = Image.fromarray(values, "P")
    image.putpalette(palette)
    image.save(path)
