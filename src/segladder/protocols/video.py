"""One-shot video segmentation: a sequence's first frame with its mask is the support, every later frame a query.

DAVIS-2016 (Perazzi et al., CVPR 2016), semi-supervised, as SG-One was measured on it: the support stays the same, no
frame learns from the one before. The support frame is never scored; DAVIS also leaves out each sequence's last frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from rich.progress import Progress

from segladder.data.labels.annotation_cost import Labelling, supports
from segladder.data.sources.base import Source
from segladder.data.sources.davis import Davis
from segladder.data.training.episodes import Episode
from segladder.data.training.views import Episodes
from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method, evaluating
from segladder.metrics.bootstrap import bootstrap_interval
from segladder.metrics.confusion import confusion_matrix
from segladder.metrics.counts import ImageCounts
from segladder.metrics.scores import Score
from segladder.metrics.video import contour_accuracy, region_similarity, statistics
from segladder.protocols.base import Picture, Protocol, Result, Scoring
from segladder.protocols.episode_runner import EpisodeRunner, InputSize, few_shot_method
from segladder.protocols.few_shot import outlined
from segladder.protocols.fields import Fit, Positive, Share
from segladder.protocols.inference import gathered, shard

OBJECT = 1  # the one class of a video

SCORES = (
    Score("mIoU", shown=("summary",), statistic="mean_iou"),
    Score("J", shown=("summary",)),
    Score("F", shown=("summary", "table")),
    Score("J_recall", shown=("summary",)),
    Score("F_recall"),
    Score("J_decay", better="lower", shown=("summary",)),
    Score("F_decay", better="lower"),
    *(Score(f"{name}_without_last", shown=("summary", "table")) for name in "JF"),
    *(Score(f"{name}_recall_without_last") for name in "JF"),
    *(Score(f"{name}_decay_without_last", better="lower") for name in "JF"),
)


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

    def training(self, source: Source) -> Episodes:
        """Episodes of every frame that shows an object, its supports from any video."""
        return Episodes((), self.shots, min_object="none")

    def supports(self, source: Source) -> list[Labelling]:
        """What has to be annotated before videos can be segmented: the first frame of each."""
        return [supports(self.shots, len(source.split(self.split)))]

    def measure(self, scoring: Scoring) -> Result:
        """Every frame of the sequences but the first, whole sequences where single frames are named."""
        method, ids = scoring.method, scoring.ids
        videos = self.videos(scoring.source)
        names = videos.sequences(self.split) if ids is None else list(dict.fromkeys(map(sequence_of, ids)))
        frames = {name: frames_of(videos, name) for name in names}
        rank, world = shard()
        counts, scores, seconds = ImageCounts(2), dict[str, np.ndarray](), 0.0
        with evaluating(method), Progress(disable=not scoring.progress or rank > 0) as bar, torch.inference_mode():
            task = bar.add_task(f"{self.name} {self.split}", total=sum(map(len, frames.values())) - len(names))
            for name in names[rank::world]:
                runner = self.runner(method, videos, scoring.batch_size)
                scores[name] = self.frame_scores(runner, frames[name], counts, lambda: bar.advance(task, world))
                seconds += runner.seconds
        parts = gathered((counts, scores))
        whole = ImageCounts.merged(part for part, _ in parts)
        found = {name: values for _, part in parts for name, values in part.items()}
        result = self.result({name: found[name] for name in names}, whole.select(sorted(whole.ids)))
        result.predict_seconds = seconds
        return result

    def videos(self, source: Source) -> Davis:
        """The source, known to hold videos. Raises ConfigError if it does not, or at another resolution."""
        if not isinstance(source, Davis):
            raise ConfigError(f"protocol={self.name} scores videos, but data={source.name} holds single images")
        if source.resolution != self.resolution:
            raise ConfigError(f"protocol.resolution={self.resolution}, but data.resolution={source.resolution}")
        return source

    def runner(self, method: Method, videos: Davis, batch_size: int) -> EpisodeRunner:
        """What segments the frames of one sequence. Raises ConfigError for another kind of method."""
        asked = few_shot_method(method, self.name, "shows one annotated frame")
        return EpisodeRunner(asked, videos, InputSize(self.fit, self.input_side), "mean", batch_size)

    def frame_scores(
        self, runner: EpisodeRunner, frames: Sequence[str], counts: ImageCounts, advance: Callable[[], object]
    ) -> np.ndarray:
        """J and F float64 (T - 1, 2) of all T frames but the first; adds each one's confusion matrix to `counts`."""
        scores = {}
        for answer in runner.answers(episodes(frames)):
            frame, prediction = answer.episode.query, answer.prediction.astype(np.uint8)
            counts.add(frame, confusion_matrix(torch.from_numpy(prediction), torch.from_numpy(answer.truth), 2))
            contours = contour_accuracy(prediction, answer.truth, self.contour_bound)
            scores[frame] = region_similarity(prediction, answer.truth), contours
            advance()
        return np.array([scores[frame] for frame in frames[1:]])

    def result(self, scores: Mapping[str, np.ndarray], counts: ImageCounts) -> Result:
        """All scores, with intervals from a bootstrap over sequences; a row for each sequence.

        `mIoU` is `J`. Names that end in `_without_last` follow DAVIS, where the last frame does not count.
        """
        found = {name: sequence_scores(values) for name, values in scores.items()}
        names = list(next(iter(found.values())))
        values = np.array([[row[name] for name in names] for row in found.values()])  # (sequences, scores)
        low, high = bootstrap_interval(values, lambda sums: sums / len(values), self.bootstrap)
        metrics: dict[str, dict[str, float | None]] = {
            name: {"value": float(values[:, k].mean()), "low": float(low[k]), "high": float(high[k])}
            for k, name in enumerate(names)
        }
        rows = [
            {"class": sequence, "iou": row["J"], **row, "frames": len(scores[sequence])}
            for sequence, row in found.items()
        ]
        return Result({"mIoU": dict(metrics["J"]), **metrics}, rows, counts)

    def shown(self, method: Method, source: Source, item: str, result: Result) -> Picture:
        """A frame with the annotated first one and the probability behind the answer."""
        videos = self.videos(source)
        first = videos.frames(sequence_of(item))[0]
        with torch.inference_mode():
            answer = next(self.runner(method.eval(), videos, batch_size=1).answers(episodes([first, item])))
        support = outlined(videos.image(first), videos.mask(first) == OBJECT)
        heat = cv2.applyColorMap((255 * answer.probability).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
        beside = {"support": support, "probability": np.ascontiguousarray(heat)}
        return Picture(videos.image(item), answer.truth, answer.prediction.astype(np.uint8), beside)


def episodes(frames: Sequence[str]) -> list[Episode]:
    """An episode for every frame but the first, which is the support of all."""
    return [Episode(query, OBJECT, (frames[0],), 0) for query in frames[1:]]


def sequence_of(frame: str) -> str:
    """`SEQUENCE` of a frame's id `SEQUENCE/00000`."""
    return frame.rpartition("/")[0]


def frames_of(videos: Davis, sequence: str) -> list[str]:
    """Ids of a sequence's frames. Raises DataError for fewer than three or if the first shows no object."""
    frames = videos.frames(sequence)
    if len(frames) < 3:
        raise DataError(f"{sequence}: {len(frames)} frames, expected 3 or more (a support, the last, one between)")
    if not videos.mask(frames[0]).any():
        raise DataError(f"{videos.mask_path(frames[0])}: empty mask, expected the object in the first frame")
    return frames


def sequence_scores(frames: np.ndarray) -> dict[str, float]:
    """Mean, recall and decay of J and F (T, 2) over all frames, and without the last, T at least 2."""
    scores: dict[str, float] = {}
    for suffix, kept in (("", frames), ("_without_last", frames[:-1])):
        for measure, values in zip("JF", kept.T, strict=True):
            mean, recall, decay = statistics(values)
            scores |= {f"{measure}{suffix}": mean, f"{measure}_recall{suffix}": recall}
            scores[f"{measure}_decay{suffix}"] = decay
    return scores
