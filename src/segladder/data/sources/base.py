"""What every data set looks like to the rest of the framework: ids, pixels, class indices."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np

from segladder.data.reading import of_each
from segladder.data.sources.decoding import CONVERT, read_mask, read_upright_image, stored
from segladder.data.sources.flow import SMALLEST, dense_flow, relative
from segladder.data.sources.instances import Instances
from segladder.data.sources.lists import check_names, checked_folds
from segladder.data.sources.palette import Colours
from segladder.data.sources.scene import ObjectBoxes, Scene, Sight, size_error, tags_of
from segladder.errors import ConfigError, DataError
from segladder.mask_values import IGNORE, OtherClasses
from segladder.settings import Name


class Source(ABC):
    """A data set on disk: splits of image ids, RGB images, masks of class indices.

    A subclass names its files (`split`, `image_path`, `drawn_mask_path`) and the classes its masks hold; this class
    does the rest: class subsets, checked decoding, tags, fingerprints.

    Args:
        name: the data set's public name, the `data.name` of the configuration.
        all_classes: names of mask values 0, 1, ...; the first is the background, unless there is none.
        classes: the foreground classes in use, in the order of their new indices; None keeps all.
        other_classes: what pixels of the other classes become, `ignore` (255) or `background` (0).
        train_split: the split that training reads.
        val_split: the split that is scored.
        folds: class names of each fold; those of one fold are novel or unseen in a run, all others are base or seen.
        masks: a folder of PNGs (ID.png, values of `all_classes`) that replace the masks of the training split, or None.
        cache: `none`, or `memmap` to keep decoded pixels in files on disk.
        cache_dir: where these lie; None is the user's cache folder.
        background: whether value 0 is the background. If not it is a class like the others, and so is index 0.
        expected: how many ids each split has when the data set is complete; `segladder data action=check` compares.

    Raises:
        ConfigError: a class that the data set does not have, named with the ones it has, or no background to turn
            classes into; two classes of one name, or more than masks can tell apart.
    """

    deals_images: ClassVar[bool] = False  # whether `data.folds_of_images` deals images into folds

    def __init__(
        self,
        name: Name,
        all_classes: Sequence[str],
        classes: Sequence[str] | None = None,
        other_classes: OtherClasses = "ignore",
        train_split: str = "train",
        val_split: str = "val",
        folds: Sequence[Sequence[str]] = (),
        masks: str | Path | None = None,
        cache: Literal["none", "memmap"] = "none",
        cache_dir: str | Path | None = None,
        background: bool = True,
        expected: Mapping[str, int] | None = None,
    ) -> None:
        check_names(name, all_classes)
        first = int(background)  # the lowest value of a foreground class
        known = list(all_classes[first:])
        chosen = known if classes is None else list(classes)
        unknown = [c for c in chosen if c not in known]
        if unknown or len(set(chosen)) != len(chosen) or not chosen:
            fault = f"no such class {', '.join(unknown)}" if unknown else "classes must be given once each"
            raise ConfigError(f"data.classes: {fault}; {name} has {', '.join(known)}")
        self.name = self.title = name  # the second is what tables call it
        self.background = background
        self.all_classes = tuple(all_classes)
        self.classes = (*all_classes[:first], *chosen)
        if other_classes == "background":
            self.require_background("data.other_classes=background")
        self.train_split = train_split
        self.val_split = val_split
        self.expected = dict(expected or {})
        self.folds = checked_folds(folds, known)
        self.training_masks = None if masks is None else Path(masks)
        self.has_masks = True
        self._tags: dict[str, np.ndarray] = {}  # those of masks that were read
        self.sight: Sight | None = None  # what `mask` shows of the drawn one
        self.cache = cache
        self.cache_dir = cache_dir
        self.lookup = np.full(256, IGNORE if other_classes == "ignore" else 0, np.uint8)  # mask value -> class index
        self.lookup[IGNORE] = IGNORE
        for index, used in enumerate(self.classes):
            self.lookup[self.all_classes.index(used)] = index
        self.keeps_values = np.array_equal(self.lookup[: len(all_classes)], range(len(all_classes)))

    @property
    def foreground(self) -> tuple[str, ...]:
        """Names of the classes in use but the background."""
        return self.classes[int(self.background) :]

    @property
    def foreground_indices(self) -> range:
        """Their indices, in their order."""
        return range(int(self.background), len(self.classes))

    @property
    def colours(self) -> Colours:
        """How pictures show the classes in use."""
        return Colours(background=self.background)

    def require_background(self, asking: str) -> None:
        """Raise ConfigError where there is no background; `asking` is the key that needs one."""
        if not self.background:
            raise ConfigError(f"{asking}: needs a background, but data={self.name} has none: 0 is {self.classes[0]}")

    def prepare(self) -> bool:
        """Make what is missing on disk, for `segladder data action=prepare`; False where nothing needs to be made."""
        return False

    @abstractmethod
    def split(self, name: str) -> list[str]:
        """Image ids of a split, in the order of its list. Raises DataError if the list is missing or empty."""

    @abstractmethod
    def image_path(self, image_id: str) -> Path:
        """Where the image lies."""

    @abstractmethod
    def drawn_mask_path(self, image_id: str) -> Path:
        """Where the data set's own mask lies."""

    def mask_path(self, image_id: str) -> Path:
        """Where the mask lies: in the folder `masks` for training images, if there is one."""
        if self.training_masks is not None and image_id in self._training_ids:
            return self.training_masks / f"{image_id}.png"
        return self.drawn_mask_path(image_id)

    def label_place(self, image_id: str) -> str:
        """Where the labels of an image lie, as messages say it."""
        path = self.mask_path(image_id)
        return str(path) if path.stem == Path(image_id).name else f"{path}, image {image_id}"

    def with_training_masks(self, folder: str | Path, ids: Iterable[str] | None = None) -> Source:
        """This data set with the masks of its training split, or of some `ids`, replaced by a folder's PNGs."""
        other = copy.copy(self)
        other.training_masks, other._tags = Path(folder), {}
        if ids is not None:
            other._training_ids = frozenset(ids)
        return other

    def as_seen(self, sight: Sight) -> Source:
        """This data set with masks as `sight` shows them; without masks if `sight` shows no pixels."""
        other = copy.copy(self)
        other.sight, other.has_masks = sight, sight.shows == "pixels"
        return other

    @cached_property
    def _training_ids(self) -> frozenset[str]:
        return frozenset(self.split(self.train_split))

    def image(self, image_id: str) -> np.ndarray:
        """RGB image, uint8 (H, W, 3). Raises DataError naming the file if it cannot be decoded whole."""
        return read_upright_image(self.image_path(image_id))

    def next_frame(self, image_id: str) -> str:
        """The frame of its video that a frame's flow leads to. Raises ConfigError: single images have none."""
        raise ConfigError(f"data={self.name} holds single images, no videos: nothing tells what moves in {image_id}")

    def flow(self, image_id: str) -> np.ndarray:
        """Optical flow from a frame to `next_frame`, over its longest vector: right and down, float32 (H, W, 2).

        Raises:
            ConfigError: the data set holds no videos.
            DataError: naming a file that is damaged, the only frame of its video, or of another size than the next.
        """
        pair = [image_id, self.next_frame(image_id)]
        first, second = (self.image(frame) for frame in pair)
        (height, width), (next_height, next_width) = first.shape[:2], second.shape[:2]
        if first.shape != second.shape:
            raise DataError(
                f"{self.image_path(pair[1])}: {pair[1]} is {next_width}x{next_height}, expected {width}x{height} like"
                f" {pair[0]}, the frame beside it"
            )
        if min(height, width) < SMALLEST:
            raise DataError(
                f"{self.image_path(image_id)}: {image_id} is {width}x{height}, expected {SMALLEST} or more for its flow"
            )
        return relative(dense_flow(first, second))

    def raw_mask(self, image_id: str) -> np.ndarray:
        """The mask as stored, uint8 (H, W). Raises DataError naming file and value if a value has no class."""
        if not self.has_masks:
            raise DataError(f"{self.name}: the mask of {image_id} is asked for, but the labels show none")
        return self._stored(image_id)

    def values(self, image_id: str) -> np.ndarray:
        """Values of the mask that is read for an image, uint8 (H, W), not yet checked."""
        return self.drawn_mask(image_id) if self._is_drawn(image_id) else self.decode_mask(self.mask_path(image_id))

    def _stored(self, image_id: str) -> np.ndarray:
        mask = self.values(image_id)
        if (mask + np.uint8(1)).max() > len(self.all_classes):  # 255 becomes 0; five times as fast as a table
            value = int(mask[mask >= len(self.all_classes)].min())
            raise DataError(
                f"{self.mask_path(image_id)}: value {value}, expected 0..{len(self.all_classes) - 1} or {IGNORE}:"
                f" {self.all_classes[0]} to {self.all_classes[-1]}; {CONVERT}"
            )
        return mask

    def _is_drawn(self, image_id: str) -> bool:
        return self.training_masks is None or image_id not in self._training_ids

    def drawn_mask(self, image_id: str) -> np.ndarray:
        """Values of the data set's own mask, uint8 (H, W), not yet checked."""
        return self.decode_mask(self.drawn_mask_path(image_id))

    def decode_mask(self, path: Path) -> np.ndarray:
        """Values of one mask file, uint8 (H, W), not yet checked."""
        return read_mask(path)

    def mask(self, image_id: str) -> np.ndarray:
        """Class indices into `classes`, uint8 (H, W), 255 = ignored. Raises DataError like `raw_mask`."""
        return self._drawn(image_id) if self.sight is None else self.sight.of_image(self.scene(image_id))

    def _drawn(self, image_id: str) -> np.ndarray:
        return self._in_use(self.raw_mask(image_id))

    def scene(self, image_id: str) -> Scene:
        """What an annotator works from. Raises DataError like `raw_mask`."""
        return Scene(
            image_id,
            self._drawn(image_id),
            lambda: self.image(image_id),
            lambda: self.boxes(image_id),
            lambda: self._told_instances(image_id),
            self.mask_path(image_id),
            self.background,
        )

    def boxes(self, image_id: str) -> ObjectBoxes | None:
        """The box around each object of the classes in use; None where nothing tells objects apart.

        Raises DataError naming a file that does not fit.
        """
        told = self.told_objects(image_id)
        return None if told is None else self.boxes_from(image_id, *told)

    def boxes_from(self, image_id: str, what: str, path: Path) -> ObjectBoxes | None:
        """The boxes that a file tells, which `object_file` has named."""
        found = self.drawn_instances(image_id)
        return None if found is None else ObjectBoxes(tuple(found.classes.tolist()), found.boxes, path)

    def told_objects(self, image_id: str) -> tuple[str, Path] | None:
        """What tells the objects of an image apart, such as `instances`, and its file; None where nothing does.

        Nothing does where another folder's mask stands for the drawn one.
        """
        return self.object_file(image_id) if self.mask_path(image_id) == self.drawn_mask_path(image_id) else None

    def object_file(self, image_id: str) -> tuple[str, Path] | None:
        """What tells the objects in the data set's own mask apart, as `told_objects`; None where nothing does."""
        return None

    def instances(self, image_id: str) -> Instances | None:
        """The single objects of an image, of the classes in use; None where nothing tells them apart.

        Nothing does where another folder's masks stand for the drawn one, or where a kind of label outlines none.
        Void pixels belong to no object. Raises DataError if the labels are tags, or naming a file that does not fit.
        """
        if not self.has_masks:
            raise DataError(f"{self.name}: the objects of {image_id} are asked for, but the labels are tags")
        return self._told_instances(image_id) if self.sight is None else self.sight.objects(self.scene(image_id))

    def _told_instances(self, image_id: str) -> Instances | None:
        return self.drawn_instances(image_id) if self._is_drawn(image_id) else None

    def drawn_instances(self, image_id: str) -> Instances | None:
        """The objects behind the data set's own mask, of the classes in use; None where it does not know them."""
        return None

    def _in_use(self, mask: np.ndarray) -> np.ndarray:
        return mask if self.keeps_values else cv2.LUT(mask, self.lookup)

    def pair(self, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask of one id. Raises DataError if their sizes differ."""
        image, mask = self.image(image_id), self.mask(image_id)
        if image.shape[:2] != mask.shape:
            raise size_error(self.label_place(image_id), mask.shape, image.shape)
        return image, mask

    def ids_without(self, ids: Sequence[str], classes: Sequence[str]) -> list[str]:
        """The images that hold no pixel of some classes, in use or not. Raises ConfigError for an unknown class."""
        known = self.all_classes[int(self.background) :]
        if unknown := [name for name in classes if name not in known]:
            raise ConfigError(f"{self.name}: no such class {unknown[0]}; it has {', '.join(known)}")
        if not classes:
            return list(ids)
        values = [self.all_classes.index(name) for name in classes]
        held = of_each(lambda image_id: np.isin(self.raw_mask(image_id), values).any(), ids, f"masks of {self.name}")
        return [image_id for image_id, holds in zip(ids, held, strict=True) if not holds]

    def tag_path(self, image_id: str) -> Path:
        """The file that `tags` reads."""
        return self.mask_path(image_id)

    def tags(self, image_id: str) -> np.ndarray:
        """Which foreground classes the image holds, float32 (len(foreground),) of 0 and 1, from its mask, read once."""
        if image_id not in self._tags:
            self._tags[image_id] = tags_of(self._in_use(self._stored(image_id)), self.foreground_indices)
        return self._tags[image_id].copy()

    def fingerprint(self, ids: Iterable[str]) -> str:
        """First 16 hex digits of a sha256 over ids, classes in use, the bytes of the masks and what is seen of them."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for image_id in ids:
            digest.update(image_id.encode() + b"\0")
            drawn = self._is_drawn(image_id)
            labels = self.label_bytes(image_id) if drawn else self.mask_path(image_id).read_bytes()
            digest.update(hashlib.sha256(labels).digest())
        digest.update(self.lookup.tobytes() + (self.sight.key if self.sight else "").encode())
        return digest.hexdigest()[:16]

    def label_bytes(self, image_id: str) -> bytes:
        """What the fingerprint is over, of an image whose mask is the data set's own: the file of the mask."""
        return stored(self.drawn_mask_path(image_id), "a mask")

    def image_fingerprint(self, ids: Iterable[str]) -> str:
        """First 16 hex digits of a sha256 over ids and the bytes of the image files; reads no mask."""
        digest = hashlib.sha256()
        for image_id in ids:
            digest.update(image_id.encode() + b"\0")
            digest.update(hashlib.sha256(self.image_path(image_id).read_bytes()).digest())
        return digest.hexdigest()[:16]
