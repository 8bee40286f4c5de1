"""What a few-shot split lets a method see: novel objects in training images, ids on both sides, items per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segladder.data.sources.base import Source
from segladder.data.sources.items import Items


@dataclass(frozen=True)
class FoldAudit:
    """One fold of a split. An item is an (image, class) pair that passes the object filter.

    Attributes:
        fold: its number, its place in the list of folds.
        novel: names of its classes.
        train_images: training images that hold an item of a base class.
        train_images_with_novel: those of them that hold a novel class too, even one pixel; none of them is left with
            `novel_pixels: drop`, and elsewhere a method sees their novel objects, without label.
        train_pairs_dropped: items of novel classes in training images, of which no training episode is made.
        shared_ids: images that are in both lists; there should be none.
        test_images: test images that hold an item of a novel class.
        test_pairs: items of novel classes in test images.
        pairs_per_class: the same for each novel class by name.
    """

    fold: int
    novel: tuple[str, ...]
    train_images: int
    train_images_with_novel: int
    train_pairs_dropped: int
    shared_ids: tuple[str, ...]
    test_images: int
    test_pairs: int
    pairs_per_class: dict[str, int]


def audit(
    source: Source,
    train_ids: Sequence[str],
    test_ids: Sequence[str],
    folds: Sequence[Sequence[str]],
    min_object: str = "grid",
    min_area: int = 2048,
    progress: bool = False,
) -> list[FoldAudit]:
    """Audit each fold of a split.

    Args:
        source: the data set.
        train_ids: images of the training list.
        test_ids: images that queries and supports are drawn from.
        folds: for each fold the names of its novel classes; those not in use count nowhere.
        min_object: which objects are items, as in `Items.read`.
        min_area: likewise.
        progress: show a progress bar.

    Raises:
        ConfigError: no such filter.
        DataError: a mask is missing or damaged, named.
    """
    train, test = (Items.read(source, ids, min_object, min_area, progress) for ids in (train_ids, test_ids))
    shared = tuple(sorted({*train.ids} & {*test.ids}))
    indices = [[source.classes.index(name) for name in fold if name in source.classes] for fold in folds]
    return [_audit_fold(fold, novel, train, test, shared) for fold, novel in enumerate(indices)]


def _audit_fold(fold: int, novel: Sequence[int], train: Items, test: Items, shared: tuple[str, ...]) -> FoldAudit:
    trained = [present for kept, present in zip(train.kept, train.present, strict=True) if set(kept) - set(novel)]
    pairs = test.pairs(novel)
    return FoldAudit(
        fold=fold,
        novel=tuple(test.classes[k] for k in novel),
        train_images=len(trained),
        train_images_with_novel=sum(not set(novel).isdisjoint(present) for present in trained),
        train_pairs_dropped=len(train.pairs(novel)),
        shared_ids=shared,
        test_images=len({image_id for image_id, _ in pairs}),
        test_pairs=len(pairs),
        pairs_per_class={test.classes[k]: sum(index == k for _, index in pairs) for k in novel},
    )
