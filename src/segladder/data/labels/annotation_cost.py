"""What labels cost in seconds of human work: how often an annotator looks and draws, times what each act takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segladder.data.labels.kinds import of_supports
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.prices import VOC_PRICES, Prices


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
    images: int,
    classes: int = 20,
    held: float | None = None,
    novel: Sequence[Labelling] = (),
    prices: Prices = VOC_PRICES,
) -> dict[str, Any]:
    """Seconds behind a run, for its record.

    Args:
        labels: of the training images, see `Labelling`; of base classes alone where there are novel ones.
        images: training images.
        classes: how many classes they are labelled with.
        held: (image, class) pairs of those classes, None for VOC's mean.
        novel: what is labelled for the novel classes, such as `supports`; nothing for unseen classes.
        prices: of each act.

    Returns:
        `seconds` in all, `seconds_per_image` of a training image, `novel_seconds` of the novel classes' labels (part of
        `seconds`), `labels`, `novel_labels`, `source`.
    """
    training = Labelling(labels, images, classes, held).seconds(prices)
    added = sum(work.seconds(prices) for work in novel)
    return {
        "seconds": round(training + added, 1),
        "seconds_per_image": round(training / images, 1) if images else 0.0,
        "novel_seconds": round(added, 1),
        "labels": labels.name,
        "novel_labels": [work.labels.name for work in novel],
        "source": prices.source,
    }
