"""What every protocol shares: a name, a hash over all that changes its numbers, and the form of a Result."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from segladder.data.hashing import hashed_fields, hashed_share
from segladder.data.labels.annotation_cost import Labelling
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.labelled import Labelled
from segladder.data.labels.pool import Pool
from segladder.data.sources.base import Source
from segladder.data.training.views import Images, TrainingView
from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.methods.base import Method
from segladder.metrics.bootstrap import estimate
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.declaration import Declaration
from segladder.metrics.overlap import COLUMNS
from segladder.metrics.scores import Score
from segladder.protocols.fields import check_fields


@dataclass(frozen=True)
class Protocol(ABC):
    """A named way of measuring; equal hashes mean comparable numbers.

    Args:
        name: public name, the file name of its yaml.
        dataset: the data set it measures on.
        split: the split that is scored.
    """

    supervisions: ClassVar[tuple[str, ...]]  # of the methods it can score
    resampled: ClassVar[str] = "images"  # what the bootstrap draws
    swept: ClassVar[str] = ""  # what a result's curve runs along
    ladder: ClassVar[tuple[str, ...] | None] = None  # of a ladder: the scores beside each rung's cost
    gives_flow: ClassVar[bool] = False  # whether methods are shown how the pixels of videos move
    needs_background: ClassVar[bool] = True  # whether its questions tell objects from a background
    on_training_images: ClassVar[bool] = False  # whether training may see the scored images, though not their labels
    not_asked: ClassVar[frozenset[str]] = frozenset({"fold", "pool", "pool_seed"})  # fields that no hash holds

    name: str
    dataset: str
    split: str

    def __post_init__(self) -> None:
        check_fields(self)

    def score(
        self,
        method: Method,
        source: Source,
        ids: Sequence[str] | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ) -> Result:
        """Score a method; every process of a distributed run calls this and gets the whole result.

        Args:
            method: of one of `supervisions`, used on the device it is on.
            source: the data set.
            ids: images to score instead of the split.
            batch_size: images or episodes of one forward pass.
            progress: show a progress bar.

        Raises:
            ConfigError: a method, classes or fields that do not fit.
            DataError: too few images, or a damaged file.
            ValueError: the protocol gave a score that it does not declare.
        """
        started = time.perf_counter()
        self.check_source(source)
        result = self.measure(Scoring(method, source, ids, batch_size, progress))
        self.check_result(result)
        result.seconds = time.perf_counter() - started
        return result

    @abstractmethod
    def measure(self, scoring: Scoring) -> Result:
        """What `score` returns, but for its `seconds`."""

    def selection_score(self, method: Method, source: Source, ids: Sequence[str] | None, batch_size: int) -> float:
        """The score that chooses a checkpoint, higher is better: on held-out `ids`, or (oracle) on the split.

        Args:
            method: as of `score`, like `batch_size`.
            source: the data set.
            ids: held-out images; None for the score that ranks on the split itself.
        """
        scoring = Scoring(method, source, ids, batch_size)
        return self.ranking_score(scoring) if ids is None else self.held_out_score(scoring)

    def held_out_score(self, scoring: Scoring) -> float:
        """The score that chooses a checkpoint on held-out images by pixels: the one that ranks, if nothing is better.

        `scoring.source` shows the labels of training; where these are tags, `classification_score` chooses instead.
        """
        return self.ranking_score(scoring)

    @property
    def held_out_by(self) -> Score:
        """What `held_out_score` is, times -1 where lower is better."""
        return self.declaration[self.ranked_by]

    def glimpses(self, scoring: Scoring, count: int) -> Iterator[Shown]:
        """Answers on so many of `scoring.ids`, always the same ones; the truth of novel classes is not shown."""
        nothing = Result({}, [], Counts(len(scoring.source.classes)))
        novel = np.flatnonzero(~self.seen(scoring.source))
        for image_id in sorted(scoring.ids or (), key=hashed_share)[:count]:
            asked = Asked(image_id, unit=self.unit_of(image_id))
            picture = self.shown(scoring.method, scoring.source, asked, nothing)
            truth = np.where(np.isin(picture.truth, novel), np.uint8(IGNORE), picture.truth)
            yield image_id, picture._replace(truth=truth)

    def unit_of(self, image_id: str) -> str:
        """What is drawn by a bootstrap where that is not the image, see `Asked`."""
        return ""

    def ranking_score(self, scoring: Scoring) -> float:
        """The score that ranks, negative where lower is better; 0 where there is none."""
        value = self.measure(scoring).metrics[self.ranked_by]["value"]
        return self.declaration[self.ranked_by].sign * (value or 0.0)

    def check_result(self, result: Result) -> None:
        """Raise ValueError if a result holds a score that the protocol does not declare."""
        declared = {score.name for score in self.scores} | {self.swept}
        held = {self.ranked_by, *result.metrics, *(name for row in result.curve or [] for name in row)}
        if missing := sorted(held - declared):
            raise ValueError(f"protocol {self.name}: {missing[0]} is not declared, expected it among its `scores`")

    @abstractmethod
    def shown(self, method: Method, source: Source, item: Asked, result: Result) -> Picture:
        """What a panel of a scored item shows; `item` is one of those asked in the method's `result.pictured`."""

    def check_method(self, name: str, supervision: str) -> None:
        """Raise ConfigError if methods of this supervision cannot be scored."""
        if supervision not in self.supervisions:
            raise ConfigError(
                f"protocol={self.name} scores {', '.join(self.supervisions)} methods, but method={name} is"
                f" {supervision}"
            )

    def check_built(self, method: Method) -> None:
        """Raise ConfigError, before anything is trained, if this method cannot be scored as the fields say."""
        self.check_method(method.name, method.supervision)
        if method.reads_flow and not self.gives_flow:
            raise ConfigError(
                f"protocol={self.name} shows single images, but method={method.name} reads the optical flow of videos:"
                " choose protocol=davis2016_automatic"
            )

    def check_source(self, source: Source) -> None:
        """Raise ConfigError if the data set has no background and the protocol's questions need one."""
        if self.needs_background:
            source.require_background(f"protocol={self.name}")

    def check_items(self, source: Source) -> None:  # noqa: B027
        """Raise DataError if the images hold too little of a class for what is asked: before training, not after it."""

    def check_held_out(self, source: Source, ids: Sequence[str]) -> None:  # noqa: B027
        """Raise ConfigError if held-out images hold too little for `held_out_score`: before training, too."""

    @property
    @abstractmethod
    def scores(self) -> tuple[Score, ...]:
        """What this protocol measures, in the order that reports show it in; a result holds nothing else."""

    @property
    def columns(self) -> tuple[Score, ...]:
        """What a result's rows per class hold; the first sums a row up."""
        return COLUMNS

    @property
    def ranked_by(self) -> str:
        """The score that ranks runs and, with `selection=oracle`, chooses a checkpoint."""
        return "mIoU"

    @property
    def declaration(self) -> Declaration:
        """All that reports need to know of the scores."""
        return Declaration(self.scores, self.columns, self.ranked_by, self.resampled, self.swept, self.ladder)

    @property
    def novel(self) -> tuple[str, ...]:
        """Names of the novel or unseen classes, where the protocol has any."""
        return ()

    def of_fold(self, folds: Sequence[Sequence[str]], fold: int) -> tuple[str, ...]:
        """Names of the classes of a fold. Raises ConfigError for a fold there is not."""
        if not folds:
            raise ConfigError(f"protocol {self.name}: data={self.dataset} has no folds of classes, set data.folds")
        if not 0 <= fold < len(folds):
            raise ConfigError(f"fold={fold}: {self.dataset} has folds 0..{len(folds) - 1}")
        return tuple(folds[fold])

    def training(self, source: Source) -> TrainingView:
        """What training may see of a source: all images with their labels, unless the protocol hides some."""
        return Images()

    def labelled(self, source: Source) -> Pool | None:
        """Which training images have labels of novel classes and which hold none; None where that is not limited."""
        return None

    def seen(self, source: Source) -> np.ndarray:
        """Which classes are not novel, bool (K,), the background first where there is one."""
        return ~np.isin(source.classes, self.novel)

    @property
    def few_labels(self) -> bool:
        """Whether training has a few labels of classes that a run otherwise knows by name alone."""
        return False

    def scored_classes(self, source: Source) -> tuple[str, ...]:
        """Names of the foreground classes whose labels score a run."""
        return source.foreground

    def hidden(self) -> tuple[str, ...]:
        """Names of the classes of which a run has no label in training: the novel ones."""
        return self.novel

    @property
    def drops_novel(self) -> bool:
        """Whether training leaves out every image that holds a pixel of a novel class, and ancestors must have too."""
        return False

    def labelled_novel(self, source: Source, labels: Labels) -> list[Labelled]:
        """Training images in which a run has labels of novel classes.

        Args:
            source: the data set.
            labels: the kind that the run has of them.
        """
        return []

    def supports(self, source: Source) -> list[Labelling]:
        """What is labelled for the questions alone, which no training reads: supports of the novel classes."""
        return []

    def scored_somewhere(self, source: Source) -> Sequence[str]:
        """The images that runs of all folds together are scored on: equal ones may stand in one table."""
        return source.split(self.split)

    def judges(self, source: Source) -> Sequence[str]:
        """Training images whose labels choose what the protocol leaves open, such as a threshold."""
        return ()

    def fields(self) -> dict[str, Any]:
        """What is asked, in plain JSON types: all fields but `not_asked` and later ones with the value meant before."""
        before = {field.name: field.default for field in fields(self) if field.name not in self.not_asked}
        found = {key: value for key, value in asdict(self).items() if value != before.get(key, value)}
        return cast(dict[str, Any], json.loads(json.dumps(found, default=list)))

    def described(self) -> dict[str, Any]:
        """What a record says of the protocol."""
        return {"name": self.name, "hash": self.hash, "fields": self.fields(), **self.declaration.plain()}

    def place(self) -> Place:
        """Where a run under this protocol stands among those that it is averaged or compared with."""
        return Place(None, None)

    @property
    def hash(self) -> str:
        """That of `fields`, see `hashed_fields`."""
        return hashed_fields(self.fields())


