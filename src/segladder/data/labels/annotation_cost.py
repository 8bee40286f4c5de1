"""What labels cost in seconds of human work: how often an annotator looks and draws, times what each act takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from segladder.data.labels.kinds import kinds, of_supports
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.labelled import Labelled, seconds_of
from segladder.data.labels.prices import VOC_PRICES, Prices

SCHEME = 2  # since 2 the labels behind all runs that a run builds on count, each once


@dataclass(frozen=True)
class Labelling:
    """Images labelled alike.

    Args:
        labels: of which kind.
        images: how many.
        classes: how many classes each is searched for.
        held: (image, class) pairs found, all of them labelled; None: as many as `Prices.classes` says.
    """

    labels: Labels
    images: int
    classes: int = 20
    held: float | None = None

    def seconds(self, prices: Prices = VOC_PRICES) -> float:
        """Seconds for all images."""
        held = self.images * min(prices.classes, self.classes) if self.held is None else self.held
        return self.labels.seconds(prices, self.images, self.classes, held)


def supports(shots: int, classes: int, annotation: str = "mask") -> Labelling:
    """The work behind `shots` supports of each of some classes: found already, so that nothing is checked.

    Args:
        shots: images of each class.
        classes: how many.
        annotation: `mask`, `box`, `scribble` or `point`, as in `protocol.support_annotation`.

    Raises:
        ConfigError: no such annotation.
    """
    images = shots * classes
    return Labelling(of_supports(annotation), images, classes=1, held=images)


def annotation_cost(
    labels: Labels,
    own: Sequence[Labelled],
    inherited: Sequence[Labelled] = (),
    novel: Collection[str] = (),
    supports: Sequence[Labelling] = (),
    prices: Prices = VOC_PRICES,
) -> dict[str, Any]:
    """Seconds behind a run, for its record.

    Args:
        labels: the kind that people gave of its training images' base classes.
        own: labels of its training images.
        inherited: labels behind the runs that it builds on; what it shares with them counts once.
        novel: names of its novel or unseen classes.
        supports: what is labelled of these for the questions alone.
        prices: of each act.

    Returns:
        `scheme` of these numbers, `seconds` in all, `seconds_per_image` of its own training images, `novel_seconds` of
        the novel classes' labels (part of `seconds`), `labels`, `novel_labels`, `source`.
    """
    added = sum(work.seconds(prices) for work in supports)
    behind = [*own, *inherited]
    base = [part for part in own if not novel or not set(part.classes) & set(novel)]
    images = len({image_id for part in base for image_id in part.held})
    of_novel = {part.kind for part in behind if part.effort and set(part.classes) & set(novel)}
    of_novel |= {work.labels.name for work in supports}
    return {
        "scheme": SCHEME,
        "seconds": round(seconds_of(behind, prices) + added, 1),
        "seconds_per_image": round(seconds_of(base, prices) / images, 1) if images else 0.0,
        "novel_seconds": round(seconds_of(behind, prices, novel) + added, 1),
        "labels": labels.name,
        "novel_labels": [kind for kind in kinds() if kind in of_novel],
        "source": "; ".join(filter(None, [prices.source, effort_of(labels)])),
    }


def effort_of(labels: Labels) -> str:
    """What stands beside the prices where labels take another time than their kind; empty where they do not."""
    if labels.effort == 1:
        return ""
    return f"{labels.words} at {labels.effort:g} of the time of careful ones: {labels.effort_source}"
