"""CAM seeds: the sweep over thresholds, tags as the only labels, and what an image-level run may be chosen by."""

import json
import shutil

import numpy as np
import pytest
import torch
from dummy_data import write_voc
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st

from segladder.data.labels.kinds.tags import Tags
from segladder.data.sources.voc import VOC
from segladder.data.training.held_out import HeldOut
from segladder.data.training.views import Images
from segladder.errors import DataError
from segladder.methods.image_level.base import ClassMapMethod, rescaled
from segladder.metrics.confusion import confusion_matrix
from segladder.metrics.threshold_sweep import ThresholdSweep
from segladder.ops.crf import backend_name, dense_crf, label_probabilities
from segladder.protocols.base import Scoring
from segladder.protocols.cam_seeds import Peaks, peaks
from segladder.protocols.classification import classification_score, ranked_precision
from segladder.protocols.inference import best
from segladder.runs.class_scores import StoredScores, digest_of
from segladder.stages.pseudo_masks import PseudoMasks, fitted, joined, labels_of

COMMON = {
    "name": "bright",
    "trains": True,
    "supervision": "image_level",
    "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0, "momentum": 0.0},
    "schedule": {"name": "constant"},
}


class Bright(ClassMapMethod):
    """Class c lights up where channel c of the image is bright."""

    def __init__(self):
        backbone = torch.nn.Identity()
        backbone.mean, backbone.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
        super().__init__(backbone, 0.3, **COMMON)

    def class_maps(self, images):
        return images[:, :2] + 1  # from -1..1 to 0..2

    def loss(self, batch):
        return {"loss": self.tag_logits(batch["image"]).sum()}


def protocol(*overrides):
    with initialize_config_module("segladder.conf", version_base="1.3"):
        words = ["protocol=cam_seeds", "data=voc", "data.classes=[cat,dog]", "protocol.bootstrap=50", *overrides]
        return instantiate(compose("train", words).protocol)


@pytest.fixture
def source(tmp_path):
    return VOC(write_voc(tmp_path, train=5), classes=["cat", "dog"])


@given(st.integers(0, 10_000))
def test_one_sweep_counts_what_every_threshold_alone_would(seed):
    random = np.random.default_rng(seed)
    thresholds = np.sort(random.random(4).astype(np.float32))
    scores = random.random((3, 6, 7), np.float32)
    scores[:, 0, :4] = thresholds  # exactly at a threshold: not above it
    truth = random.choice([0, 1, 2, 3, 255], (6, 7)).astype(np.uint8)
    sweep = ThresholdSweep(4, thresholds)
    for each in (scores, scores[:, ::-1]):
        sweep.add(each.argmax(0), each.max(0), truth)
    for threshold, found in zip(thresholds, sweep.confusions(), strict=True):
        expected = 0
        for each in (scores, scores[:, ::-1]):
            seeds = np.where(each.max(0) > threshold, each.argmax(0) + 1, 0)
            expected = expected + confusion_matrix(torch.from_numpy(seeds), torch.from_numpy(truth), 4).numpy()
        np.testing.assert_array_equal(found, expected)


def test_the_best_of_equal_scores_is_the_first():
    random = np.random.default_rng(0)
    scores = random.choice(np.array([0, 0.25, 0.5], np.float32), (2, 4, 30, 40))
    for found, each in zip(peaks(torch.from_numpy(scores)), scores, strict=True):
        np.testing.assert_array_equal(found.best, each.argmax(0))
        np.testing.assert_array_equal(found.height, each.max(0))
    np.testing.assert_array_equal(best(torch.from_numpy(scores)).numpy(), scores.argmax(1))


def test_the_fixed_threshold_ranks_and_the_best_is_called_oracle(source):
    result = protocol("protocol.threshold=0.5").score(Bright(), source)
    row = next(row for row in result.curve if row["threshold"] == 0.5)
    best = max(result.curve, key=lambda row: row["mIoU"])
    for name in ("mIoU", "over_activation", "under_activation"):
        assert result.metrics[name]["value"] == pytest.approx(row[name], abs=1e-9)
        assert result.metrics[f"{name}_oracle"]["value"] == best[name]
    assert result.metrics["threshold_oracle"]["value"] == best["threshold"]
    assert result.counts.images == source.split("train") and len(result.curve) == 16


def test_a_score_that_equals_the_threshold_is_background():
    heights = Peaks(np.zeros((1, 3), np.uint8), np.array([[0.2, 0.3, 0.4]], np.float32))
    assert protocol("protocol.threshold=0.3").labels(heights, Bright()).tolist() == [[0, 0, 1]]


