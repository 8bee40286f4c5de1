"""Generalised few-shot scoring: a pixel is the background, a base or a novel class, all of them shown by supports.

Ordinary episodes tell a method which classes to look for. Here every image is asked for every class of the data, K
supports each, and a pixel goes to the class of the highest probability among those that claim it (SG-One's rule), so
that novel classes must hold their own against those that training has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from rich.progress import Progress

from segladder.data.sources.base import Source
from segladder.data.sources.items import Items
from segladder.data.training.episodes import Episode, digest, draw_all_ways
from segladder.metrics.class_rows import class_rows
from segladder.metrics.episodes import EpisodeCounts
from segladder.metrics.formulas import by_list, mean_iou
from segladder.metrics.scores import FromCounts, Score
from segladder.protocols.base import Metrics, Result, Scoring, measured, scored
from segladder.protocols.few_shot import FewShotProtocol
from segladder.protocols.inference import shard

OF_GROUPS = {
    "harmonic": FromCounts("harmonic_mean_iou", ("base", "novel")),
    **{group: FromCounts("mean_iou", (group,)) for group in ("base", "novel")},
}
SCORES = (
    Score("mIoU", shown=("summary",), statistic=FromCounts("mean_iou")),
    *(Score(f"{group}_mIoU", shown=("summary", "table"), statistic=rule) for group, rule in OF_GROUPS.items()),
    Score("average_precision", shown=("summary", "table")),
    Score("predicted_share", better="", shown=("summary", "table")),
    Score("true_share", better="", shown=("summary",)),
    Score("mIoU_std_over_lists", better="lower"),
)


@dataclass(frozen=True)
class GeneralisedProtocol(FewShotProtocol):
    """Every image of the split that holds a class, asked for all classes at once, once for each of `seeds`."""

    @property
    def scores(self) -> tuple[Score, ...]:
        """Scores of base and novel classes, and how much is painted."""
        rules = [s.statistic and replace(s.statistic, lists=self.over_lists) for s in SCORES]
        return tuple(replace(score, statistic=rule) for score, rule in zip(SCORES, rules, strict=True))

    def scored_classes(self, source: Source) -> tuple[str, ...]:
        """All of them, base classes too."""
        return source.classes[1:]

    def ways_among(self, classes: Sequence[int]) -> int:
        """All of them."""
        return len(classes)

    def lists(self, source: Source, items: Items) -> dict[int, list[Episode]]:
        """Every image, asked for every class."""
        return {seed: draw_all_ways(items, self.shots, seed) for seed in self.seeds}

    def measure(self, scoring: Scoring) -> Result:
        """Every image is asked for all classes, once a list."""
        source = scoring.source
        runner = self.runner(scoring.method, source, scoring.batch_size)
        novel = self.indices(source, self.novel)
        items = self.test_items(source, scoring.ids)
        lists = self.lists(source, items)
        ways = len(source.classes) - 1
        with Progress(disable=not scoring.progress or shard()[0] > 0) as bar:
            task = bar.add_task(f"{self.name} queries", total=sum(map(len, lists.values())) // ways)
            advance = partial(bar.advance, task, shard()[1])
            parts, later = [], [episode for episodes in lists.values() for episode in episodes]
            for seed, episodes in lists.items():
                later = later[len(episodes) :]
                parts.append(self.tally(runner, episodes, ways, advance=advance, drawn_by=seed, later=later))
        result = self.result(EpisodeCounts.merged(parts), novel, source.classes)
        result.predict_seconds = runner.seconds
        result.items = digest(episode for episodes in lists.values() for episode in episodes)
        return result

    def result(self, tally: EpisodeCounts, novel: Sequence[int], names: Sequence[str]) -> Result:
        """All scores of the counted queries, with intervals of those that follow from counts."""
        counts, classes = tally.counts, range(1, len(names))
        counts.groups = {"base": tuple(k for k in classes if k not in novel), "novel": tuple(novel)}
        predicted, true = tally.shares()
        of_lists = by_list(counts, counts.outcomes()).sum(0)  # (lists, K, 3)
        metrics: Metrics = {
            "mIoU_std_over_lists": scored(float(np.std(mean_iou(of_lists)))),
            "average_precision": scored(tally.precision(classes)),
            "predicted_share": scored(float(predicted.mean())),
            "true_share": scored(float(true.mean())),
        }
        metrics |= measured(counts, self.scores, self.bootstrap)
        rows = class_rows(counts, names, self.bootstrap)
        for k, row in enumerate(rows):
            row["novel"] = k in novel
        return Result(metrics, rows, counts)
