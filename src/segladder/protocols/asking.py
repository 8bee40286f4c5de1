"""Where is a class in an image? One question to methods that answer for all classes at once and to those shown one.

A dense method is not told which class is asked for: its answer is where the class wins among all of them, in one pass
over the images. A few-shot method is shown supports of the class, and decodes once for each question. Its training has
told it that the class is there; `presence` is how it may say that it is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from segladder.data.labels.pool import drawn
from segladder.data.sources.items import Items
from segladder.data.training.episodes import Episode
from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.methods.base import evaluating
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.episodes import joint_counts
from segladder.metrics.ladder import binary
from segladder.metrics.zero_shot import GammaSweep
from segladder.protocols.base import Metrics, Picture, Result, Scoring, scored
from segladder.protocols.cam_seeds import heat_map, tag_method
from segladder.protocols.episode_runner import EpisodeRunner, merged_all
from segladder.protocols.few_shot import by_query, outlined
from segladder.protocols.fields import Presence
from segladder.protocols.inference import gathered, resized, shard, to_pixels
from segladder.protocols.zero_shot import ZeroShotProtocol

Pair = tuple[str, int]  # an image and the class that it is asked for
Confusions = Mapping[Pair, np.ndarray]  # `binary` of each pair

ALONE, CROWDED = "alone", "crowded"  # an object of the class is there; so is one of another class
SMALL, LACKING = "small", "lacking"  # too few pixels to be an object; none
TOLD = (ALONE, CROWDED)  # what someone who was told where the class is would ask
EVERYWHERE = (*TOLD, SMALL, LACKING)
DENSE = "dense"  # not a question: all classes compete


@dataclass(frozen=True)
class Questions:
    """Every image, asked for every novel class.

    Attributes:
        ids: all images.
        kinds: for each (image, class) what the image holds of the class, of `EVERYWHERE`.
    """

    ids: tuple[str, ...]
    kinds: dict[Pair, str]

    @classmethod
    def of(cls, items: Items, novel: Sequence[int]) -> Questions:
        """All questions, with what the images hold."""
        kinds = {}
        for image_id, kept, present in zip(items.ids, items.kept, items.present, strict=True):
            for k in novel:
                held = CROWDED if len(kept) > 1 else ALONE
                kinds[image_id, k] = held if k in kept else SMALL if k in present else LACKING
        return cls(tuple(items.ids), kinds)

    def on(self, ids: Collection[str]) -> Questions:
        """The questions about some of the images."""
        chosen = set(ids)
        return Questions(tuple(ids), {pair: kind for pair, kind in self.kinds.items() if pair[0] in chosen})

    def holders(self, k: int) -> list[str]:
        """The images that hold an object of a class."""
        return [image_id for (image_id, asked), kind in self.kinds.items() if asked == k and kind in TOLD]


@dataclass(frozen=True)
class Answers:
    """What a method said to all questions.

    Args:
        confusions: for each question a matrix (2, 2), see `binary`.
        seconds: of prediction.
        dense: of methods that answer for all classes at once, these answers on all images.
        beside: scores that only this kind of method has.
        curve: those along gamma, where the method has one, and `swept_at` the gamma of the answers.
    """

    confusions: Confusions
    seconds: float
    dense: Counts | None = None
    beside: Metrics = field(default_factory=dict)
    curve: list[dict[str, float]] | None = None
    swept_at: float = 0.0


class Asker(ABC):
    """Asks one method."""

    @abstractmethod
    def answers(self, questions: Questions) -> Answers:
        """The answers to all questions; every process of a distributed run calls this and gets all."""

    @abstractmethod
    def picture(self, item: Asked, result: Result) -> Picture:
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
        classes = dict.fromkeys(k for _, k in questions.kinds)
        confusions = {(asked.image, k): binary(matrix, k, k) for asked, matrix in counts.rows() for k in classes}
        return self.calibrated_answers(Answers(confusions, seconds, counts), sweep, index)

    def calibrated_answers(self, plain: Answers, sweep: GammaSweep, index: int) -> Answers:
        """Answers with what gamma gives, where the method is calibrated."""
        if not self.calibrated:
            return plain
        gamma = self.dense.grid[index]
        curve = self.dense.swept_scores(sweep, self.scoring.source).curve()
        return replace(plain, beside={"gamma": scored(gamma)}, curve=curve, swept_at=gamma)

    def picture(self, item: Asked, result: Result) -> Picture:
        """An image with all classes, and where a method of tags fires when told the tags."""
        picture = self.dense.shown(self.scoring.method, self.scoring.source, item, result)
        if self.scoring.method.scores_tags:
            image = self.scoring.source.image(item.image)
            picture.beside["scores of its classes"] = heat_map(image, self.fires(item.image))
        return picture

    def fires(self, image_id: str) -> np.ndarray:
        """The best class score in 0..1 at each pixel (H, W) of an image, among the classes that it holds."""
        source, method = self.scoring.source, tag_method(self.scoring.method)
        image, tags = source.image(image_id), torch.from_numpy(source.tags(image_id))[None]
        pixels = to_pixels([image], None, method.device)
        with evaluating(method), torch.inference_mode():
            scores = method.class_scores((), pixels, tags.to(pixels.device), (1.0,), False)
            of_classes = scores[:, scores.shape[1] - tags.shape[1] :]  # without a background
            return resized(of_classes, image.shape[:2])[0].amax(0).cpu().numpy()


@dataclass(frozen=True)
class BaseClasses:
    """What a few-shot method's training has masks of, asked for as if it were novel.

    Attributes:
        supports: ids of the annotated images of each base class.
        images: others, that base classes are asked for on.
    """

    supports: Mapping[int, tuple[str, ...]]
    images: tuple[str, ...]

    @classmethod
    def of(cls, items: Items, base: Sequence[int], shots: int, images: int, seed: int) -> BaseClasses:
        """So many supports of each class that has them, and so many images, of training images in a hash's order."""
        kept, order = dict(zip(items.ids, items.kept, strict=True)), drawn(items.ids, seed)
        holders = {k: tuple(i for i in order if k in kept[i])[:shots] for k in base}
        supports = {k: held for k, held in holders.items() if len(held) == shots}
        taken = {i for held in supports.values() for i in held}
        return cls(supports, tuple(i for i in order if i not in taken)[:images])