def test_tags_leave_out_classes_that_are_not_there(source):
    def tags_without_dogs(image_id):
        return np.array([1.0, 0.0], np.float32)

    source.tags = tags_without_dogs
    conditioned = protocol().score(Bright(), source).counts.total()
    free = protocol("protocol.label_conditioned=false").score(Bright(), source).counts.total()
    assert conditioned[:, 2].sum() == 0 and free[:, 2].sum() > 0


def test_views_are_summed_and_each_class_is_divided_by_its_maximum():
    method = Bright().eval()
    images = torch.randint(0, 256, (2, 3, 20, 31), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tags = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    scores = method.class_scores((), images, tags, (1.0, 2.0), True)
    total = 0
    for size in ((20, 31), (40, 62)):
        pixels = images.float() if size == (20, 31) else rescaled(images, size)
        for mirrored in (False, True):
            maps = method.class_maps(method.normalize(pixels.flip(3) if mirrored else pixels)).relu()
            small = torch.nn.functional.interpolate(maps, size=(5, 8), mode="bilinear")
            total = total + (small.flip(3) if mirrored else small)
    total = total * tags[:, :, None, None]
    expected = (total - 1e-5).relu() / (total.amax((2, 3), keepdim=True) + 1e-5)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)


def test_average_precision_of_tags_is_that_of_scikit_learn():
    from sklearn.metrics import average_precision_score

    random = np.random.default_rng(0)
    scores, truth = random.random((40, 3)), (random.random((40, 3)) < 0.3).astype(np.float32)
    truth[:, 2] = 0
    found = ranked_precision(scores, truth)
    expected = [average_precision_score(truth[:, c], scores[:, c]) for c in range(2)]
    np.testing.assert_allclose(found[:2], expected)
    assert np.isnan(found[2])


def test_held_out_images_of_tags_have_no_mask(source):
    ids = source.split("train")
    held_out = HeldOut.of(source, ids, Tags(), Images())
    assert 0 < classification_score(Scoring(Bright(), held_out.source, held_out.judges)) <= 1
    assert np.array_equal(held_out.source.tags(ids[0]), source.tags(ids[0]))
    for ask in (held_out.source.mask, held_out.source.raw_mask, held_out.source.pair):
        with pytest.raises(DataError, match=f"the mask of {ids[0]} is asked for, but the labels show none"):
            ask(ids[0])


