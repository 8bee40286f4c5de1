"""CAM seeds: how well class scores made from tags cover the objects of the training images.

Scores are enlarged to the mask's size; a pixel is its best class where that class' score exceeds a threshold. One pass
gives every threshold: the `threshold` fixed beforehand ranks, the best of all (`_oracle`: chosen on the masks that
score it) stands beside it. Methods that score the background too (random walks, CRFs) have no threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field

from segladder.data.sources.base import Source
from segladder.data.sources.tag_file import Tagged
from segladder.errors import ConfigError
from segladder.methods.base import Method, evaluating
from segladder.methods.image_level.base import TagMethod
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.overlap import summary
from segladder.metrics.scores import Score
from segladder.metrics.threshold_sweep import ThresholdSweep
from segladder.protocols.base import Picture, Result, Scoring, scored
from segladder.protocols.inference import answered, gathered, resized, to_pixels
from segladder.protocols.semantic import SemanticProtocol
from segladder.settings import Share

AT_BEST = (  # threshold, chosen on the masks that score it
    Score("mIoU_oracle", shown=("summary", "table")),
    Score("threshold_oracle", unit="number", better="", shown=("summary", "table")),
    Score("over_activation_oracle", better="lower", shown=("table",)),
    Score("under_activation_oracle", better="lower", shown=("table",)),
    Score("over_activation_foreground_oracle", better="lower"),
    Score("under_activation_foreground_oracle", better="lower"),
)

ORACLE = [score.name.removesuffix("_oracle") for score in AT_BEST if score.name != "threshold_oracle"]


@dataclass(frozen=True)
class CamSeedsProtocol(SemanticProtocol):
    """Class scores of a split's images against their masks.

    Args:
        label_conditioned: whether the image's tags are known, so that only their classes are scored.
        thresholds: ascending, tried in one pass.
        threshold: the one that counts, fixed beforehand; one of `thresholds`.
    """

    supervisions: ClassVar[tuple[str, ...]] = ("image_level",)
    needs_background: ClassVar[bool] = True
    swept: ClassVar[str] = "threshold"
    on_training_images: ClassVar[bool] = True  # seeds are made of the images that training has tags of

    label_conditioned: bool
    thresholds: Annotated[tuple[Share, ...], Field(min_length=1)]
    threshold: Share

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(second <= first for first, second in pairwise(self.thresholds)):
            raise ConfigError(f"protocol.thresholds={list(self.thresholds)}: expected ascending numbers")
        if self.threshold not in self.thresholds:
            raise ConfigError(f"protocol.threshold={self.threshold}: expected one of protocol.thresholds")

    def check_source(self, source: Source) -> None:
        """Raise ConfigError as `SemanticProtocol` does, or if images of the split have tags and no mask."""
        super().check_source(source)
        if not isinstance(source, Tagged):
            return
        if alone := [image_id for image_id in source.split(self.split) if source.has_tags_alone(image_id)]:
            raise ConfigError(
                f"protocol.split={self.split}: {len(alone)} of its images have tags and no mask to score class maps"
                f" against, such as {alone[0]}; choose a split with masks: protocol.split={source.val_split}"
            )

    @property
    def scores(self) -> tuple[Score, ...]:
        """The scores of dense prediction at the fixed threshold, and the mIoU at the best threshold."""
        return (*super().scores, *AT_BEST)

    def measure(self, scoring: Scoring) -> Result:
        """Counts at the fixed threshold, and at all of them in the same pass."""
        method, source = tag_method(scoring.method), scoring.source
        counts, boundary = Counts(len(source.classes)), np.zeros((len(source.classes), 2), np.int64)
        sweep = ThresholdSweep(len(source.classes), self.thresholds)

        def answer(chunk: Sequence[str], images: list[np.ndarray], masks: list[np.ndarray]) -> Iterable[Peaks]:
            return peaks(self.maps(method, source, chunk, images, masks[0].shape))

        def count(image_id: str, found: Peaks, mask: np.ndarray) -> None:
            self.count(counts, boundary, image_id, self.labels(found, method), mask)
            if not method.scores_background:
                sweep.add(*found, mask)

        predict_seconds = answered(
            scoring,
            scoring.among(self.split),
            answer,
            count,
            f"{self.name} {self.split}",
        )
        parts = gathered((counts, boundary, sweep.counts))
        whole = Counts.merged(part for part, _, _ in parts)
        result = self.result(whole, np.sum([part for _, part, _ in parts], axis=0), source)
        sweep.counts = np.sum([part for _, _, part in parts], axis=0)
        self.add_sweep(result, None if method.scores_background else sweep)
        result.predict_seconds = predict_seconds
        return result

    def maps(
        self, method: TagMethod, source: Source, ids: Sequence[str], images: Sequence[np.ndarray], size: Any
    ) -> torch.Tensor:
        """Class scores float32 (B, C or K, H, W) at label size, for images of one size."""
        pixels = to_pixels(images, self.input_size, method.device)
        tags = self.tags(source, ids)
        scores = method.class_scores(
            ids, pixels, None if tags is None else tags.to(pixels.device), self.scales, self.flip
        )
        return resized(scores, (size[0], size[1]))

    def tags(self, source: Source, ids: Iterable[str]) -> torch.Tensor | None:
        """The images' tags (B, C), or None where the protocol does not know them."""
        return torch.from_numpy(np.stack([source.tags(i) for i in ids])) if self.label_conditioned else None

    def labels(self, found: Peaks, method: TagMethod) -> np.ndarray:
        """Class indices uint8 (H, W) of one image's scores of classes, or of background and classes."""
        best, height = found
        return best if method.scores_background else np.where(height > self.threshold, best + 1, 0)

    def add_sweep(self, result: Result, sweep: ThresholdSweep | None) -> None:
        """Put the scores of every threshold into a result; without a sweep the best threshold is the only one."""
        oracle = {name: result.metrics[name]["value"] for name in ORACLE}
        if sweep is not None:
            matrices = torch.from_numpy(sweep.confusions())
            rows = [{"threshold": t, **summary(m, self.absent)} for t, m in zip(self.thresholds, matrices, strict=True)]
            best = max(rows, key=lambda row: row["mIoU"])
            oracle = {name: best[name] for name in (*oracle, "threshold")}
            result.curve, result.swept_at = rows, self.threshold
        for name, value in oracle.items():
            result.metrics[f"{name}_oracle"] = scored(value or 0.0)

    def shown(self, method: Method, source: Source, item: Asked, result: Result) -> Picture:
        """An image with its truth, its seeds and the score of its best class."""
        asked = tag_method(method)
        image, truth = source.pair(item.image)
        with evaluating(asked), torch.inference_mode():
            scores = self.maps(asked, source, [item.image], [image], truth.shape)
            (found,) = peaks(scores)
        heat = scores[0, 1:].amax(0).cpu().numpy() if asked.scores_background else found.height
        return Picture(image, truth, self.labels(found, asked), {"class scores": heat_map(image, heat)})


