"""The decoded cache: the same bytes as the files, built once, never torn."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache_builders import build_and_die, build_counting
from dummy_data import picture, save_mask, write_folder, write_voc
from torch.utils.data import DataLoader

from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.kinds.tags import Tags
from segladder.data.sources.folder import Folder
from segladder.data.sources.voc import VOC
from segladder.data.training import cache
from segladder.data.training.augmentation import TrainAugmentation
from segladder.data.training.cache import Packed, images_of, masks_of, pack
from segladder.data.training.dataset import SegmentationDataset, collate
from segladder.errors import ConfigError


@pytest.fixture
def cached(tmp_path: Path) -> VOC:
    return VOC(write_voc(tmp_path), train_split="train", cache="memmap", cache_dir=tmp_path / "cache")


def arrays(count: int = 5) -> list[np.ndarray]:
    return [picture(seed, (40 + seed, 50))[0] for seed in range(count)]


def test_cache_equals_files_byte_for_byte_for_images_of_many_sizes(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    plain = Folder(root)
    data = Folder(root, cache="memmap", cache_dir=tmp_path / "cache")
    ids = sorted([*plain.split("train"), *plain.split("val")])
    images, masks = images_of(data, ids), masks_of(data, ids)
    for index, image_id in enumerate(ids):
        for view, direct in ((images[index], plain.image(image_id)), (masks[index], plain.mask(image_id))):
            assert view.shape == direct.shape
            assert view.tobytes() == direct.tobytes()
            assert not view.flags.writeable
    written = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in written) == [".lock", ".lock", ".u8", ".u8"]


def test_lists_that_overlap_store_each_image_and_mask_once(cached: VOC, tmp_path: Path) -> None:
    ids = cached.split("train")
    plain = VOC(cached.root, train_split="train")
    for pool in (ids[2:4], ids[3:2:-1], ids[1:], ids[:3], list(reversed(ids)), [ids[0], ids[0]]):
        for stored, decode in ((images_of(cached, pool), plain.image), (masks_of(cached, pool), plain.mask)):
            assert all(np.array_equal(stored[index], decode(image_id)) for index, image_id in enumerate(pool))
    for part, decode in (("images", plain.image), ("masks", plain.mask)):
        sizes = [path.stat().st_size for path in (tmp_path / "cache").glob(f"voc-{part}/*.u8")]
        assert len(sizes) == 3  # the second list and the last two ask for nothing new
        assert sum(sizes) < sum(decode(image_id).nbytes for image_id in ids) + 1000


def test_a_list_decodes_no_other_image(cached: VOC, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, read = cached.split("train"), []
    monkeypatch.setattr(cache, "read_upright_image", lambda path: read.append(path.stem) or picture(0)[0])
    for pool in (ids[:2], ids[1:3], ids[:3]):
        images_of(cached, pool)
    assert read == ids[:3]


def test_augmented_items_are_the_same_with_the_cache(cached: VOC) -> None:
    plain = VOC(cached.root, train_split="train")
    augment = TrainAugmentation(scale=(0.5, 2), crop=48, flip=0.5, brightness=0.2)
    ids = plain.split("train")
    without, with_cache = (SegmentationDataset(data, ids, Masks(), augment) for data in (plain, cached))
    moved = pickle.loads(pickle.dumps(with_cache))  # as a loading process gets it
    for key in ((0, 5), (3, 9), 2):
        for dataset in (with_cache, moved):
            for name, value in without[key].items():
                assert (np.array(dataset[key][name]) == np.array(value)).all()


def test_images_of_several_sizes_in_one_batch_ask_for_a_crop():
    items = [{"image": torch.zeros(3, height, 8, dtype=torch.uint8)} for height in (8, 9)]
    with pytest.raises(ConfigError, match=r"loader\.augment\.crop: images of 8x8 and 8x9 in one batch"):
        collate(items)


@pytest.mark.parametrize("labels", [Masks(), Tags()], ids=lambda kind: kind.name)
@pytest.mark.parametrize("crop", [48, 100])
def test_batches_equal_their_items_one_by_one(cached: VOC, labels: Labels, crop: int) -> None:
    ids = cached.split("train")
    augment = TrainAugmentation(scale=(0.5, 2), crop=crop, flip=0.5)
    dataset = SegmentationDataset(cached, ids, labels, augment)
    keys: list[Any] = [(2, 7), (0, 1), (2, 8), (3, 5)]
    items = [dataset[key] for key in keys]
    whole = [DataLoader(dataset, 4, sampler=keys, collate_fn=collate, num_workers=workers) for workers in (0, 1)]
    for batch in (collate(items), *(next(iter(loader)) for loader in whole)):
        assert set(batch) == set(items[0])
        assert batch["image"].is_contiguous(memory_format=torch.channels_last)
        for name in set(batch) - {"id"}:
            assert all(torch.equal(row, item[name]) for row, item in zip(batch[name], items, strict=True))
        assert batch["id"] == [ids[index] for index, _ in keys]
    later = dataset.__getitems__(keys[:2])
    dataset.__getitems__(keys[2:])
    assert torch.equal(later[0]["image"], items[0]["image"])  # another batch has memory of its own


def test_runs_on_tags_cache_no_masks(cached: VOC, tmp_path: Path) -> None:
    SegmentationDataset(cached, cached.split("train"), Tags())
    assert [p.parent.name for p in (tmp_path / "cache").rglob("*.u8")] == ["voc-images"]


def test_changed_files_and_class_subsets_have_caches_of_their_own(cached: VOC, tmp_path: Path) -> None:
    ids = cached.split("train")
    first = masks_of(cached, ids)
    save_mask(cached.mask_path(ids[0]), np.full((64, 80), 3, np.uint8))
    assert (masks_of(cached, ids)[0] == 3).all()
    assert np.array_equal(first[0], picture(0)[1])
    subset = VOC(cached.root, classes=["dog"], train_split="train", cache="memmap", cache_dir=tmp_path / "cache")
    assert set(np.unique(masks_of(subset, ids)[1])) == {0, 1, 255}
    before = images_of(cached, ids)[0].copy()
    cached.image_path(ids[0]).write_bytes(cached.image_path(ids[1]).read_bytes())
    assert not np.array_equal(images_of(cached, ids)[0], before)


def test_torn_files_are_built_again(cached: VOC, tmp_path: Path) -> None:
    ids = cached.split("train")
    images_of(cached, ids)
    (path,) = (tmp_path / "cache").rglob("*.u8")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert np.array_equal(images_of(cached, ids)[3], cached.image(ids[3]))
    assert path.read_bytes() == whole
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="not a whole cache file"):
        Packed([path], [])


DAMAGE = {
    "cut at its front": lambda whole: whole[100:],
    "cut in the middle": lambda whole: whole[:500] + whole[700:],
    "other first pixels": lambda whole: bytes(100) + whole[100:],
    "of the version before": lambda whole: whole[:-8] + b"SEGLCAC2",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_feeds_no_other_pixels(cached: VOC, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    ids = cached.split("train")
    images_of(cached, ids)
    (path,) = (tmp_path / "cache").rglob("*.u8")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.raises(ConfigError, match="not a whole cache file; delete it"):
        Packed([path], [])
    assert np.array_equal(images_of(cached, ids)[3], cached.image(ids[3])) and path.read_bytes() == whole


def test_default_place_is_the_users_cache_folder(cached: VOC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    cached.cache_dir = None
    images_of(cached, cached.split("train"))
    assert len(list((tmp_path / "xdg" / "segladder").glob("voc-images/*.u8"))) == 1


def test_two_processes_build_once_after_a_third_was_killed_building(cached: VOC, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    victim = context.Process(target=build_and_die, args=(cached, arrays()))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    (left,) = (tmp_path / "cache").rglob("*.u8")
    assert left.name.startswith(".")
    gate, counts = context.Barrier(2), context.Queue()
    builders = [context.Process(target=build_counting, args=(cached, arrays(), gate, counts)) for _ in range(2)]
    for process in builders:
        process.start()
    results = [counts.get(timeout=120) for _ in builders]
    for process in builders:
        process.join()
    assert sorted(decoded for decoded, _ in results) == [0, 5]
    assert all(stored == [array.tobytes() for array in arrays()] for _, stored in results)
    assert len(list((tmp_path / "cache").rglob("*.u8"))) == 1 and not left.exists()


def test_nothing_packed_is_an_empty_cache(tmp_path: Path) -> None:
    pack(tmp_path / "empty.u8", [], iter(()))
    assert len(Packed([tmp_path / "empty.u8"], [])) == 0
