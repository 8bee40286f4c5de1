"""What zero-shot training may see: no label of an unseen class, whatever the policy, nor what follows from one.

Few-label training sees those it has paid for, and none besides.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from dummy_data import save_mask, write_list, write_voc
from episode_data import LARGE, varied, write_striped

from segladder.data.hashing import hashed_share
from segladder.data.labels.kinds.names import Names
from segladder.data.labels.pool import few_labelled
from segladder.data.sources.decoding import read_mask
from segladder.data.sources.voc import VOC, VOC_CLASSES
from segladder.data.training.augmentation import TrainAugmentation
from segladder.data.training.datamodule import DataModule, training_ids
from segladder.data.training.dataset import collate
from segladder.data.training.views import HiddenClasses, Recipe
from segladder.errors import ConfigError

CLASSES = VOC_CLASSES[1:7]
UNSEEN = VOC_CLASSES[1:4]  # values 1, 2, 3
FEW = {"im006": [1], "im001": [2, 3]}  # im006 also holds 3, of which it shows nothing
POLICIES = [
    {"background": background, "unseen_pixels": pixels, "transductive": transductive}
    for background in ("ignore", "seen")
    for pixels, transductive in (("ignore", False), ("drop", False), ("ignore", True))
]
named = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: "-".join(map(str, policy.values())))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    alone = {f"seen{i}": [(5, LARGE)] for i in range(2)} | {f"unseen{i}": [(1 + i, LARGE)] for i in range(2)}
    return write_striped(tmp_path_factory.mktemp("train"), {"train": {**varied(12, range(1, 7)), **alone}})


def source(root: Path) -> VOC:
    return VOC(root, classes=CLASSES, train_split="train")


def module(root: Path, **policy) -> DataModule:
    view = HiddenClasses(**{"hidden": UNSEEN, **policy})
    data = source(root)
    ids, _ = training_ids(data, view.ids(data))
    dataset = view.dataset(data, ids, Names(), Recipe(TrainAugmentation(flip=0.5, crop=48)))
    return DataModule(dataset, seed=0, batch_size=2, workers=0)


def batches(root: Path, **policy) -> list[dict]:
    return list(module(root, **policy).train_dataloader())


def scrambled(root: Path, target: Path, **shown: list[int]) -> Path:
    """A copy whose unseen classes are exchanged at random, pixel by pixel, but those that an image shows."""
    random = np.random.default_rng(0)
    for folder in ("JPEGImages", "ImageSets"):
        (target / folder).symlink_to(root / folder)
    for path in (root / "SegmentationClass").glob("*.png"):
        mask = read_mask(path)
        hidden = np.setdiff1d([1, 2, 3], shown.get(path.stem, []))
        unseen = np.isin(mask, hidden)
        mask[unseen] = random.choice(hidden, unseen.sum())
        save_mask(target / "SegmentationClass" / path.name, mask)
    return target


@named
def test_scrambled_unseen_labels_change_no_batch(root, tmp_path, policy):
    first, second = batches(root, **policy), batches(scrambled(root, tmp_path), **policy)
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys() == {"image", "mask", "inside", "tags", "id"} and one["id"] == other["id"]
        assert all(torch.equal(one[key], other[key]) for key in ("image", "mask", "tags"))


@named
def test_few_labels_are_seen_and_all_others_change_no_batch(root, tmp_path, policy):
    shown = {image_id: [VOC_CLASSES[k] for k in kept] for image_id, kept in FEW.items()}
    first, second = (batches(r, **policy, shown=shown) for r in (root, scrambled(root, tmp_path, **FEW)))
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one["id"] == other["id"]
        assert all(torch.equal(one[key], other[key]) for key in ("image", "mask", "tags"))
    dataset = module(root, **policy, shown=shown).dataset
    dataset.augment = None
    for index, image_id in enumerate(dataset.ids):
        truth, mask = source(root).mask(image_id), dataset[index]["mask"].numpy()
        visible = np.isin(truth, [4, 5, 6, *FEW.get(image_id, ()), *([0] if policy["background"] == "seen" else [])])
        assert np.array_equal(mask, np.where(visible, truth, 255))
    assert set(FEW) <= set(dataset.ids)


def test_few_labels_are_the_same_images_everywhere_and_fewer_the_first_of_more(root):
    data = source(root)
    assert few_labelled(data, (1, 2, 3), 2) == {
        1: ("unseen0", "im010"),
        2: ("im005", "im003"),
        3: ("im003", "im009"),
    }
    most = few_labelled(data, (1, 2, 3), 4)
    for count in range(1, 4):
        assert few_labelled(data, (1, 2, 3), count) == {k: images[:count] for k, images in most.items()}
    assert all(len(set(images)) == 4 and all((data.mask(i) == k).any() for i in images) for k, images in most.items())


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_few_labels_are_held_out_only_where_nothing_else_is_left(root, share):
    data = source(root)
    held_out = {i for i in data.split("train") if hashed_share(i) < share}
    for k in (1, 2, 3):
        holders = {i for i in data.split("train") if (data.mask(i) == k).any()}
        for count in range(1, len(holders) + 1):
            chosen = set(few_labelled(data, (k,), count)[k])
            assert len(chosen & held_out) == max(0, count - len(holders - held_out))


def test_more_masks_than_there_are_and_masks_left_out_of_training_are_named(root):
    with pytest.raises(
        ConfigError, match="pool=7: class aeroplane is in 6 training images of voc; take a smaller pool"
    ):
        few_labelled(source(root), (1, 2, 3), 7)
    labels = HiddenClasses(UNSEEN, shown={"im006": ["aeroplane"]})
    with pytest.raises(
        ConfigError, match="image im006 is one of the few with labels of aeroplane, but training leaves"
    ):
        labels.usable(source(root), ["im000", "im001"])


@named
def test_masks_and_tags_hold_seen_classes_alone(root, policy):
    for batch in batches(root, **policy):
        values = set(batch["mask"].unique().tolist())
        assert values <= {4, 5, 6, 255} | ({0} if policy["background"] == "seen" else set())
        assert not batch["tags"][:, :3].any()


def test_seen_pixels_keep_their_label(root):
    data = source(root)
    dataset = HiddenClasses(UNSEEN, "seen").dataset(data, data.split("train"), Names())
    for index, image_id in enumerate(dataset.ids):
        truth, mask = data.mask(image_id), dataset[index]["mask"].numpy()
        assert np.array_equal(mask == 255, (truth == 255) | ((truth >= 1) & (truth <= 3)))
        assert np.array_equal(mask[mask != 255], truth[mask != 255])


def test_which_images_stay(root):
    held = {i: set(np.unique(source(root).mask(i)).tolist()) for i in source(root).split("train")}
    everything = set(held)
    labelled = {i for i, classes in held.items() if classes & {4, 5, 6}}
    clean = {i for i, classes in held.items() if not classes & {1, 2, 3}}
    assert {"unseen0", "unseen1"} <= everything - labelled and labelled - clean and clean & labelled
    kept = {
        name: set(module(root, background="ignore", **policy).dataset.ids)
        for name, policy in (
            ("ignore", {"unseen_pixels": "ignore"}),
            ("drop", {"unseen_pixels": "drop"}),
            ("transductive", {"unseen_pixels": "ignore", "transductive": True}),
        )
    }
    assert kept == {"ignore": labelled, "drop": clean & labelled, "transductive": everything}


def test_masks_from_elsewhere_are_hidden_likewise(root, tmp_path):
    for image_id in source(root).split("train"):
        save_mask(tmp_path / f"{image_id}.png", np.full(source(root).mask(image_id).shape, 2, np.uint8))
    replaced = VOC(root, classes=CLASSES, train_split="train", masks=tmp_path)
    dataset = HiddenClasses(UNSEEN, transductive=True).dataset(replaced, replaced.split("train"), Names())
    assert all((dataset[i]["mask"] == 255).all() for i in range(len(dataset)))


def test_a_batch_without_augmentation_is_hidden_too(root):
    dataset = HiddenClasses(UNSEEN, transductive=True).dataset(source(root), ["unseen0", "seen0"], Names())
    masks = collate(dataset.__getitems__([0, 1]))["mask"]
    assert (masks[0] == 255).all() and set(masks[1].unique().tolist()) == {5, 255}


@pytest.mark.parametrize(
    "policy, message",
    [
        ({"hidden": ["zebra"]}, "unseen class zebra: expected some of aeroplane"),
        ({"hidden": CLASSES}, "no seen class is left to train"),
        ({"background": "unknown"}, r"protocol\.background=unknown: expected one of ignore, seen"),
        ({"unseen_pixels": "blur"}, r"protocol\.unseen_pixels=blur: expected one of ignore, drop"),
        ({"unseen_pixels": "drop", "transductive": True}, "learns from images of unseen classes: set unseen_pixels"),
    ],
)
def test_what_does_not_fit_is_named(root, policy, message):
    with pytest.raises(ConfigError, match=message):
        module(root, **policy)


def test_no_image_left_is_named(tmp_path):
    root = write_voc(tmp_path, train=2, val=1)  # each holds a cat and a dog
    write_list(root / "ImageSets" / "Segmentation" / "train.txt", ["2007_train00"])
    data = VOC(root, classes=["cat", "dog"], train_split="train")
    with pytest.raises(ConfigError, match="no training image is left without cat"):
        HiddenClasses(["cat"], unseen_pixels="drop").usable(data, data.split("train"))
