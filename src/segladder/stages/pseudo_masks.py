"""Pseudo-masks: what a parent run makes of the training images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress

from segladder.data.hashing import hashed_share
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.boxes import Boxes
from segladder.data.sources.base import Source
from segladder.data.sources.scene import Scene
from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.metrics.overlap import iou
from segladder.metrics.threshold_sweep import ThresholdSweep
from segladder.ops.crf import backend_name, dense_crf_each, label_probabilities
from segladder.protocols.inference import resized, same_size_chunks, to_pixels
from segladder.report import record as records
from segladder.runs.class_scores import StoredScores
from segladder.runs.keys import Background
from segladder.runs.loading import chosen_device, trained_method
from segladder.settings import check_value
from segladder.stages.box_tests import TESTS, tested
from segladder.stages.made_masks import made_once, write_mask

BATCH = 8
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 19))  # among which base classes choose
JUDGES = 200  # images whose masks choose, by a hash
SURE = ("foreground_at", "background_at")


@dataclass(frozen=True)
class PseudoMasks:
    """Masks that a parent run makes of training images.

    Args:
        parent: the run's folder.
        settings: `pseudo_masks` of the configuration.
        ids: the images.
        novel: indices of the classes that pseudo-masks show, where the others keep their drawn pixels; none for all.
        base: images without novel classes, whose drawn masks may choose the threshold.
        labels: the kind that people gave of the images, which pseudo-masks keep to; None: it tells nothing of places.

    Raises:
        ConfigError: settings that do not fit together.
    """

    parent: Path
    settings: DictConfig
    ids: tuple[str, ...]
    novel: tuple[int, ...] = ()
    base: tuple[str, ...] = ()
    labels: Labels | None = None

    def __post_init__(self) -> None:
        check_settings(self.settings, self.novel)
        asked = [test for test in TESTS if self.settings.get(test) is not None]
        if asked and not isinstance(self.labels, Boxes):
            told = "none" if self.labels is None else self.labels.name
            raise ConfigError(f"pseudo_masks.{asked[0]}: tests answers against boxes, but labels={told}")

    @property
    def judges(self) -> Sequence[str]:
        """The images whose drawn masks choose the threshold."""
        return sorted(self.base, key=hashed_share)[:JUDGES] if self.settings["background"] == "base" else ()

    def of(self, source: Source, progress: bool) -> Source:
        """The source with these masks for its training images; makes those not there yet.

        Its images and tags are read, and no mask, unless some classes are novel or labels show pixels.

        Raises:
            ConfigError: the parent gives no class scores.
        """
        return source.with_training_masks(self.folder(source, progress), self.ids)

    def folder(self, source: Source, progress: bool) -> Path:
        """PARENT/pseudo_masks/KEY with ID.png (values of the data set's own class list) and manifest.json."""
        ids, novel = self.ids, self.novel
        scores = StoredScores(self.parent, trained_method)
        wanted: Any = OmegaConf.to_container(self.settings, resolve=True)
        views = views_of(self.parent)
        wanted["crf"] = wanted["crf"] and backend_name()  # a name, since backends differ
        wanted = {key: value for key, value in wanted.items() if key not in TESTS or value is not None}
        if wanted["background"] == "base":
            value = base_threshold(scores, source, self.judges, views, novel, progress)
            wanted |= {"foreground_at": value, "background_at": value}
        key = {
            "content": scores.content,
            "settings": wanted,
            "views": views,
            "data": source.name,
            "classes": source.classes,
            "novel": list(novel),
            "image_fingerprint": source.image_fingerprint(sorted(self.shown(source))),
            "tags": hashlib.sha256(np.stack([source.tags(i) for i in sorted(ids)]).tobytes()).hexdigest()[:16],
        }
        partial = self.labels is not None and self.labels.partial
        if self.labels is not None and partial:
            key["labels"] = self.labels.key
        if partial or novel:  # drawn pixels of the other classes stay
            key["label_fingerprint"] = source.fingerprint(sorted(ids))
        return made_once(
            self.parent, ids, key, lambda folder: self._make(folder, source, scores, wanted, views, progress)
        )

    def _make(
        self,
        folder: Path,
        source: Source,
        scores: StoredScores,
        wanted: dict[str, Any],
        views: dict[str, Any],
        progress: bool,
    ) -> None:
        novel = self.novel
        missing = [i for i in self.ids if not (folder / f"{i}.png").exists()]
        with Progress(disable=not progress) as bar:
            task = bar.add_task("pseudo-masks", total=len(self.ids), completed=len(self.ids) - len(missing))
            for chunk in same_size_chunks(source, missing, BATCH, len(source.classes)):
                scenes = self.scenes(source, chunk)
                allowed = [None if scene is None else self.allowed(scene, source) for scene in scenes]
                found = labelled(scores, source, chunk, wanted, views, novel, allowed)
                for image_id, labels, scene in zip(chunk, found, scenes, strict=True):
                    if scene is not None and self.labels is not None:
                        labels = tested(labels, scene, source, self.settings)
                        labels = self.labels.settled(labels, scene) if (labels != IGNORE).any() else labels
                    if novel:
                        labels = with_drawn(labels, source.mask(image_id), novel)
                    write_mask(folder / f"{image_id}.png", labels, source)
                bar.advance(task, len(chunk))

    def shown(self, source: Source) -> set[str]:
        """The images that decide what the masks are: where motion does, the frames beside them too."""
        beside = [] if self.settings.get("motion") is None else [source.next_frame(frame) for frame in self.ids]
        return {*self.ids, *beside}

    def scenes(self, source: Source, ids: Sequence[str]) -> Sequence[Scene | None]:
        """What the labels of some images were made from; None where labels tell nothing of places."""
        if self.labels is None or not self.labels.partial:
            return [None] * len(ids)
        scenes = [source.scene(image_id) for image_id in ids]
        return [scene.only(self.novel) for scene in scenes] if self.novel else scenes

    def allowed(self, scene: Scene, source: Source) -> np.ndarray | None:
        """The classes that the label of an image allows each pixel, bool (K, H, W); None: all."""
        return None if self.labels is None else self.labels.allowed(scene, len(source.classes))


def check_settings(settings: DictConfig, novel: Sequence[int]) -> None:
    """Raise ConfigError for settings that make no pseudo-masks."""
    check_value(Background, settings["background"], "pseudo_masks.background")
    if settings["background"] == "base" and not novel:
        raise ConfigError("pseudo_masks.background=base: needs drawn masks of base classes: pseudo_masks.classes=novel")


def base_threshold(
    scores: StoredScores,
    source: Source,
    judges: Sequence[str],
    views: dict[str, Any],
    novel: Sequence[int],
    progress: bool,
) -> float:
    """The threshold at which pseudo-masks of base classes fit their drawn masks best, by mean IoU.

    Args:
        scores: of the parent run.
        source: the data set.
        judges: images without novel classes.
        views: input size, scales and flip.
        novel: indices of the novel classes.
        progress: show a progress bar.

    Returns:
        One of `THRESHOLDS`; where a parent scores the background itself it makes no difference.
    """
    sweep = ThresholdSweep(len(source.classes), THRESHOLDS)
    with Progress(disable=not progress) as bar:
        task = bar.add_task("threshold from base classes", total=len(judges))
        for chunk in same_size_chunks(source, judges, BATCH, len(source.classes)):
            for image_id, given in zip(chunk, class_scores(scores, source, chunk, views), strict=True):
                foreground = given[len(given) - len(source.classes) + 1 :]
                sweep.add(foreground.argmax(0), foreground.max(0), source.mask(image_id))
            bar.advance(task, len(chunk))
    base = [k for k in range(len(source.classes)) if k not in novel]
    fits = [iou(torch.from_numpy(matrix))[base].nanmean().item() for matrix in sweep.confusions()]
    return THRESHOLDS[int(np.nanargmax(fits))]


def views_of(parent: Path) -> dict[str, Any]:
    """The input size, scales and flip that the parent was scored with, so that its pseudo-masks are what was scored."""
    fields = records.read(parent).protocol["fields"]
    return {
        "input_size": fields.get("input_size"),
        "scales": list(fields.get("scales", [1.0])),
        "flip": bool(fields.get("flip", False)),
    }


def labelled(
    scores: StoredScores,
    source: Source,
    ids: Sequence[str],
    settings: dict[str, Any],
    views: dict[str, Any],
    novel: Sequence[int],
    allowed: Sequence[np.ndarray | None],
) -> list[np.ndarray]:
    """Class indices uint8 (H, W), 255 where not confident, of some images of one size; novel ones alone, if any.

    What a label does not allow is no answer: of scores with a background the best class that it does, else 255.
    """
    given = class_scores(scores, source, ids, views)
    if novel:
        first = given.shape[1] - len(source.classes) + 1  # channel of class 0, -1 where there is none
        base = [k + first - 1 for k in range(1, len(source.classes)) if k not in novel]
        given[:, base] = 0
    if given.shape[1] == len(source.classes):  # scores with a background of their own need no threshold
        free = [each if may is None else np.where(may, each, -np.inf) for each, may in zip(given, allowed, strict=True)]
        return [each.argmax(0).astype(np.uint8) for each in free]
    sure = {at: [labels_of(each, settings["background"], settings[at]) for each in given] for at in SURE}
    if settings["crf"]:
        images = [source.image(image_id) for image_id in ids]
        sure = {at: fitted(images, labels, settings["crf"]) for at, labels in sure.items()}
    answers = [joined(*both) for both in zip(*sure.values(), strict=True)]
    return [each if may is None else kept(each, may) for each, may in zip(answers, allowed, strict=True)]


def class_scores(scores: StoredScores, source: Source, ids: Sequence[str], views: dict[str, Any]) -> np.ndarray:
    """Class scores float32 (B, C or K, H, W) at image size of some images of one size, their tags known."""
    images = [source.image(image_id) for image_id in ids]
    tags = torch.from_numpy(np.stack([source.tags(image_id) for image_id in ids]))
    device = chosen_device(None)
    pixels = to_pixels(images, views["input_size"], device)
    given = scores(ids, pixels, tags.to(device), views["scales"], views["flip"])
    return resized(given, (images[0].shape[0], images[0].shape[1])).cpu().numpy()


def labels_of(scores: np.ndarray, background: str, value: float) -> np.ndarray:
    """Class indices uint8 (H, W): of scores (C, H, W) the best class where it beats the background, else 0.

    The background's score is `value`, or (1 - the best class' score)^value with `background` = power.
    """
    best, height = scores.argmax(0).astype(np.uint8) + 1, scores.max(0)
    limit = (1 - np.clip(height, 0, 1)) ** value if background == "power" else value
    return np.where(height > limit, best, 0).astype(np.uint8)


def kept(labels: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Labels (H, W), 255 where `allowed` (K, H, W) rules their class out; its class where it leaves one alone."""
    told = np.where(allowed.sum(0) == 1, allowed.argmax(0), IGNORE)
    fits = np.take_along_axis(allowed, labels[None].clip(max=len(allowed) - 1), 0)[0] & (labels != IGNORE)
    return np.where(fits, labels, told).astype(np.uint8)


def joined(objects: np.ndarray, cautious: np.ndarray) -> np.ndarray:
    """Labels (H, W) of `objects`; background only where `cautious`, which takes less for it, agrees, else 255."""
    return np.where(objects > 0, objects, np.where(cautious == 0, 0, IGNORE)).astype(np.uint8)


def with_drawn(labels: np.ndarray, drawn: np.ndarray, novel: Sequence[int]) -> np.ndarray:
    """Labels (H, W) with the drawn pixels of all other classes; 255, which outlines novel objects too, is not kept."""
    keeps = ~np.isin(drawn, [0, IGNORE, *novel])
    return np.where(keeps, drawn, labels)


def fitted(images: Sequence[np.ndarray], labels: Sequence[np.ndarray], backend: str) -> list[np.ndarray]:
    """Class indices uint8 (H, W) of images after a dense CRF over the classes that each one's labels hold."""
    present, places = zip(*(np.unique(each, return_inverse=True) for each in labels), strict=True)
    several = [i for i, classes in enumerate(present) if len(classes) > 1]
    found = dense_crf_each(
        [torch.from_numpy(images[i]) for i in several],
        [label_probabilities(torch.from_numpy(places[i].reshape(labels[i].shape)), len(present[i])) for i in several],
        bilateral_sxy=50,  # official codes, for labels
        bilateral_srgb=5,
        backend=backend,
    )
    answers = list(labels)
    for i, probabilities in zip(several, found, strict=True):
        answers[i] = present[i][probabilities.argmax(0).numpy()]
    return answers
