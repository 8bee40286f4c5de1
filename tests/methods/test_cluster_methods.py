"""Methods without labels: what they find, how an oracle names it, and that no other label reaches them."""

from __future__ import annotations

import json
import shutil
from itertools import permutations

import numpy as np
import pytest
import torch
from dummy_data import save_mask
from ladder_data import COLOURS, HELD, mask_of, write_ladder
from PIL import Image

from segladder.data.hashing import hashed_share
from segladder.data.labels.kinds import kinds
from segladder.data.sources.folder import Folder
from segladder.data.training.views import Images
from segladder.errors import ConfigError
from segladder.methods.none.base import names_of
from segladder.methods.none.kmeans import KMeans
from segladder.methods.none.superpixels import Superpixels, merged, superpixels
from segladder.metrics.superpixels import majority_answer

NOTHING = {"optimizer": {}, "schedule": {}, "trains": False, "supervision": "none"}
STUDY = {"study_images": 10, "naming_images": 5, "clusters": None, "matching": "hungarian"}


def kmeans(**changes) -> KMeans:
    settings = {**NOTHING, **STUDY, "name": "kmeans", "backbone": None, "level": None, "place": 0.0, "num_classes": 5}
    return KMeans(**settings | changes)


def cutting(**changes) -> Superpixels:
    settings = {**NOTHING, **STUDY, "name": "superpixels", "segments": 40, "compactness": 10.0, "merge": 15.0}
    return Superpixels(**settings | {"place": 0.0, "num_classes": 5} | changes)


