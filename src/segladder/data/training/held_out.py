"""Training images that are kept from training, to choose weights and settings by: they show what training is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.masks import Masks
from segladder.data.sources.base import Source
from segladder.data.training.views import TrainingView


@dataclass(frozen=True)
class HeldOut:
    """Images kept from training, with the labels that a run pays for and no others.

    Attributes:
        source: the data set as its labels show it; where they are tags, its masks cannot be read.
        ids: the images.
        labels: of which kind.
        view: what of the training images the protocol allows.
    """

    source: Source
    ids: Sequence[str]
    labels: Labels
    view: TrainingView

    @classmethod
    def of(cls, source: Source, ids: Sequence[str], labels: Labels, view: TrainingView) -> HeldOut:
        """Some images of a source as labels of one kind show them."""
        see = labels.of_image if labels.shows == "pixels" else None
        return cls(source.as_seen(see, objects=labels.name == Masks.name), ids, labels, view)

    @cached_property
    def judges(self) -> Sequence[str]:
        """The images that may choose weights and settings."""
        return self.view.judges(self.source, self.ids)
