"""Few-shot scoring: a frozen list of episodes, binary IoU pooled per class, and what one-way scores hide.

A network that paints whatever is salient scores well on ordinary episodes. So beside them stand distractor tests:
`hard` queries that also hold another class, `negative` ones without the class, and `swap` ones asked for each of their
classes in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from rich.progress import Progress

from segladder.data.sources.base import Source
from segladder.data.sources.items import Items
from segladder.data.training.episodes import Episode, Kind, Rule, digest, draw
from segladder.errors import DataError
from segladder.metrics.class_rows import class_rows
from segladder.metrics.counts import Counts
from segladder.metrics.episodes import EpisodeCounts
from segladder.metrics.formulas import by_list, mean_iou
from segladder.metrics.scores import FromCounts, Score
from segladder.protocols.base import Metrics, Result, Scoring, measured, scored
from segladder.protocols.few_shot import FewShotProtocol
from segladder.protocols.inference import shard
from segladder.settings import Count, Positive

DISTRACTORS = ("hard", "negative", "swap")
ANSWERS = {"swap": "answers"}  # kind of counts that hold no other class but those asked for, where it is not the list's
AREA = (
    Score("predicted_share", better="", shown=("summary", "table")),
    Score("true_share", better="", shown=("summary",)),
)
OF_DISTRACTORS = {
    "hard": (
        Score("hard_mIoU", shown=("summary", "table"), statistic=FromCounts("mean_iou", ("foreground",), ("hard",))),
    ),
    "negative": (
        Score(
            "negative_area",
            better="lower",
            shown=("summary", "table"),
            statistic=FromCounts("painted_share", kinds=("negative",)),
        ),
        Score("negative_empty", shown=("summary", "table"), statistic=FromCounts("empty_answers", kinds=("negative",))),
    ),
    "swap": (
        Score("swap_follows", shown=("summary", "table"), statistic=FromCounts("follows_support", kinds=("swap",))),
        Score("swap_right_iou", shown=("summary",), statistic=FromCounts("right_iou", kinds=("swap",))),
        Score(
            "swap_wrong_iou",
            better="lower",
            shown=("summary", "table"),
            statistic=FromCounts("wrong_iou", kinds=("swap",)),
        ),
    ),
}
OVER_FOLDS = Score("fb_iou_pooled", shown=("table",), over_folds="fb_iou_pooled")  # what no single fold has


@dataclass(frozen=True)
class EpisodicProtocol(FewShotProtocol):
    """Episodes of a fold's classes: a query and K annotated supports of one class each, or of several at once.

    Args:
        kind: `standard`, `hard`, `negative` or `swap`.
        ways: classes of the fold that a query is asked for at once; with several, a pixel is one of them or background.
        draw: how a class and its query are drawn: `item`, `class`, `image`, `balanced`, `sequential`, `pass`,
            `image_sequential`; see `segladder.data.training.episodes.draw`.
        episodes: for each of `seeds`.
        repeats: whether a support may be drawn twice in an episode.
        beside: episodes of each distractor test reported beside the score of one way; 0 for none.
    """

    kind: Kind
    ways: Positive
    draw: Rule
    episodes: Positive
    repeats: bool
    beside: Count

    def ways_among(self, classes: Sequence[int]) -> int:
        """`ways`, or all of fewer classes."""
        return min(self.ways, len(classes))

    @property
    def scores(self) -> tuple[Score, ...]:
        """Overlap and area of its own episodes, and of each distractor test."""
        overlap = () if self.kind == "negative" else self.overlap_scores
        beside = [score for kind, scores in OF_DISTRACTORS.items() if kind in self.kinds for score in scores]
        pooled = () if self.kind == "swap" else (OVER_FOLDS,)  # asks for base classes too, which have no rows
        return (*overlap, *AREA, *beside, *pooled)

    @property
    def overlap_scores(self) -> tuple[Score, ...]:
        """What needs objects that are there."""
        kinds = (ANSWERS.get(self.kind, self.kind),)
        fb_iou = FromCounts("foreground_background_iou", kinds=kinds)
        rule = FromCounts("mean_iou", ("foreground",), kinds, lists=self.over_lists)
        return (
            Score("mIoU", shown=("summary",), statistic=rule),
            Score("average_precision", shown=("summary", "table")),
            Score("fb_iou", shown=("summary", "table"), statistic=fb_iou),
            Score("fb_iou_run", statistic=replace(fb_iou, lists="mean")),
            Score("best_threshold_mIoU"),
            Score("mIoU_std_over_lists", better="lower"),
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The protocol's own kind of episodes, and the kinds that it reports beside it."""
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
        items = self.test_items(source, scoring.ids)
        drawn = self.lists(source, items)
        lists: list[tuple[str, int, list[Episode]]] = [(self.kind, seed, episodes) for seed, episodes in drawn.items()]
        if len(self.kinds) > 1:
            lists += [(kind, self.seeds[0], found) for kind, found in self.distractors(items, classes).items()]
        runner = self.runner(scoring.method, source, scoring.batch_size)
        tallies: dict[str, list[EpisodeCounts]] = {}
        with Progress(disable=not scoring.progress or shard()[0] > 0) as bar:
            for number, (kind, seed, episodes) in enumerate(lists, 1):
                task = bar.add_task(f"{self.name} {kind} episodes", total=len(episodes) // self.ways)
                advance = partial(bar.advance, task, shard()[1])
                later = [episode for _, _, after in lists[number:] for episode in after]
                tally = self.tally(runner, episodes, self.ways, kind == "swap", advance, kind, seed, later)
                tallies.setdefault(kind, []).append(tally)
        counted = {kind: EpisodeCounts.merged(parts) for kind, parts in tallies.items()}
        result = self.result(counted, classes, source.classes)
        result.predict_seconds = runner.seconds
        result.items = digest(episode for episodes in drawn.values() for episode in episodes)
        return result

    def lists(self, source: Source, items: Items) -> dict[int, list[Episode]]:
        """The frozen lists."""
        classes = self.indices(source, self.novel)
        return {seed: self.frozen_list(items, classes, self.kind, self.episodes, seed) for seed in self.seeds}

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

    def result(self, counted: Mapping[str, EpisodeCounts], classes: Sequence[int], names: Sequence[str]) -> Result:
        """All scores of the counted episodes of each kind, with intervals of those that follow from counts.

        FB-IoU is pooled over all episodes (`fb_iou`) or over each list, then averaged (`fb_iou_run`); rows per class
        hold what it takes to pool it over folds, which leaderboards do (`fb_iou_pooled`).
        """
        own = counted[self.kind]
        answers = own.of_classes_asked_for(ANSWERS[self.kind]) if self.kind in ANSWERS else own
        parts = [tally.counts for tally in counted.values()]
        whole = Counts.merged([*parts, answers.counts] if answers is not own else parts)
        whole.groups = {"foreground": tuple(range(1, len(names)))}
        predicted, true = answers.shares()
        metrics: Metrics = {} if self.kind == "negative" else self.of_thresholds(answers, classes)
        metrics["predicted_share"] = scored(float(predicted.mean()))
        metrics["true_share"] = scored(float(true.mean()))
        metrics |= measured(whole, self.scores, self.bootstrap)
        return Result(metrics, self.rows(answers.counts, classes, names), whole, pictured=answers.counts)

    def rows(self, counts: Counts, classes: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
        """The row of the background and of each class asked for."""
        rows = class_rows(counts, names, self.bootstrap)
        total = counts.outcomes().sum(0)  # (K, 3)
        episodes = np.bincount([k for asked in counts.asked for k in asked.classes], minlength=len(names))
        for k, row in enumerate(rows):
            row.update(zip(("episodes", "tp", "fp", "fn"), map(int, (episodes[k], *total[k])), strict=True))
        return [rows[k] for k in (0, *classes)]

    def of_thresholds(self, tally: EpisodeCounts, classes: Sequence[int]) -> Metrics:
        """What probabilities say at all thresholds, and how far the lists' scores scatter."""
        of_lists = by_list(tally.counts, tally.counts.outcomes()).sum(0)  # (lists, K, 3)
        return {
            "average_precision": scored(tally.precision(classes)),
            "best_threshold_mIoU": scored(tally.best_iou(classes)),
            "mIoU_std_over_lists": scored(float(np.std(mean_iou(of_lists[:, 1:])))),
        }
