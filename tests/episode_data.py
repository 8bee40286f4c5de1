"""Tiny data sets for few-shot tests: images of known classes and known object sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from dummy_data import save_image, save_mask, write_list

from segladder.data.sources.palette import voc_palette
from segladder.data.training.episodes import Episode
from segladder.metrics.average_precision import BINS
from segladder.metrics.episodes import EpisodeCounts
from segladder.protocols.episode_runner import EpisodeRunner, merged
from segladder.protocols.few_shot import FewShotProtocol, asking

SIDE = 96  # three points of the small-object rule's grid in each direction
LARGE, SMALL = SIDE, 8  # widths of a stripe: three grid points or one


def striped(stripes: Sequence[tuple[int, int]], side: int = SIDE) -> np.ndarray:
    """A mask (side, side) with up to three stripes (value, width) of 28 rows, each with a row of 255 below."""
    mask = np.zeros((side, side), np.uint8)
    for place, (value, width) in enumerate(stripes):
        mask[32 * place : 32 * place + 28, :width] = value
        mask[32 * place + 28, :width] = 255
    return mask


def write_striped(root: Path, splits: Mapping[str, Mapping[str, Sequence[tuple[int, int]]]]) -> Path:
    """A folder VOC2012 whose splits map image ids to stripes; returns it."""
    voc = root / "VOC2012"
    for split, images in splits.items():
        write_list(voc / "ImageSets" / "Segmentation" / f"{split}.txt", list(images))
        for seed, (image_id, stripes) in enumerate(images.items()):
            pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            save_image(voc / "JPEGImages" / f"{image_id}.jpg", pixels)
            save_mask(voc / "SegmentationClass" / f"{image_id}.png", striped(stripes))
    return voc


def write_coloured(root: Path) -> Path:
    """A folder VOC2012 of 40 images of classes 1..7 in the colours of their masks, all in both splits; returns it."""
    voc = root / "VOC2012"
    images = varied(40, range(1, 8))
    for image_id, stripes in images.items():
        mask = striped(stripes)
        save_image(voc / "JPEGImages" / f"{image_id}.jpg", voc_palette()[np.where(mask == 255, 0, mask)])
        save_mask(voc / "SegmentationClass" / f"{image_id}.png", mask)
    for split in ("train", "val"):
        write_list(voc / "ImageSets" / "Segmentation" / f"{split}.txt", list(images))
    return voc


def varied(count: int, classes: Sequence[int], prefix: str = "im") -> dict[str, list[tuple[int, int]]]:
    """Images of one to three classes in a fixed pattern; each fourth also holds a small object."""
    held = [subset for size in (1, 2, 3) for subset in combinations(classes, size)]
    images = {}
    for i in range(count):
        stripes = enumerate(held[11 * i % len(held)])
        images[f"{prefix}{i:03d}"] = [(k, SMALL if i % 4 == 3 and place == 0 else LARGE) for place, k in stripes]
    return images


def counted_one_by_one(protocol: FewShotProtocol) -> Callable[..., EpisodeCounts]:
    """A slow `protocol.tally`: each query's masks in numpy, as it was before episodes were counted together."""

    def tally(
        runner: EpisodeRunner, episodes: Sequence[Episode], ways: int, all_classes: bool, kind: str
    ) -> EpisodeCounts:
        size = len(runner.source.classes)
        counted = EpisodeCounts(size)
        for answers in zip(*[runner.answers(episodes)] * ways, strict=True):
            classes = [answer.episode.class_index for answer in answers]
            truth = answers[0].truth
            if not all_classes:
                kept = [*classes, 255] if protocol.void == "ignored" else classes
                truth = np.where(np.isin(truth, kept), truth, np.uint8(0))
            known = truth < size
            cells = truth[known].astype(np.intp) * size + merged(answers)[known]
            counted.counts.add(asking([a.episode for a in answers], kind), np.bincount(cells, minlength=size**2))
            for answer in answers:
                binary = np.where(known, truth == answer.episode.class_index, np.uint8(255))
                counted.histograms[answer.episode.class_index] += probability_histogram(answer.probability, binary)
        return EpisodeCounts.merged([counted])

    return tally


def probability_histogram(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many pixels of truth 0 and 1 fall into each bin of probability, int64 (2, BINS)."""
    bins = np.minimum((probability * BINS).astype(np.int32), BINS - 1)
    known = truth < 2
    return np.bincount(bins[known] + BINS * truth[known].astype(np.int32), minlength=2 * BINS).reshape(2, BINS)