SMALL = ["data.train_size=20", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=0"]
SMALL += ["logger=none", "trainer.progress=false", "trainer.panels=1", "loader.batch_size=4", "trainer.epochs=1"]
SEEDS = ["protocol=cam_seeds", "protocol.bootstrap=20", "protocol.scales=[1.0]"]


@pytest.fixture(scope="module")
def chain(segladder, tmp_path_factory):
    """A CAM run, a CRF on its scores, and a network trained on the CRF's pseudo-masks."""
    folder = tmp_path_factory.mktemp("chain")

    def train(name, *words):
        assert segladder("train", *SMALL, f"hydra.run.dir={folder / name}", *words) == 0

    train("cam", "method=cam", *SEEDS)
    train("crf", "method=dense_crf", f"parent={folder / 'cam'}", *SEEDS)
    train("fcn", "method=fcn8s", f"parent={folder / 'crf'}")
    return folder


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


def test_each_stage_names_its_parent_and_what_it_learnt_from(chain):
    cam, crf, fcn = (record_of(chain / name) for name in ("cam", "crf", "fcn"))
    assert (crf["parents"], fcn["parents"]) == ([cam["id"]], [crf["id"]])
    assert [r["supervision"] for r in (cam, crf, fcn)] == ["image_level"] * 3
    assert [r["label_access"]["labels"] for r in (cam, crf, fcn)] == ["tags", "tags", "pseudo-masks"]
    assert fcn["annotation_cost"] == cam["annotation_cost"]
    assert crf["config"]["method"]["backend"] == backend_name()  # `auto` in the configuration
    assert len(cam["curve"]) == 16 and (chain / "cam" / "curve.png").exists() and crf["curve"] == []


def test_pseudo_masks_come_with_a_manifest_and_are_what_was_scored(chain, shapes_root):
    (manifest,) = (chain / "crf").glob("pseudo_masks/*/manifest.json")
    made = json.loads(manifest.read_text())
    assert made["parent"] == record_of(chain / "crf")["id"] and len(made["images"]) == 20
    with initialize_config_module("segladder.conf", version_base="1.3"):
        drawn = instantiate(compose("train", [*SMALL, f"data.root={shapes_root}"]).data)
    confusion = torch.zeros(21, 21)
    masks = drawn.with_training_masks(manifest.parent)
    for image_id in drawn.split("train"):
        confusion += confusion_matrix(
            torch.from_numpy(masks.mask(image_id)), torch.from_numpy(drawn.mask(image_id)), 21
        )
    accuracy = float(confusion.trace() / confusion.sum())
    assert record_of(chain / "crf")["metrics"]["pixel_accuracy"]["value"] == pytest.approx(accuracy, abs=1e-6)


def test_pseudo_masks_see_images_of_the_size_that_was_scored(segladder, tmp_path):
    large = [*SMALL, "data.train_size=4", "trainer.steps=1", "trainer.panels=0"]
    seeds = ["method=cam", *SEEDS, "protocol.input_size=96", f"hydra.run.dir={tmp_path / 'cam'}"]
    assert segladder("train", *large, *seeds) == 0
    network = ["method=fcn8s", f"parent={tmp_path / 'cam'}", f"hydra.run.dir={tmp_path / 'fcn'}"]
    assert segladder("train", *large, *network) == 0
    kept = list((tmp_path / "cam" / "class_scores").rglob("*.npz"))
    assert len(kept) == 4 and {np.load(path)["scores"].shape[1:] for path in kept} == {(24, 24)}


def test_another_image_of_the_same_name_gets_pseudo_masks_of_its_own(chain, shapes_root, tmp_path, monkeypatch):
    run = shutil.copytree(chain / "cam", tmp_path / "cam")
    with initialize_config_module("segladder.conf", version_base="1.3"):
        config = compose("train", [*SMALL, f"data.root={shapes_root}"])
    drawn = instantiate(config.data)
    *ids, third = drawn.split("train")[:3]

    def made():
        return PseudoMasks(run, config.pseudo_masks, tuple(ids)).folder(drawn, False)

    before = made()
    assert made() == before
    other = drawn.image_path(third)
    with monkeypatch.context() as patch:
        patch.setattr(type(drawn), "image_path", lambda self, image_id: other)
        assert made() != before
    monkeypatch.setattr(type(drawn), "tags", lambda self, image_id: np.eye(len(drawn.foreground), dtype=np.float32)[0])
    assert made() != before


def test_kept_scores_belong_to_pixels_and_tags(chain):
    asked = []

    def load(folder):
        method = Bright()
        method.class_maps = lambda images: asked.append(len(images)) or images[:, :2] + 1
        return method

    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).view(2, 3, 8, 8)
    tags = torch.tensor([[1.0, 0.0], [1.0, 1.0]])

    def answer(pixels, known):
        asked.clear()
        return StoredScores(chain / "cam", load)(["a", "b"], pixels, known, [1.0], False)

    first = answer(images, tags)
    assert asked == [2] and torch.equal(answer(images, tags), first) and asked == []
    changed = images.clone()
    changed[1] = 255 - changed[1]
    assert not torch.equal(answer(changed, tags)[1], first[1]) and asked == [1]
    assert answer(changed, torch.ones(2, 2))[0, 1].any() and asked == [1]
    answer(images, tags)
    other = answer(images, torch.tensor([[0.0, 1.0], [1.0, 1.0]]))  # as many classes as were kept, but another
    assert asked == [1] and other[0, 1].any() and not other[0, 0].any() and torch.equal(other[1], first[1])


DAMAGED = {
    "channels a list": {"channels": [2, 3]},
    "channels without end": {"channels": 10**12},
    "channels infinite": {"channels": float("inf")},
    "one channel": {"channels": 1},
    "channels below none": {"channels": -1},
    "too few rows": {"scores": np.zeros((1, 2, 2), np.float16)},
    "text": {"scores": np.full((2, 2, 2), "a")},
    "other dimensions": {"scores": np.zeros((2, 2), np.float16)},
    "no pixels": {"scores": np.zeros((2, 0, 2), np.float16)},
    "another size": {"scores": np.zeros((2, 5, 2), np.float16)},
    "a background": {"channels": 3, "scores": np.zeros((3, 2, 2), np.float16)},
}


@pytest.mark.parametrize("wrong", DAMAGED.values(), ids=DAMAGED)
def test_kept_scores_of_another_form_are_computed_anew(chain, wrong):
    images, tags = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).view(2, 3, 8, 8), torch.ones(2, 2)
    ids = ["first", "second"]

    def answer():
        return StoredScores(chain / "cam", lambda folder: Bright())(ids, images, tags, [1.0], False)

    expected = answer()
    (file,) = (chain / "cam" / "class_scores").glob("*/second.npz")
    with np.load(file) as stored:
        kept = {**stored, **wrong}
    np.savez(file, **{**kept, "digest": digest_of(kept["scores"])})
    assert torch.equal(answer(), expected)
    with np.load(file) as stored:
        assert int(stored["channels"]) == 2 and stored["scores"].shape == (2, 2, 2)


