"""Video segmentation: a sequence's first frame with its mask is the support, every later frame a query; or no support.

DAVIS-2016 (Perazzi et al., CVPR 2016), semi-supervised, as SG-One was measured on it: the support stays the same, no
frame learns from the one before. The support frame is never scored; DAVIS also leaves out each sequence's last frame.
Methods that are given no mask of a video (`AutomaticVideoProtocol`) are scored on the same frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar
from typing import Protocol as Interface

import cv2
import numpy as np
import torch
from rich.progress import Progress

from segladder.data.labels.annotation_cost import Labelling, supports
from segladder.data.sources.base import Source
from segladder.data.sources.davis import EVERYTHING, PART, REST, Davis
from segladder.data.training.episodes import Episode
from segladder.data.training.views import Episodes, Images, TrainingView
from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method, evaluating
from segladder.metrics.bootstrap import estimate
from segladder.metrics.confusion import confusion_matrix
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.scores import FromCounts, Score
from segladder.metrics.video import contour_accuracy
from segladder.ops.flow import flow_colours
from segladder.protocols.base import Picture, Place, Protocol, Result, Scoring, measured
from segladder.protocols.episode_runner import Answer, EpisodeRunner, InputSize, few_shot_method
from segladder.protocols.few_shot import outlined
from segladder.protocols.fields import Fit
from segladder.protocols.inference import gathered, resized, shard
from segladder.settings import Count, Positive, Share

OBJECT = 1  # the one class of a video


def _score(kind: str, last: bool, measure: str, *shown: str, name: str = "") -> Score:
    """The mean, recall or decay of J or F, over all frames or without the last."""
    suffix = "" if last else "_without_last"
    name = name or f"{measure}{'' if kind == 'mean' else f'_{kind}'}{suffix}"
    better = "lower" if kind == "decay" else "higher"
    return Score(name, better=better, shown=shown, statistic=FromCounts(f"{measure}_{kind}{suffix}"))


SCORES = (
    _score("mean", True, "J", "summary", name="mIoU"),
    _score("mean", True, "J", "summary"),
    _score("mean", True, "F", "summary", "table"),
    _score("recall", True, "J", "summary"),
    _score("recall", True, "F"),
    _score("decay", True, "J", "summary"),
    _score("decay", True, "F"),
    *(_score("mean", False, measure, "summary", "table") for measure in "JF"),
    *(_score(kind, False, measure) for kind in ("recall", "decay") for measure in "JF"),
)


class Segmenter(Interface):
    """What segments frames; `seconds` is what that took."""

    seconds: float

    def answers(self, episodes: Sequence[Episode]) -> Iterator[Answer]:
        """Answers to all episodes of one video."""


@dataclass(frozen=True)
class VideoProtocol(Protocol):
    """J (region similarity) and F (contour accuracy) of each frame, averaged per sequence, then over sequences.

    Args:
        resolution: the data's; frames are predicted and scored at it.
        fit: how frames reach the network: `native`, `square` or `padded`, with `input_side` pixels.
        contour_bound: of F: how far apart contours may lie, as a share of the image diagonal.
        bootstrap: resamples over sequences behind each 95 % interval.
    """

    supervisions: ClassVar[tuple[str, ...]] = ("few_shot",)
    shots: ClassVar[int] = 1
    resampled: ClassVar[str] = "sequences"

    resolution: str
    fit: Fit
    input_side: Positive | None
    contour_bound: Share
    bootstrap: Positive

    @property
    def scores(self) -> tuple[Score, ...]:
        """J and F: their mean, recall and decay."""
        return SCORES

    @property
    def columns(self) -> tuple[Score, ...]:
        """J, under the name of every protocol's first column, and F of each sequence."""
        return (Score("iou", "IoU"), Score("F"))

    def place(self) -> Place:
        """The one mask that is given."""
        return Place(None, self.shots)

    def training(self, source: Source) -> TrainingView:
        """Episodes of every frame that shows an object, its supports from any video."""
        return Episodes((), self.shots, min_object="none")

    def supports(self, source: Source) -> list[Labelling]:
        """What has to be annotated before videos can be segmented: the first frame of each."""
        return [supports(self.shots, len(self.videos(source).sequences(self.split)))]

    def check_items(self, source: Source) -> None:
        """Raise DataError if a sequence has too few frames, or its first shows no object where it is the support."""
        videos = self.videos(source)
        for name in videos.sequences(self.split):
            self.frames(videos, name, None)

    def measure(self, scoring: Scoring) -> Result:
        """Every frame of the sequences but the first, whole sequences where single frames are named."""
        method, ids = scoring.method, scoring.ids
        videos = self.videos(scoring.source)
        names = videos.sequences(self.split) if ids is None else list(dict.fromkeys(map(sequence_of, ids)))
        frames = {name: self.frames(videos, name, ids) for name in names}
        rank, world = shard()
        counts, seconds = Counts(2), 0.0
        with evaluating(method), Progress(disable=not scoring.progress or rank > 0) as bar, torch.inference_mode():
            task = bar.add_task(f"{self.name} {self.split}", total=sum(map(len, frames.values())) - len(names))
            for name in names[rank::world]:
                runner = self.runner(method, videos, scoring.batch_size)
                self.count(runner, frames[name], counts, lambda: bar.advance(task, world))
                seconds += runner.seconds
        result = self.result(Counts.merged(gathered(counts)), names)
        result.predict_seconds = seconds
        return result

    def frames(self, videos: Davis, sequence: str, ids: Sequence[str] | None) -> list[str]:
        """The frames of a sequence, the support first. Raises DataError as `frames_of`, or if that shows no object."""
        frames = frames_of(videos, sequence)
        if not videos.mask(frames[0]).any():
            raise DataError(f"{videos.mask_path(frames[0])}: empty mask, expected the object in the first frame")
        return frames

    def videos(self, source: Source) -> Davis:
        """The source, known to hold videos. Raises ConfigError if it does not, or at another resolution."""
        if not isinstance(source, Davis):
            raise ConfigError(f"protocol={self.name} scores videos, but data={source.name} holds single images")
        if source.resolution != self.resolution:
            raise ConfigError(f"protocol.resolution={self.resolution}, but data.resolution={source.resolution}")
        return source

    def runner(self, method: Method, videos: Davis, batch_size: int) -> Segmenter:
        """What segments the frames of one sequence. Raises ConfigError for another kind of method."""
        asked = few_shot_method(method, self.name, "shows one annotated frame")
        return EpisodeRunner(asked, videos, InputSize(self.fit, self.input_side), "mean", batch_size)

    def count(self, runner: Segmenter, frames: Sequence[str], counts: Counts, advance: Callable[[], object]) -> None:
        """Add each frame but the first to counts: its confusion matrix, and F as `contours`."""
        for answer in runner.answers(episodes(frames)):
            frame, prediction = answer.episode.query, answer.prediction.astype(np.uint8)
            matrix = confusion_matrix(torch.from_numpy(prediction), torch.from_numpy(answer.truth), 2)
            contours = contour_accuracy(prediction, answer.truth, self.contour_bound)
            counts.add(Asked(frame, unit=sequence_of(frame)), matrix, contours=contours)
            advance()

    def result(self, counts: Counts, names: Sequence[str]) -> Result:
        """All scores, with intervals from a bootstrap over sequences; a row for each sequence.

        `mIoU` is `J`. Names that end in `_without_last` follow DAVIS, where the last frame does not count.
        """
        rows = []
        scored = {asked.unit for asked in counts.asked}  # of single frames perhaps not every sequence
        for name in [name for name in names if name in scored]:
            frames = counts.select([i for i, asked in enumerate(counts.asked) if asked.unit == name])
            values = {s.name: estimate(frames, s.statistic, draws=0).value for s in SCORES if s.statistic}
            values["iou"] = values.pop("mIoU")
            rows.append({"class": name, **values, "frames": len(frames)})
        return Result(measured(counts, SCORES, self.bootstrap), rows, counts)

    def unit_of(self, image_id: str) -> str:
        """The sequence of a frame."""
        return sequence_of(image_id)

    def shown(self, method: Method, source: Source, item: Asked, result: Result) -> Picture:
        """A frame with the annotated first one and the probability behind the answer."""
        videos = self.videos(source)
        first = videos.frames(item.unit)[0]
        with evaluating(method), torch.inference_mode():
            answer = next(self.runner(method, videos, batch_size=1).answers(episodes([first, item.image])))
        support = outlined(videos.image(first), videos.mask(first) == OBJECT)
        beside = {"support": support, "probability": heated(answer.probability)}
        return Picture(videos.image(item.image), answer.truth, answer.prediction.astype(np.uint8), beside)


