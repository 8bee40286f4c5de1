"""A user's folder for ladder tests: four classes in colours of their own, alone and in pairs."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
from dummy_data import save_image, save_mask, write_list

CLASSES = ("apple", "brick", "cloud", "drum")
FOLDS = (("apple", "brick"), ("cloud", "drum"))
COLOURS = np.array([[90, 90, 90], [220, 30, 30], [200, 140, 20], [30, 60, 220], [30, 200, 60]])
SIDE = 64
HELD = [*((k,) for k in range(1, 5)), *combinations(range(1, 5), 2)]  # of every ten images


def mask_of(held: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """A mask (64, 64) with a square of each class, framed by 255, the first on the left."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for place, value in enumerate(held):
        top, left = int(random.integers(2, 34)), 2 + 32 * place
        mask[top - 1 : top + 27, left - 1 : left + 27] = 255
        mask[top : top + 26, left : left + 26] = value
    return mask


def write_ladder(root: Path, train: int = 40, val: int = 20) -> Path:
    """images/, masks/, classes.txt, splits/ and vectors.csv below `root`; returns it."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        ids = [f"{split}{i:02d}" for i in range(count)]
        write_list(root / "splits" / f"{split}.txt", ids)
        for i, image_id in enumerate(ids):
            mask = mask_of(HELD[i % len(HELD)], random)
            shown = np.where(mask == 255, 0, mask)
            shown[40:50] = random.integers(0, 5, (1, SIDE))  # part of some objects, and of the ground, deceives
            noise = random.integers(-30, 30, (SIDE, SIDE, 3))
            image = (COLOURS[shown] + noise).clip(0, 255)
            save_image(root / "images" / f"{image_id}.png", image.astype(np.uint8))
            save_mask(root / "masks" / f"{image_id}.png", mask)
    write_list(root / "classes.txt", ["background", *CLASSES])
    rows = [f"{name},{','.join(str(v) for v in COLOURS[k] / 255)}" for k, name in enumerate(["background", *CLASSES])]
    (root / "vectors.csv").write_text("\n".join(["name,r,g,b", *rows]) + "\n")
    return root