def test_pixels_between_both_thresholds_are_ignored():
    scores = np.array([[[0.9, 0.5, 0.2, 0.0]], [[0.1, 0.6, 0.1, 0.0]]], np.float32)  # (C, H, W)
    sure, cautious = (labels_of(scores, "constant", value) for value in (0.55, 0.15))
    assert joined(sure, cautious).tolist() == [[1, 2, 255, 0]]
    assert labels_of(scores, "power", 2).tolist() == [[1, 2, 0, 0]]  # backgrounds .01, .16, .64, 1


def test_labels_are_refined_among_the_classes_they_hold():
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (12, 16, 3), np.uint8) for _ in range(2)]
    labels = [
        np.full((12, 16), 7, np.uint8),
        np.where(np.arange(16) < 9, 3, 0).astype(np.uint8).repeat(12).reshape(12, 16),
    ]
    found = fitted(images, labels, "torch")
    probabilities = label_probabilities(torch.from_numpy((labels[1] == 3).astype(np.uint8)), 2)
    refined = dense_crf(torch.from_numpy(images[1]), probabilities, 10, 3, 3, 50, 5, 10, "torch").argmax(0).numpy()
    assert (found[0] == 7).all() and (found[1] == np.where(refined, 3, 0)).all()


def test_pseudo_masks_after_a_crf_name_its_backend(chain, segladder, tmp_path):
    words = [f"parent={chain / 'cam'}", "pseudo_masks.crf=true", "trainer.steps=1", f"hydra.run.dir={tmp_path}"]
    assert segladder("train", *SMALL, "method=fcn8s", *words) == 0
    (manifest,) = (chain / "cam").glob("pseudo_masks/*/manifest.json")
    assert json.loads(manifest.read_text())["settings"]["crf"] == backend_name()


def test_a_missing_pseudo_mask_is_named(chain, segladder, tmp_path, capsys):
    (manifest,) = (chain / "crf").glob("pseudo_masks/*/manifest.json")
    lost = manifest.parent / "train_0003.png"
    content = lost.read_bytes()
    lost.unlink()
    assert segladder("train", *SMALL, "method=fcn8s", f"parent={chain / 'crf'}", f"hydra.run.dir={tmp_path}") == 1
    lost.write_bytes(content)
    assert "no pseudo-masks of train_0003" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["method=dense_crf", *SEEDS], "method=dense_crf builds on another run: give parent=RUN"),
        (["method=cam", "parent=CAM", *SEEDS], "method=cam takes nothing from another run"),
        (["method=dense_crf", "parent=nowhere", *SEEDS], "parent=nowhere: no record.json there"),
        (["method=fcn8s", "parent=FCN"], "gives no class scores"),
        (["method=fcn8s", "parent=CAM", "pseudo_masks.background=soft"], "expected one of constant, power, base"),
        (["method=fcn8s", "parent=CAM", "data.classes=[disc_solid]"], "it knows the classes"),
        (["method=fcn8s", *SEEDS], "scores image_level methods, but method=fcn8s is full"),
    ],
)
def test_what_cannot_be_a_stage_is_refused_in_one_line(chain, segladder, tmp_path, capsys, words, complaint):
    words = [w.replace("CAM", str(chain / "cam")).replace("FCN", str(chain / "fcn")) for w in words]
    assert segladder("train", *SMALL, f"hydra.run.dir={tmp_path}", *words) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.long
def test_masks_of_images_change_nothing_that_tags_have_taught(segladder, tmp_path, shapes_root):
    """Scrambled masks with the same tags: same weights, same seeds, same pseudo-masks and same final network."""
    root = tmp_path / "shapes"
    weights = []
    for name in ("as drawn", "scrambled"):
        if name == "scrambled":
            scramble(root)
        folder = tmp_path / name
        place = [f"data.root={root}"]
        chain = [("cam", "method=cam"), ("irn", "method=irn"), ("net", "method=fcn8s")]
        for i, (stage, method) in enumerate(chain):
            words = [method, *place, f"hydra.run.dir={folder / stage}", *(SEEDS if stage != "net" else [])]
            words += [f"parent={folder / chain[i - 1][0]}"] if i else []
            words += ["pseudo_masks.foreground_at=0.5", "pseudo_masks.background_at=0.2"]
            assert segladder("train", *SMALL, *words) == 0
        weights.append({s: torch.load(folder / s / "weights.pt", weights_only=True) for s, _ in chain})
    for stage, first in weights[0].items():
        assert all(torch.equal(first[key], weights[1][stage][key]) for key in first)


def scramble(root):
    """Shuffle the pixels of every training mask; which classes it holds stays the same."""
    from PIL import Image

    random = np.random.default_rng(0)
    for path in root.rglob("SegmentationClass/train_*.png"):
        with Image.open(path) as drawn:
            mask, palette = np.array(drawn), drawn.getpalette()
        shuffled = Image.fromarray(random.permutation(mask.ravel()).reshape(mask.shape), "P")
        shuffled.putpalette(palette)
        shuffled.save(path)
