"""What a protocol lets training see, as a view that builds the data set which shows that and no more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np

from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.masks import Masks
from segladder.data.sources.base import Source
from segladder.data.sources.instances import Instances
from segladder.data.sources.scene import Scene, Sight
from segladder.data.training.augmentation import TrainAugmentation
from segladder.data.training.dataset import FlowDataset, SegmentationDataset, TrainingSet
from segladder.data.training.episode_dataset import EpisodeDataset
from segladder.data.training.object_dataset import ObjectDataset
from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.settings import check_value

BackgroundRule = Literal["ignore", "seen"]
UnseenPixels = Literal["ignore", "drop"]


class Recipe(NamedTuple):
    """How training items are made: augmentation, how episodes are drawn, whether items hold objects or flow."""

    augment: TrainAugmentation | None = None
    episodes: Mapping[str, Any] = {}
    objects: bool = False
    flow: bool = False


PLAIN = Recipe()


class TrainingView(ABC):
    """What training may see of a source's training split.

    Attributes:
        shown: classes that are hidden but in these images, by image id.
    """

    shown: Mapping[str, Sequence[str]] = {}

    def ids(self, source: Source) -> Sequence[str]:
        """The images of the training split that may be used."""
        return source.split(source.train_split)

    def judges(self, source: Source, ids: Sequence[str]) -> Sequence[str]:
        """Which of some images that are kept from training may choose weights and settings: all, unless some hide."""
        return ids

    def sight(self, source: Source, labels: Labels) -> Sight:
        """What labels of one kind show of an image: the kind itself, unless some classes have others."""
        return labels

    def words(self, labels: Labels) -> str:
        """What a record calls labels of one kind, and those that some classes have in their place."""
        return labels.words

    @abstractmethod
    def dataset(self, source: Source, ids: Sequence[str], labels: Labels, recipe: Recipe = PLAIN) -> TrainingSet:
        """The data set that shows it.

        Args:
            source: the data set on disk.
            ids: the images, some of `ids`.
            labels: of the classes that the run is asked about.
            recipe: how items are made.

        Raises:
            ConfigError: an unknown choice, or no image is left.
            DataError: too few images, a damaged file.
        """


@dataclass(frozen=True)
class BesideMasks:
    """Labels of some classes beside drawn masks of all others.

    An image without a pixel of these classes shows its mask. In the others, where the labels tell of no drawn object,
    they are what is seen; background that a mask shows would be the outline of what has none.

    Attributes:
        labels: of these classes.
        classes: their indices.
    """

    labels: Labels
    classes: tuple[int, ...]

    @property
    def shows(self) -> str:
        """What the labels show."""
        return self.labels.shows

    @property
    def key(self) -> str:
        """What decides what is made of a scene."""
        return f"{self.labels.key} of {self.classes}"

    def of_image(self, scene: Scene) -> np.ndarray:
        """Class indices uint8 (H, W), 255 where nothing is told."""
        mask = scene.mask
        if not np.isin(mask, self.classes).any():
            return mask
        drawn = ~np.isin(mask, [0, IGNORE, *self.classes])
        return np.where(drawn, mask, self.labels.of_image(scene.only(self.classes)))

    def objects(self, scene: Scene) -> Instances | None:
        """None: these labels outline no object."""
        return None

    def files(self, source: Source, image_id: str) -> tuple[Path, ...]:
        """The files that the labels are made from."""
        return self.labels.files(source, image_id)


@dataclass(frozen=True)
class Images(TrainingView):
    """Images with labels of one kind.

    Args:
        chosen: which images of the training split; None for all.
        labelled: names of the classes that have such labels, where all others have masks; None: all have them.
    """

    chosen: tuple[str, ...] | None = None
    labelled: tuple[str, ...] | None = None

    def sight(self, source: Source, labels: Labels) -> Sight:
        """The labels, beside masks of the classes that have some."""
        if self.labelled is None or not labels.partial:
            return labels
        return BesideMasks(labels, tuple(source.classes.index(name) for name in self.labelled))

    def ids(self, source: Source) -> Sequence[str]:
        """The chosen images."""
        return super().ids(source) if self.chosen is None else self.chosen

    def dataset(self, source: Source, ids: Sequence[str], labels: Labels, recipe: Recipe = PLAIN) -> TrainingSet:
        """Items with what the labels show; see `TrainingView.dataset`."""
        if recipe.objects:
            return ObjectDataset(source, ids, labels, recipe.augment)
        kind = FlowDataset if recipe.flow else SegmentationDataset
        return kind(source, ids, self.sight(source, labels), recipe.augment)


@dataclass(frozen=True)
class BoxesOfSome(TrainingView):
    """Images with an outline of each object, but a box alone of the objects of some classes.

    Args:
        boxes_only: names of these classes.
    """

    boxes_only: tuple[str, ...]

    def words(self, labels: Labels) -> str:
        """`masks of base classes and boxes of novel ones`."""
        return f"{labels.words} of base classes and boxes of novel ones"

    def dataset(self, source: Source, ids: Sequence[str], labels: Labels, recipe: Recipe = PLAIN) -> TrainingSet:
        """Items with objects; see `TrainingView.dataset`."""
        if not recipe.objects:
            raise ConfigError("this protocol shows boxes of its novel classes: choose a method that reads objects")
        return ObjectDataset(source, ids, labels, recipe.augment, self.boxes_only)


@dataclass(frozen=True)
class Episodes(TrainingView):
    """Episodes of base classes; the arguments are those of `EpisodeDataset`.

    Where `class_draw` is None, `loader.episodes` decides.
    """

    novel: tuple[str, ...]
    shots: int
    novel_pixels: str = "ignore"
    images: str = "all"
    min_object: str = "grid"
    min_area: int = 2048
    class_draw: str | None = None

    def judges(self, source: Source, ids: Sequence[str]) -> Sequence[str]:
        """The images that training could have used: none with a novel class where training drops these."""
        return source.ids_without(ids, self.novel) if self.novel_pixels == "drop" else ids

    def dataset(self, source: Source, ids: Sequence[str], labels: Labels, recipe: Recipe = PLAIN) -> TrainingSet:
        """Episodes; see `TrainingView.dataset`."""
        drawn = {} if self.class_draw is None else {"class_draw": self.class_draw}
        return EpisodeDataset(
            source.as_seen(labels),
            ids,
            self.novel,
            self.shots,
            recipe.augment,
            self.novel_pixels,
            self.images,
            min_object=self.min_object,
            min_area=self.min_area,
            **{**recipe.episodes, **drawn},
        )


@dataclass(frozen=True)
class HiddenClasses(TrainingView):
    """Images with masks in which some classes are never seen; nothing tells one of these from another.

    The exception are few labels: the masks of `shown`, with which a run is no longer zero-shot.

    Args:
        hidden: names of the unseen classes, whose pixels become 255.
        background: whether background pixels are labelled (`seen`) or 255 (`ignore`).
        unseen_pixels: images that hold an unseen class stay (`ignore`) or are left out (`drop`, which uses image-level
            knowledge and shows none of their pixels).
        transductive: keep every image, labelled or not, for methods that learn from images alone; else images without
            a label left are left out.
        shown: which of the unseen classes keep their label in some images, by image id; these images always stay.

    Raises:
        ConfigError: an unknown choice, or images both dropped and wanted.
    """

    hidden: Sequence[str]
    background: str = "ignore"
    unseen_pixels: str = "ignore"
    transductive: bool = False
    shown: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_value(BackgroundRule, self.background, "protocol.background")
        check_value(UnseenPixels, self.unseen_pixels, "protocol.unseen_pixels")
        if self.transductive and self.unseen_pixels == "drop":
            raise ConfigError(
                "protocol.transductive=true learns from images of unseen classes: set unseen_pixels=ignore"
            )

    def table(self, classes: Sequence[str], image_id: str | None = None) -> np.ndarray:
        """What each value of a mask becomes, uint8 (256,): that of one image, or of any that shows no unseen class.

        Raises:
            ConfigError: an unknown class, or none is left.
        """
        if unknown := [name for name in self.hidden if name not in classes[1:]]:
            raise ConfigError(f"unseen class {unknown[0]}: expected some of {', '.join(classes[1:])}")
        if set(self.hidden) == set(classes[1:]):
            raise ConfigError(f"unseen classes {', '.join(self.hidden)}: no seen class is left to train")
        table = np.arange(256, dtype=np.uint8)
        shown = self.shown.get(image_id, ()) if image_id is not None else ()
        table[[classes.index(name) for name in self.hidden if name not in shown]] = IGNORE
        if self.background == "ignore":
            table[0] = IGNORE
        return table

    def dataset(self, source: Source, ids: Sequence[str], labels: Labels, recipe: Recipe = PLAIN) -> TrainingSet:
        """Items whose masks are read through tables that hide classes; see `TrainingView.dataset`."""
        kept = self.usable(source, ids)
        tables = [self.table(source.classes, image_id) for image_id in kept]
        return SegmentationDataset(source, kept, Masks(), recipe.augment, tables)

    def judges(self, source: Source, ids: Sequence[str]) -> Sequence[str]:
        """The images with a label of a seen class: none with an unseen class where training drops these."""
        table = self.table(source.classes)
        hidden = [source.classes.index(name) for name in self.hidden]
        return [i for i in ids if self._usable(source.mask(i), table, hidden)]

    def usable(self, source: Source, ids: Sequence[str]) -> list[str]:
        """The images that training may use. Raises ConfigError if none is left, or not all that show unseen classes."""
        if missing := sorted(set(self.shown) - set(ids)):
            raise ConfigError(
                f"{source.name}: image {missing[0]} is one of the few with labels of {self.shown[missing[0]][0]}, but"
                " training leaves it out: choose another loader.without or loader.held_out"
            )
        table = self.table(source.classes)
        hidden = [source.classes.index(name) for name in self.hidden]
        kept = list(ids)
        if not self.transductive:
            kept = [i for i in ids if i in self.shown or self._usable(source.mask(i), table, hidden)]
        if not kept:
            raise ConfigError(f"{source.name}: no training image is left without {', '.join(self.hidden)}")
        return kept

    def _usable(self, mask: np.ndarray, table: np.ndarray, hidden: Sequence[int]) -> bool:
        if self.unseen_pixels == "drop" and np.isin(mask, hidden).any():
            return False
        return bool((cv2.LUT(mask, table) != IGNORE).any())
