"""The ladder: one question to methods of every supervision, "where is this novel class?", on every image.

Base classes have masks in every rung but that of `labels=none`. Of the novel classes of a fold, each rung has its own
kind of label on a pool of training images: names, K masks, tags or all masks; a run's supervision says which. A
few-shot method is asked for the class by K supports of the pool. A dense method is not told: its answer is where the
class wins among all of them. Nobody is told whether the class is there: its IoU over all images ranks. The IoU over
those that hold it, which is what counts for someone who knows where the class is, stands beside it as told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np

from segladder.data.hashing import hashed_share
from segladder.data.labels.annotation_cost import Labelling, supports
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.labelled import Labelled
from segladder.data.labels.pool import Pool, pool_of, training_items
from segladder.data.sources.base import Source
from segladder.data.sources.items import Items, MinObject, items_of
from segladder.data.training.episodes import Episode, digest
from segladder.data.training.views import Episodes, HiddenClasses, Images, TrainingView
from segladder.errors import DataError
from segladder.methods.base import Method
from segladder.methods.few_shot.base import Aggregate
from segladder.metrics.class_rows import class_rows
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.formulas import class_iou, mean_iou
from segladder.metrics.ladder import among_all
from segladder.metrics.overlap import COLUMNS
from segladder.metrics.scores import FromCounts, Score
from segladder.protocols.asking import (
    CROWDED,
    DENSE,
    EVERYWHERE,
    LACKING,
    TOLD,
    Answers,
    Asker,
    BaseClasses,
    DenseAsker,
    EpisodeAsker,
    Questions,
    asked_of_base,
)
from segladder.protocols.base import Picture, Place, Protocol, Result, Scoring, Shown, measured
from segladder.protocols.episode_runner import EpisodeRunner, InputSize, few_shot_method
from segladder.protocols.fields import Presence, check_joins
from segladder.protocols.seen_unseen import Calibrated
from segladder.protocols.zero_shot import ZeroShotProtocol
from segladder.settings import Count, Positive, Seed

NOVEL = ("novel",)
SCORES = (
    Score("mIoU", shown=("summary", "curve"), statistic=FromCounts("mean_iou", NOVEL, EVERYWHERE)),
    Score("told_mIoU", "told mIoU", shown=("summary", "table"), statistic=FromCounts("mean_iou", NOVEL, TOLD)),
    Score("hard_mIoU", shown=("summary", "table"), statistic=FromCounts("mean_iou", NOVEL, (CROWDED,))),
    Score(
        "negative_area",
        better="lower",
        shown=("summary", "table"),
        statistic=FromCounts("painted_background", kinds=(LACKING,)),
        remark="Where the class is not there, {rung} paints {score} of the image",
    ),
    Score("base_mIoU", shown=("summary", "table"), statistic=FromCounts("mean_iou", ("base",), (DENSE,))),
    Score(
        "harmonic_mIoU",
        shown=("summary", "table", "curve"),
        statistic=FromCounts("harmonic_mean_iou", ("base", "novel"), (DENSE,)),
    ),
    *(Score(f"{group}_mIoU", shown=("curve",)) for group in ("seen", "unseen")),  # base and novel classes, by gamma
    Score("gamma", unit="number", better="", shown=("summary",)),
    Score("least_sure", unit="number", better="", shown=("summary",)),  # of presence=calibrated
)


@dataclass(frozen=True)
class LadderProtocol(Calibrated):
    """Novel classes of a fold, asked for one by one on every image of the split.

    Zero-shot methods are calibrated; `presence=calibrated` looks at as many images as `gamma_images` says.

    Args:
        supervision: of the run's method, which decides what training may see; no part of the hash, like `fold`, `pool`
            and `shots`: all rungs stand in one table.
        pool: how many training images have labels of novel classes; None for all (the ceiling), 0 for none (the floor).
        pool_seed: which images these are, and with them the supports.
        presence: how a few-shot method says that a class is not there, as in `EpisodeAsker`; no part of the hash.
        shots: masks of each novel class that a few-shot method is given, from the pool.
        min_object: which objects count, as in `Items.read`, with `min_area`.
        fit: how images reach the network: `native`, or resized to a `square` of `input_side` pixels.
        aggregate: how K supports become one answer, as in `EpisodeRunner`.
    """

    supervisions: ClassVar[tuple[str, ...]] = ("full", "image_level", "few_shot", "zero_shot", "none")
    not_asked: ClassVar[frozenset[str]] = Protocol.not_asked | {"supervision", "shots", "presence"}  # of the rung
    ladder: ClassVar[tuple[str, ...]] = ("told_mIoU", "hard_mIoU", "negative_area", "base_mIoU", "harmonic_mIoU")

    supervision: Literal["full", "image_level", "few_shot", "zero_shot", "none"]
    pool: Count | None
    shots: Positive
    min_object: MinObject
    min_area: Count
    fit: Literal["native", "square"]
    aggregate: Aggregate
    pool_seed: Seed = 0
    presence: Presence = "always"

    def described(self) -> dict[str, Any]:
        """What a record says of the protocol, and of few-shot methods how they say that a class is not there."""
        return super().described() | ({"presence": self.presence} if self.by_supports else {})

    def place(self) -> Place:
        """The fold, and the shots of few-shot methods."""
        return Place(self.fold, self.shots if self.by_supports else None)

    def check_built(self, method: Method) -> None:
        """Raise ConfigError if a few-shot method does not join supports as `aggregate` says."""
        super().check_built(method)
        if self.by_supports:
            check_joins(few_shot_method(method, self.name), self.aggregate, self.name)

    @property
    def by_supports(self) -> bool:
        """Whether the run's method is shown the novel classes when it is asked, not in training."""
        return self.supervision == "few_shot"

    @property
    def by_names(self) -> bool:
        """Whether the run's method knows the novel classes by name alone."""
        return self.supervision == "zero_shot"

    @property
    def by_nobody(self) -> bool:
        """Whether the run's method has no labels, of base classes neither; an oracle names what it finds."""
        return self.supervision == "none"

    @property
    def scores(self) -> tuple[Score, ...]:
        """Scores of every rung, and those that dense methods alone have: of base classes, and under other gammas."""
        return SCORES

    @property
    def columns(self) -> tuple[Score, ...]:
        """Overlap on every image, and on those that hold the class."""
        return (*COLUMNS, Score("told_iou", "told IoU"))

    @property
    def dense(self) -> ZeroShotProtocol:
        """Base and novel classes competing for every pixel: how the answers of dense methods are counted."""
        return ZeroShotProtocol(
            **{field.name: getattr(self, field.name) for field in fields(Calibrated)},
            fit=self.fit,
            split_name="folds",
            unseen=None,
            background="seen",
            unseen_pixels="drop",
            transductive=False,
            score_at="native",
            absent="skip",
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

    def base_indices(self, source: Source) -> list[int]:
        """Indices of the base classes, ascending."""
        return [k for k in np.flatnonzero(self.seen(source)).tolist() if k]

    def labelled(self, source: Source) -> Pool:
        """The training images by what they hold, the pool among them."""
        return pool_of(source, self.indices(source), self.pool, self.min_object, self.min_area, self.pool_seed)

    def training(self, source: Source) -> TrainingView:
        """What training may see: images without novel objects, and of those with some, with labels, the pool."""
        if self.by_names:
            return HiddenClasses(self.novel, "seen", "drop")
        if self.by_supports:
            return Episodes(self.novel, 1, "drop", min_object=self.min_object, min_area=self.min_area)
        if self.by_nobody:
            return Images()
        pool = self.labelled(source)
        return Images((*pool.base, *pool.images), labelled=self.novel)

    def hidden(self) -> tuple[str, ...]:
        """The novel classes, for runs that have no label of them in training."""
        has_none = self.by_names or self.by_supports or self.pool == 0
        return self.novel if has_none and not self.by_nobody else ()  # an oracle that names clusters has all

    def labelled_novel(self, source: Source, labels: Labels) -> list[Labelled]:
        """The pool with the run's labels, of runs that have some in training."""
        if self.by_supports or self.by_names or self.by_nobody or self.pool == 0:
            return []
        pool = self.labelled(source)
        names = {i: tuple(source.classes[k] for k, held in pool.holders.items() if i in held) for i in pool.images}
        return [Labelled.holding(source, labels, self.novel, names)]

    def supports(self, source: Source) -> list[Labelling]:
        """K masks of each novel class, of runs that are shown these when they are asked."""
        return [supports(self.shots, len(self.novel))] if self.by_supports else []

    def judges(self, source: Source) -> Sequence[str]:
        """Images that choose gamma, of runs that know novel classes by name, or that say which class is there."""
        base = self.base(source) if self.by_supports else None
        if base is not None:
            asked = base.images if self.presence == "calibrated" else ()
            return [*(i for held in base.supports.values() for i in held), *asked]
        return self.dense.judges(source) if self.by_names else ()

    def check_items(self, source: Source) -> None:
        """Raise DataError if no image to score holds a novel class, or too few show it to a few-shot method."""
        self.questions(source)
        if self.by_supports:
            self.annotated(source)
            self.base(source)

    def questions(self, source: Source, ids: Sequence[str] | None = None) -> Questions:
        """What images are asked, those of the split or some. Raises DataError where none holds a novel class."""
        items = items_of(source, self.split, ids, self.min_object, self.min_area)
        questions = Questions.of(items, self.indices(source))
        if not set(TOLD) & set(questions.kinds.values()):
            raise DataError(f"{source.name}: no image of {self.split} holds an object of {', '.join(self.novel)}")
        return questions

    def measure(self, scoring: Scoring) -> Result:
        """Answers to every question; supports are training images. Raises DataError where no image holds a class."""
        source = scoring.source
        questions = self.questions(source, scoring.ids)
        answers = self.asker(scoring).answers(questions)
        result = self.result(questions, answers, source)
        result.curve, result.swept_at, result.predict_seconds = answers.curve, answers.swept_at, answers.seconds
        result.items = digest(Episode(image_id, k, (), 0) for image_id, k in questions.kinds)
        return result

    def asker(self, scoring: Scoring) -> Asker:
        """What asks a method in the way that it answers."""
        if scoring.method.answers != "episodes":
            return DenseAsker(scoring, self.dense)
        return self.by_episodes(scoring, self.annotated(scoring.source), self.split)

    def annotated(self, source: Source) -> dict[int, tuple[str, ...]]:
        """The images whose masks show each novel class. Raises DataError if the pool has too few."""
        pool = self.labelled(source)
        return {k: pool.supports(k, self.shots, source.classes[k]) for k in self.indices(source)}

    def by_episodes(self, scoring: Scoring, shown: Mapping[int, tuple[str, ...]], title: str) -> EpisodeAsker:
        """What asks a few-shot method for the classes that it is shown."""
        source, size = scoring.source, InputSize(self.fit, self.input_side)
        method = few_shot_method(scoring.method, self.name)
        runner = EpisodeRunner(method, source, size, self.aggregate, scoring.batch_size)
        return EpisodeAsker(scoring, runner, shown, f"{self.name} {title}", self.presence, self.base(source))

    def check_held_out(self, source: Source, ids: Sequence[str]) -> None:
        """Raise ConfigError if a few-shot method finds too few of the images to be asked for base classes."""
        if self.by_supports:
            self.of_held_out(source, ids)

    def of_held_out(self, source: Source, ids: Sequence[str]) -> tuple[Mapping[int, tuple[str, ...]], Questions]:
        """Base classes on held-out images, K of each its supports. Raises ConfigError: too few images."""
        items = Items.read(source, ids, self.min_object, self.min_area)
        return asked_of_base(items, self.base_indices(source), self.shots, self.pool_seed)

    def on_held_out(self, scoring: Scoring) -> tuple[EpisodeAsker, Questions]:
        """What asks for base classes on held-out images. Raises ConfigError: too few images."""
        shown, questions = self.of_held_out(scoring.source, scoring.ids or ())
        return replace(self, presence="always").by_episodes(scoring, shown, "held out"), questions

    def base(self, source: Source) -> BaseClasses | None:
        """Base classes with supports among the images that training has masks of, where presence is asked of them.

        Raises:
            DataError: too few such images.
        """
        if self.presence == "always":
            return None
        items = training_items(source, self.min_object, self.min_area).without(self.indices(source))
        found = BaseClasses.of(items, self.base_indices(source), self.shots, self.gamma_images, self.pool_seed)
        if not found.supports or not found.images:
            raise DataError(
                f"{source.name}: too few training images without {', '.join(self.novel)} for"
                f" protocol.presence={self.presence} with protocol.shots={self.shots}"
            )
        return found

    def result(self, questions: Questions, answers: Answers, source: Source) -> Result:
        """The scores of all answers, with intervals of those that follow from counts."""
        counts = self.counts(questions, answers, source)
        for of_image, matrix in answers.dense.rows() if answers.dense is not None else ():
            counts.add(of_image._replace(kind=DENSE), matrix)
        counts = counts.sorted()
        metrics = {**answers.beside, **measured(counts, SCORES, self.bootstrap)}
        pictured = counts.of_kinds(*TOLD).by_image()
        return Result(metrics, self.rows(counts, questions, source.classes), counts, pictured=pictured)

    def counts(self, questions: Questions, answers: Answers, source: Source) -> Counts:
        """The answers to questions."""
        counts = Counts(len(source.classes), {"novel": self.indices(source), "base": self.base_indices(source)})
        for (image_id, k), kind in questions.kinds.items():
            counts.add(Asked(image_id, (k,), kind), among_all(answers.confusions[image_id, k], k, counts.num_classes))
        return counts

    def rows(self, counts: Counts, questions: Questions, names: Sequence[str]) -> list[dict[str, Any]]:
        """The row of each novel class."""
        rows = class_rows(counts.of_kinds(*EVERYWHERE), names, self.bootstrap)
        told, hard = (class_iou(counts.of_kinds(*kinds).outcomes().sum(0)) for kinds in (TOLD, (CROWDED,)))
        for k in counts.groups["novel"]:
            rows[k].update(images=len(questions.holders(k)), told_iou=float(told[k]), hard_iou=float(hard[k]))
        return [rows[k] for k in counts.groups["novel"]]

    def held_out_score(self, scoring: Scoring) -> float:
        """Mean IoU of base classes; a few-shot method is asked for them as it is for novel ones."""
        source, dense = scoring.source, self.dense
        if self.by_supports:
            asker, questions = self.on_held_out(scoring)
            counts = self.counts(questions, asker.answers(questions), source)
            return float(mean_iou(counts.outcomes().sum(0), list(asker.supports)))
        sweep, _ = dense.sweep(scoring, scoring.ids or (), HiddenClasses(self.novel, "seen").table(source.classes))
        return float(np.nan_to_num(dense.swept_scores(sweep, source).by_gamma["seen_mIoU"][dense.grid.index(0.0)]))

    def glimpses(self, scoring: Scoring, count: int) -> Iterator[Shown]:
        """Answers on held-out images, of few-shot methods for the base classes that these hold."""
        if not self.by_supports:
            return (yield from super().glimpses(scoring, count))
        asker, questions = self.on_held_out(scoring)
        for image_id in sorted(questions.ids, key=hashed_share)[:count]:
            yield image_id, asker.picture(Asked(image_id), Result({}, [], Counts(len(scoring.source.classes))))

    @property
    def held_out_by(self) -> Score:
        """Mean IoU of base classes."""
        return Score("base_mIoU", "base mIoU")

    def shown(self, method: Method, source: Source, item: Asked, result: Result) -> Picture:
        """An image as its method was asked: with all classes, or with novel ones and their first supports."""
        return self.asker(Scoring(method, source, batch_size=1)).picture(item, result)