def pairs(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images of flat colours, one for each class, with their masks."""
    random = np.random.default_rng(0)
    masks = [mask_of(HELD[i % len(HELD)], random) for i in range(count)]
    return [(COLOURS[np.where(mask == 255, 0, mask)].astype(np.uint8), mask) for mask in masks]


def answer(method, image: np.ndarray) -> np.ndarray:
    return method.predict(torch.from_numpy(image).permute(2, 0, 1)[None])[0].argmax(0).numpy()


@pytest.mark.parametrize(
    "method", [kmeans(), cutting(), kmeans(matching="majority")], ids=["kmeans", "cuts", "majority"]
)
def test_flat_colours_are_found_and_named_right(method):
    shown = pairs(20)
    method.study((image for image, _ in shown[10:]), shown[:10])
    for image, mask in shown:
        labelled = mask != 255
        right = (answer(method, image) == mask)[labelled].mean()
        assert right > 0.95 if method.cuts else right == 1  # superpixels round corners off
    assert sorted(method.names.tolist()) == [0, 1, 2, 3, 4]


def test_places_tell_what_colours_do_not():
    image = np.full((32, 32, 3), 128, np.uint8)
    mask = np.kron(np.arange(4, dtype=np.uint8).reshape(2, 2), np.ones((16, 16), np.uint8))
    for place, right in ((1.0, 1.0), (0.0, 0.25)):
        method = kmeans(num_classes=4, place=place)
        noisy = image + np.random.default_rng(0).integers(0, 2, image.shape, dtype=np.uint8)
        method.study([noisy], [(noisy, mask)])
        assert (answer(method, noisy) == mask).mean() == pytest.approx(right, abs=0.1)


def test_hungarian_names_make_the_most_pixels_right():
    random = np.random.default_rng(0)
    for clusters, classes in ((4, 4), (3, 5), (6, 4)):
        overlap = random.integers(0, 100, (clusters, classes))
        names = names_of(overlap, "hungarian")
        few = min(clusters, classes)
        best = max(
            sum(overlap[c, k] for c, k in zip(chosen, order, strict=True))
            for chosen in permutations(range(clusters), few)
            for order in permutations(range(classes), few)
            if list(chosen) == sorted(chosen)
        )
        largest = [max(overlap[names == name, name]) for name in set(names)]  # of each class the cluster that counts
        assert len(largest) == few and sum(largest) >= best
        if clusters <= classes:  # none is left over
            assert sum(largest) == best
        assert np.array_equal(names_of(overlap, "majority"), overlap.argmax(1))


def test_more_clusters_than_pixels_are_refused():
    image = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ConfigError, match=r"method.clusters=9: more than the 4 pixels looked at"):
        kmeans(clusters=9).study([image], [])


def noisy_image() -> np.ndarray:
    image = pairs(8)[7][0].astype(np.int64) + np.random.default_rng(0).integers(-25, 26, (64, 64, 3))
    return image.clip(0, 255).astype(np.uint8)


def test_merged_segments_are_unions_of_neighbours_of_like_colour():
    image = noisy_image()
    cut = superpixels(image, 60, 10.0)
    assert np.array_equal(merged(image, cut, 0), cut) and merged(image, cut, 1e6).max() == 0
    joined = merged(image, cut, 30.0)
    assert 1 < len(np.unique(joined)) < len(np.unique(cut))
    for segment in np.unique(cut):
        assert len(np.unique(joined[cut == segment])) == 1
    means = [image[joined == segment].mean(0) for segment in np.unique(joined)]
    beside = {*zip(joined[:, :-1].flat, joined[:, 1:].flat, strict=True)}
    beside |= {*zip(joined[:-1].flat, joined[1:].flat, strict=True)}
    for first, second in {(a, b) for a, b in beside if a != b}:
        assert np.linalg.norm(means[first] - means[second]) >= 30


def test_the_likest_neighbours_are_merged_first():
    image = np.repeat(np.array([0, 40, 70, 120], np.uint8), 4)[None, :, None].repeat(3, 0).repeat(3, 2)
    stripes = np.repeat(np.arange(4), 4)[None].repeat(3, 0)
    root = 3**0.5  # grey levels differ in three channels
    for threshold, expected in (
        (29 * root, [0, 1, 2, 3]),
        (31 * root, [0, 1, 1, 2]),  # now at 55: 55 from the first, 65 from the last
        (56 * root, [0, 0, 0, 1]),  # at 36.7: 83.3 from the last
        (84 * root, [0, 0, 0, 0]),
    ):
        assert merged(image, stripes, threshold)[0, ::4].tolist() == expected


def test_merging_is_what_a_slow_search_of_all_neighbours_gives():
    image = noisy_image()[:24, :24]
    cut = superpixels(image, 25, 10.0)
    slow = cut.copy()
    while True:
        means = {s: image[slow == s].astype(np.float64).mean(0) for s in np.unique(slow)}
        beside = {
            *zip(slow[:, :-1].flat, slow[:, 1:].flat, strict=True),
            *zip(slow[:-1].flat, slow[1:].flat, strict=True),
        }
        gaps = sorted((np.linalg.norm(means[a] - means[b]), min(a, b), max(a, b)) for a, b in beside if a != b)
        if not gaps or gaps[0][0] >= 40:
            break
        slow[slow == gaps[0][2]] = gaps[0][1]
    assert len(np.unique(cut)) > len(np.unique(slow)) > 1
    assert np.array_equal(merged(image, cut, 40.0), np.unique(slow, return_inverse=True)[1].reshape(slow.shape))


def test_a_segment_is_described_by_its_mean():
    method, pixels = cutting(place=0.5), torch.from_numpy(noisy_image()).permute(2, 0, 1)[None]
    described, segments = method.described(pixels)[0].double().numpy(), method.segments(pixels)[0].numpy()
    places = (np.mgrid[:64, :64] + 0.5) / 64 * 0.5
    features = np.concatenate([pixels[0].double().numpy() / 255, places])
    for segment in range(segments.max() + 1):
        inside = segments == segment
        expected = np.broadcast_to(features[:, inside].mean(1)[:, None], (5, inside.sum()))
        np.testing.assert_allclose(described[:, inside], expected, atol=1e-5)


def test_the_best_answer_gives_each_segment_its_commonest_class():
    random = np.random.default_rng(0)
    segments, truth = random.integers(0, 9, (12, 15)), random.choice([0, 1, 2, 3, 255], (12, 15)).astype(np.uint8)
    truth[segments == 4] = 255
    best = majority_answer(segments, truth, 4)
    for segment in range(9):
        (found,) = np.unique(best[segments == segment])
        counts = [((truth == k) & (segments == segment)).sum() for k in range(4)]
        assert counts[found] == max(counts)
    assert (best[segments == 4] == 0).all()
    assert np.array_equal(majority_answer(np.arange(180).reshape(12, 15), truth, 4), np.where(truth == 255, 0, truth))


def test_items_without_labels_hold_images_alone(tmp_path, monkeypatch):
    source = Folder(write_ladder(tmp_path, train=10))

    def reached(*_):
        raise AssertionError("a label was read")

    for name in ("tags", "mask", "raw_mask"):
        monkeypatch.setattr(source, name, reached)
    dataset = Images().dataset(source, source.split("train"), kinds()["none"])
    assert set(dataset[0]) == {"id", "image"} and set(dataset[1, 7]) == {"id", "image"}


SMALL = [
    *("data=folder", "data.folds=[[apple,brick],[cloud,drum]]", "loader.workers=0", "protocol.bootstrap=20"),
    *("trainer.progress=false", "trainer.panels=0", "logger=none", "method.naming_images=8"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_ladder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def train(segladder, root, tmp_path_factory):
    """Trains a method on the folder, or on a copy of it; returns the run's folder."""
    runs = tmp_path_factory.mktemp("runs")

    def run(name, *words, root=root):
        folder = runs / name
        assert segladder("train", *SMALL, f"data.root={root}", *words, f"hydra.run.dir={folder}") == 0
        return folder

    return run


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


def test_a_run_costs_nothing_and_says_that_an_oracle_named_it(train, segladder, capsys):
    folder = train("cuts", "method=superpixels")
    record, metrics = record_of(folder), record_of(folder)["metrics"]
    access = record["label_access"]
    assert (record["supervision"], access["kind"], access["selection"]) == ("none", "none", "oracle")
    assert access["chosen_by"] == "masks of 8 training images, which name clusters"
    assert access["images"] == {"masks": 8} and record["annotation_cost"]["seconds"] == 0
    assert metrics["mIoU"]["value"] < metrics["superpixel_bound"]["value"] < 1
    assert metrics["superpixel_bound"]["low"] < metrics["superpixel_bound"]["high"]
    capsys.readouterr()
    assert segladder("leaderboard", f"runs={folder}", "format=markdown") == 0
    table = capsys.readouterr().out
    assert "| superpixel bound |" in table and "| oracle |" in table
    words = ["protocol=semantic", "protocol.split=train", "progress=false", "panels=0"]
    assert segladder("evaluate", f"run={folder}", *words) == 2
    assert "whose masks training has seen" in capsys.readouterr().err


def test_no_mask_but_those_that_name_reaches_a_run(train, root, tmp_path):
    ids = Folder(root).split("train")
    naming = sorted(ids, key=hashed_share)[:8]
    other, renamed = (shutil.copytree(root, tmp_path / name) for name in ("other", "renamed"))
    for image_id in ids:
        mask = np.asarray(Image.open(root / "masks" / f"{image_id}.png"))
        scrambled = np.where(mask == 255, 255, (mask + 1) % 5).astype(np.uint8)
        save_mask((renamed if image_id in naming else other) / "masks" / f"{image_id}.png", scrambled)
    plain, unseen, told = (
        torch.load(train(name, "method=kmeans", root=where) / "weights.pt", weights_only=True)
        for name, where in (("plain", root), ("unseen", other), ("told", renamed))
    )
    assert torch.equal(unseen["centres"], plain["centres"]) and torch.equal(unseen["names"], plain["names"])
    assert torch.equal(told["centres"], plain["centres"]) and not torch.equal(told["names"], plain["names"])


def test_a_rung_without_labels_stands_on_the_ladder(train, segladder, capsys):
    folder = train("rung", "method=kmeans", "protocol=ladder", "protocol.gamma_images=4")
    record = record_of(folder)
    assert record["annotation_cost"]["novel_seconds"] == 0 and record["annotation_cost"]["novel_labels"] == []
    capsys.readouterr()
    assert segladder("leaderboard", f"runs={folder}", "format=markdown") == 0
    assert "The cheapest here, kmeans, by an oracle, reaches" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["method=kmeans", "labels=masks"], "does not learn from them; choose labels=none"),
        (["method=fcn8s", "labels=none"], "does not learn from them; choose labels=points"),
        (["method=kmeans", "method.naming_images=40"], "of 40 training images none is left to find clusters in"),
        (["method=kmeans", "data.train_split=val"], "that split is scored, so training must not see it"),
        (["method=kmeans_features", "method.level=7"], "method.level=7: expected -4..3, the backbone has 4 maps"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_does_not_fit_is_refused(segladder, root, tmp_path, capsys, words, fault):
    given = [word for word in SMALL if word.split("=")[0] not in [own.split("=")[0] for own in words]]
    given = [word for word in given if "method=fcn8s" not in words or not word.startswith("method.")]
    assert segladder("train", *given, f"data.root={root}", *words, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert fault in capsys.readouterr().err
