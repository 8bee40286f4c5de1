"""The ladder: one question to methods of every supervision, "where is this novel class?", on the same images.

Base classes have masks in every rung. Of the novel classes of a fold, each rung has its own kind of label on a pool of
training images: names, K masks, tags or all masks; a run's supervision says which. A few-shot method is asked for the
class by K supports of the pool. A dense method is not told: its answer is where the class wins among all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from rich.progress import Progress

from segladder.data.hashing import hashed_seed
from segladder.data.labels.pool import Pool, pool_of
from segladder.data.labels.prices import Labelling, supports
from segladder.data.labels.seen_labels import SeenLabels
from segladder.data.sources.base import IGNORE, Source
from segladder.data.sources.items import Items
from segladder.data.training.episodes import Episode, digest
from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method
from segladder.methods.few_shot.base import FewShotMethod
from segladder.methods.image_level.base import TagMethod
from segladder.metrics.bootstrap import Statistic, bootstrap_interval, class_iou
from segladder.metrics.confusion import confusion_matrix
from segladder.metrics.counts import ImageCounts
from segladder.metrics.episodes import novel_mean_iou
from segladder.metrics.ladder import asked, painted_share
from segladder.metrics.overlap import per_class
from segladder.metrics.scores import Score
from segladder.metrics.zero_shot import GammaSweep, group_iou, harmonic
from segladder.protocols.base import Metrics, Picture, Protocol, Result, scored
from segladder.protocols.cam_seeds import heat_map
from segladder.protocols.episode_runner import EpisodeRunner, InputSize, merged
from segladder.protocols.few_shot import outlined
from segladder.protocols.inference import gathered, resized, shard, to_pixels
from segladder.protocols.zero_shot import GAMMAS, ZeroShotProtocol

Confusions = Mapping[tuple[str, int], np.ndarray]  # (K, K) of each image asked for a class
SCORES = (
    Score("mIoU", shown=("summary", "curve"), statistic="foreground_mean_iou"),
    *(Score(f"{group}_mIoU", shown=("curve",)) for group in ("seen", "unseen")),  # base and novel classes, by gamma
    Score("harmonic_mIoU", shown=("summary", "table", "curve")),
    *(Score(f"{group}_mIoU", shown=("summary", "table")) for group in ("base", "novel")),
    Score("gamma", unit="number", better="", shown=("summary",)),
    Score("hard_mIoU", shown=("summary", "table"), remark="Beside another object {rung} reaches {score}"),
    Score(
        "negative_area",
        better="lower",
        shown=("summary", "table"),
        remark="where the class is not there, it paints {score} of the image",
    ),
)
NOT_THE_SCORE = ("supervision", "fold", "pool", "shots")  # fields of the rung, not of what is measured


@dataclass(frozen=True)
class Questions:
    """Which images are asked for which classes, by image id.

    Attributes:
        held: novel classes of which the image holds an object.
        lacking: novel classes of which it holds no pixel.
        crowded: images of `held` that also hold an object of another foreground class.
    """

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
        return cls(held, lacking, [i for i in held if len(kept[i]) > 1])

    def pairs(self) -> list[tuple[str, int]]:
        """All (image, class) pairs, those with the class first."""
        return [(i, k) for group in (self.held, self.lacking) for i, classes in group.items() for k in classes]


@dataclass(frozen=True)
class LadderProtocol(Protocol):
    """Novel classes of a fold, asked for one by one on images that hold them and on images that do not.

    Args:
        supervision: of the run's method, which decides what training may see; no part of the hash, like `fold`, `pool`
            and `shots`: all rungs stand in one table.
        classes: foreground classes in the order of their indices; None means all of the data set.
        other_classes: what pixels of the data set's other classes are, `ignore` or `background`.
        folds: class names of each fold; those of the run's fold are novel, all others base.
        fold: the run's fold.
        pool: how many training images have labels of novel classes; None for all (the ceiling), 0 for none (the floor
            of dense methods).
        shots: masks of each novel class that a few-shot method is given, from the pool.
        min_object: which objects count, as in `Items.read`, with `min_area`.
        negatives: images without the class that each class is asked for on.
        fit: how images reach the network: `native`, or resized to a `square` of `input_side` pixels.
        aggregate: how K supports become one answer, as in `EpisodeRunner`.
        gamma_on: how zero-shot methods are calibrated, with `gammas`, `gamma_rule`, `gamma`, `seen_kept` and
            `gamma_images`: as in `ZeroShotProtocol`.
        bootstrap: resamples over images behind each 95 % interval.
    """

    supervisions: ClassVar[tuple[str, ...]] = ("full", "image_level", "few_shot", "zero_shot")
    swept: ClassVar[str] = "gamma"
    ladder: ClassVar[tuple[str, ...]] = ("base_mIoU", "harmonic_mIoU", "hard_mIoU", "negative_area")

    supervision: str
    classes: tuple[str, ...] | None
    other_classes: str
    folds: tuple[tuple[str, ...], ...]
    fold: int
    pool: int | None
    shots: int
    min_object: str
    min_area: int
    negatives: int
    fit: str
    input_side: int | None
    aggregate: str
    gamma_on: str
    gammas: tuple[float, ...]
    gamma_rule: str
    gamma: float
    seen_kept: float
    gamma_images: int
    bootstrap: int

    def fields(self) -> dict[str, Any]:
        """All fields in plain JSON types but those of the rung."""
        return {key: value for key, value in super().fields().items() if key not in NOT_THE_SCORE}

    def place(self) -> dict[str, int | None]:
        """The fold, and the shots of few-shot methods."""
        return {"fold": self.fold, "shots": self.shots if self.supervision == "few_shot" else None}

    @property
    def scores(self) -> tuple[Score, ...]:
        """Those of every rung; base classes, and what gamma gives, are of dense methods."""
        return SCORES

    @property
    def dense(self) -> ZeroShotProtocol:
        """Base and novel classes competing for every pixel: how the answers of dense methods are counted."""
        return ZeroShotProtocol(
            name=self.name,
            dataset=self.dataset,
            split=self.split,
            classes=self.classes,
            other_classes=self.other_classes,
            split_name="folds",
            unseen=None,
            folds=self.folds,
            fold=self.fold,
            background="seen",
            unseen_pixels="drop",
            transductive=False,
            gamma_on=self.gamma_on,
            gammas=self.gammas,
            gamma_rule=self.gamma_rule,
            gamma=self.gamma,
            seen_kept=self.seen_kept,
            gamma_images=self.gamma_images,
            fit=self.fit,
            input_side=self.input_side,
            score_at="native",
            absent="skip",
            bootstrap=self.bootstrap,
        )

    @property
    def novel(self) -> tuple[str, ...]:
        """Names of the fold's classes. Raises ConfigError for a fold there is not."""
        return self.dense.novel

    def indices(self, source: Source) -> tuple[int, ...]:
        """Indices of the novel classes, ascending. Raises ConfigError for a class that the data does not use."""
        return tuple(self.dense.competitors(source)[1])

    def seen(self, source: Source) -> np.ndarray:
        """Which classes are not novel, bool (K,), the background first."""
        return self.dense.seen(source)

    def labelled(self, source: Source) -> Pool:
        """The training images by what they hold, the pool among them."""
        return pool_of(source, self.indices(source), self.pool, self.min_object, self.min_area)

    def training(self, source: Source) -> dict[str, Any]:
        """What training may see: images without novel objects, and of those with some, with tags or masks, the pool."""
        if self.supervision == "zero_shot":
            return {"hidden": self.novel, "background": "seen", "unseen_pixels": "drop"}
        if self.supervision == "few_shot":
            kept = {"min_object": self.min_object, "min_area": self.min_area}
            return {"novel": self.novel, "shots": 1, "novel_pixels": "drop", **kept}
        pool = self.labelled(source)
        return {"ids": [*pool.base, *pool.images]}

    def hidden(self, supervision: str) -> tuple[str, ...]:
        """The novel classes, for runs that have no label of them in training."""
        return self.novel if supervision in ("zero_shot", "few_shot") or self.pool == 0 else ()

    def added_labels(self, source: Source, supervision: str) -> list[Labelling]:
        """What is labelled for the novel classes: nothing, K masks of each, or the pool with tags or masks."""
        if supervision == "zero_shot" or (self.pool == 0 and supervision != "few_shot"):
            return []
        if supervision == "few_shot":
            return [supports(self.shots, len(self.novel))]
        pool, labels = self.labelled(source), {"image_level": "tags", "full": "masks"}[supervision]
        return [Labelling(labels, len(pool.images), len(self.novel), pool.pairs)]

    def score(
        self,
        method: Method,
        source: Source,
        ids: Sequence[str] | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ) -> Result:
        """Score a method on the fold's novel classes; every process of a distributed run calls this.

        Args:
            method: of any supervision, used on the device it is on.
            source: the data set; supports come from its training split.
            ids: images to ask about instead of the split.
            batch_size: images or episodes at once.
            progress: show a progress bar.

        Raises:
            ConfigError: an unknown fold, classes that do not fit, a zero-shot method that has learnt novel classes.
            DataError: too few supports, no image of a novel class, a damaged file.
        """
        started = time.perf_counter()
        scored_ids = source.split(self.split) if ids is None else ids
        novel = self.indices(source)
        questions = Questions.of(Items.read(source, scored_ids, self.min_object, self.min_area), novel, self.negatives)
        if not questions.held:
            raise DataError(f"{source.name}: no image of {self.split} holds an object of {', '.join(self.novel)}")
        beside: Metrics = {}
        curve = None
        if isinstance(method, FewShotMethod):
            confusions, seconds = self.episodes(method, source, questions, batch_size, progress)
        else:
            sweep, index, seconds = self.calibrated(method, source, scored_ids, batch_size, progress)
            counts = sweep.at(index)
            matrices = dict(zip(counts.ids, counts.dense(), strict=True))
            confusions = {(i, k): matrices[i] for i, k in questions.pairs()}
            beside = self.of_base_classes(counts, source)
            if method.supervision == "zero_shot":
                beside["gamma"] = scored(self.dense.grid[index])
                curve = self.along_gamma(sweep, source)
        result = self.result(questions, confusions, source)
        result.metrics |= beside
        result.curve, result.predict_seconds = curve, seconds
        result.seconds = time.perf_counter() - started
        result.items = digest(Episode(image_id, k, (), 0) for image_id, k in questions.pairs())
        return result

    def episodes(
        self, method: FewShotMethod, source: Source, questions: Questions, batch_size: int, progress: bool
    ) -> tuple[Confusions, float]:
        """Answers of a few-shot method, a pass of its decoder for each question; and the seconds of prediction."""
        rank, world = shard()
        runner = self.runner(method, source, batch_size)
        pairs = questions.pairs()[rank::world]
        found: dict[tuple[str, int], np.ndarray] = {}
        training = method.training
        method.eval()
        with Progress(disable=not progress or rank > 0) as bar, torch.inference_mode():
            task = bar.add_task(f"{self.name} {self.split}", total=len(pairs))
            for answer in runner.answers(self.asking(source, pairs)):
                k = answer.episode.class_index
                prediction, truth = (torch.from_numpy(m) for m in (answer.prediction * np.uint8(k), answer.truth))
                found[answer.episode.query, k] = confusion_matrix(prediction, truth, len(source.classes)).numpy()
                bar.advance(task)
        method.train(training)
        whole = {pair: matrix for part in gathered(found) for pair, matrix in part.items()}
        return whole, runner.seconds

    def runner(self, method: FewShotMethod, source: Source, batch_size: int) -> EpisodeRunner:
        """What asks a few-shot method."""
        return EpisodeRunner(method, source, InputSize(self.fit, self.input_side), self.aggregate, batch_size)

    def asking(self, source: Source, pairs: Iterable[tuple[str, int]]) -> list[Episode]:
        """Episodes that ask images for classes, each class with the same supports throughout."""
        pool = self.labelled(source)
        shown = {k: pool.supports(k, self.shots, source.classes[k]) for k in self.indices(source)}
        return [Episode(image_id, k, shown[k], 0) for image_id, k in pairs]

    def calibrated(
        self, method: Method, source: Source, ids: Sequence[str], batch_size: int, progress: bool
    ) -> tuple[GammaSweep, int, float]:
        """A dense method's answers under every gamma, the position of the one that counts, seconds of prediction.

        Gamma 0 is the plain argmax; only zero-shot methods have another, by the rule.
        """
        dense = self.dense
        if method.supervision == "zero_shot":
            dense.check(method, source)
        sweep, seconds = dense.sweep(method, source, ids, np.arange(256, dtype=np.uint8), batch_size, progress)
        index = dense.grid.index(0.0)
        if method.supervision == "zero_shot":
            index = dense.chosen(method, source, sweep, batch_size, progress)
        GAMMAS[method] = dense.grid[index]
        return sweep, index, seconds

    def result(self, questions: Questions, confusions: Confusions, source: Source) -> Result:
        """The scores of all methods, with intervals from a bootstrap over images."""
        size = len(source.classes)
        held, lacking = (_counted(group, confusions, size) for group in (questions.held, questions.lacking))
        outcomes, hard = held.outcomes(), held.select(questions.crowded).outcomes()  # (N, K, 3)
        metrics = {
            "mIoU": self.with_interval(outcomes, novel_mean_iou),
            "hard_mIoU": self.with_interval(hard, novel_mean_iou) if len(hard) else scored(float("nan")),
            "negative_area": self.with_interval(lacking.outcomes(), painted_share),
        }
        rows = per_class(torch.from_numpy(held.total()), source.classes)
        lows, highs = bootstrap_interval(outcomes, class_iou, self.bootstrap)
        of_hard = class_iou(hard.sum(0))
        for k, row in enumerate(rows):
            images = sum(k in classes for classes in questions.held.values())
            row.update(low=float(lows[k]), high=float(highs[k]), hard_iou=float(of_hard[k]), images=images)
        return Result(metrics, [rows[k] for k in self.indices(source)], held)

    def of_base_classes(self, counts: ImageCounts, source: Source) -> Metrics:
        """Means over base and novel classes where all compete on all images, and the harmonic mean of both."""
        base, novel = self.dense.foreground(source)
        statistics: dict[str, Statistic] = {
            "base_mIoU": lambda outcomes: group_iou(outcomes, base),
            "novel_mIoU": lambda outcomes: group_iou(outcomes, novel),
            "harmonic_mIoU": lambda outcomes: harmonic(group_iou(outcomes, base), group_iou(outcomes, novel)),
        }
        outcomes = counts.outcomes()
        return {name: self.with_interval(outcomes, statistic) for name, statistic in statistics.items()}

    def along_gamma(self, sweep: GammaSweep, source: Source) -> list[dict[str, float]]:
        """Scores of base (seen) and novel (unseen) classes under each gamma."""
        return self.dense.swept_scores(sweep, source).curve()

    def with_interval(self, outcomes: np.ndarray, statistic: Statistic) -> dict[str, float | None]:
        """A score of outcomes (N, K, 3) with its interval over images."""
        low, high = bootstrap_interval(outcomes, statistic, self.bootstrap)
        return scored(float(statistic(outcomes.sum(0))), float(low), float(high))

    def selection_score(self, method: Method, source: Source, ids: Sequence[str] | None, batch_size: int) -> float:
        """What chooses a checkpoint: mean IoU of base classes on held-out ids, or (oracle) the score that ranks.

        Raises:
            ConfigError: held-out ids for a few-shot method.
        """
        if ids is None:
            return super().selection_score(method, source, ids, batch_size)
        if isinstance(method, FewShotMethod):
            raise ConfigError(f"selection=held_out: protocol={self.name} offers it to dense methods alone; use fixed")
        table = SeenLabels(self.novel, "seen").table(source.classes)
        sweep, _ = self.dense.sweep(method, source, ids, table, batch_size)
        return float(
            np.nan_to_num(self.dense.swept_scores(sweep, source).by_gamma["seen_mIoU"][self.dense.grid.index(0.0)])
        )

    @torch.inference_mode()
    def fires(self, method: TagMethod, source: Source, item: str) -> np.ndarray:
        """The best class score in 0..1 at each pixel (H, W) of an image, among the classes that it holds."""
        image, tags = source.image(item), torch.from_numpy(source.tags(item))[None]
        pixels = to_pixels([image], None, method.device)
        scores = method.class_scores((), pixels, tags.to(pixels.device), (1.0,), False)
        of_classes = scores[:, scores.shape[1] - tags.shape[1] :]  # without a background
        return resized(of_classes, image.shape[:2])[0].amax(0).cpu().numpy()

    def shown(self, method: Method, source: Source, item: str) -> Picture:
        """An image with all classes of a dense method, and where one of tags fires when told the tags; with a few-shot
        method's novel ones and their first supports."""
        image, mask = source.pair(item)
        if not isinstance(method, FewShotMethod):
            if method not in GAMMAS:
                self.score(method, source)
            picture = self.dense.shown(method, source, item)
            if isinstance(method, TagMethod):
                picture.beside["scores of its classes"] = heat_map(image, self.fires(method, source, item))
            return picture
        held = [k for k in self.indices(source) if (mask == k).any()]
        runner, episodes = (
            self.runner(method.eval(), source, batch_size=1),
            self.asking(source, [(item, k) for k in held]),
        )
        with torch.inference_mode():
            prediction = merged(list(runner.answers(episodes)))
        truth = np.where(np.isin(mask, [*held, IGNORE]), mask, np.uint8(0))
        beside = {}
        for episode in episodes:
            support, k = episode.supports[0], episode.class_index
            beside[f"support: {source.classes[k]}"] = outlined(source.image(support), runner.support_mask(support, k))
        return Picture(image, truth, prediction, beside)


def _counted(groups: Mapping[str, Sequence[int]], confusions: Confusions, num_classes: int) -> ImageCounts:
    """For each image the answers for its classes as one matrix, by image id."""
    counts = ImageCounts(num_classes)
    for image_id in sorted(groups):
        counts.add(image_id, sum(asked(confusions[image_id, k], [k]) for k in groups[image_id]))
    return counts