class Place(NamedTuple):
    """The fold of a run and the masks of each novel class that it is given; None where there are none."""

    fold: int | None
    shots: int | None


Metrics = dict[str, dict[str, float | None]]  # name -> `value`, `low`, `high`


@dataclass(frozen=True)
class Scoring:
    """What is to be scored: the arguments of `Protocol.score`, which describes them."""

    method: Method
    source: Source
    ids: Sequence[str] | None = None
    batch_size: int = 8
    progress: bool = False

    def among(self, split: str) -> Sequence[str]:
        """The images to score: those of a split, unless some were named."""
        return self.source.split(split) if self.ids is None else self.ids


class Picture(NamedTuple):
    """A scored item to look at: image uint8 (H, W, 3), truth and prediction uint8 (H, W), further named pictures."""

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    beside: dict[str, np.ndarray]


Shown = tuple[str, Picture]  # the name of what is shown, such as the image's id


@dataclass
class Result:
    """What a protocol found.

    Args:
        metrics: name -> `value` with the ends `low`, `high` of its 95 % interval (None where there is none).
        per_class: a row for each class.
        counts: what was counted on each image, for intervals and paired tests.
        pictured: the counts that panels are chosen by; `counts` if None.
        seconds: wall time of prediction and scoring.
        predict_seconds: wall time of prediction alone.
        items: digest of the frozen list of items, where the protocol has one.
        curve: scores along what the protocol sweeps, one row each, where it sweeps something.
        swept_at: where on what the protocol sweeps the metrics stand.
    """

    metrics: Metrics
    per_class: list[dict[str, Any]]
    counts: Counts
    pictured: Counts | None = None
    seconds: float = 0.0
    predict_seconds: float = 0.0
    items: str | None = None
    curve: list[dict[str, float]] | None = None
    swept_at: float = 0.0


def measured(counts: Counts, scores: Sequence[Score], draws: int) -> Metrics:
    """The scores that follow from counts and have rows there, with their intervals from so many draws."""
    kinds = {asked.kind for asked in counts.asked}
    rules = {score.name: score.statistic for score in scores if score.statistic is not None}
    known = {name: rule for name, rule in rules.items() if not rule.kinds or kinds & set(rule.kinds)}
    return {name: scored(*estimate(counts, rule, draws)) for name, rule in known.items()}


def scored(value: float, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    """A score with its interval, where it has one."""
    return {"value": value, "low": low, "high": high}
