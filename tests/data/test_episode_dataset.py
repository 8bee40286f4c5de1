"""Training episodes: what an item holds, what its seed decides, and that novel classes have no label in it."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from dummy_data import save_image, save_mask
from episode_data import LARGE, SIDE, SMALL, varied, write_striped
from omegaconf import OmegaConf

from segladder.data.labels.kinds.masks import Masks
from segladder.data.sources.decoding import read_mask
from segladder.data.sources.voc import VOC, VOC_CLASSES
from segladder.data.training.augmentation import TrainAugmentation
from segladder.data.training.datamodule import training_ids
from segladder.data.training.episode_dataset import EpisodeDataset, collate_episodes
from segladder.data.training.views import Episodes
from segladder.errors import ConfigError, DataError
from segladder.runs import build
from segladder.runs.composition import composed

CLASSES = VOC_CLASSES[1:8]
NOVEL = list(VOC_CLASSES[1:4])
BASE = (4, 5, 6, 7)
POLICIES = ("ignore", "background", "drop")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    alone = {f"alone{k}{i}": [(k, LARGE)] for k in BASE for i in range(3)}
    return write_striped(tmp_path_factory.mktemp("train"), {"train": {**varied(40, range(1, 8)), **alone}})


def voc(root: Path, **options) -> VOC:
    return VOC(root, classes=CLASSES, train_split="train", **options)


def episodes(source: VOC, **options) -> EpisodeDataset:
    settings = {"novel": NOVEL, "shots": 2, "min_object": "none", **options}
    return EpisodeDataset(source, source.split("train"), **settings)


def held(source: VOC) -> dict[str, set[int]]:
    """Every class index of each image."""
    return {i: set(np.unique(source.mask(i)).tolist()) - {0, 255} for i in source.split("train")}


def keys(dataset: EpisodeDataset, count: int = 1) -> list[tuple[int, int]]:
    return [(index, 1000 * draw + index) for draw in range(count) for index in range(len(dataset))]


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(first.values(), second.values(), strict=True)
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_items_are_the_files_seen_for_one_base_class(root, policy):
    source = voc(root)
    dataset, holds = episodes(source, novel_pixels=policy), held(source)
    for key in keys(dataset):
        item = dataset[key]
        assert item["class_index"] in BASE and item["id"] == dataset.ids[key[0]]
        assert item["id"] not in item["support_ids"] and len(set(item["support_ids"])) == 2
        pictures = torch.cat([item["image"][None], item["support_image"]])
        masks = torch.cat([item["mask"][None], item["support_mask"]])
        assert pictures.dtype == masks.dtype == torch.uint8
        for image_id, picture, mask in zip([item["id"], *item["support_ids"]], pictures, masks, strict=True):
            assert item["class_index"] in holds[image_id]
            image, indices = source.pair(image_id)
            expected = (indices == item["class_index"]).astype(np.uint8)
            expected[indices == 255] = 255
            expected[np.isin(indices, [1, 2, 3])] = 0 if policy == "background" else 255
            assert torch.equal(picture, torch.from_numpy(image).permute(2, 0, 1))
            assert torch.equal(mask, torch.from_numpy(expected))
    trained = {i for i, present in holds.items() if present & set(BASE)}
    novel_free = {i for i in trained if not holds[i] & {1, 2, 3}}
    assert set(dataset.ids) == (novel_free if policy == "drop" else trained)
    assert len(novel_free) < len(trained)


@pytest.mark.parametrize("policy", POLICIES)
def test_padding_is_told_from_pixels_without_a_label(root, policy):
    dataset = episodes(voc(root), novel_pixels=policy, augment=TrainAugmentation(crop=SIDE + 16))
    batch = collate_episodes([dataset[key] for key in keys(dataset)])
    for mask, inside in ((batch["mask"], batch["inside"]), (batch["support_mask"], batch["support_inside"])):
        assert inside.shape == mask.shape and set(inside.flatten(-2).sum(-1).unique().tolist()) == {SIDE * SIDE}
        assert (mask[~inside] == 255).all() and (mask[inside] == 255).any()
        assert set(mask.unique().tolist()) == {0, 1, 255}


def scrambled(root: Path, folder: Path, allowed: list[int]) -> Path:
    """The same data set in which every novel pixel has another of the allowed values, at random."""
    random = np.random.default_rng(0)
    for path in sorted((root / "SegmentationClass").glob("*.png")):
        mask = read_mask(path)
        novel = np.isin(mask, [1, 2, 3])
        mask[novel] = random.choice(allowed, novel.sum())
        save_mask(folder / "SegmentationClass" / path.name, mask)
    for part in ("JPEGImages", "ImageSets"):
        (folder / part).symlink_to(root / part)
    return folder


@pytest.mark.parametrize("cache", ["none", "memmap"])
@pytest.mark.parametrize(
    ("policy", "allowed"), [("ignore", [1, 2, 3]), ("background", [0, 1, 2, 3]), ("drop", [1, 2, 3])]
)
@pytest.mark.parametrize("images", ["all", "single_class"])
def test_scrambled_novel_labels_change_no_bit(root, tmp_path, cache, policy, allowed, images):
    changed = scrambled(root, tmp_path / "scrambled", allowed)
    datasets = [
        episodes(
            voc(folder, cache=cache, cache_dir=tmp_path / "cache"),
            shots=1,
            novel_pixels=policy,
            images=images,
            min_object="area",
            min_area=100,
            augment=TrainAugmentation(scale=(0.5, 2), crop=64, flip=0.5),
        )
        for folder in (root, changed)
    ]
    assert datasets[0].ids == datasets[1].ids
    assert all(same(datasets[0][key], datasets[1][key]) for key in keys(datasets[0]))


def test_items_depend_on_their_seed_alone(root):
    augment = TrainAugmentation(scale=(0.5, 2), crop=64, flip=0.5, brightness=0.3)
    dataset = episodes(voc(root), augment=augment)
    other = pickle.loads(pickle.dumps(dataset))  # as a loading process gets it
    forwards = [dataset[key] for key in keys(dataset)]
    backwards = [other[key] for key in reversed(keys(dataset))][::-1]
    assert all(map(same, forwards, backwards))
    assert len({tuple(dataset[0, seed]["support_ids"]) for seed in range(20)}) > 5
    assert not same(dataset[0, 1], dataset[0, 2])
    assert same(dataset[3], dataset[3])


def test_cache_gives_the_same_items(root, tmp_path):
    plain, cached = episodes(voc(root)), episodes(voc(root, cache="memmap", cache_dir=tmp_path))
    assert all(same(plain[key], cached[key]) for key in keys(plain))


def test_single_class_images_hold_one_class(root):
    source = voc(root)
    holds = held(source)
    dataset = episodes(source, images="single_class", novel_pixels="drop", shots=1)
    assert dataset.ids and all(len(holds[i]) == 1 for i in dataset.ids)
    ignoring = episodes(source, images="single_class", shots=1)
    assert set(ignoring.ids) == {i for i, present in holds.items() if len(present & set(BASE)) == 1}


def test_objects_must_pass_the_filter(root):
    source = voc(root)
    dataset = episodes(source, min_object="area", min_area=28 * SMALL + 1)
    for key in keys(dataset):
        item = dataset[key]
        for image_id in (item["id"], *item["support_ids"]):
            assert (source.mask(image_id) == item["class_index"]).sum() == 28 * LARGE


def test_class_draw_gives_rare_classes_their_share(tmp_path):
    frequent = {f"a{i}": [(5, LARGE)] for i in range(18)} | {f"b{i}": [(4, LARGE)] for i in range(2)}
    source = voc(write_striped(tmp_path, {"train": frequent}), other_classes="ignore")
    options = {"novel": [*NOVEL, *CLASSES[5:]], "shots": 1}
    by_image, by_class = episodes(source, **options), episodes(source, class_draw="class", **options)
    counts = [Counter(d[key]["class_index"] for key in keys(d, 10)) for d in (by_image, by_class)]
    assert counts[0] == {5: 180, 4: 20}
    assert 75 < counts[1][4] < 125


def test_multi_object_share(root):
    source = voc(root)
    several = {i for i, present in held(source).items() if len(present & set(BASE)) > 1}
    options = {"images": "all", "class_draw": "image"}
    for draw in ("image", "class"):
        plain, half, always = (
            episodes(source, **{**options, "class_draw": draw, "multi_object": p}) for p in (0, 0.5, 1)
        )
        shares = [np.mean([d[key]["id"] in several for key in keys(d, 2)]) for d in (plain, half, always)]
        assert shares[2] == 1
        assert abs(shares[1] - (1 + shares[0]) / 2) < 0.15
    assert episodes(source, images="single_class", shots=1, multi_object=1)[0, 0]["id"] not in several


def test_crops_show_the_class(tmp_path):
    images = {f"im{i}": [(0, LARGE), (4, SMALL)] for i in range(4)}
    source = voc(write_striped(tmp_path, {"train": images}))
    dataset = episodes(source, novel=[c for c in CLASSES if c != "boat"], augment=TrainAugmentation(crop=32), shots=3)
    items = [dataset[key] for key in keys(dataset, 10)]
    shown = [(mask == 1).any() for item in items for mask in (item["mask"], *item["support_mask"])]
    assert np.mean(shown) > 0.5  # a single try would show it in one crop of nine
    assert {tuple(item["image"].shape) for item in items} == {(3, 32, 32)}


def test_batches_keep_pixels_in_channels_last_order(root):
    dataset = episodes(voc(root))
    items = [dataset[key] for key in keys(dataset)[:3]]
    batch = collate_episodes(items)
    assert batch["support_image"].shape == (3, 2, 3, SIDE, SIDE)
    assert batch["support_image"].flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    for name in ("image", "mask", "support_image", "support_mask"):
        assert all(torch.equal(row, item[name]) for row, item in zip(batch[name], items, strict=True))
    assert batch["class_index"].tolist() == [item["class_index"] for item in items]
    assert batch["id"] == [item["id"] for item in items]
    assert batch["support_ids"] == [item["support_ids"] for item in items]


def test_images_of_different_sizes_need_a_crop(root, tmp_path):
    folder = scrambled(root, tmp_path / "sizes", [1])
    (folder / "JPEGImages").unlink()
    for i, image_id in enumerate(voc(root).split("train")):
        size = (SIDE + 8 * (i // 4 % 2), SIDE)
        save_image(folder / "JPEGImages" / f"{image_id}.jpg", np.zeros((*size, 3), np.uint8))
        save_mask(folder / "SegmentationClass" / f"{image_id}.png", np.full(size, 4 + i % 4, np.uint8))
    source = voc(folder)
    with pytest.raises(ConfigError, match=r"im\d+ is 96x\d+ and im\d+ is 96x\d+.*loader\.augment\.crop"):
        episodes(source, shots=8)[0]
    assert episodes(source, augment=TrainAugmentation(crop=64))[0, 0]["support_image"].shape == (2, 3, 64, 64)
    save_mask(folder / "SegmentationClass" / "im000.png", np.full((SIDE, 50), 4, np.uint8))
    broken = episodes(source)
    with pytest.raises(DataError, match=r"im000\.png: size 50x96"):
        broken[broken.ids.index("im000")]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"novel": ["unicorn"]}, "unicorn: expected some of aeroplane"),
        ({"novel": CLASSES}, "no base class"),
        ({"novel_pixels": "keep"}, "novel_pixels=keep"),
        ({"images": "some"}, "images=some"),
        ({"class_draw": "item"}, "class_draw=item"),
        ({"shots": 0}, "shots=0"),
        ({"multi_object": 1.5}, "multi_object=1.5"),
        ({"min_object": "big"}, "min_object=big"),
    ],
)
def test_bad_settings_are_named(root, options, named):
    with pytest.raises(ConfigError, match=named):
        episodes(voc(root), **options)


def test_too_few_images_of_a_base_class_are_named(root):
    with pytest.raises(DataError, match=r"base class boat has \d+ of 52 training images, 40-shot episodes need 41"):
        episodes(voc(root), shots=40)


def training(root: Path, workers: int = 0) -> build.Training:
    augment = {"crop": 64, "flip": 0.5}
    loader = {"batch_size": 4, "workers": workers, "augment": augment, "held_out": 0.2, "without": [], "episodes": {}}
    view = Episodes(tuple(NOVEL), 2, "drop", min_object="none")
    return build.training(
        OmegaConf.create(
            {"seed": 3, "loader": loader, "method": composed(["method=sg_one", "protocol=strict"]).method}
        ),
        voc(root),
        view,
        Masks(),
    )


def test_module_feeds_episodes_of_training_images_alone(root):
    feed = training(root)
    batches = list(feed.module.train_dataloader())
    assert len(batches) == len(feed.module.dataset) // 4
    queries = [i for batch in batches for i in batch["id"]]
    supports = {i for batch in batches for ids in batch["support_ids"] for i in ids}
    assert len(set(queries)) == len(queries)
    held_out = set(feed.held_out.ids)
    assert held_out and not ({*queries} | supports) & held_out
    again = list(training(root, workers=1).module.train_dataloader())
    assert all(map(same, batches, again))


def test_images_of_classes_can_be_left_out_of_any_training(tmp_path: Path):
    images = {"first": [(8, LARGE), (12, SMALL)], "second": [(12, LARGE)], "third": [(15, LARGE)], "empty": []}
    source = VOC(write_striped(tmp_path, {"train": images}), classes=["cat"], train_split="train")
    ids = source.split("train")
    assert training_ids(source, ids, without=["dog"]) == (["empty", "third"], [])
    assert training_ids(source, ids, without=["dog", "cat", "person"]) == (["empty"], [])
    with pytest.raises(ConfigError, match="no such class dogs"):
        training_ids(source, ids, without=["dogs"])
