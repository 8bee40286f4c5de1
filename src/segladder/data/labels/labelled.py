"""Which images people labelled, for which classes and how: what a run has seen and paid for.

A set of such labels can be joined with those of other runs, so that what two runs share counts once. For each image and
class the dearest label counts: a mask says all that a tag says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from segladder.data.labels.kinds import kinds
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.prices import Prices
from segladder.data.sources.base import Source
from segladder.machine import cores

MOST_THREADS = 4


@dataclass(frozen=True)
class Labelled:
    """Images of a data set that have one kind of label.

    Attributes:
        data: the data set's name, under which an image's id is the same image for every run.
        kind: name of the kind of label.
        classes: those that have labels.
        held: the images, each with those of the classes that it holds.
        searched: whether each image was looked through for each class; else the images were found already.
        effort: work behind a label over that of the kind's price, see `Labels.effort`.
    """

    data: str
    kind: str
    classes: tuple[str, ...]
    held: Mapping[str, tuple[str, ...]]
    searched: bool = True
    effort: float = 1.0

    @classmethod
    def of(cls, source: Source, labels: Labels, ids: Iterable[str], classes: Sequence[str]) -> Labelled:
        """Some images of a source, looked through for some of its classes; what they hold is read from their tags."""
        ids = sorted(set(ids))
        columns = [(source.classes.index(name) - 1, name) for name in classes]
        with ThreadPoolExecutor(cores(most=MOST_THREADS)) as pool:
            tags = pool.map(source.tags, ids)
            held = {i: tuple(name for k, name in columns if found[k]) for i, found in zip(ids, tags, strict=True)}
        return cls(source.name, labels.name, tuple(classes), held, effort=labels.effort)

    def plain(self) -> dict[str, Any]:
        """In JSON types, the classes that an image holds as positions in `classes`."""
        held = {i: [self.classes.index(name) for name in names] for i, names in sorted(self.held.items())}
        plain = {"data": self.data, "kind": self.kind, "searched": self.searched, "classes": self.classes, "held": held}
        return plain if self.effort == 1 else {**plain, "effort": self.effort}

    @classmethod
    def from_plain(cls, stored: Mapping[str, Any]) -> Labelled:
        """What `plain` gave. Raises KeyError, TypeError or IndexError for anything else."""
        classes = tuple(map(str, stored["classes"]))
        held = {str(i): tuple(classes[k] for k in positions) for i, positions in stored["held"].items()}
        searched, effort = bool(stored["searched"]), float(stored.get("effort", 1.0))
        return cls(str(stored["data"]), str(stored["kind"]), classes, held, searched, effort)


def joined(labelled: Iterable[Labelled]) -> tuple[Labelled, ...]:
    """The same labels, images of the same kind, classes and data in one."""
    groups: dict[tuple[Any, ...], dict[str, tuple[str, ...]]] = defaultdict(dict)
    for part in labelled:
        if part.held and part.classes:
            groups[part.data, part.kind, part.classes, part.searched, part.effort].update(part.held)
    return tuple(
        Labelled(data, kind, classes, held, searched, effort)
        for (data, kind, classes, searched, effort), held in groups.items()
    )


def seconds_of(labelled: Iterable[Labelled], prices: Prices, classes: Collection[str] | None = None) -> float:
    """Seconds of human work behind labels, each image and class once; of some classes alone, where given."""
    paid: dict[tuple[str, str, str], float] = {}
    for part in labelled:
        label = kinds()[part.kind].price(prices) * part.effort
        look = prices.presence if part.searched else 0.0
        for name in part.classes if classes is None else [name for name in part.classes if name in classes]:
            for image_id, held in part.held.items():
                key = part.data, image_id, name
                paid[key] = max(paid.get(key, 0.0), label if name in held else look)
    return sum(paid.values())


def seen_kinds(labelled: Iterable[Labelled]) -> dict[str, list[str]]:
    """For each class with labels their kinds, by name, from the least annotation to the most."""
    found: dict[str, set[str]] = defaultdict(set)
    for part in labelled:
        for name in part.classes:
            found[name].add(part.kind)
    return {name: [kind for kind in kinds() if kind in found[name]] for name in sorted(found)}


def image_counts(labelled: Sequence[Labelled]) -> dict[str, int]:
    """How many images have labels of each kind."""
    images: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for part in labelled:
        images[part.kind] |= {(part.data, image_id) for image_id in part.held}
    return {kind: len(found) for kind, found in sorted(images.items())}
