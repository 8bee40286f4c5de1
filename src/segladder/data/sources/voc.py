"""PASCAL VOC 2012 in its own folder layout, with the SBD masks that make up `train_aug`."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from segladder.data.sources.decoding import read_mask
from segladder.data.sources.instances import Instances, instances_of
from segladder.data.sources.lists import read_ids, stem_of
from segladder.data.sources.sbd import derive_train_aug, read_sbd_mask, sbd_ids, sbd_root
from segladder.data.sources.scene import ObjectBoxes
from segladder.data.sources.tag_file import Tagged, read_tag_file
from segladder.errors import ConfigError, DataError
from segladder.foreign import content
from segladder.settings import Name

VOC_CLASSES = (
    "background",
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class VOC(Tagged):
    """A folder laid out like VOCdevkit/VOC2012: JPEGImages, SegmentationClass, ImageSets/Segmentation/SPLIT.txt.

    A mask is looked for in SegmentationClass, then SegmentationClassAug, then SBD's .mat files. The split `train_aug`
    is read from train_aug.txt or trainaug.txt, or else derived: VOC train + SBD train + SBD val - VOC val. `train_sbd`
    is what that adds to VOC train, so that settings can be chosen by training on it and scoring `train`.

    Objects are told apart by SegmentationObject/ID.png, where there is one: 0 no object, 255 void.

    Args:
        root: the folder VOC2012.
        name: public name of the data set.
        all_classes: names of mask values 0, 1, ...
        sbd: folder benchmark_RELEASE of SBD, or None.
        tags: where image-level tags come from, `masks`, `xml` (Annotations/ID.xml) or a file such as cls_labels.npy.
        difficult: whether objects that the XML marks as difficult count as tags.
        common: the arguments of `Source`.
    """

    def __init__(
        self,
        root: str | Path,
        name: Name = "voc",
        all_classes: Sequence[str] = VOC_CLASSES,
        sbd: str | Path | None = None,
        tags: str = "masks",
        difficult: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(name, all_classes, **common)
        if tags not in ("masks", "xml") and not tags.endswith(".npy"):
            raise ConfigError(f"data.tags={tags}: expected masks, xml or FILE.npy")
        self.root = Path(root)
        self.sbd = None if sbd is None else Path(sbd)
        self.tag_source = tags
        self.difficult = difficult

    def split(self, name: str) -> list[str]:
        """Image ids of a split, in the order of its list. Raises DataError if it is missing, empty or repeats an id."""
        path = self._list_path(name)
        derived = {"train_aug": self._derived_train_aug, "train_sbd": self._derived_train_sbd}
        ids = derived[name]() if name in derived and not path.is_file() else read_ids(path, stem_of)
        if not ids:
            raise DataError(f"{path}: empty list, expected image ids, one per line")
        return ids

    def image_path(self, image_id: str) -> Path:
        """JPEGImages/ID.jpg."""
        return self.root / "JPEGImages" / f"{image_id}.jpg"

    def drawn_mask_path(self, image_id: str) -> Path:
        """The first mask that exists, or SegmentationClass/ID.png where none does."""
        own = self.root / "SegmentationClass" / f"{image_id}.png"
        if own.is_file():
            return own
        candidates = [self.root / "SegmentationClassAug" / f"{image_id}.png"]
        if self.sbd is not None:
            candidates.append(self._sbd_masks / f"{image_id}.mat")
        return next((path for path in candidates if path.is_file()), own)

    def object_path(self, image_id: str) -> Path:
        """SegmentationObject/ID.png."""
        return self.root / "SegmentationObject" / f"{image_id}.png"

    def drawn_instances(self, image_id: str) -> Instances | None:
        """The objects in SegmentationObject/ID.png. Raises DataError where it disagrees with the mask."""
        path = self.object_path(image_id)
        if not path.is_file():
            return None
        return instances_of(read_mask(path), self._stored(image_id), self.lookup, path, image_id)

    def object_file(self, image_id: str) -> tuple[str, Path] | None:
        """`instances` of SegmentationObject, else `xml` of Annotations, difficult objects included."""
        places = {"instances": self.object_path(image_id), "xml": self.annotation_path(image_id)}
        return next(((what, path) for what, path in places.items() if path.is_file()), None)

    def boxes_from(self, image_id: str, what: str, path: Path) -> ObjectBoxes | None:
        """The boxes in the XML, or around the instances, as `what` says."""
        return self.xml_boxes(image_id) if what == "xml" else super().boxes_from(image_id, what, path)

    def xml_boxes(self, image_id: str) -> ObjectBoxes:
        """The boxes of Annotations/ID.xml. Raises DataError naming file and class or object."""
        path = self.annotation_path(image_id)
        found = [(self._known(name, path), box) for name, box in read_boxes(path) if self._known(name, path)]
        places = np.array([box for _, box in found], np.int64).reshape(-1, 4)
        return ObjectBoxes(tuple(k for k, _ in found), places, path)

    def _known(self, name: str, path: Path) -> int:
        """The index of a class, 0 where it is not in use. Raises DataError for a name that the data set has not."""
        if name not in self.all_classes:
            raise DataError(f"{path}: object {name}, expected one of {', '.join(self.all_classes[1:])}")
        return self.classes.index(name) if name in self.classes else 0

    def decode_mask(self, path: Path) -> np.ndarray:
        """Class values of a PNG or of an SBD .mat file, uint8 (H, W)."""
        return read_sbd_mask(path) if path.suffix == ".mat" else read_mask(path)

    def annotation_path(self, image_id: str) -> Path:
        """Annotations/ID.xml."""
        return self.root / "Annotations" / f"{image_id}.xml"

    def tag_path(self, image_id: str) -> Path:
        """The XML, the mask or the file of all tags, as `tags` was chosen."""
        places = {"xml": self.annotation_path, "masks": self.mask_path}
        return places[self.tag_source](image_id) if self.tag_source in places else Path(self.tag_source)

    def told_tags(self, image_id: str) -> np.ndarray | None:
        """The tags in the XML or in the file of all tags, as `tags` was chosen. Raises DataError naming the file."""
        if self.tag_source == "masks":
            return None
        return self.xml_tags(image_id) if self.tag_source == "xml" else self._filed_tags(image_id)

    def noted_tags(self, image_id: str) -> tuple[Path, np.ndarray] | None:
        """The XML and the tags in it; None where there is none."""
        path = self.annotation_path(image_id)
        return (path, self.xml_tags(image_id)) if path.is_file() else None

    def _filed_tags(self, image_id: str) -> np.ndarray:
        if image_id not in self._tag_table:
            raise DataError(f"{self.tag_source}: no tags of {image_id}")
        return self._tag_table[image_id][[self.all_classes.index(name) - 1 for name in self.classes[1:]]]

    @cached_property
    def _tag_table(self) -> dict[str, np.ndarray]:
        return read_tag_file(Path(self.tag_source), len(self.all_classes) - 1)

    def xml_tags(self, image_id: str) -> np.ndarray:
        """Tags from Annotations/ID.xml, float32 (len(classes) - 1,). Raises DataError naming file and class."""
        path = self.annotation_path(image_id)
        tags = np.zeros(len(self.classes) - 1, np.float32)
        for name, difficult in read_objects(path):
            if (k := self._known(name, path)) and (self.difficult or not difficult):
                tags[k - 1] = 1
        return tags

    @cached_property
    def _sbd_masks(self) -> Path:
        assert self.sbd is not None
        return sbd_root(self.sbd) / "cls"

    def _list_path(self, name: str) -> Path:
        folder = self.root / "ImageSets" / "Segmentation"
        other_name = folder / "trainaug.txt"
        path = folder / f"{name}.txt"
        return other_name if name == "train_aug" and not path.is_file() and other_name.is_file() else path

    def _derived_train_aug(self) -> list[str]:
        pngs = self.root / "SegmentationClassAug"
        if self.sbd is None and not pngs.is_dir():
            raise DataError(
                f"{self._list_path('train_aug')}: no such list, and no SBD to derive it from; set data.sbd=DIR"
                f" (benchmark_RELEASE), add {pngs.name}/ or train with data.train_split=train"
            )
        extra = sbd_ids(self.sbd) if self.sbd is not None else [path.stem for path in pngs.glob("[!.]*.png")]
        return derive_train_aug(self.split("train"), self.split("val"), extra)

    def _derived_train_sbd(self) -> list[str]:
        voc_train = set(self.split("train"))
        return [image_id for image_id in self.split("train_aug") if image_id not in voc_train]


def read_objects(path: Path) -> list[tuple[str, bool]]:
    """Objects of a VOC annotation as (class name, difficult). Raises DataError for a missing or damaged file."""
    return [(class_of(node), node.findtext("difficult", "0").strip() == "1") for node in object_nodes(path)]


def read_boxes(path: Path) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Objects of a VOC annotation as (class name, box): left, top, and right and bottom one pixel beyond.

    VOC counts pixels from 1, and a few of its corners are fractions. Raises DataError for a missing or damaged file, or
    an object without a box.
    """
    found = []
    for node in object_nodes(path):
        try:
            corners = [round(float(node.findtext(f"bndbox/{key}", ""))) for key in ("xmin", "ymin", "xmax", "ymax")]
        except (ValueError, OverflowError) as error:
            raise DataError(f"{path}: object {class_of(node)} has no whole bndbox ({error})") from error
        left, top, right, bottom = corners
        found.append((class_of(node), (left - 1, top - 1, right, bottom)))
    return found


def class_of(node: ElementTree.Element) -> str:
    """The class name of an object of a VOC annotation."""
    return node.findtext("name", "").strip()


def object_nodes(path: Path) -> list[ElementTree.Element]:
    """The objects of a VOC annotation. Raises DataError for a missing or damaged file."""
    try:
        return ElementTree.fromstring(content(path)).findall("object")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}, expected a VOC annotation (data.tags=xml)") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the last two of encodings
        raise DataError(f"{path}: damaged XML ({error})") from error
