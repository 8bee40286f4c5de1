"""What labels cost in seconds of human work: how often an annotator looks, clicks and draws, times what each act takes.

Prices were measured on PASCAL VOC: Bearman et al., "What's the Point", ECCV 2016, https://arxiv.org/abs/1506.02106;
boxes: Papadopoulos et al., "Extreme clicking", ICCV 2017, https://arxiv.org/abs/1708.02750.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segladder.errors import ConfigError

LABELS = ("names", "tags", "points", "scribbles", "boxes", "masks")
OF_SUPPORTS = {"point": "points", "scribble": "scribbles", "box": "boxes", "mask": "masks"}


@dataclass(frozen=True)
class Prices:
    """Seconds of each act, and what an image holds where nobody has counted.

    Args:
        presence: to say whether an image holds a class.
        point: a click on a class (22.1 s for an image of VOC).
        scribble: a stroke along a class (34.9 s for an image, unverified).
        box: a box around an object by extreme clicks; drawn from corner to corner, 34.5.
        mask: an outline of an object.
        classes: classes in an image, mean of VOC.
        objects: objects in an image, mean of VOC; masks of classes do not tell how many objects they are.
        source: where the prices come from, for the record.
    """

    presence: float = 1.0
    point: float = 2.4
    scribble: float = 10.9
    box: float = 7.0
    mask: float = 79.0
    classes: float = 1.5
    objects: float = 2.8
    source: str = "VOC means, Bearman 2016 (boxes: Papadopoulos 2017); objects not counted"

    def of_class(self, labels: str) -> float:
        """Seconds to label one class of an image that holds it, all its objects."""
        objects = self.objects / self.classes
        acts = {"points": self.point, "scribbles": self.scribble, "boxes": objects * self.box}
        return {**acts, "tags": self.presence, "masks": objects * self.mask}[labels]


VOC_PRICES = Prices()


@dataclass(frozen=True)
class Labelling:
    """Images labelled alike.

    Args:
        labels: `names` (nobody looks at an image), `tags`, `points`, `scribbles`, `boxes` or `masks`.
        images: how many.
        classes: how many classes each is searched for.
        held: (image, class) pairs found, all of them labelled; None: as many as `Prices.classes` says.
    """

    labels: str
    images: int
    classes: int = 20
    held: float | None = None

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise ConfigError(f"annotation cost of labels={self.labels}: choose from {', '.join(LABELS)}")

    def seconds(self, prices: Prices = VOC_PRICES) -> float:
        """Seconds for all images: a presence check of each class that is not there, a label of each that is."""
        if self.labels == "names":
            return 0.0
        held = self.images * min(prices.classes, self.classes) if self.held is None else self.held
        return prices.presence * (self.images * self.classes - held) + held * prices.of_class(self.labels)


def supports(shots: int, classes: int, annotation: str = "mask") -> Labelling:
    """The work behind `shots` supports of each of some classes: found already, so that nothing is checked.

    Args:
        shots: images of each class.
        classes: how many.
        annotation: `mask`, `box`, `scribble` or `point`, as in `protocol.support_annotation`.

    Raises:
        ConfigError: no such annotation.
    """
    if annotation not in OF_SUPPORTS:
        raise ConfigError(f"support_annotation={annotation}: choose from {', '.join(OF_SUPPORTS)}")
    images = shots * classes
    return Labelling(OF_SUPPORTS[annotation], images, classes=1, held=images)


def annotation_cost(
    labels: str,
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
        "labels": labels,
        "novel_labels": [work.labels for work in novel],
        "source": prices.source,
    }
