"""Tiny data sets in every supported layout, drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.io import savemat

from segladder.data.sources.palette import voc_palette
from segladder.data.sources.voc import VOC_CLASSES

Size = tuple[int, int]  # (height, width)
VIDEOS = {"swan": 6, "bear": 5, "dog": 9}  # frames of each


def picture(seed: int, size: Size = (64, 80), values: Sequence[int] = (8, 12)) -> tuple[np.ndarray, np.ndarray]:
    """A smooth textured image (H, W, 3) and a mask (H, W) with one coloured rectangle per value and 255 around it."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (8, 8, 3), np.uint8)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    mask = np.zeros(size, np.uint8)
    for value in values:
        top, left = (int(random.integers(2, length // 2)) for length in size)
        bottom, right = top + size[0] // 3, left + size[1] // 3
        mask[top - 1 : bottom + 1, left - 1 : right + 1] = 255
        mask[top:bottom, left:right] = value
        image[top:bottom, left:right] = voc_palette()[value]
    return image, mask


def save_mask(path: Path, mask: np.ndarray, palette: bool = True) -> None:
    """A palette or gray PNG as other programs write it."""
    image = Image.fromarray(mask, "L")
    if palette:
        image.putpalette(voc_palette().tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def save_image(path: Path, image: np.ndarray) -> None:
    """A JPEG of quality 95, or what the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def write_list(path: Path, ids: Sequence[str]) -> None:
    """One id a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{image_id}\n" for image_id in ids))


def write_voc(root: Path, train: int = 4, val: int = 2, size: Size = (64, 80), xml: bool = False) -> Path:
    """VOCdevkit/VOC2012 below `root` with cats (8) and dogs (12); returns the folder VOC2012."""
    voc = root / "VOCdevkit" / "VOC2012"
    names = {split: [f"2007_{split}{i:02d}" for i in range(n)] for split, n in (("train", train), ("val", val))}
    for seed, image_id in enumerate(names["train"] + names["val"]):
        image, mask = picture(seed, size)
        save_image(voc / "JPEGImages" / f"{image_id}.jpg", image)
        save_mask(voc / "SegmentationClass" / f"{image_id}.png", mask)
        if xml:
            write_xml(voc / "Annotations" / f"{image_id}.xml", [VOC_CLASSES[v] for v in (8, 12) if (mask == v).any()])
    for split, ids in {**names, "trainval": names["train"] + names["val"]}.items():
        write_list(voc / "ImageSets" / "Segmentation" / f"{split}.txt", ids)
    return voc


def write_videos(root: Path, lengths: Mapping[str, int] = VIDEOS, width: int = 80) -> Path:
    """Videos in the layout of DAVIS in which an object of one colour moves."""
    for s, (sequence, count) in enumerate(lengths.items()):
        background, _ = picture(s, (64, width), values=())
        for frame in range(count):
            image, mask = background.copy(), np.zeros((64, width), np.uint8)
            mask[10 + 2 * frame : 30 + 3 * frame, 12 + 3 * frame : 40 + 2 * frame] = 1
            image[mask > 0] = (220, 30 + 5 * frame, 60)
            save_image(root / "JPEGImages" / "480p" / sequence / f"{frame:05d}.jpg", image)
            save_mask(root / "Annotations" / "480p" / sequence / f"{frame:05d}.png", mask)
    write_list(root / "ImageSets" / "2016" / "val.txt", list(lengths))
    return root


def write_xml(path: Path, objects: Sequence[str], difficult: Sequence[str] = ()) -> None:
    """A VOC annotation with these objects, and these marked as difficult."""
    path.parent.mkdir(parents=True, exist_ok=True)
    node = "<object><name>{}</name><difficult>{}</difficult></object>"
    nodes = [node.format(name, 0) for name in objects] + [node.format(name, 1) for name in difficult]
    path.write_text(f"<annotation>{''.join(nodes)}</annotation>")


def write_sbd(root: Path, voc: Path, train: Sequence[str], val: Sequence[str], size: Size = (64, 80)) -> Path:
    """benchmark_RELEASE below `root` with .mat masks, and its images in VOC's JPEGImages as VOC has them."""
    folder = root / "benchmark_RELEASE"
    for seed, image_id in enumerate((*train, *val), start=1000):
        image, mask = picture(seed, size, values=(15,))
        mask[mask == 255] = 0  # SBD has no ignored border
        (folder / "dataset" / "cls").mkdir(parents=True, exist_ok=True)
        record = np.zeros((1, 1), [("Boundaries", "O"), ("Segmentation", "O"), ("CategoriesPresent", "O")])
        record[0, 0] = (np.zeros((20, 1)), mask, np.array([15]))
        savemat(folder / "dataset" / "cls" / f"{image_id}.mat", {"GTcls": record}, do_compression=True)
        if not (voc / "JPEGImages" / f"{image_id}.jpg").exists():
            save_image(voc / "JPEGImages" / f"{image_id}.jpg", image)
    write_list(folder / "dataset" / "train.txt", train)
    write_list(folder / "dataset" / "val.txt", val)
    return folder


def write_folder(root: Path, sizes: Sequence[Size] = ((64, 80), (70, 66), (90, 64)), lists: bool = False) -> Path:
    """images/, masks/ (palette and gray in turn) and classes.txt for background, road, tree; images of many kinds."""
    suffixes = (".jpg", ".png", ".bmp")
    ids = [f"site{i % 2}/item {i}" for i in range(len(sizes))]
    for i, (image_id, size) in enumerate(zip(ids, sizes, strict=True)):
        image, mask = picture(i, size, values=(1, 2))
        save_image(root / "images" / f"{image_id}{suffixes[i % 3]}", image)
        save_mask(root / "masks" / f"{image_id}.png", mask, palette=i % 2 == 0)
    write_list(root / "classes.txt", ["background", "road", "tree"])
    if lists:
        write_list(root / "splits" / "train.txt", ids[:-1])
        write_list(root / "splits" / "val.txt", ids[-1:])
    return root


def write_streets(root: Path, counts: Mapping[str, int] | None = None, public: bool = False) -> Path:
    """Street scenes in a layout of CamVid, each of sky (0), building (1), road (3), some with a car (8); no background.

    `public` is the layout of SegNet's copy, whose void is 11; elsewhere 255 is.
    """
    void = 11 if public else 255
    for s, (split, count) in enumerate((counts or {"train": 4, "val": 2, "test": 2}).items()):
        frames = [f"{split}{number:02d}" for number in range(count)]
        for number, frame in enumerate(frames):
            image, _ = picture(100 * s + number, (48, 64), values=())
            mask = np.repeat(np.array([0, 1, 3], np.uint8), 16)[:, None].repeat(64, 1)
            if number % 2 == 0:
                mask[30:40, 10:30] = 8
            mask[:, -4:] = void
            for value, colour in ((0, 250), (1, 120), (3, 40), (8, 200)):
                image[mask == value, 0] = colour
            save_image(root / (f"{split}/{frame}.png" if public else f"images/{frame}.jpg"), image)
            save_mask(root / (f"{split}annot/{frame}.png" if public else f"masks/{frame}.png"), mask, palette=False)
        lines = [f"/SegNet/CamVid/{split}/{f}.png /SegNet/CamVid/{split}annot/{f}.png" for f in frames]
        write_list(root / f"{split}.txt" if public else root / "splits" / f"{split}.txt", lines if public else frames)
    return root