class Peaks(NamedTuple):
    """The best score at each pixel of an image.

    Attributes:
        best: its place among the scores, the first of equals, uint8 (H, W).
        height: float32 (H, W).
    """

    best: np.ndarray
    height: np.ndarray


def peaks(scores: torch.Tensor) -> list[Peaks]:
    """The peaks in each image's scores (B, C, H, W)."""
    height, best = scores.max(1)
    return [Peaks(*pair) for pair in zip(best.to(torch.uint8).cpu().numpy(), height.cpu().numpy(), strict=True)]


def tag_method(method: Method) -> TagMethod:
    """The method, known to score the classes of tags. Raises ConfigError where it does not."""
    if not method.scores_tags:
        raise ConfigError(f"method={method.name} is {method.supervision} and has no class scores, expected image_level")
    return cast(TagMethod, method)


def heat_map(image: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Scores in 0..1 (H, W) as colours over a faint image, RGB uint8 (H, W, 3)."""
    import matplotlib as mpl  # half a second, only for pictures

    colours = mpl.colormaps["inferno"](np.clip(scores, 0, 1))[..., :3]  # (H, W, 3)
    gray = image.mean(-1, keepdims=True) / 255
    shown: np.ndarray = (255 * (0.75 * colours + 0.25 * gray)).astype(np.uint8)
    return shown
