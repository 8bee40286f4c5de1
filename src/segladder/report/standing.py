"""Where a run stands on the ladder of labels, and how charts show it: both are declared by its kind of label."""

from __future__ import annotations

from dataclasses import dataclass

from segladder.data.labels.kinds import kinds
from segladder.report.record import Record


@dataclass(frozen=True, order=True)
class Standing:
    """A kind of label of the classes that a run is asked about, and how many.

    Attributes:
        rank: of the kind, from the least annotation to the most; kinds that are not known stand last.
        all: whether all training images have it, or as few of a class as `shots` says.
    """

    rank: int
    all: bool
    labels: str

    @property
    def colour(self) -> str:
        """Of charts."""
        return kinds()[self.labels].colour if self.labels in kinds() else "#8a8a8a"

    @property
    def marker(self) -> str:
        """Of charts, matplotlib's name."""
        return kinds()[self.labels].marker if self.labels in kinds() else "x"

    @property
    def singular(self) -> str:
        """What one such label is called, where it has a name."""
        return (kinds()[self.labels].singular if self.labels in kinds() else "") or self.labels

    @property
    def style(self) -> int:
        """Number of the colour and dashes on the page."""
        names = list(kinds())
        return names.index(self.labels) if self.labels in names else len(names)


def standing_of(record: Record) -> Standing:
    """The rung of a run: of supports the kind that is given of them, which training may have had more of."""
    labels = _of_supports(record) or record.label_kind
    rank = kinds()[labels].rank if labels in kinds() else 100
    return Standing(rank, record.shots is None, labels)


def _of_supports(record: Record) -> str:
    """The kind of label that supports have, where the protocol says it."""
    singular = record.protocol.get("fields", {}).get("support_annotation")
    return next((name for name, kind in kinds().items() if kind.singular and kind.singular == singular), "")
