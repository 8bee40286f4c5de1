"""Bring VOC and SBD to the folder layout that the reader expects; every step can be interrupted and repeated."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from segladder.data.sources.palette import voc_palette
from segladder.data.sources.sbd import read_sbd_mask, sbd_ids, sbd_root
from segladder.data.sources.voc import VOC
from segladder.errors import ConfigError, DataError
from segladder.files import written
from segladder.machine import pool


def unconverted(source: VOC) -> list[Path]:
    """SBD's .mat files that have no PNG in SegmentationClassAug yet. Raises ConfigError if `data.sbd` is not set."""
    if source.sbd is None:
        raise ConfigError("data.sbd=null: nothing to convert; set data.sbd to the folder benchmark_RELEASE")
    masks = sbd_root(source.sbd) / "cls"
    done = {path.stem for path in converted_folder(source).glob("[!.]*.png")}
    return [masks / f"{image_id}.mat" for image_id in sbd_ids(source.sbd) if image_id not in done]


def converted_folder(source: VOC) -> Path:
    """SegmentationClassAug, beside SegmentationClass."""
    return source.root / "SegmentationClassAug"


def convert(folder: Path, path: Path) -> str | None:
    """Write one .mat file as folder/ID.png with VOC's palette; returns what is wrong with it, or None."""
    try:
        write_mask(folder / f"{path.stem}.png", read_sbd_mask(path))
    except DataError as error:
        return str(error)
    return None


def convert_all(source: VOC, paths: list[Path], workers: int) -> Iterator[str | None]:
    """Convert .mat files in `workers` processes; yields what `convert` returned, one for each path."""
    folder = converted_folder(source)
    folder.mkdir(parents=True, exist_ok=True)
    if workers < 2:
        yield from map(partial(convert, folder), paths)
        return
    with pool("spawn", workers) as processes:
        yield from processes.imap_unordered(partial(convert, folder), paths, chunksize=16)


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write class values uint8 (H, W) as a palette PNG that appears only when it is whole."""
    image = Image.fromarray(mask, "L")
    image.putpalette(voc_palette().tobytes())  # makes it a palette image
    with written(path) as part:
        image.save(part, "PNG")


def download(source: VOC) -> Path:
    """Fetch VOC 2012 and SBD with torchvision, which verifies their checksums, unless they are there.

    Archives are kept in DATA/downloads and not fetched twice. VOC appears at `data.root`, SBD in DATA/sbd, each only
    when it is whole; DATA is the folder that holds VOCdevkit.

    Returns:
        the folder of SBD.

    Raises:
        ConfigError: `data.root` does not end in VOCdevkit/VOC2012.
    """
    from torchvision.datasets import SBDataset, VOCSegmentation

    if source.root.parts[-2:] != ("VOCdevkit", "VOC2012"):
        raise ConfigError(f"data.root={source.root}: expected a path that ends in VOCdevkit/VOC2012 to download to")
    data = source.root.parent.parent
    archives, sbd = data / "downloads", data / "sbd"
    archives.mkdir(parents=True, exist_ok=True)
    if not source.root.is_dir():
        VOCSegmentation(str(archives), year="2012", image_set="trainval", download=True)
        source.root.parent.mkdir(exist_ok=True)
        os.replace(archives / "VOCdevkit" / "VOC2012", source.root)
    if not sbd.is_dir():
        part = archives / "sbd"
        for leftover in ("cls", "img", "inst"):  # of an interrupted unpacking; torchvision moves folders to here
            shutil.rmtree(part / leftover, ignore_errors=True)
        part.mkdir(exist_ok=True)
        SBDataset(str(part), image_set="train", mode="segmentation", download=True)
        os.replace(part, sbd)
    return sbd
