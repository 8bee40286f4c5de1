"""Which training images are labelled, chosen by a hash.

A ladder has images without novel objects, and a pool of those with some; where no class is novel the pool is some of
all images. Zero-shot runs may have a few masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

from segladder.data.hashing import hashed_seed, hashed_share
from segladder.data.sources.base import Source
from segladder.data.sources.items import Items, split_items
from segladder.errors import ConfigError, DataError


@dataclass(frozen=True)
class Pool:
    """Which training images hold novel classes, and which of these are labelled.

    Attributes:
        base: images without a pixel of a novel class.
        images: the pool: images with a novel object, in the order in which they are labelled.
        holders: for each novel class, by index, its images of the pool in that order.
    """

    base: tuple[str, ...]
    images: tuple[str, ...]
    holders: dict[int, tuple[str, ...]]

    def supports(self, class_index: int, shots: int, name: str) -> tuple[str, ...]:
        """The first images of a class. Raises DataError if the pool has fewer than `shots`; `name` is the class's."""
        found = self.holders[class_index][:shots]
        if len(found) < shots:
            raise DataError(
                f"class {name}: {len(found)} of {len(self.images)} images of the pool hold it, protocol.shots={shots};"
                " take a larger pool, fewer shots or set protocol.min_object=none"
            )
        return found


def drawn(ids: Iterable[str], seed: int) -> list[str]:
    """Images in the order in which they are labelled, which no label decides; each seed has its own."""
    key = ("pool", seed) if seed else ("pool",)
    return sorted(ids, key=lambda image_id: hashed_seed(*key, image_id))


def choose(items: Items, novel: Sequence[int], size: int | None, seed: int = 0) -> Pool:
    """The pool of some images: in turn the first image of each novel class, the second of each, and so on.

    A smaller pool is the start of a larger one, and both start with the supports of few shots.

    Args:
        items: what the training images hold.
        novel: indices of the novel classes.
        size: how many images, 0 included; None for all.
        seed: decides which images are first.

    Raises:
        DataError: no image without novel classes, or none with one.
    """
    kept, order = dict(zip(items.ids, items.kept, strict=True)), drawn(items.ids, seed)
    queues = {k: [image_id for image_id in order if k in kept[image_id]] for k in novel}
    turns = (image for turn in zip_longest(*queues.values()) for image in turn if image is not None)
    candidates = tuple(dict.fromkeys(turns))
    base = tuple(i for i, present in zip(items.ids, items.present, strict=True) if not set(present) & set(novel))
    if not base or not candidates:
        names = ", ".join(items.classes[k] for k in novel)
        fault = "every training image holds" if candidates else "no training image holds an object of"
        raise DataError(f"{items.name}: {fault} {names}; choose other data.folds or set protocol.min_object=none")
    images = candidates[:size]
    labelled = set(images)
    return Pool(base, images, {k: tuple(i for i in queue if i in labelled) for k, queue in queues.items()})


def training_items(source: Source, min_object: str, min_area: int) -> Items:
    """What a source's training images hold, read once; arguments and errors as of `Items.read`."""
    return split_items(source, source.train_split, min_object, min_area)


@lru_cache(maxsize=2)
def pool_of(
    source: Source, novel: tuple[int, ...], size: int | None, min_object: str, min_area: int, seed: int
) -> Pool:
    """The pool of a source's training split; arguments and errors as of `Items.read` and `choose`."""
    return choose(training_items(source, min_object, min_area), novel, size, seed)


@lru_cache(maxsize=2)
def few_labelled(source: Source, classes: tuple[int, ...], count: int) -> dict[int, tuple[str, ...]]:
    """The training images that show each class where only `count` masks of it are drawn, even by one pixel.

    The images for fewer masks are the first of those for more. `loader.held_out` keeps back what the same hash puts
    last, so that these are trained on.

    Args:
        source: the data set, its masks the drawn ones.
        classes: indices of the classes.
        count: masks of each class.

    Raises:
        ConfigError: too few training images hold a class.
    """
    items = Items.read(source, source.split(source.train_split), "none")
    found = {k: sorted(items.holders(k), key=hashed_share, reverse=True) for k in classes}
    for k, holders in found.items():
        if len(holders) < count:
            raise ConfigError(
                f"pool={count}: class {source.classes[k]} is in {len(holders)} training images of {source.name}; take a"
                " smaller pool"
            )
    return {k: tuple(holders[:count]) for k, holders in found.items()}
