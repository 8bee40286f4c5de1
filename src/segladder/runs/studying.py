"""A method studies training images once: labelled images, or unlabelled ones, where an oracle names what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from segladder.data.hashing import hashed_share
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.kinds.none import Nothing
from segladder.data.labels.labelled import Labelled
from segladder.data.sources.base import Source
from segladder.errors import ConfigError
from segladder.methods.base import Method
from segladder.runs.build import Training


@dataclass(frozen=True)
class Study:
    """Which training images a method studies.

    Attributes:
        images: ids of those in which it looks for clusters.
        naming: ids of others whose drawn masks name these.
        labelled: ids of those whose labels it learns from.
        seen: the data set as the run's labels show it.
    """

    images: Sequence[str] = ()
    naming: Sequence[str] = ()
    labelled: Sequence[str] = ()
    seen: Source | None = None

    @classmethod
    def of(cls, method: Method, training: Training) -> Study:
        """Chosen by a hash: images that `loader.held_out` keeps back name first. Raises ConfigError for too few."""
        if method.trains or not method.studies:
            return cls()
        if method.studies == "labels":
            return cls(labelled=training.module.dataset.ids, seen=training.held_out.source)
        order = sorted({*training.module.dataset.ids, *training.held_out.ids}, key=hashed_share)
        naming = order[: method.naming_images]
        rest = {*training.module.dataset.ids} - {*naming}
        images = [image_id for image_id in reversed(order) if image_id in rest][: method.study_images]
        if not images:
            raise ConfigError(
                f"method.naming_images={method.naming_images}: of {len(order)} training images none is left to find"
                " clusters in; take fewer"
            )
        return cls(images, naming)

    def told(self, source: Source) -> list[Labelled]:
        """What an oracle told: masks of the naming images, which nobody is paid for."""
        if not self.naming:
            return []
        told = Labelled.of(source, Masks(), self.naming, source.foreground)
        return [replace(told, searched=False, effort=0.0)]

    def carry_out(self, method: Method, source: Source) -> None:
        """Let the method learn from labels, or find clusters in images and name them by drawn masks."""
        if self.seen is not None:
            method.study((), map(self.seen.pair, self.labelled))
            return
        pictures = source.as_seen(Nothing())
        method.study(map(pictures.image, self.images), map(source.pair, self.naming))
