"""Generalised few-shot scoring: a pixel is the background, a base or a novel class, all of them shown by supports.

Ordinary episodes tell a method which classes to look for. Here every image is asked for every class of the data, K
supports each, and a pixel goes to the class of the highest probability among those that claim it (SG-One's rule), so
that novel classes must hold their own against those that training has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import Progress

from segladder.data.sources.base import Source
from segladder.data.sources.items import Items
from segladder.data.training.episodes import digest, draw_all_ways
from segladder.metrics.bootstrap import bootstrap_interval, class_iou
from segladder.metrics.episodes import EpisodeCounts, generalised_scores
from segladder.metrics.overlap import per_class
from segladder.metrics.scores import Score
from segladder.protocols.base import Metrics, Result, Scoring, scored
from segladder.protocols.few_shot import FewShotProtocol
from segladder.protocols.inference import shard

SCORES = (
    Score("mIoU", shown=("summary",), statistic="mean_iou"),
    *(Score(f"{group}_mIoU", shown=("summary", "table")) for group in ("harmonic", "base", "novel")),
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
        """Those of base and novel classes, and how much is painted."""
        return SCORES

    def scored_classes(self, source: Source) -> tuple[str, ...]:
        """All of them, base classes too."""
        return source.classes[1:]

    def ways_among(self, classes: Sequence[int]) -> int:
        """All of them."""
        return len(classes)

    def measure(self, scoring: Scoring) -> Result:
        """Every image is asked for all classes, once a list."""
        source = scoring.source
        runner = self.runner(scoring.method, source, scoring.batch_size)
        novel = self.indices(source, self.novel)
        items = Items.read(source, scoring.among(self.split), self.min_object, self.min_area)
        episodes = [e for seed in self.seeds for e in draw_all_ways(items, self.shots, seed)]
        ways = len(source.classes) - 1
        with Progress(disable=not scoring.progress or shard()[0] > 0) as bar:
            task = bar.add_task(f"{self.name} queries", total=len(episodes) // ways)
            tally = self.tally(runner, episodes, ways, advance=lambda: bar.advance(task, shard()[1]))
        result = self.result(tally, novel, source.classes)
        result.predict_seconds, result.items = runner.seconds, digest(episodes)
        return result

    def result(self, tally: EpisodeCounts, novel: Sequence[int], names: Sequence[str]) -> Result:
        """All scores of the counted queries, with intervals of a bootstrap over images.

        An image counts once in a draw, with what was said of it in all lists.
        """
        outcomes = tally.counts.outcomes().reshape(len(self.seeds), -1, len(names), 3)  # (S, N, K, 3)
        of_images = outcomes.sum(0)
        classes = range(1, len(names))
        base = [k for k in classes if k not in novel]

        def scores(counted: np.ndarray) -> np.ndarray:
            return np.stack(list(generalised_scores(counted, base, novel).values()), -1)  # (..., 4)

        lows, highs = bootstrap_interval(of_images, scores, self.bootstrap)
        whole = generalised_scores(of_images.sum(0), base, novel)
        metrics: Metrics = {
            name: scored(float(value), float(low), float(high))
            for (name, value), low, high in zip(whole.items(), lows, highs, strict=True)
        }
        predicted, true = tally.shares()
        metrics["mIoU_std_over_lists"] = scored(float(scores(outcomes.sum(1))[:, 0].std()))
        metrics["average_precision"] = scored(tally.precision(classes))
        metrics["predicted_share"] = scored(float(predicted.mean()))
        metrics["true_share"] = scored(float(true.mean()))
        rows = per_class(torch.from_numpy(tally.counts.total()), names)
        lows, highs = bootstrap_interval(of_images, class_iou, self.bootstrap)
        for k, row in enumerate(rows):
            row.update(low=float(lows[k]), high=float(highs[k]), novel=k in novel)
        return Result(metrics, rows, tally.counts)
