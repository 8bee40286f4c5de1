"""Where is a class in an image? One question to methods that answer for all classes at once and to those shown one.

A dense method is not told which class is asked for: its answer is where the class wins among all of them, in one pass
over the images. A few-shot method is shown supports of the class, and decodes once for each question.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from rich.progress import Progress

from segladder.data.hashing import hashed_seed
from segladder.data.sources.base import IGNORE
from segladder.data.sources.items import Items
from segladder.data.training.episodes import Episode
from segladder.methods.base import evaluating
from segladder.metrics.bootstrap import Statistic, bootstrap_interval
from segladder.metrics.confusion import confusion_matrix
from segladder.metrics.counts import ImageCounts
from segladder.metrics.zero_shot import GammaSweep, group_iou, harmonic
from segladder.protocols.base import Metrics, Picture, Result, Scoring, scored
from segladder.protocols.cam_seeds import heat_map, tag_method
from segladder.protocols.episode_runner import EpisodeRunner, merged
from segladder.protocols.few_shot import outlined
from segladder.protocols.inference import gathered, resized, shard, to_pixels
from segladder.protocols.zero_shot import ZeroShotProtocol

Pair = tuple[str, int]  # an image and the class that it is asked for
Confusions = Mapping[Pair, np.ndarray]  # (K, K) of each pair


@dataclass(frozen=True)
class Questions:
    """Which images are asked for which classes, by image id.

    Attributes:
        ids: all images.
        held: novel classes of which the image holds an object.
        lacking: novel classes of which it holds no pixel.
        crowded: images of `held` that also hold an object of another foreground class.
    """

    ids: tuple[str, ...]
    held: dict[str, list[int]]
    lacking: dict[str, list[int]]
    crowded: list[str]

    @classmethod
    def of(cls, items: Items, novel: Sequence[int], negatives: int) -> Questions:
        """All that the images hold, and for each class `negatives` images without it (with objects), by a hash."""
        kept = dict(zip(items.ids, items.kept, strict=True))
        present = dict(zip(items.ids, items.present, strict=True))
        held = {i: found for i, classes in kept.items() if (found := [k for k in classes if k in novel])}
        lacking: dict[str, list[int]] = {}
        for k in novel:
            without = [i for i in items.ids if kept[i] and k not in present[i]]
            for image_id in sorted(without, key=lambda i: hashed_seed("negative", k, i))[:negatives]:
                lacking.setdefault(image_id, []).append(k)
        return cls(tuple(items.ids), held, lacking, [i for i in held if len(kept[i]) > 1])

    def pairs(self) -> list[Pair]:
        """All (image, class) pairs, those with the class first."""
        return [(i, k) for group in (self.held, self.lacking) for i, classes in group.items() for k in classes]


@dataclass(frozen=True)
class Answers:
    """What a method said to all questions.

    Args:
        confusions: for each question a matrix (K, K), rows = truth.
        seconds: of prediction.
        beside: scores that only this kind of method has.
        curve: those along gamma, where the method has one, and `swept_at` the gamma of the answers.
    """

    confusions: Confusions
    seconds: float
    beside: Metrics = field(default_factory=dict)
    curve: list[dict[str, float]] | None = None
    swept_at: float = 0.0


class Asker(ABC):
    """Asks one method."""

    @abstractmethod
    def answers(self, questions: Questions) -> Answers:
        """The answers to all questions; every process of a distributed run calls this and gets all."""

    @abstractmethod
    def picture(self, item: str, result: Result) -> Picture:
        """What a panel of an image shows; `result` is that of the method's answers."""


