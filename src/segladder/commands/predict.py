"""`segladder predict`: a palette mask and an overlay for every image of a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from rich.progress import track

from segladder.commands import runs
from segladder.data.decoding import read_image
from segladder.data.palette import voc_palette
from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method
from segladder.protocols.inference import class_maps, to_pixels

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def run(config: DictConfig) -> int:
    """Segment what is not done yet; an image that cannot be read is named, the others go on. Returns 1 if any was."""
    _, _, method = runs.load(Path(config.run))
    method.to(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    images, out = Path(config.images), Path(config.out)
    paths = listed(images)
    todo = [path for path in paths if not overlay_path(out, path).exists()]
    for folder in ("masks", "overlays"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    faults = 0
    for path in track(todo, f"predict {images}", disable=not config.progress):
        try:
            image = read_image(path)
        except DataError as error:
            print(f"segladder: {error}", file=sys.stderr)
            faults += 1
            continue
        save(out, path, image, segment(method, image, config))
    done = len(paths) - len(todo)
    print(f"{len(todo) - faults} images segmented, {done} already there, {faults} unreadable: {out}")
    return 1 if faults else 0


def listed(images: Path) -> list[Path]:
    """The image files of a folder. Raises ConfigError if there are none or two share a stem."""
    if not images.is_dir():
        raise ConfigError(f"images={images}: no such folder")
    paths = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ConfigError(f"images={images}: no image there, expected files ending in {' '.join(SUFFIXES)}")
    stems = [path.stem for path in paths]
    if twins := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise ConfigError(f"images={images}: {twins[0]} exists with several endings, their results would share a name")
    return paths


@torch.inference_mode()
def segment(method: Method, image: np.ndarray, config: DictConfig) -> np.ndarray:
    """Class indices uint8 (H, W) of one image."""
    pixels = to_pixels([image], config.input_size, method.device)
    size = (image.shape[0], image.shape[1])
    return class_maps(method.predict, pixels, size, tuple(config.scales), config.flip)[0].cpu().numpy()


def save(out: Path, path: Path, image: np.ndarray, prediction: np.ndarray) -> None:
    """Write mask and overlay, each whole or not at all; the overlay last, as the sign that an image is done."""
    palette = voc_palette()
    mask = Image.fromarray(prediction, mode="P")
    mask.putpalette(palette.tobytes())
    partial = out / f".{path.stem}.partial"
    mask.save(partial, format="PNG")
    os.replace(partial, out / "masks" / f"{path.stem}.png")
    mixed = cv2.addWeighted(image, 0.5, palette[prediction], 0.5, 0)
    overlay = np.where(prediction[..., None] > 0, mixed, image)
    Image.fromarray(overlay).save(partial, format="JPEG", quality=90)
    os.replace(partial, overlay_path(out, path))


def overlay_path(out: Path, path: Path) -> Path:
    """Where the overlay of an image goes."""
    return out / "overlays" / f"{path.stem}.jpg"
