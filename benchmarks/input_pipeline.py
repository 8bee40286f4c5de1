"""Input pipeline, VOC's train recipe at native size: files or cache to a batch, against PIL and A.Normalize.

The limit is what cv2 takes to decode the JPEGs and to resize what a crop keeps of them, and nothing else; from the
cache, to resize. Nothing that resizes with cv2 is faster. Times are of the processor.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from segladder.data.labels.kinds.masks import Masks

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A
import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate

from segladder.data.sources.palette import voc_palette
from segladder.data.sources.voc import VOC
from segladder.data.training.augmentation import TrainAugmentation
from segladder.data.training.dataset import SegmentationDataset, collate

IMAGES, BATCH, CROP = 32, 8, 512
Step = Callable[[list[int], int], dict[str, Any]]  # indices and a seed to a batch


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    """Rows (what, reference, ratio, detail)."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_images(Path(folder) / "VOC2012")
        ways: dict[str, Step] = {"reference": reference(root)}
        for cache in ("none", "memmap"):
            ways[cache] = ours(VOC(root, train_split="train", cache=cache, cache_dir=folder))
        ways |= limits(root)
        times = measure(ways, repeats=3 if quick else 9)
    slow = times["reference"]
    against = "PIL decode, A.RandomScale, A.RandomCrop, A.Normalize"
    return [
        (
            f"input pipeline, {name}",
            against,
            slow / times[key],
            f"{slow:.2f} -> {times[key]:.2f} ms an image; {times[limit] / times[key]:.0%} of the limit, {what} alone"
            f" ({times[limit]:.2f} ms, {slow / times[limit]:.1f}x)",
        )
        for name, key, limit, what in (
            ("from files", "none", "decode and resize", "decoding and resizing"),
            ("memmap cache", "memmap", "resize", "resizing"),
        )
    ]


def measure(ways: dict[str, Step], repeats: int) -> dict[str, float]:
    """Median milliseconds of the processor an image of each way, in turns; one warm-up round."""
    batches = [list(range(start, start + BATCH)) for start in range(0, IMAGES, BATCH)]
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, step in ways.items():
            start = time.process_time()
            for batch in batches:
                step(batch, repeat * IMAGES)
            times[name].append((time.process_time() - start) * 1000 / IMAGES)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def ours(source: VOC) -> Step:
    """SegLadder's data set and collation: uint8 batches."""
    augment = TrainAugmentation(scale=(0.5, 2.0), crop=CROP, flip=0.5)
    dataset = SegmentationDataset(source, source.split("train"), Masks(), augment)
    return lambda indices, seed: collate(dataset.__getitems__([(index, seed + index) for index in indices]))


def limits(root: Path) -> dict[str, Step]:
    """Decoding and resizing alone, and resizing alone: image after image, with the factors of the recipe."""
    files = [str(root / "JPEGImages" / f"{index:04d}.jpg") for index in range(IMAGES)]
    decoded = [cv2.imread(file) for file in files]

    def resized(image: Any, seed: int) -> Any:
        factor = Random(seed).uniform(0.5, 2.0)
        kept = math.ceil(CROP / factor) + 1
        return cv2.resize(image[:kept, :kept], None, fx=factor, fy=factor)

    return {
        "decode and resize": lambda indices, seed: {"": [resized(cv2.imread(files[i]), seed + i) for i in indices]},
        "resize": lambda indices, seed: {"": [resized(decoded[i], seed + i) for i in indices]},
    }


def reference(root: Path) -> Step:
    """The same recipe as it is commonly written: PIL, albumentations, normalisation of every sample."""
    cv2.setNumThreads(0)
    scale = A.RandomScale((-0.5, 1.0), p=1)
    crop = A.RandomCrop(CROP, CROP, pad_if_needed=True, pad_position="random", fill=(124, 116, 104), fill_mask=255)
    pipeline = A.Compose([scale, crop, A.HorizontalFlip(p=0.5), A.Normalize()])

    def sample(index: int) -> dict[str, Any]:
        image = np.array(Image.open(root / "JPEGImages" / f"{index:04d}.jpg").convert("RGB"))
        mask = np.array(Image.open(root / "SegmentationClass" / f"{index:04d}.png"))
        result = pipeline(image=image, mask=mask)
        planes = torch.from_numpy(np.ascontiguousarray(result["image"].transpose(2, 0, 1)))
        return {"image": planes, "mask": torch.from_numpy(np.ascontiguousarray(result["mask"])), "id": f"{index:04d}"}

    return lambda indices, seed: default_collate([sample(index) for index in indices])


def write_images(root: Path) -> Path:
    """Textured 500x375 JPEGs with palette masks of a few regions, in the VOC layout."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(IMAGES):
        octaves = [random.integers(0, 256, (375 // step, 500 // step, 3), np.uint8) for step in (64, 16, 4)]
        image = np.mean([cv2.resize(octave, (500, 375), interpolation=cv2.INTER_CUBIC) for octave in octaves], axis=0)
        Image.fromarray(image.astype(np.uint8)).save(root / "JPEGImages" / f"{index:04d}.jpg", quality=90)
        regions = cv2.resize(random.integers(0, 21, (5, 7), np.uint8), (500, 375), interpolation=cv2.INTER_NEAREST)
        mask = Image.fromarray(regions, "L")
        mask.putpalette(voc_palette().tobytes())
        mask.save(root / "SegmentationClass" / f"{index:04d}.png")
    names = "".join(f"{index:04d}\n" for index in range(IMAGES))
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text(names)
    return root


if __name__ == "__main__":
    for row in run(quick=False):
        print(*row, sep=" | ")
