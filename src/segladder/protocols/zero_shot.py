"""Zero-shot scoring: seen and unseen classes compete for every pixel, under every handicap gamma, in one pass.

Networks prefer the classes they have seen labels of; subtracting gamma from those (calibrated stacking) trades seen
accuracy for unseen. One pass counts what each gamma would give; which gamma is reported is a rule of the protocol that
looks at no label of an unseen class, and the best gamma stands beside it as `oracle`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch

from segladder.data.hashing import hashed_share
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.labelled import Labelled
from segladder.data.labels.pool import few_labelled
from segladder.data.sources.base import Source
from segladder.data.training.views import BackgroundRule, HiddenClasses, UnseenPixels
from segladder.errors import ConfigError
from segladder.methods.base import Method, evaluating
from segladder.metrics.counts import Asked
from segladder.metrics.overlap import Absent
from segladder.metrics.scores import Score
from segladder.metrics.zero_shot import GammaSweep
from segladder.ops.projection import contest
from segladder.protocols.base import Picture, Place, Result, Scoring
from segladder.protocols.episode_runner import InputSize
from segladder.protocols.fields import DenseFit, DenseScoreAt, check_classes
from segladder.protocols.inference import answered, gathered, resized, to_pixels
from segladder.protocols.seen_unseen import SCORES, WITH_BACKGROUND, Calibrated, SweptScores, best, within_budget
from segladder.settings import Count

Leads = tuple[torch.Tensor, ...]  # of one image: best seen class, best unseen class, lead (H, W)

SPNET = ("pottedplant", "sheep", "sofa", "train", "tvmonitor")
ZS3 = ("cow", "motorbike", "aeroplane", "sofa", "cat", "tvmonitor", "train", "bottle", "chair", "pottedplant")
UNSEEN = {"spnet": SPNET, **{f"zs3_{count}": ZS3[:count] for count in (2, 4, 6, 8, 10)}}  # of PASCAL VOC


@dataclass(frozen=True)
class ZeroShotProtocol(Calibrated):
    """Every pixel of a split, labelled with one of all classes, of which the unseen ones had no label in training.

    Args:
        split_name: which classes are unseen: those of a fold (`folds`), those of `unseen` (`custom`), or of PASCAL VOC
            `spnet` (Xian et al. 2019) and `zs3_2` to `zs3_10` (Bucher et al. 2019).
        unseen: names for `custom`.
        background: `seen`, a class of its own in training and test, or `ignore`, 255 in both.
        unseen_pixels: training images that hold unseen classes stay with 255 there (`ignore`) or are left out (`drop`).
        transductive: training may look at images of unseen classes, without their labels.
        fit: how images reach the network: `native`, resized to a `square` of `input_side` pixels, or with the `short`
            side resized to as many.
        score_at: where predictions are compared with masks: `native` size, that of the network's `input`, or that of
            the method's `features`.
        absent: rule for a class in neither truth nor prediction, `skip` or `zero`.
        pool: of how many training images for each unseen class the mask shows it; None or 0: of none, zero-shot. No
            part of the hash: few labels are measured by what they add.

    Raises:
        ConfigError: an unknown choice, no or unknown unseen classes.
    """

    supervisions: ClassVar[tuple[str, ...]] = ("zero_shot",)

    split_name: Literal["folds", "custom", "spnet", "zs3_2", "zs3_4", "zs3_6", "zs3_8", "zs3_10"]
    unseen: tuple[str, ...] | None
    background: BackgroundRule
    unseen_pixels: UnseenPixels
    transductive: bool
    fit: DenseFit
    score_at: DenseScoreAt
    absent: Absent
    pool: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.unseen) != (self.split_name == "custom"):
            raise ConfigError(f"protocol.unseen={self.unseen}: give names with split_name=custom, and with it alone")
        HiddenClasses((), self.background, self.unseen_pixels, self.transductive)  # refuses what does not fit

    def fields(self) -> dict[str, Any]:
        """What is asked, in plain JSON types, without the folds where they do not decide what is unseen."""
        fields = super().fields()
        if self.split_name != "folds":
            del fields["folds"]
        return fields

    def place(self) -> Place:
        """The fold, where folds decide what is unseen; the masks of each unseen class as shots."""
        return Place(self.fold if self.split_name == "folds" else None, self.pool or None)

    @property
    def novel(self) -> tuple[str, ...]:
        """Names of the unseen classes. Raises ConfigError for a fold there is not."""
        if self.split_name == "custom":
            assert self.unseen is not None
            return tuple(self.unseen)
        if self.split_name != "folds":
            return UNSEEN[self.split_name]
        return self.of_fold(self.folds, self.fold)

    @property
    def grid(self) -> tuple[float, ...]:
        """All gammas that are swept, ascending."""
        chosen = [self.gamma] if self.gamma_rule == "fixed" else []
        return tuple(sorted({0.0, *map(float, [*self.gammas, *chosen])}))

    @property
    def few_labels(self) -> bool:
        """Whether `pool` shows some masks of unseen classes."""
        return bool(self.pool)

    @property
    def labels(self) -> HiddenClasses:
        """What zero-shot training may see, and what chooses gamma and checkpoints in few-label runs too."""
        return HiddenClasses(self.novel, self.background, self.unseen_pixels, self.transductive)

    @property
    def scores(self) -> tuple[Score, ...]:
        """Scores of seen and unseen classes; where the background is a class, also scores that count it."""
        whole = SCORES if self.background == "ignore" else (*SCORES, *WITH_BACKGROUND)
        return tuple(score.under(self.absent) for score in whole)

    @property
    def ranked_by(self) -> str:
        """The harmonic mean of seen and unseen mIoU."""
        return "harmonic_mIoU"

    @property
    def drops_novel(self) -> bool:
        """Whether training leaves out images with unseen classes (`unseen_pixels: drop`)."""
        return self.unseen_pixels == "drop"

    def training(self, source: Source) -> HiddenClasses:
        """Images without labels of unseen classes but the few of `pool`. Raises ConfigError if that is too large."""
        return replace(self.labels, shown=self.shown_classes(source))

    def shown_classes(self, source: Source) -> dict[str, tuple[str, ...]]:
        """Which unseen classes the masks of training images show, by image id.

        Raises:
            ConfigError: `pool` is too large.
        """
        if not self.pool:
            return {}
        chosen = few_labelled(source, tuple(self.competitors(source)[1]), self.pool)
        ids = sorted({image_id for images in chosen.values() for image_id in images})
        return {i: tuple(source.classes[k] for k, images in chosen.items() if i in images) for i in ids}

    def labelled_novel(self, source: Source, labels: Labels) -> list[Labelled]:
        """The few masks of unseen classes; nobody looks for a class where it is not."""
        shown = self.shown_classes(source)
        return [Labelled(source.name, Masks().name, self.novel, shown, searched=False)] if shown else []

    def judges(self, source: Source) -> Sequence[str]:
        """The images that choose gamma."""
        return self.gamma_ids(source) if self.gamma_rule == "seen_budget" else ()

    def seen(self, source: Source) -> np.ndarray:
        """Which classes have labels in training, bool (K,), the background first."""
        seen: np.ndarray = self.labels.table(source.classes)[: len(source.classes)] != 255
        return seen

    def measure(self, scoring: Scoring) -> Result:
        """Counts of all images under every gamma, and the scores under the one that the rule chooses.

        The method's `predict` gives logits (B, K, H, W) of all classes, its `seen` (K,) those it has learnt.
        """
        source = scoring.source
        self.check(scoring.method, source)
        truth = HiddenClasses((), self.background).table(source.classes)
        sweep, predict_seconds = self.sweep(scoring, scoring.among(self.split), truth)
        index = self.chosen(scoring, sweep)
        result = self.swept_scores(sweep, source).result(index, source.classes, self.background == "seen")
        result.swept_at, result.predict_seconds = self.grid[index], predict_seconds
        return result

    def check_source(self, source: Source) -> None:
        """Raise ConfigError as every protocol does, or if the source does not hold the protocol's classes."""
        super().check_source(source)
        check_classes(self.name, self.classes, source)

    def check(self, method: Method, source: Source) -> None:
        """Raise ConfigError if a method has learnt an unseen class, or gives no scores where they are compared."""
        learnt = torch.as_tensor(method.seen).tolist()  # (K,)
        if leaked := [source.classes[k] for k in self.competitors(source)[1] if learnt[k]]:
            raise ConfigError(f"protocol {self.name}: {leaked[0]} is unseen, but method={method.name} has learnt it")
        if self.score_at == "features" and not method.scores_features:
            raise ConfigError(f"protocol.score_at=features: method={method.name} has no scores of its feature map")

    def competitors(self, source: Source) -> tuple[list[int], list[int]]:
        """Indices of the seen classes that a pixel may be given, and of the unseen ones."""
        seen = np.flatnonzero(self.seen(source)).tolist()  # refuses unknown classes
        return seen, sorted(source.classes.index(name) for name in self.novel)

    def sweep(self, scoring: Scoring, ids: Sequence[str], truth: np.ndarray) -> tuple[GammaSweep, float]:
        """Count some images under every gamma; returns that and the seconds of prediction.

        Args:
            scoring: of what.
            ids: of the images.
            truth: what each mask value counts as, uint8 (256,).
        """
        method, source = scoring.method, scoring.source
        seen, unseen = (torch.tensor(group, device=method.device) for group in self.competitors(source))
        counted = GammaSweep(len(source.classes), np.isin(source.classes, self.novel), self.grid)

        def answer(_: Sequence[str], images: list[np.ndarray], masks: list[np.ndarray]) -> Iterable[Leads]:
            found = contest(self.logits(method, images), seen, unseen, self.gamma_on)
            return zip(*found, strict=True)

        def count(image_id: str, leads: Leads, mask: np.ndarray) -> None:
            size = (leads[0].shape[0], leads[0].shape[1])
            target = torch.from_numpy(self.fitted(cv2.LUT(mask, truth), size)).to(method.device)
            counted.add(image_id, target, *leads)

        seconds = answered(scoring, ids, answer, count, f"{self.name} {len(ids)} images")
        return GammaSweep.merged(gathered(counted)), seconds

    def fitted(self, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """A mask at the `size` it is compared at, first through the size of the network's input."""
        if self.score_at == "native":
            return mask
        mask = InputSize(self.fit, self.input_side).mask(mask)
        return mask if mask.shape == size else cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)

    def logits(self, method: Method, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Scores float32 (B, K, H, W) for images of one size, at the size that they are compared at."""
        fit = InputSize(self.fit, self.input_side)
        pixels = to_pixels([fit.image(image) for image in images], None, method.device)
        if self.score_at == "features":
            return method.feature_scores(pixels).float()
        height, width = images[0].shape[:2] if self.score_at == "native" else pixels.shape[-2:]
        return resized(method.predict(pixels).float(), (height, width))

    def chosen(self, scoring: Scoring, sweep: GammaSweep) -> int:
        """Position in the grid of the gamma that the rule chooses."""
        if self.gamma_rule == "fixed":
            return self.grid.index(float(self.gamma))
        if self.gamma_rule == "oracle":
            return best(self.swept_scores(sweep, scoring.source).by_gamma["harmonic_mIoU"])
        source = scoring.source
        trained, _ = self.sweep(scoring, self.gamma_ids(source), self.labels.table(source.classes))
        seen = self.swept_scores(trained, source).by_gamma["seen_mIoU"]
        return within_budget(seen, self.grid.index(0.0), self.seen_kept)

    def gamma_ids(self, source: Source) -> list[str]:
        """Training images whose seen labels choose gamma."""
        kept: list[str] = []
        for image_id in sorted(source.split(source.train_split), key=hashed_share):
            if len(kept) == self.gamma_images:
                break
            if self.unseen_pixels == "ignore" or source.ids_without([image_id], self.novel):
                kept.append(image_id)
        return kept

    def swept_scores(self, sweep: GammaSweep, source: Source) -> SweptScores:
        """What a sweep comes to."""
        return SweptScores(sweep, *self.foreground(source), self.absent, self.bootstrap)

    def foreground(self, source: Source) -> tuple[list[int], list[int]]:
        """Indices of the seen and the unseen foreground classes."""
        seen, unseen = self.competitors(source)
        return [k for k in seen if k], unseen

    def held_out_score(self, scoring: Scoring) -> float:
        """Seen mIoU without calibration."""
        source = scoring.source
        self.check(scoring.method, source)
        sweep, _ = self.sweep(scoring, scoring.ids or (), self.labels.table(source.classes))
        return float(np.nan_to_num(self.swept_scores(sweep, source).by_gamma["seen_mIoU"][self.grid.index(0.0)]))

    @property
    def held_out_by(self) -> Score:
        """Seen mIoU without calibration."""
        return Score("seen_mIoU", "seen mIoU")

    def shown(self, method: Method, source: Source, item: Asked, result: Result) -> Picture:
        """An image with its truth and its prediction under the gamma that was chosen."""
        image, mask = source.pair(item.image)
        seen, unseen = (torch.tensor(group, device=method.device) for group in self.competitors(source))
        with evaluating(method), torch.inference_mode():
            logits = resized(self.logits(method, [image]), (mask.shape[0], mask.shape[1]))
            best_seen, best_unseen, lead = contest(logits, seen, unseen, self.gamma_on)
        prediction = best_seen.where(lead >= result.swept_at, best_unseen)[0].to(torch.uint8).cpu().numpy()
        truth = cv2.LUT(mask, HiddenClasses((), self.background).table(source.classes))
        return Picture(image, truth, prediction, {})
