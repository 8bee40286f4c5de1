"""Few-shot scoring: a frozen list of episodes, binary IoU pooled per class, and what one-way scores hide.

A network that paints whatever is salient scores well on ordinary episodes. So beside them stand distractor tests:
`hard` queries that also hold another class, `negative` ones without the class, and `swap` ones asked for each of their
classes in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from rich.progress import Progress

from segladder.data.episodes import Episode, Items, digest, draw, episodes_named, name_of
from segladder.data.source import IGNORE, Source
from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method
from segladder.methods.episodic import FewShotMethod
from segladder.metrics.bootstrap import bootstrap_interval, class_iou
from segladder.metrics.episodes import EpisodeCounts, foreground_background_iou, novel_mean_iou, swapped
from segladder.metrics.iou import per_class
from segladder.protocols.base import Picture, Protocol, Result
from segladder.protocols.episode_runner import EpisodeRunner, InputSize, merged
from segladder.protocols.inference import gathered, shard

Metrics = dict[str, dict[str, float | None]]
DISTRACTORS = ("hard", "negative", "swap")
SELECTION_EPISODES = 20  # a class


@dataclass(frozen=True)
class EpisodicProtocol(Protocol):
    """Episodes of a fold's classes: a query and K annotated supports of one class each, or of several at once.

    Args:
        folds: class names of each fold; those of the run's fold are novel, all others base.
        fold: the run's fold; no part of the hash, since a score is a mean over folds.
        train_images: images that training may use, `all` or `single_class`.
        novel_pixels: novel classes in training images: `background`, `ignore`, or `drop` the image.
        kind: `standard`, `hard`, `negative` or `swap`.
        ways: classes of the fold that a query is asked for at once; with several, a pixel is one of them or background.
        shots: K supports of each.
        support_annotation: what is given of a test support's mask: `mask`, `box`, `scribble` or `point`.
        min_object: which objects count, `grid` (Shaban's 1/32 rule), `area` (at least `min_area` pixels) or `none`.
        draw: how a class and its query are drawn: `item`, `class`, `image`, `balanced`, `sequential`.
        episodes: for each of `seeds`.
        repeats: whether a support may be drawn twice in an episode.
        fit: how images reach the network: `native`, `square` or `padded`, with `input_side` pixels.
        score_at: where answers are compared with masks: `native`, or at `input` size.
        void: 255 in a query's mask: `ignored` or `background`.
        aggregate: how K supports become one answer: `mean` or `area_mean` of what they say; `vote`, `or`, `max` or
            `logit_mean` of K predictions.
        beside: episodes of each distractor test reported beside the score of one way; 0 for none.
        bootstrap: resamples over episodes behind each 95 % interval.
    """

    supervisions: ClassVar[tuple[str, ...]] = ("few_shot",)

    folds: tuple[tuple[str, ...], ...]
    fold: int
    train_images: str
    novel_pixels: str
    kind: str
    ways: int
    shots: int
    support_annotation: str
    min_object: str
    min_area: int
    draw: str
    episodes: int
    seeds: tuple[int, ...]
    repeats: bool
    fit: str
    input_side: int | None
    score_at: str
    void: str
    aggregate: str
    beside: int
    bootstrap: int

    def fields(self) -> dict[str, Any]:
        """All fields in plain JSON types but the fold."""
        fields = super().fields()
        del fields["fold"]
        return fields

    @property
    def novel(self) -> tuple[str, ...]:
        """Names of the fold's classes. Raises ConfigError for a fold there is not."""
        if not self.folds:
            raise ConfigError(f"protocol {self.name}: data={self.dataset} has no folds of classes, set data.folds")
        if not 0 <= self.fold < len(self.folds):
            raise ConfigError(f"fold={self.fold}: {self.dataset} has folds 0..{len(self.folds) - 1}")
        return tuple(self.folds[self.fold])

    def training(self, source: Source) -> dict[str, Any]:
        """What training episodes may be made of: arguments of `EpisodeDataset`."""
        return {
            "novel": self.novel,
            "shots": self.shots,
            "novel_pixels": self.novel_pixels,
            "images": self.train_images,
            "min_object": self.min_object,
            "min_area": self.min_area,
        }

    def selection_score(self, method: Method, source: Source, ids: Sequence[str] | None, batch_size: int) -> float:
        """Mean IoU that chooses a checkpoint: of base classes on held-out ids, or (oracle) of the novel classes."""
        if ids is None:
            return self.score(method, source, batch_size=batch_size).metrics["mIoU"]["value"] or 0.0
        items = Items.read(source, ids, self.min_object, self.min_area)
        novel = self.indices(source, self.novel)
        base = [c for c in range(1, len(source.classes)) if c not in novel and len(items.holders(c)) > self.shots]
        if not base:
            raise ConfigError(f"selection=held_out: no base class has {self.shots + 1} of {len(ids)} held-out images")
        ways = min(self.ways, len(base))
        episodes = draw(items, base, self.shots, SELECTION_EPISODES * len(base), seed=0, rule="balanced", ways=ways)
        tally = self.tally(self.runner(method, source, batch_size), episodes, ways)
        return float(novel_mean_iou(tally.counts.outcomes().sum(0)))

    def score(
        self,
        method: Method,
        source: Source,
        ids: Sequence[str] | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ) -> Result:
        """Score a few-shot method on the fold's novel classes; every process of a distributed run calls this.

        Args:
            method: used on the device it is on.
            source: the data set.
            ids: images that episodes are drawn from instead of the split.
            batch_size: images encoded, and episodes decoded, at once.
            progress: show a progress bar.

        Raises:
            ConfigError: not a few-shot method, an unknown fold or choice.
            DataError: a class with too few images, a damaged file.
        """
        started = time.perf_counter()
        classes = self.indices(source, self.novel)
        items = Items.read(source, source.split(self.split) if ids is None else ids, self.min_object, self.min_area)
        lists = {
            self.kind: [
                e for seed in self.seeds for e in self.frozen_list(items, classes, self.kind, self.episodes, seed)
            ]
        }
        if self.kind == "standard" and self.ways == 1 and self.beside:
            lists |= self.distractors(items, classes)
        runner = self.runner(method, source, batch_size)
        tallies: dict[str, EpisodeCounts] = {}
        with Progress(disable=not progress or shard()[0] > 0) as bar:
            for kind, episodes in lists.items():
                task = bar.add_task(f"{self.name} {kind} episodes", total=len(episodes) // self.ways)
                advance = partial(bar.advance, task, shard()[1])
                tallies[kind] = self.tally(runner, episodes, self.ways, kind == "swap", advance)
        result = self.result(tallies[self.kind].of_classes_asked_for(), classes, source.classes)
        for kind in lists:
            result.metrics |= distraction(kind, tallies[kind])
        result.seconds, result.predict_seconds = time.perf_counter() - started, runner.seconds
        result.items = digest(lists[self.kind])
        return result

    def frozen_list(self, items: Items, classes: Sequence[int], kind: str, episodes: int, seed: int) -> list[Episode]:
        """The frozen list of one seed."""
        return draw(items, classes, self.shots, episodes, seed, self.draw, kind, self.repeats, self.ways)

    def distractors(self, items: Items, classes: Sequence[int]) -> dict[str, list[Episode]]:
        """The lists of the distractor tests for which there are images; queries drawn alike, whatever their class."""
        lists = {}
        for kind in DISTRACTORS:
            with suppress(DataError):  # no image is such a query
                lists[kind] = draw(items, classes, self.shots, self.beside, self.seeds[0], rule="item", kind=kind)
        return lists

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
        if not isinstance(method, FewShotMethod):
            raise ConfigError(
                f"protocol={self.name} draws episodes, but method={method.name} is {method.supervision}, not few_shot"
            )
        size = InputSize(self.fit, self.input_side)
        at_input = self.score_at == "input"
        return EpisodeRunner(method, source, size, self.aggregate, batch_size, at_input, self.support_annotation)

    def shown(self, method: Method, source: Source, item: str) -> Picture:
        """The query of an episode with each way's first support and the probability behind the answer."""
        ways = episodes_named(item)
        runner = self.runner(method.eval(), source, batch_size=1)
        with torch.inference_mode():
            answers = list(runner.answers(ways))
        truth = self.truth(answers[0].truth, [way.class_index for way in ways])
        image = source.image(ways[0].query)
        if truth.shape != image.shape[:2]:
            image = cv2.resize(image, truth.shape[::-1])
        beside = {}
        for way in ways:
            support = way.supports[0]
            heading = "support" if len(ways) == 1 else f"support: {source.classes[way.class_index]}"
            beside[heading] = outlined(source.image(support), runner.support_mask(support, way.class_index))
        probability = np.max([answer.probability for answer in answers], axis=0)
        heat = cv2.applyColorMap((255 * probability).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
        return Picture(image, truth, merged(answers), {**beside, "probability": np.ascontiguousarray(heat)})

    def tally(
        self,
        runner: EpisodeRunner,
        episodes: Sequence[Episode],
        ways: int = 1,
        all_classes: bool = False,
        advance: Callable[[], object] = lambda: None,
    ) -> EpisodeCounts:
        """Counts over all episodes, each time `ways` of them in one, shared among the processes of a distributed run.

        With `all_classes` the truth keeps the query's other classes apart from the background.
        """
        rank, world = shard()
        groups = [episodes[start : start + ways] for start in range(0, len(episodes), ways)]
        numbers = {id(group[0]): number for number, group in enumerate(groups)}
        tally = EpisodeCounts(len(runner.source.classes))
        training = runner.method.training
        runner.method.eval()
        with torch.inference_mode():
            one_by_one = runner.answers([episode for group in groups[rank::world] for episode in group])
            for answers in zip(*[one_by_one] * ways, strict=True):  # those of a query follow each other
                group = [answer.episode for answer in answers]
                asked = {answer.episode.class_index: answer.probability for answer in answers}
                truth = answers[0].truth if all_classes else self.truth(answers[0].truth, list(asked))
                tally.add(name_of(numbers[id(group[0])], group), merged(answers), asked, truth)
                advance()
        runner.method.train(training)
        return EpisodeCounts.merged(gathered(tally))

    def truth(self, mask: np.ndarray, asked: Sequence[int]) -> np.ndarray:
        """The index of a class asked for, 0 for all else, 255 = not scored, uint8 (H, W)."""
        indices = np.zeros(256, np.uint8)
        kept = [*asked, IGNORE] if self.void == "ignored" else list(asked)
        indices[kept] = kept
        return indices[mask]

    def result(self, tally: EpisodeCounts, classes: Sequence[int], names: Sequence[str]) -> Result:
        """All scores of the counted episodes, with intervals where a bootstrap over episodes gives one.

        FB-IoU is pooled over all episodes (`fb_iou`) or over each seed's, then averaged (`fb_iou_run`); rows per class
        hold what it takes to pool it over folds, which leaderboards do (`fb_iou_pooled`).
        """
        outcomes = tally.counts.outcomes()  # (N, K, 3)
        total = outcomes.sum(0)
        predicted, true = tally.shares()
        metrics: Metrics = {
            "mIoU": scored(float(novel_mean_iou(total))),
            "fb_iou": scored(float(foreground_background_iou(total))),
            "average_precision": scored(tally.precision(classes)),
            "best_threshold_mIoU": scored(tally.best_iou(classes)),
            "predicted_share": scored(float(predicted.mean())),
            "true_share": scored(float(true.mean())),
        }
        lists = [outcomes[i : i + self.episodes].sum(0) for i in range(0, len(outcomes), self.episodes)]  # one a seed
        metrics["fb_iou_run"] = scored(float(np.mean([foreground_background_iou(part) for part in lists])))
        metrics["mIoU_std_over_lists"] = scored(float(np.std([novel_mean_iou(part) for part in lists])))
        for name, statistic in (("mIoU", novel_mean_iou), ("fb_iou", foreground_background_iou)):
            low, high = bootstrap_interval(outcomes, statistic, self.bootstrap)
            metrics[name].update(low=float(low), high=float(high))
        rows = per_class(torch.from_numpy(tally.counts.total()), names)
        lows, highs = bootstrap_interval(outcomes, class_iou, self.bootstrap)
        asked = [way.class_index for name in tally.counts.ids for way in episodes_named(name)]
        episodes = np.bincount(asked, minlength=len(names))
        for k, row in enumerate(rows):
            row.update(low=float(lows[k]), high=float(highs[k]), episodes=int(episodes[k]))
            row.update(zip(("tp", "fp", "fn"), (int(n) for n in total[k]), strict=True))
        return Result(metrics, [rows[k] for k in (0, *classes)], tally.counts)


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An RGB image with the border of a mask of 0 and 1 drawn on it, the rest of the image darkened."""
    shown = np.where(mask[..., None] > 0, image, image // 2)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(shown), contours, -1, (255, 220, 0), max(1, image.shape[1] // 150))


def scored(value: float) -> dict[str, float | None]:
    """A score without an interval."""
    return {"value": value, "low": None, "high": None}


def distraction(kind: str, tally: EpisodeCounts) -> Metrics:
    """What a distractor test shows, by metric; nothing for standard episodes.

    `hard_mIoU`; `negative_area`, the share of pixels painted where there is nothing to find, and `negative_empty`, how
    often none is; `swap_follows`, how often an answer fits the class it was asked for better than the query's other
    one, `swap_right_iou` and `swap_wrong_iou`, how well it fits either.
    """
    if kind == "hard":
        return {"hard_mIoU": scored(float(novel_mean_iou(tally.counts.outcomes().sum(0))))}
    if kind == "negative":
        area = tally.shares()[0]
        return {
            "negative_area": scored(float(area.mean())),
            "negative_empty": scored(float((area == 0).mean())),
        }
    if kind == "swap":
        right, wrong = swapped(tally.counts)
        return {
            "swap_follows": scored(float((right > wrong).mean())),
            "swap_right_iou": scored(float(right.mean())),
            "swap_wrong_iou": scored(float(wrong.mean())),
        }
    return {}