class DenseAsker(Asker):
    """Asks a method that answers for all classes at once.

    Args:
        scoring: the method and the data.
        dense: base and novel classes competing for every pixel: how answers are counted under every gamma.
    """

    def __init__(self, scoring: Scoring, dense: ZeroShotProtocol) -> None:
        self.scoring, self.dense = scoring, dense
        self.calibrated = scoring.method.supervision == "zero_shot"

    def answers(self, questions: Questions) -> Answers:
        """One pass; gamma 0 is the plain argmax, only zero-shot methods have another, by the rule."""
        source, dense = self.scoring.source, self.dense
        if self.calibrated:
            dense.check(self.scoring.method, source)
        sweep, seconds = dense.sweep(self.scoring, questions.ids, np.arange(256, dtype=np.uint8))
        index = dense.chosen(self.scoring, sweep) if self.calibrated else dense.grid.index(0.0)
        counts = sweep.at(index)
        matrices = dict(zip(counts.ids, counts.dense(), strict=True))
        confusions = {(i, k): matrices[i] for i, k in questions.pairs()}
        return self.calibrated_answers(Answers(confusions, seconds, self.of_base_classes(counts)), sweep, index)

    def calibrated_answers(self, plain: Answers, sweep: GammaSweep, index: int) -> Answers:
        """Answers with what gamma gives, where the method is calibrated."""
        if not self.calibrated:
            return plain
        gamma = self.dense.grid[index]
        curve = self.dense.swept_scores(sweep, self.scoring.source).curve()
        return Answers(plain.confusions, plain.seconds, {**plain.beside, "gamma": scored(gamma)}, curve, gamma)

    def of_base_classes(self, counts: ImageCounts) -> Metrics:
        """Means over base and novel classes where all compete on all images, and the harmonic mean of both."""
        base, novel = self.dense.foreground(self.scoring.source)
        statistics: dict[str, Statistic] = {
            "base_mIoU": lambda outcomes: group_iou(outcomes, base),
            "novel_mIoU": lambda outcomes: group_iou(outcomes, novel),
            "harmonic_mIoU": lambda outcomes: harmonic(group_iou(outcomes, base), group_iou(outcomes, novel)),
        }
        outcomes, samples = counts.outcomes(), self.dense.bootstrap
        return {name: with_interval(outcomes, statistic, samples) for name, statistic in statistics.items()}

    def picture(self, item: str, result: Result) -> Picture:
        """An image with all classes, and where a method of tags fires when told the tags."""
        picture = self.dense.shown(self.scoring.method, self.scoring.source, item, result)
        if self.scoring.method.scores_tags:
            image = self.scoring.source.image(item)
            picture.beside["scores of its classes"] = heat_map(image, self.fires(item))
        return picture

    @torch.inference_mode()
    def fires(self, item: str) -> np.ndarray:
        """The best class score in 0..1 at each pixel (H, W) of an image, among the classes that it holds."""
        source, method = self.scoring.source, tag_method(self.scoring.method)
        image, tags = source.image(item), torch.from_numpy(source.tags(item))[None]
        pixels = to_pixels([image], None, method.device)
        scores = method.class_scores((), pixels, tags.to(pixels.device), (1.0,), False)
        of_classes = scores[:, scores.shape[1] - tags.shape[1] :]  # without a background
        return resized(of_classes, image.shape[:2])[0].amax(0).cpu().numpy()


class EpisodeAsker(Asker):
    """Asks a few-shot method for one class at a time, each with the same supports throughout.

    Args:
        scoring: the method and the data.
        runner: what answers episodes.
        supports: ids of the annotated images of each class.
        title: of the progress bar.
    """

    def __init__(
        self, scoring: Scoring, runner: EpisodeRunner, supports: Mapping[int, tuple[str, ...]], title: str
    ) -> None:
        self.scoring, self.runner, self.supports, self.title = scoring, runner, supports, title

    def episodes(self, pairs: Iterable[Pair]) -> list[Episode]:
        """A question each."""
        return [Episode(image_id, k, self.supports[k], 0) for image_id, k in pairs]

    def answers(self, questions: Questions) -> Answers:
        """A pass of the decoder for each question."""
        rank, world = shard()
        pairs = questions.pairs()[rank::world]
        found: dict[Pair, np.ndarray] = {}
        method, classes = self.scoring.method, len(self.scoring.source.classes)
        bar = Progress(disable=not self.scoring.progress or rank > 0)
        with evaluating(method), bar, torch.inference_mode():
            task = bar.add_task(self.title, total=len(pairs))
            for answer in self.runner.answers(self.episodes(pairs)):
                k = answer.episode.class_index
                prediction, truth = (torch.from_numpy(m) for m in (answer.prediction * np.uint8(k), answer.truth))
                found[answer.episode.query, k] = confusion_matrix(prediction, truth, classes).numpy()
                bar.advance(task)
        whole = {pair: matrix for part in gathered(found) for pair, matrix in part.items()}
        return Answers(whole, self.runner.seconds)

    def picture(self, item: str, result: Result) -> Picture:
        """An image with the novel classes it holds and their first supports."""
        source = self.scoring.source
        image, mask = source.pair(item)
        held = [k for k in self.supports if (mask == k).any()]
        episodes = self.episodes((item, k) for k in held)
        with evaluating(self.scoring.method), torch.inference_mode():
            prediction = merged(list(self.runner.answers(episodes)))
        truth = np.where(np.isin(mask, [*held, IGNORE]), mask, np.uint8(0))
        beside = {}
        for episode in episodes:
            support, k = episode.supports[0], episode.class_index
            shown = outlined(source.image(support), self.runner.support_mask(support, k))
            beside[f"support: {source.classes[k]}"] = shown
        return Picture(image, truth, prediction, beside)


def with_interval(outcomes: np.ndarray, statistic: Statistic, samples: int) -> dict[str, float | None]:
    """A score of outcomes (N, K, 3) with its interval over images, from so many resamples."""
    low, high = bootstrap_interval(outcomes, statistic, samples)
    return scored(float(statistic(outcomes.sum(0))), float(low), float(high))