@dataclass(frozen=True)
class AutomaticVideoProtocol(VideoProtocol):
    """Frames and scores of `VideoProtocol` for methods that are given no mask of the videos they are asked about.

    Args:
        folds: into how many parts the data set deals its sequences, of which the run of each fold is scored on one;
            None: it is scored on the split of a list.
        fold: the run's fold; no part of the hash, since a score is a mean over folds.
    """

    supervisions: ClassVar[tuple[str, ...]] = ("full", "image_level", "none")
    gives_flow: ClassVar[bool] = True

    folds: Positive | None = None
    fold: Count = 0

    def place(self) -> Place:
        """The fold, where there are any."""
        return Place(None if self.folds is None else self.fold, None)

    def training(self, source: Source) -> TrainingView:
        """Frames with their labels, whatever these are."""
        self.videos(source)
        return Images()

    def supports(self, source: Source) -> list[Labelling]:
        """None."""
        return []

    def videos(self, source: Source) -> Davis:
        """The source as of `VideoProtocol`. Raises ConfigError too where folds are not the parts it is dealt into."""
        videos = super().videos(source)
        theirs = videos.parts, videos.part, self.split
        if self.folds is not None and theirs != (self.folds, self.fold, PART):
            raise ConfigError(
                f"fold={self.fold} of {self.folds}: scores that part of the videos, but data.parts={theirs[0]},"
                f" data.part={theirs[1]} and protocol.split={theirs[2]}; give data.parts={self.folds}"
                f" data.part={self.fold} data.train_split={REST} data.val_split={PART}, or protocol.folds=null"
            )
        return videos

    def frames(self, videos: Davis, sequence: str, ids: Sequence[str] | None) -> list[str]:
        """The frames of a sequence, or the first and those of `ids`: no other than these is looked at."""
        first, *later = frames_of(videos, sequence)
        return [first, *(frame for frame in later if ids is None or frame in ids)]

    def scored_somewhere(self, source: Source) -> Sequence[str]:
        """Every frame, where each is scored in one fold."""
        return source.split(self.split if self.folds is None else EVERYTHING)

    def runner(self, method: Method, videos: Davis, batch_size: int) -> Segmenter:
        """What segments the frames of one sequence."""
        return FrameRunner(method, videos, InputSize(self.fit, self.input_side), batch_size)

    def shown(self, method: Method, source: Source, item: Asked, result: Result) -> Picture:
        """A frame with its flow drawn as colour, where the method reads that, and the probability of the object."""
        videos = self.videos(source)
        with evaluating(method), torch.inference_mode():
            (answer,) = self.runner(method, videos, batch_size=1).answers([Episode(item.image, OBJECT, (), 0)])
        beside = {"probability": heated(answer.probability)}
        if method.reads_flow:
            colours = flow_colours(torch.from_numpy(videos.flow(item.image)).permute(2, 0, 1)[None])[0]
            beside["flow"] = colours.permute(1, 2, 0).byte().numpy()
        return Picture(videos.image(item.image), answer.truth, answer.prediction.astype(np.uint8), beside)


