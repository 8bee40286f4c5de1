"""A user's objects: images beside a JSON file in COCO's format, with polygons or run lengths."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from segladder.data.sources.base import Source
from segladder.data.sources.coco_file import CocoFile, CocoImage
from segladder.data.sources.folder import split_share, val_count
from segladder.data.sources.instances import Instances
from segladder.errors import ConfigError, DataError, some
from segladder.mask_values import IGNORE
from segladder.settings import Name


class Coco(Source):
    """Images of `root/images` with the objects of `root/annotations/SPLIT.json`.

    An id is `file_name` without its suffix, that of one image in all splits. Mask values follow the ids of the
    categories. Where objects overlap, the smaller one has the pixel. A crowd (`iscrowd`) has its class in the mask and
    is no object; objects lie on top.

    Args:
        root: the folder.
        name: public name of the data set.
        annotations: the file of a split below `root`, with `{split}` for its name; without, one file holds all images.
        images: the folder of images below `root`, with `{split}` where each split has its own.
        val_share: of one file for all: the share of the images in `val`, one at least, chosen by a hash of the id.
        common: the arguments of `Source`.

    Raises:
        DataError: no such file, or one whose ids do not fit together.
        ConfigError: `val_share` outside 0..1, or images by split where one file holds all.
    """

    def __init__(
        self,
        root: str | Path,
        name: Name = "coco",
        annotations: str = "annotations/{split}.json",
        images: str = "images",
        val_share: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        **common: Any,
    ) -> None:
        self.root, self.annotations, self.images, self.val_share = Path(root), annotations, images, val_share
        self.by_split = "{split}" in annotations
        if "{split}" in images and not self.by_split:
            raise ConfigError(f"data.images={images}: needs {{split}} in data.annotations={annotations} too")
        scored = common.get("val_split", "val")
        self._files = {scored: CocoFile.read(self._path(scored))}
        super().__init__(name, ("background", *self._files[scored].categories), **common)

    def split(self, name: str) -> list[str]:
        """Ids of the images of a split, in the order of the file. Raises DataError for missing images, or none."""
        known = self._file(name).images
        if self.by_split:
            ids = list(known)
        elif name in ("train", "val"):
            ids = sorted(known, key=split_share)
            count = min(val_count(ids, self.val_share), len(ids) - 1)
            ids = sorted(ids[:count] if name == "val" else ids[count:])
        else:
            raise DataError(f"{self._path(name)}: holds all images, so that the splits are train and val, not {name}")
        if not ids:
            raise DataError(f"{self._path(name)}: split {name} is empty, expected images")
        self._require_images(name, ids)
        return ids

    def image_path(self, image_id: str) -> Path:
        """Where `file_name` lies. Raises DataError for an id that no file has."""
        split, image = self._entry(image_id)
        return self._folder(split) / image.name

    def drawn_mask_path(self, image_id: str) -> Path:
        """The JSON file that holds the image."""
        return self._path(self._entry(image_id)[0])

    def drawn_mask(self, image_id: str) -> np.ndarray:
        """Class values uint8 (H, W): crowds below, then objects, the largest first."""
        split, image = self._entry(image_id)
        values = np.array([0, *(each.value for each in image.objects)], np.uint8)
        mask: np.ndarray = values[self._file(split).owners(image)]
        return mask

    def drawn_instances(self, image_id: str) -> Instances:
        """The objects that have a pixel, in the order of the file."""
        split, image = self._entry(image_id)
        kept = np.array([0, *(0 if each.crowd else k for k, each in enumerate(image.objects, 1))])
        numbers = kept[self._file(split).owners(image)]
        seen = np.unique(numbers[numbers > 0]) - 1
        classes = self.lookup[[image.objects[k].value for k in seen]] if len(seen) else np.zeros(0, np.uint8)
        used = (classes > 0) & (classes < IGNORE)
        order = np.zeros(len(image.objects) + 1, np.uint16)
        order[seen[used] + 1] = np.arange(1, np.count_nonzero(used) + 1)
        return Instances(order[numbers], classes[used])

    def label_bytes(self, image_id: str) -> bytes:
        """The image's objects as text, which does not change when images are added to the file."""
        image = self._entry(image_id)[1]
        return json.dumps([image.height, image.width, *image.objects], sort_keys=True).encode()

    def _require_images(self, split: str, ids: Iterable[str]) -> None:
        known, folder = self._file(split).images, self._folder(split)
        missing = [known[i] for i in ids if not (folder / known[i].name).is_file()]
        if missing:
            named = some([f"image {image.number} ({folder / image.name})" for image in missing])
            raise DataError(f"{self._path(split)}: no such file for {named}; see data.images")

    def _path(self, split: str) -> Path:
        return self.root / self.annotations.replace("{split}", split)

    def _folder(self, split: str) -> Path:
        return self.root / self.images.replace("{split}", split)

    def _file(self, split: str) -> CocoFile:
        if split not in self._files:
            read = {file.path: file for file in self._files.values()}
            path = self._path(split)
            self._files[split] = read[path] if path in read else self._apart(split, CocoFile.read(path))
        file, names = self._files[split], self.all_classes[1:]
        if file.categories != names:
            raise DataError(
                f"{file.path}: categories {', '.join(file.categories)}, expected {', '.join(names)} as in"
                f" {self._path(self.val_split)}"
            )
        return file

    def _apart(self, split: str, file: CocoFile) -> CocoFile:
        """The file of a split. Raises DataError where an id is that of another image in another split's folder."""
        for other, before in self._files.items():
            shared = file.images.keys() & before.images.keys()
            if shared and self._folder(other) != self._folder(split):
                raise DataError(
                    f"{file.path}: {some(sorted(shared))} in {before.path} too, but of another folder of images;"
                    " expected names that no two splits share; rename the images"
                )
        return file

    def _entry(self, image_id: str) -> tuple[str, CocoImage]:
        splits = tuple(dict.fromkeys((*self._files, self.train_split)))
        for split in splits:
            if image_id in (images := self._file(split).images):
                return split, images[image_id]
        raise DataError(f"{' and '.join(str(self._path(split)) for split in splits)}: no image {image_id}")