def asked_of_base(
    items: Items, base: Sequence[int], shots: int, seed: int
) -> tuple[Mapping[int, tuple[str, ...]], Questions]:
    """Supports of base classes among held-out images, and these classes asked for on the other ones.

    Raises:
        ConfigError: too few images.
    """
    found = BaseClasses.of(items, base, shots, len(items.ids), seed)
    questions = Questions.of(items, list(found.supports)).on(found.images)
    if not set(TOLD) & set(questions.kinds.values()):
        raise ConfigError(f"loader.held_out: no base class has {shots + 1} of {len(items.ids)} held-out images")
    return found.supports, questions


class EpisodeAsker(Asker):
    """Asks a few-shot method for one class at a time, each with the same supports throughout.

    Args:
        scoring: the method and the data.
        runner: what answers episodes.
        supports: ids of the annotated images of each class.
        title: of the progress bar.
        presence: what it takes to say that a class is there: `always` is what the method paints; `calibrated` leaves
            out answers less sure than what is best for base classes asked for on every image; `competing` gives a pixel
            to the class of the highest probability among novel and base ones, of equals to none.
        base: the base classes, unless `always`.
    """

    def __init__(
        self,
        scoring: Scoring,
        runner: EpisodeRunner,
        supports: Mapping[int, tuple[str, ...]],
        title: str,
        presence: Presence = "always",
        base: BaseClasses | None = None,
    ) -> None:
        self.scoring, self.runner, self.supports, self.title = scoring, runner, supports, title
        self.presence, self.base = presence, base or BaseClasses({}, ())
        self.rivals = self.base.supports if presence == "competing" else {}

    def answers(self, questions: Questions) -> Answers:
        """A pass of the decoder for each question, and for each base class where these compete."""
        rank, world = shard()
        ids = questions.ids[rank::world]
        found: dict[Pair, np.ndarray] = {}
        method, size = self.scoring.method, len(self.scoring.source.classes)
        bar = Progress(disable=not self.scoring.progress or rank > 0)
        with evaluating(method), bar, torch.inference_mode():
            least = self.least_sure() if self.presence == "calibrated" else 0.0
            task = bar.add_task(self.title, total=len(ids))
            for images, painted, probabilities in self.by_image(ids, [*self.supports, *self.rivals]):
                painted = self.decided(painted, probabilities, least)
                truth = self.truth(images, painted.device)[:, None].expand_as(painted)  # (N, M, H, W)
                flat = truth.clamp(max=size).flatten(0, 1)  # the last row is not scored
                cells = joint_counts(flat, size + 1, painted.flatten(0, 1), 2)  # (N M, K + 1, 2)
                for (image_id, k), counted in zip(product(images, self.supports), cells, strict=True):
                    found[image_id, k] = binary(counted[:size], k, column=1)
                bar.advance(task, len(images))
        whole = {pair: matrix for part in gathered(found) for pair, matrix in part.items()}
        beside = {"least_sure": scored(least)} if self.presence == "calibrated" else {}
        return Answers(whole, self.runner.seconds, beside=beside)

    def by_image(self, ids: Sequence[str], classes: Sequence[int]) -> Iterator[tuple[list[str], Tensor, Tensor]]:
        """N images of one size, and what is said of M classes: painted bool and probabilities, (N, M, H, W) each."""
        supports = {**self.base.supports, **self.supports}
        episodes = [Episode(image_id, k, supports[k], 0) for image_id, k in product(ids, classes)]
        again = episodes[: len(classes)]  # whose supports are shown once more for other images
        for asked, painted, probabilities in by_query(self.runner.batches(episodes, again), len(classes)):
            yield [of_image[0].query for of_image in asked], painted, probabilities

    def decided(self, painted: Tensor, probabilities: Tensor, least: float) -> Tensor:
        """What is painted of novel classes, which come first, after what says whether they are there."""
        if self.presence == "competing":
            painted = painted & the_surest(painted, probabilities)
        novel = painted[:, : len(self.supports)]
        if least <= 0:  # no answer is less sure
            return novel
        return novel & (sureness(novel, probabilities[:, : len(self.supports)]) >= least)[..., None, None]

    def truth(self, ids: Sequence[str], device: torch.device) -> Tensor:
        """Class indices, 255 = not scored, uint8 (N, H, W)."""
        return torch.from_numpy(np.stack([self.runner.truth(image_id) for image_id in ids])).to(device)

    def least_sure(self) -> float:
        """How sure answers for base classes must be for the best mean IoU of these, over all images."""
        classes = list(self.base.supports)
        parts = []
        for images, painted, probabilities in self.by_image(self.base.images, classes):
            truth = self.truth(images, painted.device)[:, None]  # (N, 1, H, W)
            true = truth == torch.tensor(classes, device=painted.device)[:, None, None]
            areas = [area(true & painted), area((truth != IGNORE) & painted), area(true)]
            of_class = np.broadcast_to(classes, (len(images), len(classes)))
            parts.append((of_class, sureness(painted, probabilities).cpu().numpy(), *areas))
        return best_threshold(*(np.concatenate(column).ravel() for column in zip(*parts, strict=True)))

    def picture(self, item: Asked, result: Result) -> Picture:
        """An image with the novel classes it holds and their first supports."""
        source = self.scoring.source
        image, mask = source.pair(item.image)
        least = result.metrics.get("least_sure", {}).get("value") or 0.0
        with evaluating(self.scoring.method), torch.inference_mode():
            ((_, painted, probabilities),) = self.by_image([item.image], [*self.supports, *self.rivals])
            held = [(place, k) for place, k in enumerate(self.supports) if (mask == k).any()]
            places = [place for place, _ in held]
            painted = self.decided(painted, probabilities, least)[:, places]
            ways = merged_all(painted, probabilities[:, places])[0].cpu().numpy() if held else np.zeros_like(mask)
        prediction = np.array([0, *(k for _, k in held)], np.uint8)[ways]
        truth = np.where(np.isin(mask, [*(k for _, k in held), IGNORE]), mask, np.uint8(0))
        beside = {}
        for _, k in held:
            support = self.supports[k][0]
            shown = outlined(source.image(support), self.runner.support_mask(support, k))
            beside[f"support: {source.classes[k]}"] = shown
        return Picture(image, truth, prediction, beside)


