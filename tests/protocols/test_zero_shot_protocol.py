"""The zero-shot protocol: scores against labelling every image anew, the rule that chooses gamma, splits, presets."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from dummy_data import save_image, save_mask, write_list
from hydra import compose, initialize_config_module
from torch.nn.functional import interpolate

from segladder.data.labels.kinds.names import Names
from segladder.data.labels.labelled import seconds_of
from segladder.data.labels.prices import VOC_PRICES
from segladder.data.sources.decoding import read_mask
from segladder.data.sources.palette import voc_palette
from segladder.data.sources.voc import VOC, VOC_CLASSES
from segladder.errors import ConfigError
from segladder.methods.base import Method
from segladder.metrics.confusion import confusion_matrix
from segladder.metrics.counts import Asked
from segladder.metrics.overlap import iou
from segladder.ops.projection import calibrate
from segladder.protocols.zero_shot import UNSEEN, ZeroShotProtocol
from segladder.runs import build

CLASSES = VOC_CLASSES[1:6]
HIDDEN = ("bicycle", "boat")  # values 2 and 4
SEEN_INDICES, UNSEEN_INDICES = [1, 3, 5], [2, 4]
SIDE = 24
FIELDS = {
    **{"name": "zero_shot", "dataset": "voc", "split": "val", "classes": CLASSES, "other_classes": "ignore"},
    **{"split_name": "custom", "unseen": HIDDEN, "folds": (), "fold": 0, "background": "ignore"},
    **{
        "unseen_pixels": "ignore",
        "transductive": False,
        "gamma_on": "probabilities",
        "gammas": (0.2, 0.4, 0.6, 0.8, 1.0),
    },
    **{"gamma_rule": "fixed", "gamma": 0.4, "seen_kept": 0.8, "gamma_images": 6, "fit": "native"},
    **{"input_side": None, "score_at": "native", "absent": "skip", "bootstrap": 20},
}


class NearestColour(Method):
    """Scores by distance to each class's colour, in favour of seen classes."""

    def __init__(self, favour: float = 0.0, seen: tuple[int, ...] = (1, 3, 5), scale: float = 20.0) -> None:
        nothing = {"optimizer": {}, "schedule": {}, "mean": (0, 0, 0), "std": (1, 1, 1)}
        super().__init__(name="nearest_colour", supervision="zero_shot", trains=False, **nothing)
        self.seen = torch.isin(torch.arange(6), torch.tensor(seen))
        self.favour, self.scale = favour, scale

    def loss(self, batch):
        raise NotImplementedError

    def predict(self, images):
        colours = torch.from_numpy(voc_palette()[:6]).float()[None, :, :, None, None]  # (1, K, 3, 1, 1)
        distances = (images.float()[:, None] - colours).square().sum(2).sqrt()
        return self.favour * self.seen[:, None, None] - distances / self.scale


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Three stripes of classes on background, coloured as their classes or, in part, as another one."""
    voc, random = tmp_path_factory.mktemp("data") / "VOC2012", np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 5)):
        ids = [f"{split}{i}" for i in range(count)]
        write_list(voc / "ImageSets" / "Segmentation" / f"{split}.txt", ids)
        for image_id in ids:
            mask = np.zeros((SIDE, SIDE), np.uint8)
            shown = mask.copy()
            for row in (0, 8, 16):
                mask[row : row + 7, 4:], mask[row + 7] = random.integers(1, 6), 255
                shown[row : row + 7, 4:] = mask[row, 4]
                shown[row : row + 7, 16:] = random.integers(0, 6)
            blur = 0.7 * voc_palette()[shown] + 0.3 * random.integers(0, 256, (SIDE, SIDE, 3))
            save_image(voc / "JPEGImages" / f"{image_id}.jpg", blur.astype(np.uint8))
            save_mask(voc / "SegmentationClass" / f"{image_id}.png", mask)
    return voc


def source(root: Path, **options) -> VOC:
    return VOC(root, classes=CLASSES, train_split="train", **options)


def protocol(**fields) -> ZeroShotProtocol:
    return ZeroShotProtocol(**{**FIELDS, **fields})


def labelled(method: Method, data: VOC, ids, gamma: float, on: str = "probabilities", background: bool = False):
    """Confusion matrix (6, 6), each image alone, through `calibrate`; by default without a background."""
    classes = list(range(6)) if background else list(range(1, 6))
    total = torch.zeros(6, 6, dtype=torch.int64)
    for image_id in ids:
        image, mask = data.pair(image_id)
        logits = method.predict(torch.from_numpy(image).permute(2, 0, 1)[None])[:, classes]
        seen = ~torch.isin(torch.tensor(classes), torch.tensor(UNSEEN_INDICES))
        prediction = torch.tensor(classes)[calibrate(logits, seen, gamma, on).argmax(1)[0]]
        truth = torch.from_numpy(np.where((mask == 0) & (not background), 255, mask))
        total += confusion_matrix(prediction, truth, 6)
    return total


def means(confusion: torch.Tensor) -> tuple[float, float, float]:
    shares = iou(confusion)
    seen, unseen = (float(shares[group].nanmean()) for group in (SEEN_INDICES, UNSEEN_INDICES))
    return seen, unseen, 2 * seen * unseen / (seen + unseen)


def value(result, name: str) -> float:
    return result.metrics[name]["value"]


@pytest.mark.parametrize("on, favour", [("probabilities", 1.5), ("logits", 0.5)])
def test_the_curve_is_what_labelling_under_each_gamma_gives(root, on, favour):
    data, method = source(root), NearestColour(favour)
    result = protocol(gamma_on=on).score(method, data, batch_size=3)
    assert [point["gamma"] for point in result.curve] == [0, 0.2, 0.4, 0.6, 0.8, 1]
    for point in result.curve:
        expected = means(labelled(method, data, data.split("val"), point["gamma"], on))
        assert [point[name] for name in ("seen_mIoU", "unseen_mIoU", "harmonic_mIoU")] == pytest.approx(expected)
    assert len({point["harmonic_mIoU"] for point in result.curve}) > 3
    chosen = labelled(method, data, data.split("val"), 0.4, on)
    assert np.array_equal(result.counts.total(), chosen.numpy()) and value(result, "gamma") == 0.4
    assert value(result, "harmonic_mIoU") == pytest.approx(means(chosen)[2])
    assert value(result, "mIoU") == pytest.approx(float(iou(chosen)[1:].nanmean()))
    assert value(result, "pixel_accuracy") == pytest.approx(float(chosen.trace() / chosen.sum()))


def test_best_gamma_and_none_stand_beside(root):
    result = protocol().score(NearestColour(1.5), source(root))
    harmonics = {point["gamma"]: point["harmonic_mIoU"] for point in result.curve}
    assert value(result, "oracle_harmonic_mIoU") == max(harmonics.values()) == harmonics[value(result, "oracle_gamma")]
    assert value(result, "uncalibrated_harmonic_mIoU") == harmonics[0] < max(harmonics.values())
    assert value(protocol(gamma_rule="oracle").score(NearestColour(1.5), source(root)), "harmonic_mIoU") == max(
        harmonics.values()
    )
    assert max(p["seen_mIoU"] * p["unseen_mIoU"] for p in result.curve) < value(result, "gamma_area") < 1


def test_intervals_hold_their_scores_and_rows_say_which_group(root):
    result = protocol(bootstrap=200).score(NearestColour(1.5), source(root))
    for name in ("harmonic_mIoU", "seen_mIoU", "unseen_mIoU", "mIoU"):
        score = result.metrics[name]
        assert score["low"] < score["value"] < score["high"]
    assert {row["class"]: row["group"] for row in result.per_class} == {
        name: "unseen" if name in HIDDEN else "seen" for name in CLASSES
    }


def test_unseen_classes_alone_beside_the_commonest(root):
    data, method = source(root), NearestColour(1.5)
    result = protocol().score(method, data)
    right = pixels = 0
    counts = np.zeros(6)
    for image_id in data.split("val"):
        image, mask = data.pair(image_id)
        logits = method.predict(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
        guess = np.where(logits[2] >= logits[4], 2, 4)
        there = (mask == 2) | (mask == 4)
        right, pixels = right + (guess == mask)[there].sum(), pixels + there.sum()
        counts += np.bincount(mask[there], minlength=6)
    assert value(result, "unseen_only_pixel_accuracy") == pytest.approx(right / pixels)
    assert value(result, "majority_rate") == pytest.approx(counts.max() / pixels) != 1


def test_background_as_a_seen_class(root):
    data, method = source(root), NearestColour(1.5, seen=(0, 1, 3, 5))
    result = protocol(background="seen").score(method, data)
    confusion = labelled(method, data, data.split("val"), 0.4, background=True)
    shares = iou(confusion)
    assert np.array_equal(result.counts.total(), confusion.numpy())
    assert value(result, "seen_mIoU") == pytest.approx(float(shares[SEEN_INDICES].nanmean()))
    assert value(result, "seen_mIoU_with_background") == pytest.approx(float(shares[[0, *SEEN_INDICES]].nanmean()))
    assert value(result, "mIoU_with_background") == pytest.approx(float(shares.nanmean()))
    assert result.per_class[0]["group"] == "background"


def test_the_budget_rule_keeps_a_share_of_the_seen_score_on_training_images(root):
    data, method = source(root), NearestColour(1.5)
    budget = protocol(gamma_rule="seen_budget")
    ids = budget.gamma_ids(data)
    assert len(ids) == 6 and set(ids) < set(data.split("train"))
    chosen = value(budget.score(method, data), "gamma")
    seen = {}
    for gamma in budget.grid:
        confusion = labelled(method, data, ids, gamma)
        confusion[UNSEEN_INDICES] = 0  # no label of theirs counts
        seen[gamma] = float(iou(confusion)[SEEN_INDICES].nanmean())
    kept = [gamma for gamma in seen if all(seen[g] >= 0.8 * seen[0] for g in seen if g <= gamma)]
    assert chosen == max(kept) and 0 < chosen < 1


def changed(root: Path, target: Path, split: str, values, into=None) -> Path:
    """A copy in which these values are exchanged at random in the masks of a split, or with others."""
    for folder in ("JPEGImages", "ImageSets"):
        (target / folder).symlink_to(root / folder)
    for path in (root / "SegmentationClass").glob("*.png"):
        mask = read_mask(path)
        if path.name.startswith(split):
            there = np.isin(mask, values)
            mask[there] = np.random.default_rng(1).choice(into or values, there.sum())
        save_mask(target / "SegmentationClass" / path.name, mask)
    return target


@pytest.mark.parametrize("split, values", [("train", UNSEEN_INDICES), ("val", [1, 2, 3, 4, 5])])
def test_choosing_gamma_looks_at_no_unseen_label_and_no_scored_one(root, tmp_path, split, values):
    budget, method = protocol(gamma_rule="seen_budget"), NearestColour(1.5)
    before, after = (budget.score(method, source(r)) for r in (root, changed(root, tmp_path, split, values)))
    assert value(before, "gamma") == value(after, "gamma") > 0
    assert (before.metrics == after.metrics) == (split == "train")


@pytest.mark.parametrize("into", [[255], [0], [0, 255, *UNSEEN_INDICES]])
def test_choosing_gamma_does_not_tell_unseen_classes_from_what_is_ignored(root, tmp_path, into):
    budget = protocol(gamma_rule="seen_budget", gammas=tuple(np.linspace(0.02, 1, 50).round(2)))
    same = changed(root, tmp_path, "train", UNSEEN_INDICES, into)
    before, after = (budget.score(NearestColour(1.5), source(r)) for r in (root, same))
    assert before.metrics == after.metrics and value(before, "gamma") > 0


def test_held_out_images_choose_a_checkpoint_by_seen_labels_alone(root, tmp_path):
    method, ids = NearestColour(1.5), source(root).split("train")
    before = protocol().selection_score(method, source(root), ids, 4)
    assert before == protocol().selection_score(
        method, source(changed(root, tmp_path, "train", UNSEEN_INDICES)), ids, 4
    )
    confusion = labelled(method, source(root), ids, 0)
    confusion[UNSEEN_INDICES] = 0
    assert before == pytest.approx(float(iou(confusion)[SEEN_INDICES].nanmean()))
    oracle = protocol().selection_score(method, source(root), None, 4)
    assert oracle == value(protocol().score(method, source(root)), "harmonic_mIoU")


def test_a_network_at_square_input_is_scored_at_native_or_at_its_size(root):
    data, method = source(root), NearestColour(1.5)
    image, mask = data.pair("val0")
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    small = interpolate(pixels.float(), (12, 12), mode="area")  # near what the protocol's resizing gives
    for score_at, size in (("native", SIDE), ("input", 12)):
        result = protocol(fit="square", input_side=12, score_at=score_at, gamma=0).score(method, data, ids=["val0"])
        logits = interpolate(method.predict(small), (size, size), mode="bilinear")[:, 1:]
        truth = torch.from_numpy(mask)[:: SIDE // size, :: SIDE // size]
        agreement = ((logits.argmax(1)[0] + 1) == truth)[(truth != 0) & (truth != 255)].double().mean()
        assert result.counts.total().sum() == ((truth != 0) & (truth != 255)).sum()
        assert value(result, "pixel_accuracy") == pytest.approx(float(agreement), abs=0.05)


def test_a_picture_shows_the_labels_that_were_scored(root):
    data, method, chosen = source(root), NearestColour(1.5), protocol()
    result = chosen.score(method, data)
    picture = chosen.shown(method, data, Asked("val1"), result)
    confusion = confusion_matrix(torch.from_numpy(picture.prediction), torch.from_numpy(picture.truth), 6)
    assert np.array_equal(confusion.numpy(), result.counts.select([result.counts.images.index("val1")]).total())
    assert not (picture.truth == 0).any()


def test_published_splits_are_disjoint_and_nested():
    assert UNSEEN["spnet"] == VOC_CLASSES[16:]
    nested = [UNSEEN[f"zs3_{count}"] for count in (2, 4, 6, 8, 10)]
    assert [len(set(names)) for names in nested] == [2, 4, 6, 8, 10]
    assert all(set(few) < set(more) for few, more in pairwise(nested))
    for names in UNSEEN.values():
        assert set(names) < set(VOC_CLASSES[1:])


def test_folds_are_no_part_of_the_hash_and_other_splits_have_none():
    folds = (("bicycle",), ("boat", "bus"))
    first, second = (protocol(split_name="folds", unseen=None, folds=folds, fold=fold) for fold in (0, 1))
    assert first.hash == second.hash and (first.novel, second.novel) == folds
    assert first.place() == (0, None) and second.place().fold == 1
    assert protocol(fold=1).place().fold is None
    assert protocol(folds=folds).hash == protocol().hash != protocol(unseen=("boat",)).hash


def test_few_labels_are_another_row_of_the_same_table_and_paid_for(root):
    strict, few = protocol(), protocol(pool=2)
    assert few.hash == strict.hash == protocol(pool=0).hash
    assert [p.place().shots for p in (strict, protocol(pool=0), few)] == [None, None, 2]
    assert not strict.training(source(root)).shown and not strict.labelled_novel(source(root), Names())
    assert seconds_of(few.labelled_novel(source(root), Names()), VOC_PRICES) == pytest.approx(2 * 2 * 79 * 2.8 / 1.5)
    shown = few.training(source(root)).shown
    assert [sum(name in names for names in shown.values()) for name in HIDDEN] == [2, 2]
    assert all((source(root).mask(i) == CLASSES.index(name) + 1).any() for i, names in shown.items() for name in names)


def test_few_labels_choose_neither_gamma_nor_a_checkpoint(root):
    data, method = source(root), NearestColour(1.5)
    strict, few = (protocol(gamma_rule="seen_budget", pool=pool) for pool in (None, 2))
    assert strict.score(method, data).metrics == few.score(method, data).metrics
    ids = data.split("train")
    assert strict.selection_score(method, data, ids, 4) == few.selection_score(method, data, ids, 4)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"pool": -1}, r"protocol\.pool=-1: expected a whole number at least 0 or null"),
        ({"split_name": "spnet"}, "protocol.unseen=.*give names with split_name=custom, and with it alone"),
        ({"unseen": ()}, "protocol.unseen=.*give names with split_name=custom"),
        ({"split_name": "half"}, r"protocol\.split_name=half: expected one of folds, custom, spnet, zs3_2"),
        ({"gamma_rule": "validated"}, r"protocol\.gamma_rule=validated: expected one of seen_budget, fixed, oracle"),
        ({"seen_kept": 1.5}, r"protocol\.seen_kept=1\.5: expected a number at least 0 and at most 1"),
        ({"background": "unknown"}, r"protocol\.background=unknown"),
        ({"unseen": ("zebra",)}, "unseen class zebra: expected some of aeroplane"),
        ({"split_name": "folds", "unseen": None}, "has no folds of classes, set data.folds"),
        ({"split_name": "folds", "unseen": None, "folds": (("boat",),), "fold": 3}, r"fold=3: voc has folds 0\.\.0"),
        ({"classes": ("cat", "dog")}, r"scores the classes cat, dog, but data.classes gives"),
        ({"unseen": ("aeroplane",)}, "aeroplane is unseen, but method=nearest_colour has learnt it"),
    ],
)
def test_what_does_not_fit_is_named(root, fields, message):
    with pytest.raises(ConfigError, match=message):
        protocol(**fields).score(NearestColour(), source(root))


@pytest.mark.parametrize("name", ["zero_shot", "zero_shot_spnet", "zero_shot_zs3", "zero_shot_cagnet"])
def test_presets_say_what_training_may_see(name, tmp_path):
    with initialize_config_module("segladder.conf", version_base="1.3"):
        config = compose("train", [f"protocol={name}", "data=voc", f"data.root={tmp_path}", "fold=3"])
    preset, data = build.protocol(config), build.source(config)
    assert preset.name == name and preset.training(data) == preset.labels
    seen = dict(zip(data.classes, preset.seen(data).tolist(), strict=True))
    assert {label for label, labelled in seen.items() if not labelled} - {"background"} == set(preset.novel)
    assert seen["background"] == (name == "zero_shot_zs3") and len(preset.novel) in (2, 5)
