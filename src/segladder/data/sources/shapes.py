"""The embedded data set: 20 classes of drawn creatures, rendered on first use in the VOC folder layout."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from rich.progress import track

from segladder.data.sources.instances import Instances
from segladder.data.sources.palette import stored_png
from segladder.data.sources.shapes_drawing import HEAD_HUES, HUES, SHAPES, TEXTURES, VERSION, draw
from segladder.data.sources.voc import VOC
from segladder.errors import ConfigError
from segladder.files import locked, remove_partials, written
from segladder.machine import cores, pool
from segladder.settings import Name, Positive, Seed

SHAPES_CLASSES = ("background", *(f"{shape}_{texture}" for shape in SHAPES for texture in TEXTURES))
FOLDS = 4


class Shapes(VOC):
    """Drawn creatures whose classes are combinations of attributes; see docs/shapes.md.

    The folder `root/PARAMETERS/VOC2012` is rendered when first read, by one process while others wait, and appears
    once it is whole. Its bytes depend on the parameters alone.

    Args:
        root: where rendered data sets lie.
        train_size: images of the split `train`.
        val_size: images of the split `val`.
        size: height and width in pixels, at least 48.
        seed: of the pictures (not of a run).
        name: public name of the data set.
        common: the arguments of `VOC`.
    """

    def __init__(
        self,
        root: str | Path,
        train_size: Positive = 1000,
        val_size: Positive = 250,
        size: Annotated[int, Field(ge=48)] = 96,
        seed: Seed = 0,
        name: Name = "shapes",
        **common: Any,
    ) -> None:
        folder = f"v{VERSION}-seed{seed}-{size}px-{train_size}-{val_size}"
        self.sizes = {"train": train_size, "val": val_size}
        self.pixels, self.seed = size, seed
        super().__init__(
            Path(root) / folder / "VOC2012", name=name, all_classes=SHAPES_CLASSES, expected=self.sizes, **common
        )

    def split(self, name: str) -> list[str]:
        """Image ids of `train` or `val`; renders the data set if need be."""
        self.prepare()
        return super().split(name)

    def image_path(self, image_id: str) -> Path:
        """JPEGImages/ID.png: JPEG decoders differ in their last bits."""
        self.prepare()
        return self.root / "JPEGImages" / f"{image_id}.png"

    def drawn_mask_path(self, image_id: str) -> Path:
        """SegmentationClass/ID.png."""
        self.prepare()
        return super().drawn_mask_path(image_id)

    def drawn_instances(self, image_id: str) -> Instances:
        """One object for each class of the mask: no picture holds two creatures of a class."""
        return Instances.of_classes(self._in_use(self._stored(image_id)))

    def object_file(self, image_id: str) -> tuple[str, Path]:
        """`instances`, which the mask tells."""
        return "instances", self.drawn_mask_path(image_id)

    def prepare(self) -> bool:
        """Render the data set if its folder does not exist; several processes may call this at once. True."""
        final = self.root.parent
        if not final.is_dir():
            final.parent.mkdir(parents=True, exist_ok=True)
            with locked(final.with_name(final.name + ".lock")):
                if not final.is_dir():
                    remove_partials(final)
                    with written(final) as part:
                        self._render(part / "VOC2012")
        return True

    def _render(self, root: Path) -> None:
        for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True)
        items = [(split, index) for split, count in self.sizes.items() for index in range(count)]
        for split in self.sizes:
            ids = [image_id(*item) for item in items if item[0] == split]
            (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(ids) + "\n")
        work = partial(write_item, root, self.seed, self.pixels)
        with closing(in_processes(work, items)) as drawn:  # no worker draws any more when the folder is cleared away
            for _ in track(drawn, f"rendering {self.name}", len(items), transient=True):
                pass

    def attributes(self) -> np.ndarray:
        """Semantic vectors of the foreground classes in use, float32 (len(classes) - 1, 19), unit norm."""
        return attribute_table()[[SHAPES_CLASSES.index(name) - 1 for name in self.classes[1:]]]


def attribute_table() -> np.ndarray:
    """Semantic vectors of all 20 classes, float32 (20, 19): one-hot shape, texture, body hue, head hue, over 2."""
    kinds = np.arange(20)
    shape, texture = kinds // 4, kinds % 4
    hues = np.eye(len(HUES))
    parts = [np.eye(len(SHAPES))[shape], np.eye(len(TEXTURES))[texture], hues[shape], hues[list(HEAD_HUES)][texture]]
    return (np.concatenate(parts, axis=1) / 2).astype(np.float32)


def novel_classes(fold: int) -> tuple[int, ...]:
    """Classes (1..20) that are novel or unseen in a fold: one of each shape, its attributes all seen elsewhere.

    Raises:
        ConfigError: a fold outside 0..3.
    """
    if fold not in range(FOLDS):
        raise ConfigError(f"fold={fold}: data=shapes has folds 0..{FOLDS - 1}")
    return tuple(4 * shape + (shape + fold) % 4 + 1 for shape in range(len(SHAPES)))


def image_id(split: str, index: int) -> str:
    """The id of an image, such as `train_0007`."""
    return f"{split}_{index:04d}"


def write_item(root: Path, seed: Seed, size: int, item: tuple[str, int]) -> None:
    """Draw one (split, index) and write its two files."""
    image, mask, _ = draw(seed, *item, size=size)
    (root / "JPEGImages" / f"{image_id(*item)}.png").write_bytes(stored_png(image))
    (root / "SegmentationClass" / f"{image_id(*item)}.png").write_bytes(stored_png(mask))


def in_processes(work: Any, items: list[tuple[str, int]]) -> Generator[None]:
    """Do the work on every core this process may use."""
    workers = cores(most=8)
    if workers == 1 or len(items) < 100:
        yield from map(work, items)
        return
    with pool("fork", workers) as processes:
        yield from processes.imap_unordered(work, items, chunksize=16)
