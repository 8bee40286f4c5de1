"""Which answers are good enough to teach: FusionSeg's two tests of what a network found inside of boxes.

Jain, Xiong, Grauman, CVPR 2017 (the tests are verified at second hand, their limits of 75 % and 30 are not): the box
around the answer must overlap the box that was drawn, and the inside of the boxes must move differently from the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from segladder.data.labels.kinds.boxes import boxes_of
from segladder.data.labels.kinds.components import Place
from segladder.data.sources.base import Source
from segladder.data.sources.scene import Scene
from segladder.mask_values import IGNORE
from segladder.ops.flow import flow_colours

TESTS = ("agreement", "motion")  # keys of `pseudo_masks`; null asks for no test


def tested(labels: np.ndarray, scene: Scene, source: Source, settings: Mapping[str, Any]) -> np.ndarray:
    """Labels uint8 (H, W) of an image with boxes; 255 everywhere where they fail a test that is asked for.

    Args:
        labels: what a network found inside of the boxes.
        scene: of the image, with its boxes.
        source: knows how its pixels move.
        settings: `pseudo_masks` of the configuration.

    Raises:
        ConfigError: motion is asked for, and the data set holds no videos.
    """
    boxes = boxes_of(scene)
    agreement, motion = (settings.get(test) for test in TESTS)
    passes = agreement is None or all(overlap(labels == k, place) >= agreement for k, place in boxes)
    if passes and motion is not None:
        passes = distance(source.flow(scene.image_id), [place for _, place in boxes]) > motion
    return labels if passes else np.full_like(labels, IGNORE)


def overlap(answer: np.ndarray, place: Place) -> float:
    """Intersection over union of a box and the box around what an answer bool (H, W) holds in it."""
    inside = answer[place]
    if not inside.any():
        return 0.0
    spans = [int(np.ptp(axis)) + 1 for axis in np.nonzero(inside)]
    return spans[0] * spans[1] / inside.size


def distance(flow: np.ndarray, places: list[Place]) -> float:
    """Distance of the mean colours (RGB, 0..255) of flow (H, W, 2) inside and outside boxes; 0 if either is empty."""
    inside = np.zeros(flow.shape[:2], bool)
    for place in places:
        inside[place] = True
    if inside.all() or not inside.any():
        return 0.0
    colours = flow_colours(torch.from_numpy(flow).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()  # (H, W, 3)
    return float(np.linalg.norm(colours[inside].mean(0) - colours[~inside].mean(0)))
