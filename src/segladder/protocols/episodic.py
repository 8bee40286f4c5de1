"""Few-shot scoring: a frozen list of episodes, binary IoU pooled per class, and what one-way scores hide.

A network that paints whatever is salient scores well on ordinary episodes. So beside them stand distractor tests:
`hard` queries that also hold another class, `negative` ones without the class, and `swap` ones asked for each of their
classes in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from rich.progress import Progress

from segladder.data.sources.items import Items
from segladder.data.training.episodes import Episode, digest, draw, episodes_named
from segladder.errors import DataError
from segladder.metrics.bootstrap import bootstrap_interval, class_iou
from segladder.metrics.episodes import EpisodeCounts, foreground_background_iou, novel_mean_iou, swapped
from segladder.metrics.overlap import per_class
from segladder.metrics.scores import Score
from segladder.protocols.base import Metrics, Result, Scoring, scored
from segladder.protocols.few_shot import FewShotProtocol
from segladder.protocols.fields import Count, Positive
from segladder.protocols.inference import shard

DISTRACTORS = ("hard", "negative", "swap")
OVERLAP = (  # with objects that are there
    Score("mIoU", shown=("summary",), statistic="foreground_mean_iou"),
    Score("average_precision", shown=("summary", "table")),
    Score("fb_iou", shown=("summary", "table")),
    Score("fb_iou_run"),
    Score("best_threshold_mIoU"),
    Score("mIoU_std_over_lists", better="lower"),
)
AREA = (
    Score("predicted_share", better="", shown=("summary", "table")),
    Score("true_share", better="", shown=("summary",)),
)
OF_DISTRACTORS = {
    "hard": (Score("hard_mIoU", shown=("summary", "table")),),
    "negative": (
        Score("negative_area", better="lower", shown=("summary", "table"), statistic="painted_share"),
        Score("negative_empty", shown=("summary", "table"), statistic="empty_answers"),
    ),
    "swap": (
        Score("swap_follows", shown=("summary", "table"), statistic="follows_support"),
        Score("swap_right_iou", shown=("summary",)),
        Score("swap_wrong_iou", better="lower", shown=("summary", "table")),
    ),
}
OVER_FOLDS = Score("fb_iou_pooled", shown=("table",), over_folds="fb_iou_pooled")  # what no single fold has


@dataclass(frozen=True)
class EpisodicProtocol(FewShotProtocol):
    """Episodes of a fold's classes: a query and K annotated supports of one class each, or of several at once.

    Args:
        kind: `standard`, `hard`, `negative` or `swap`.
        ways: classes of the fold that a query is asked for at once; with several, a pixel is one of them or background.
        draw: how a class and its query are drawn: `item`, `class`, `image`, `balanced`, `sequential`.
        episodes: for each of `seeds`.
        repeats: whether a support may be drawn twice in an episode.
        beside: episodes of each distractor test reported beside the score of one way; 0 for none.
    """

    resampled: ClassVar[str] = "episodes"

    kind: Literal["standard", "hard", "negative", "swap"]
    ways: Positive
    draw: Literal["item", "class", "image", "balanced", "sequential"]
    episodes: Positive
    repeats: bool
    beside: Count

    def ways_among(self, classes: Sequence[int]) -> int:
        """`ways`, or all of fewer classes."""
        return min(self.ways, len(classes))

    @property
    def scores(self) -> tuple[Score, ...]:
        """Overlap and area of its own episodes, and of each distractor test; counts are kept of its own alone."""
        overlap: tuple[Score, ...] = () if self.kind == "negative" else OVERLAP
        if self.kind == "swap":  # its counts hold what a wrong answer fits
            overlap = tuple(replace(score, statistic="") for score in overlap)
        beside = [
            score if kind == self.kind else replace(score, statistic="")
            for kind, scores in OF_DISTRACTORS.items()
            if kind in self.kinds
            for score in scores
        ]
        return (*overlap, *AREA, *beside, OVER_FOLDS)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Its own kind of episodes, and those that stand beside it."""
        ordinary = self.kind == "standard" and self.ways == 1 and self.beside
        return (self.kind, *DISTRACTORS) if ordinary else (self.kind,)

    @property
    def ranked_by(self) -> str:
        """`mIoU`; of `swap` how often the answer follows its support, of `negative` how often it is empty."""
        return {"swap": "swap_follows", "negative": "negative_empty"}.get(self.kind, "mIoU")

    def measure(self, scoring: Scoring) -> Result:
        """Every episode of its own lists, and of those that stand beside it."""
        source = scoring.source
        classes = self.indices(source, self.novel)
        items = Items.read(source, scoring.among(self.split), self.min_object, self.min_area)
        drawn = [self.frozen_list(items, classes, self.kind, self.episodes, seed) for seed in self.seeds]
        lists: dict[str, list[Episode]] = {self.kind: [episode for each in drawn for episode in each]}
        if len(self.kinds) > 1:
            lists |= self.distractors(items, classes)
        runner = self.runner(scoring.method, source, scoring.batch_size)
        tallies: dict[str, EpisodeCounts] = {}
        with Progress(disable=not scoring.progress or shard()[0] > 0) as bar:
            for kind, episodes in lists.items():
                task = bar.add_task(f"{self.name} {kind} episodes", total=len(episodes) // self.ways)
                advance = partial(bar.advance, task, shard()[1])
                tallies[kind] = self.tally(runner, episodes, self.ways, kind == "swap", advance)
        result = self.result(tallies[self.kind].of_classes_asked_for(), classes, source.classes)
        if self.kind == "swap":
            result.counts = tallies[self.kind].counts  # which class it is that a wrong answer fits
        for kind in lists:
            result.metrics |= distraction(kind, tallies[kind])
        result.predict_seconds, result.items = runner.seconds, digest(lists[self.kind])
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

    def result(self, tally: EpisodeCounts, classes: Sequence[int], names: Sequence[str]) -> Result:
        """All scores of the counted episodes, with intervals where a bootstrap over episodes gives one.

        FB-IoU is pooled over all episodes (`fb_iou`) or over each seed's, then averaged (`fb_iou_run`); rows per class
        hold what it takes to pool it over folds, which leaderboards do (`fb_iou_pooled`).
        """
        outcomes = tally.counts.outcomes()  # (N, K, 3)
        total = outcomes.sum(0)
        predicted, true = tally.shares()
        metrics: Metrics = {} if self.kind == "negative" else self.overlap(tally, classes)
        metrics["predicted_share"] = scored(float(predicted.mean()))
        metrics["true_share"] = scored(float(true.mean()))
        rows = per_class(torch.from_numpy(tally.counts.total()), names)
        lows, highs = bootstrap_interval(outcomes, class_iou, self.bootstrap)
        asked = [way.class_index for name in tally.counts.ids for way in episodes_named(name)]
        episodes = np.bincount(asked, minlength=len(names))
        for k, row in enumerate(rows):
            row.update(low=float(lows[k]), high=float(highs[k]), episodes=int(episodes[k]))
            row.update(zip(("tp", "fp", "fn"), (int(n) for n in total[k]), strict=True))
        return Result(metrics, [rows[k] for k in (0, *classes)], tally.counts)

    def overlap(self, tally: EpisodeCounts, classes: Sequence[int]) -> Metrics:
        """The scores that need objects, pooled over all episodes and over each seed's list."""
        outcomes = tally.counts.outcomes()  # (N, K, 3)
        lists = [outcomes[i : i + self.episodes].sum(0) for i in range(0, len(outcomes), self.episodes)]  # one a seed
        metrics = {
            "average_precision": scored(tally.precision(classes)),
            "best_threshold_mIoU": scored(tally.best_iou(classes)),
            "fb_iou_run": scored(float(np.mean([foreground_background_iou(part) for part in lists]))),
            "mIoU_std_over_lists": scored(float(np.std([novel_mean_iou(part) for part in lists]))),
        }
        for name, statistic in (("mIoU", novel_mean_iou), ("fb_iou", foreground_background_iou)):
            low, high = bootstrap_interval(outcomes, statistic, self.bootstrap)
            value = float(statistic(outcomes.sum(0)))
            metrics[name] = scored(value, float(low), float(high))
        return metrics


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
