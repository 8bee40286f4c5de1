"""Which images people labelled, for which classes and how: what a run has seen and paid for.

A set of such labels can be joined with those of other runs, so that what two runs share counts once. For each image and
class the dearest label counts: a mask says all that a tag says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from segladder.data.labels.kinds import kinds
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.prices import Prices
from segladder.data.reading import MOST_THREADS, of_each
from segladder.data.sources.base import Source
from segladder.machine import cores
from segladder.settings import Count, NotNegative, fits

BACKGROUND = ""  # in place of the name of a class
PLAIN: dict[str, Any] = {  # what `Labelled.plain` gives
    "data": str,
    "kind": str,
    "searched": bool,
    "classes": list[str],
    "held": dict[str, list[Count]],
    "acts": dict[str, list[Count]],
    "background": Count,
    "effort": NotNegative,
}
LEFT_OUT: dict[str, Any] = {"acts": {}, "background": 0, "effort": 1.0}  # what it says nothing of


@dataclass(frozen=True)
class Labelled:
    """Images of a data set that have one kind of label.

    Attributes:
        data: the data set's name, under which an image's id is the same image for every run.
        kind: name of the kind of label.
        classes: those that have labels.
        held: the images, each with those of the classes that it holds.
        searched: whether each image was looked through for each class; else the images were found already.
        acts: for some images how many clicks, strokes or boxes the label of each class that it holds took; the others
            take what VOC's do on average.
        background: how many the background of each image took.
        effort: work behind a label over that of the kind's price, see `Labels.effort`.
    """

    data: str
    kind: str
    classes: tuple[str, ...]
    held: Mapping[str, tuple[str, ...]]
    searched: bool = True
    acts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    background: int = 0
    effort: float = 1.0

    @classmethod
    def of(cls, source: Source, labels: Labels, ids: Iterable[str], classes: Sequence[str]) -> Labelled:
        """Some images of a source, looked through for some of its classes; what they hold is read from their tags."""
        ids = sorted(set(ids))
        columns = [(source.foreground.index(name), name) for name in classes]
        tags = of_each(source.tags, ids, f"tags of {source.name}, for what they cost")
        held = {i: tuple(name for k, name in columns if found[k]) for i, found in zip(ids, tags, strict=True)}
        return cls.holding(source, labels, classes, held)

    @classmethod
    def holding(
        cls, source: Source, labels: Labels, classes: Sequence[str], held: Mapping[str, tuple[str, ...]]
    ) -> Labelled:
        """Images of a source of which it is known what they hold; boxes of objects are counted where it knows them."""

        def acts(image_id: str) -> tuple[int, ...]:
            boxes = source.boxes(image_id) if labels.by_object else None
            indices = [source.classes.index(name) for name in held[image_id]]
            return labels.acts(indices, None if boxes is None else boxes.classes)

        with ThreadPoolExecutor(cores(most=MOST_THREADS)) as pool:
            counted = {i: found for i, found in zip(held, pool.map(acts, held), strict=True) if found}
        background, effort = labels.background_acts if source.background else 0, labels.effort
        return cls(source.name, labels.name, tuple(classes), held, True, counted, background, effort)

    def plain(self) -> dict[str, Any]:
        """In JSON types, the classes that an image holds as positions in `classes`; `acts` in their order."""
        held = {i: [self.classes.index(name) for name in names] for i, names in sorted(self.held.items())}
        said = {"data": self.data, "kind": self.kind, "searched": self.searched, "classes": self.classes, "held": held}
        counted = {"acts": dict(sorted(self.acts.items()))} if self.acts else {}
        effort = {} if self.effort == 1 else {"effort": self.effort}
        return said | counted | ({"background": self.background} if self.background else {}) | effort

    @classmethod
    def from_plain(cls, stored: Mapping[str, Any]) -> Labelled:
        """What `plain` gave. Raises ValueError for anything else."""
        said = {**LEFT_OUT, **stored} if isinstance(stored, Mapping) else {}
        for key, annotation in PLAIN.items():
            if not fits(annotation, said.get(key)):
                raise ValueError(f"{key} is {said.get(key)!r:.80}")
        if said["kind"] not in kinds():
            raise ValueError(f"no kind of label is called {said['kind']}")
        classes, positions = tuple(said["classes"]), said["held"]
        if any(k >= len(classes) for of_image in positions.values() for k in of_image):
            raise ValueError("an image holds a class that is not among its classes")
        acts = {i: tuple(found) for i, found in said["acts"].items()}
        if any(len(found) < len(positions.get(i, ())) for i, found in acts.items()):
            raise ValueError("an image holds more classes than acts are counted of")
        held = {i: tuple(classes[k] for k in of_image) for i, of_image in positions.items()}
        effort = float(said["effort"])
        return cls(said["data"], said["kind"], classes, held, said["searched"], acts, said["background"], effort)

    def seconds(self, prices: Prices, image_id: str, name: str) -> float:
        """Seconds that the label of one class in one image took."""
        if name not in self.held[image_id]:
            return prices.presence if self.searched else 0.0
        counted = self.acts.get(image_id)
        acts = None if counted is None else counted[self.held[image_id].index(name)]
        return kinds()[self.kind].price(prices, acts) * self.effort


def joined(labelled: Iterable[Labelled]) -> tuple[Labelled, ...]:
    """These labels, with images of equal kind, classes and data joined into one."""
    groups: dict[tuple[Any, ...], Labelled] = {}
    for part in labelled:
        if part.held and part.classes:
            key = part.data, part.kind, part.classes, part.searched, part.background, bool(part.acts), part.effort
            groups[key] = _in_one(groups[key], part) if key in groups else part
    return tuple(groups.values())


def _in_one(first: Labelled, second: Labelled) -> Labelled:
    acts = dict(first.acts)
    for image_id, found in second.acts.items():  # of one image the larger counts, as long as both are of its classes
        known = acts.get(image_id, ())
        acts[image_id] = tuple(map(max, known, found)) if len(known) == len(found) else found
    return replace(first, held={**first.held, **second.held}, acts=acts)


def seconds_of(labelled: Iterable[Labelled], prices: Prices, classes: Collection[str] | None = None) -> float:
    """Seconds of human work behind labels, each image and class once; of some classes alone, where given.

    The background of an image belongs to the classes that were labelled with it.
    """
    paid: dict[tuple[str, str, str], float] = {}
    for part in labelled:
        names = part.classes if classes is None else [name for name in part.classes if name in classes]
        background = kinds()[part.kind].price(prices, part.background) if part.background else 0.0
        for image_id in part.held:
            seconds = [(name, part.seconds(prices, image_id, name)) for name in names]
            for name, price in [*seconds, *([(BACKGROUND, background)] if names and background else [])]:
                key = part.data, image_id, name
                paid[key] = max(paid.get(key, 0.0), price)
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
