"""Self-training of zero-shot runs: a parent's surest answers become labels of unseen classes.

A pixel that training may not see the label of takes the parent's best unseen class, where that answer is among the
surest share of all answers of its class. Labelled pixels keep their drawn label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.progress import Progress

from segladder.data.sources.base import Source
from segladder.data.training.views import HiddenClasses
from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.methods.base import evaluating
from segladder.methods.zero_shot.base import SemanticVectorMethod
from segladder.protocols.inference import resized, same_size_chunks, to_pixels
from segladder.runs.folder import content_of
from segladder.runs.loading import chosen_device, trained_method
from segladder.stages.made_masks import made_once, write_mask
from segladder.stages.pseudo_masks import BATCH

BINS = 1000  # of probability, to find each class' surest share


@dataclass(frozen=True)
class SurestAnswers:
    """Masks in which a zero-shot run has labelled its surest unlabelled pixels.

    Args:
        parent: the run's folder.
        visible: what training may see of the drawn masks; must be transductive.
        share: of each unseen class' answers, the surest ones that count, in (0, 1].

    Raises:
        ConfigError: training may not look at images of unseen classes, or a share outside its range.
    """

    parent: Path
    visible: HiddenClasses
    share: float

    def __post_init__(self) -> None:
        if not self.visible.transductive:
            raise ConfigError(
                f"parent={self.parent}: its labels of unseen classes need images that hold them: set"
                " protocol.transductive=true protocol.unseen_pixels=ignore"
            )
        if not 0 < self.share <= 1:
            raise ConfigError(f"pseudo_masks.surest={self.share}: expected a share above 0, at most 1")

    def of(self, source: Source, progress: bool) -> Source:
        """The source with these masks for its training images; makes those not there yet."""
        return source.with_training_masks(self.folder(source, progress))

    def folder(self, source: Source, progress: bool) -> Path:
        """PARENT/pseudo_masks/KEY with ID.png (values of the data set's own class list) and manifest.json."""
        visible = self.visible
        ids = source.split(source.train_split)
        competing = source.classes[1:] if visible.background == "ignore" else source.classes
        key = {
            "content": content_of(self.parent),
            "competing": competing,
            "surest": self.share,
            "hidden": list(visible.hidden),
            "classes": source.classes,
            "image_fingerprint": source.image_fingerprint(ids),
            "label_fingerprint": source.fingerprint(ids),
        }
        beside = {"data": source.name, "background": visible.background}
        return made_once(self.parent, ids, key, lambda folder: self._make(folder, source, ids, progress), beside)

    def _make(self, folder: Path, source: Source, ids: Sequence[str], progress: bool) -> None:
        visible = self.visible
        method = trained_method(self.parent)
        assert isinstance(method, SemanticVectorMethod)
        unseen = [source.classes.index(name) for name in visible.hidden]
        table = visible.table(source.classes)
        counts = np.zeros((len(source.classes), BINS), np.int64)
        with Progress(disable=not progress) as bar:
            task = bar.add_task("pseudo-masks", total=2 * len(ids))
            for _, answers, sureness, labels in answered(method, source, ids, unseen, table):
                free = labels == IGNORE
                np.add.at(counts, (answers[free], bin_of(sureness[free])), 1)
                bar.advance(task)
            limits = surest(counts, self.share)  # (K,) lowest bin that counts
            for image_id, answers, sureness, labels in answered(method, source, ids, unseen, table):
                sure = (labels == IGNORE) & (bin_of(sureness) >= limits[answers])
                write_mask(folder / f"{image_id}.png", np.where(sure, answers, labels).astype(np.uint8), source)
                bar.advance(task)


def answered(
    method: SemanticVectorMethod, source: Source, ids: Sequence[str], unseen: Sequence[int], table: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Each image's id, best unseen class, its probability among all classes, and visible labels, all (H, W).

    A background that training is never shown is no class, see `HiddenClasses`.
    """
    device = chosen_device(None)
    method.to(device)
    for chunk in same_size_chunks(source, ids, BATCH, len(source.classes)):
        images = [source.image(image_id) for image_id in chunk]
        with evaluating(method), torch.inference_mode():
            logits = resized(method.predict(to_pixels(images, None, device)), images[0].shape[:2])
            if table[0] == IGNORE:
                logits[:, 0] = -torch.inf
            sureness, best = logits.softmax(1)[:, list(unseen)].max(1)
        answers = np.asarray(unseen)[best.cpu().numpy()]
        yield from zip(
            chunk, answers, sureness.cpu().numpy(), (cv2.LUT(source.mask(i), table) for i in chunk), strict=True
        )


def bin_of(probability: np.ndarray) -> np.ndarray:
    """The bin of a probability in 0..1."""
    return np.minimum((probability * BINS).astype(np.int64), BINS - 1)


def surest(counts: Any, share: float) -> np.ndarray:
    """For each class the lowest bin such that the bins from there up hold at most about `share` of its answers (K,).

    Args:
        counts: answers per class and bin, (K, BINS).
        share: the surest share; at least the bin of the surest answer counts.
    """
    above = counts[:, ::-1].cumsum(1)  # answers in the highest 1, 2, ... bins
    wanted = np.maximum(share * above[:, -1:], 1)
    bins: np.ndarray = BINS - np.maximum((above <= wanted).sum(1), (above == 0).sum(1) + 1)
    return bins
