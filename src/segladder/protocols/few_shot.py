"""What protocols of folds and supports share: their classes, what training may see, how answers are counted."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from segladder.data.labels.annotation_cost import Labelling, supports
from segladder.data.labels.kinds import of_supports
from segladder.data.sources.base import Source
from segladder.data.sources.item_lists import ItemList, digest_of, files_of
from segladder.data.sources.items import Items, MinObject, items_of
from segladder.data.training.episode_dataset import ClassDraw, NovelPixels, TrainImages
from segladder.data.training.episodes import Episode, draw
from segladder.data.training.views import Episodes
from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.methods.base import Method, evaluating
from segladder.methods.few_shot.base import Aggregate
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.episodes import EpisodeCounts
from segladder.metrics.formulas import mean_iou
from segladder.metrics.scores import Score
from segladder.protocols.base import Picture, Place, Protocol, Result, Scoring, Shown
from segladder.protocols.episode_runner import (
    EpisodeRunner,
    InputSize,
    Maps,
    few_shot_method,
    merged,
    merged_all,
)
from segladder.protocols.fields import Fit, ScoreAt, check_joins
from segladder.protocols.inference import gathered, shard
from segladder.settings import Count, Positive, Seed

SELECTION_EPISODES = 20  # a class
MOST_WAYS = 5  # with more, a panel shows the supports of classes that the query holds or is said to hold


@dataclass(frozen=True)
class FewShotProtocol(Protocol):
    """Queries asked for classes that K annotated supports show; the classes of a fold are novel, all others base.

    Args:
        folds: class names of each fold; those of the run's fold are novel, all others base.
        fold: the run's fold; no part of the hash, since a score is a mean over folds.
        train_images: images that training may use, `all` or `single_class`.
        novel_pixels: novel classes in training images: `background`, `ignore`, or `drop` the image.
        shots: K supports of each class.
        support_annotation: what is given of a test support's mask: `mask`, `box`, `scribble` or `point`.
        min_object: which objects count, `grid` (Shaban's 1/32 rule), `area` (at least `min_area` pixels) or `none`.
        seeds: of the frozen lists.
        fit: how images reach the network: `native`, `square`, `padded` or `floored`, with `input_side` pixels; see
            `InputSize`.
        score_at: where answers are compared with masks: `native`, or at `input` size.
        void: 255 in a query's mask: `ignored` or `background`.
        aggregate: how K supports become one answer: `mean` or `area_mean` of what they say; `vote`, `relative_vote`,
            `or`, `max` or `logit_mean` of K predictions. A method refuses what is not among its `joins`.
        bootstrap: resamples over images behind each 95 % interval.
        over_lists: the lists of several `seeds` are `pooled`, or each is scored and the scores averaged (`mean`).
        class_draw: how training draws a class and its query: `image`, `image_any_size` or `class`, see
            `EpisodeDataset`; None for `loader.episodes.class_draw`.
        items: a published list of test items in place of `min_object`: a file, or a folder with `fold0.txt` and so on.
            The items are part of the hash, the place of the files is not.
    """

    supervisions: ClassVar[tuple[str, ...]] = ("few_shot",)

    on_training_images: ClassVar[bool] = True  # of novel classes training has no label

    folds: tuple[tuple[str, ...], ...]
    fold: Count
    train_images: TrainImages
    novel_pixels: NovelPixels
    shots: Positive
    support_annotation: str
    min_object: MinObject
    min_area: Count
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    fit: Fit
    input_side: Positive | None
    score_at: ScoreAt
    void: Literal["ignored", "background"]
    aggregate: Aggregate
    bootstrap: Positive
    over_lists: Literal["pooled", "mean"] = field(default="pooled", kw_only=True)
    class_draw: ClassDraw | None = field(default=None, kw_only=True)
    items: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        of_supports(self.support_annotation)  # refuses what nobody draws
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"protocol.seeds={list(self.seeds)}: a list that is drawn twice says nothing new")

    @abstractmethod
    def ways_among(self, classes: Sequence[int]) -> int:
        """How many of some classes a query is asked for at once."""

    @abstractmethod
    def lists(self, source: Source, items: Items) -> dict[int, list[Episode]]:
        """What is asked, by the seed of each list. Raises DataError where too few images hold a class."""

    def check_items(self, source: Source) -> None:
        """Raise DataError if too few images hold a class."""
        self.lists(source, self.test_items(source))

    def fields(self) -> dict[str, Any]:
        """What is asked, in plain JSON types; of a list of items what it holds."""
        fields = super().fields()
        if self.items is not None:
            fields["items"] = digest_of(files_of(self.items, len(self.folds)))
        return fields

    def place(self) -> Place:
        """The fold and the shots."""
        return Place(self.fold, self.shots)

    def check_built(self, method: Method) -> None:
        """Raise ConfigError for a method that does not join supports by `aggregate`, or for a missing list of items."""
        check_joins(few_shot_method(method, self.name), self.aggregate, self.name)
        self.fields()

    def test_items(self, source: Source, ids: Sequence[str] | None = None) -> Items:
        """What test images hold, all or some: by the rule, or as listed. Raises DataError for a list that misfits."""
        rule = self.min_object, self.min_area
        if self.items is None:
            return items_of(source, self.split, ids, *rule)
        listed = ItemList.read(files_of(self.items, len(self.folds))[self.fold])
        listed.check_images(set(source.split(self.split)), self.split)
        return listed.items(source, source.split(self.split) if ids is None else ids, *rule)

    @property
    def novel(self) -> tuple[str, ...]:
        """Names of the fold's classes. Raises ConfigError for a fold there is not."""
        return self.of_fold(self.folds, self.fold)

    @property
    def drops_novel(self) -> bool:
        """Whether training leaves out images with novel classes (`novel_pixels: drop`)."""
        return self.novel_pixels == "drop"

    def scored_classes(self, source: Source) -> tuple[str, ...]:
        """The novel ones."""
        return self.novel

    def training(self, source: Source) -> Episodes:
        """Episodes of base classes."""
        rule = self.min_object, self.min_area
        return Episodes(self.novel, self.shots, self.novel_pixels, self.train_images, *rule, self.class_draw)

    def supports(self, source: Source) -> list[Labelling]:
        """What has to be annotated before the novel classes can be asked for: K supports of each."""
        return [supports(self.shots, len(self.novel), self.support_annotation)]

    def check_held_out(self, source: Source, ids: Sequence[str]) -> None:
        """Raise ConfigError if no base class has enough of the images."""
        self.held_out_episodes(source, ids)

    def held_out_score(self, scoring: Scoring) -> float:
        """Mean IoU of base classes."""
        base, ways, episodes = self.held_out_episodes(scoring.source, scoring.ids or ())
        tally = self.tally(self.runner(scoring.method, scoring.source, scoring.batch_size), episodes, ways)
        return float(mean_iou(tally.counts.outcomes().sum(0), base))

    @property
    def held_out_by(self) -> Score:
        """Mean IoU of base classes."""
        return Score("base_mIoU", "base mIoU")

    def glimpses(self, scoring: Scoring, count: int) -> Iterator[Shown]:
        """Answers to the first held-out episodes."""
        source, nothing = scoring.source, Result({}, [], Counts(len(scoring.source.classes)))
        _, ways, episodes = self.held_out_episodes(source, scoring.ids or ())
        for number in range(min(count, len(episodes) // ways)):
            group = episodes[number * ways : (number + 1) * ways]
            name = " ".join([group[0].query, *(source.classes[way.class_index] for way in group[:MOST_WAYS])])
            yield name, self.shown(scoring.method, source, asking(group), nothing)

    def held_out_episodes(self, source: Source, ids: Sequence[str]) -> tuple[list[int], int, list[Episode]]:
        """Base classes, how many a query is asked for at once, and episodes of them among held-out images.

        Raises:
            ConfigError: too few images.
        """
        items = Items.read(source, ids, self.min_object, self.min_area)
        novel = self.indices(source, self.novel)
        base = [c for c in range(1, len(source.classes)) if c not in novel and len(items.holders(c)) > self.shots]
        if not base:
            raise ConfigError(f"loader.held_out: no base class has {self.shots + 1} of {len(ids)} held-out images")
        ways = self.ways_among(base)
        count = SELECTION_EPISODES * len(base)
        return base, ways, draw(items, base, self.shots, count, seed=0, rule="balanced", ways=ways)

    def indices(self, source: Source, names: Sequence[str]) -> list[int]:
        """Class indices of names. Raises ConfigError for a class that the data does not use."""
        if missing := [name for name in names if name not in source.classes[1:]]:
            raise ConfigError(
                f"protocol {self.name}: fold {self.fold} needs the class {missing[0]}, "
                f"but data.classes gives {', '.join(source.classes[1:])}"
            )
        return [source.classes.index(name) for name in names]

    def runner(self, method: Method, source: Source, batch_size: int) -> EpisodeRunner:
        """What answers this protocol's episodes. Raises ConfigError for another kind of method."""
        asked, size = few_shot_method(method, self.name), InputSize(self.fit, self.input_side)
        at_input = self.score_at == "input"
        return EpisodeRunner(asked, source, size, self.aggregate, batch_size, at_input, self.support_annotation)

    def shown(self, method: Method, source: Source, item: Asked, result: Result) -> Picture:
        """The query of an episode with each way's first support and the probability behind the answer."""
        ways = episodes_of(item)
        runner = self.runner(method, source, batch_size=1)
        with evaluating(method), torch.inference_mode():
            answers = list(runner.answers(ways))
        truth, prediction = self.truth(answers[0].truth, [way.class_index for way in ways]), merged(answers)
        image = source.image(ways[0].query)
        if truth.shape != image.shape[:2]:
            image = cv2.resize(image, truth.shape[::-1])
        held = np.union1d(truth, prediction)
        beside = {}
        for way in (way for way in ways if len(ways) <= MOST_WAYS or way.class_index in held):
            support = way.supports[0]
            heading = "support" if len(ways) == 1 else f"support: {source.classes[way.class_index]}"
            beside[heading] = outlined(source.image(support), runner.support_mask(support, way.class_index))
        probability = np.max([answer.probability for answer in answers], axis=0)
        heat = cv2.applyColorMap((255 * probability).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
        return Picture(image, truth, prediction, {**beside, "probability": np.ascontiguousarray(heat)})

    def tally(
        self,
        runner: EpisodeRunner,
        episodes: Sequence[Episode],
        ways: int = 1,
        all_classes: bool = False,
        advance: Callable[[], object] = lambda: None,
        kind: str = "",
        drawn_by: int = 0,
        later: Sequence[Episode] = (),
    ) -> EpisodeCounts:
        """Counts over all episodes, shared among the processes of a distributed run.

        Args:
            runner: answers them.
            episodes: a frozen list.
            ways: how many of them ask one query together.
            all_classes: whether the truth keeps the query's other classes apart from the background.
            advance: called after each query.
            kind: of the episodes, for their counts.
            drawn_by: seed of the list, for their counts.
            later: episodes that the runner will be given after these.
        """
        rank, world = shard()
        groups = [episodes[start : start + ways] for start in range(0, len(episodes), ways)]
        tally = EpisodeCounts(len(runner.source.classes))
        with evaluating(runner.method), torch.inference_mode():
            maps = runner.batches([episode for group in groups[rank::world] for episode in group], later)
            for asked, predictions, probabilities in by_query(maps, ways):
                queries = [asking(group, kind, drawn_by) for group in asked]
                masks = [runner.truth(query.image) for query in queries]
                if not all_classes:
                    masks = [self.truth(mask, query.classes) for mask, query in zip(masks, queries, strict=True)]
                truth = torch.from_numpy(np.stack(masks)).to(predictions.device)
                tally.add(queries, merged_all(predictions, probabilities), probabilities, truth)
                for _ in queries:
                    advance()
        return EpisodeCounts.merged(gathered(tally))

    def truth(self, mask: np.ndarray, asked: Sequence[int]) -> np.ndarray:
        """The index of a class asked for, 0 for all else, 255 = not scored, uint8 (H, W)."""
        indices = np.zeros(256, np.uint8)
        kept = [*asked, IGNORE] if self.void == "ignored" else list(asked)
        indices[kept] = kept
        return cv2.LUT(mask, indices)


def by_query(answers: Iterable[Maps], ways: int) -> Iterator[tuple[list[Sequence[Episode]], Tensor, Tensor]]:
    """The episodes of several queries of one size, and what was said in them: predictions and probabilities.

    Both are (N, M, H, W) for N queries asked for M = `ways` classes, whose episodes follow each other.
    """
    waiting: list[tuple[Episode, Tensor, Tensor]] = []
    for maps in answers:
        waiting += zip(*maps, strict=True)
        whole, waiting = waiting[: len(waiting) // ways * ways], waiting[len(waiting) // ways * ways :]
        if whole:
            episodes, *parts = zip(*whole, strict=True)
            predictions, probabilities = (torch.stack(part).unflatten(0, (-1, ways)) for part in parts)
            yield [episodes[i : i + ways] for i in range(0, len(episodes), ways)], predictions, probabilities


def asking(ways: Sequence[Episode], kind: str = "", drawn_by: int = 0) -> Asked:
    """What counts say of a query's episodes, one for each way; `drawn_by` is the seed of their list."""
    supports = tuple(image_id for way in ways for image_id in way.supports)
    return Asked(ways[0].query, tuple(way.class_index for way in ways), kind, drawn_by, supports)


def episodes_of(asked: Asked) -> list[Episode]:
    """The episodes of what was asked, one for each way."""
    shots = len(asked.supports) // len(asked.classes)
    shown = [asked.supports[shots * n : shots * (n + 1)] for n in range(len(asked.classes))]
    return [Episode(asked.image, k, supports, 0) for k, supports in zip(asked.classes, shown, strict=True)]


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An RGB image (H, W, 3) with the border of a mask (H, W) of 0 and 1 drawn on it, the rest darkened."""
    shown = np.where(mask[..., None] > 0, image, image // 2)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(shown), contours, -1, (255, 220, 0), max(1, image.shape[1] // 150))