def sureness(painted: Tensor, probabilities: Tensor) -> Tensor:
    """Mean probability of what an answer paints, 0 where it paints nothing: float64 (N, M) of (N, M, H, W)."""
    total = torch.where(painted, probabilities, 0).sum((2, 3), dtype=torch.float64)
    return total / painted.sum((2, 3)).clamp(min=1)


def area(marked: Tensor) -> np.ndarray:
    """Marked pixels, (N, M) of bool (N, M, H, W)."""
    return marked.sum((2, 3)).cpu().numpy()


def the_surest(painted: Tensor, probabilities: Tensor) -> Tensor:
    """Where an answer's probability is above those of all others that paint the pixel, bool (N, M, H, W)."""
    claims = torch.where(painted, probabilities, -1)
    best = claims == claims.amax(1, keepdim=True)
    return best & (best.sum(1, keepdim=True) == 1)


def best_threshold(
    of_class: np.ndarray, sure: np.ndarray, hit: np.ndarray, painted: np.ndarray, true: np.ndarray
) -> float:
    """The least sureness at which the mean over classes of the IoU over all answers is highest; the lowest of equals.

    Args:
        of_class: class of each answer (N,), like all that follow.
        sure: how sure each is, in 0..1.
        hit: counts of pixels that are painted and of the class; pixels of 255 are left out of all counts.
        painted: counts of pixels that are painted.
        true: counts of pixels of the class.
    """
    scores = {}
    for least in np.unique(np.append(sure, 0.0)):
        kept = sure >= least
        hits, unions = (
            np.bincount(of_class, weights) for weights in (hit * kept, np.where(kept, painted + true - hit, true))
        )
        scores[float(least)] = float((hits[unions > 0] / unions[unions > 0]).mean())
    return max(scores, key=lambda least: (scores[least], -least))
