"""Scribbles: strokes along every class (Lin et al., ScribbleSup, CVPR 2016, https://arxiv.org/abs/1604.05144)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal

import cv2
import numpy as np

from segladder.data.hashing import hashed_seed
from segladder.data.labels.kinds.components import components
from segladder.data.labels.kinds.marks import Marks
from segladder.data.labels.prices import Prices
from segladder.data.sources.scene import Scene
from segladder.mask_values import IGNORE
from segladder.settings import Share

WIDTH = 0.03  # of the longer side of a component, of a support's scribble
SHORTEST = 0.6  # a stroke goes along at least this share of the longest way through a component

Pixel = tuple[int, int]


@dataclass(frozen=True)
class Scribbles(Marks):
    """Strokes along the middle of the largest connected components of each class.

    A stroke is a part of the longest way through a component's skeleton.

    Args:
        width: of a stroke, as a share of the longer side of its component, which it never leaves.
    """

    name: Literal["scribbles"] = "scribbles"
    width: Share = 0.03
    singular: ClassVar[str] = "scribble"
    rank: ClassVar[int] = 40
    colour: ClassVar[str] = "#e69f00"
    marker: ClassVar[str] = "v"

    def price_of_one(self, prices: Prices) -> float:
        """A stroke."""
        return prices.scribble

    def of_object(self, mask: np.ndarray) -> np.ndarray:
        """The skeleton of every component but specks, inside it, 3 % of its longer side wide, uint8 (H, W)."""
        drawn = np.zeros_like(mask)
        for place, component in components(mask):
            drawn[place] |= _thick(skeleton_of(component), WIDTH, component)
        return drawn

    def of_image(self, scene: Scene) -> np.ndarray:
        """The strokes, of their class, uint8 (H, W); 255 elsewhere."""
        seen = np.full_like(scene.mask, IGNORE)
        for k, found in self.marked(scene):
            ways = [longest_way(skeleton_of(component)) for _, component in found[: self.amount]]
            for stroke in range(self.amount):
                place, component = found[stroke % len(found)]
                random = Random(hashed_seed("scribbles", self.seed, scene.image_id, k, stroke))
                line = np.zeros_like(component)
                for pixel in _part(ways[stroke % len(found)], random):
                    line[pixel] = 1
                seen[place][_thick(line, self.width, component) > 0] = k
        return seen


def skeleton_of(component: np.ndarray) -> np.ndarray:
    """The middle line of a component, uint8 (h, w) of 0 and 1; at least one pixel."""
    from skimage.morphology import skeletonize  # a second, and only where something is scribbled

    return np.asarray(skeletonize(np.pad(component, 1)), np.uint8)[1:-1, 1:-1]


def longest_way(skeleton: np.ndarray) -> list[Pixel]:
    """Pixels from one end of a skeleton (h, w) to the end farthest from it, in steps to one of 8 neighbours.

    On a skeleton without loops there is no longer way. The first pixel in reading order is where the search starts.
    """
    pixels = {(int(row), int(column)) for row, column in np.argwhere(skeleton)}
    start = _ways(min(pixels), pixels)[1]
    came_from, end = _ways(start, pixels)
    way = [end]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return way


def _ways(start: Pixel, pixels: set[Pixel]) -> tuple[dict[Pixel, Pixel], Pixel]:
    """For each pixel that can be reached the one before it on a shortest way, and the last one reached."""
    came_from, waiting, last = {start: start}, deque([start]), start
    while waiting:
        last = row, column = waiting.popleft()
        for at in [(row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)]:
            if at in pixels and at not in came_from:
                came_from[at] = last
                waiting.append(at)
    return came_from, last


def _part(way: list[Pixel], random: Random) -> list[Pixel]:
    length = max(1, round(len(way) * random.uniform(SHORTEST, 1)))
    first = random.randint(0, len(way) - length)
    return way[first : first + length]


def _thick(line: np.ndarray, width: float, component: np.ndarray) -> np.ndarray:
    """A line of that width, in longer sides of its component, inside this, uint8 (h, w)."""
    thick: np.ndarray = cv2.dilate(line, _disk(width * max(component.shape) / 2)) & component
    return thick


def _disk(radius: float) -> np.ndarray:
    """1 within the radius of the middle of a square, uint8."""
    reach = np.arange(-int(radius), int(radius) + 1)
    return (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.uint8)