class FrameRunner:
    """Answers what `EpisodeRunner` does, frame by frame, with a dense method and no support.

    Args:
        method: in evaluation mode; used on the device it is on.
        videos: the data set.
        size: how frames reach the network.
        batch_size: frames segmented at once.
    """

    def __init__(self, method: Method, videos: Davis, size: InputSize, batch_size: int) -> None:
        self.method, self.videos, self.size, self.batch_size = method, videos, size, batch_size
        self.seconds = 0.0

    def answers(self, episodes: Sequence[Episode]) -> Iterator[Answer]:
        """Answers to all episodes of one video, in their order."""
        for start in range(0, len(episodes), self.batch_size):
            chunk = episodes[start : start + self.batch_size]
            pairs = [self.videos.pair(episode.query) for episode in chunk]
            flows = [self.videos.flow(episode.query) for episode in chunk] if self.method.reads_flow else []
            before = time.perf_counter()
            maps = self.probabilities([image for image, _ in pairs], flows)
            self.seconds += time.perf_counter() - before
            for episode, probability, (_, truth) in zip(chunk, maps, pairs, strict=True):
                yield Answer(episode, probability > 0.5, probability, truth)

    def probabilities(self, images: Sequence[np.ndarray], flows: Sequence[np.ndarray]) -> np.ndarray:
        """P(object) float32 (B, H, W) of frames (H, W, 3) of one size and their flow (H, W, 2), if it is read."""
        size = (images[0].shape[0], images[0].shape[1])
        given = [[self.size.image(image) for image in images], [self.size.flow(flow) for flow in flows]]
        pixels = [torch.from_numpy(np.stack(each)).to(self.method.device).permute(0, 3, 1, 2) for each in given if each]
        logits = self.method.predict(*pixels).float()
        if self.size.is_padded:
            height, width = self.size.inner(size)
            logits = logits[..., :height, :width]
        found: np.ndarray = (1 - resized(logits, size).softmax(1)[:, 0]).cpu().numpy()
        return found


def heated(probability: np.ndarray) -> np.ndarray:
    """A probability (H, W) as colours uint8 (H, W, 3), from dark blue to yellow."""
    heat = cv2.applyColorMap((255 * probability).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return np.ascontiguousarray(heat[..., ::-1])


def episodes(frames: Sequence[str]) -> list[Episode]:
    """An episode for every frame but the first, which is the support of all."""
    return [Episode(query, OBJECT, (frames[0],), 0) for query in frames[1:]]


def sequence_of(frame: str) -> str:
    """`SEQUENCE` of a frame's id `SEQUENCE/00000`."""
    return frame.rpartition("/")[0]


def frames_of(videos: Davis, sequence: str) -> list[str]:
    """Ids of a sequence's frames. Raises DataError for fewer than three."""
    frames = videos.frames(sequence)
    if len(frames) < 3:
        folder = videos.image_path(frames[0]).parent
        raise DataError(
            f"{folder}: {sequence}: {len(frames)} frames, expected 3 or more (the first, the last, one between)"
        )
    return frames
