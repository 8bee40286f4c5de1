"""Frozen lists of test episodes, drawn from what images hold.

A list is a pure function of what the images hold and of `draw`'s arguments, on every machine and Python: random numbers
come from `Random(seed).random()` alone, and the seed of an episode from a hash. Episode n does not depend on how many
follow, and the supports of K shots are the first K of those of more shots, so that shots compare on the same queries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeVar

from segladder.data.hashing import hashed_seed
from segladder.data.sources.items import Items
from segladder.errors import ConfigError, DataError
from segladder.settings import check_value

Rule = Literal["item", "class", "image", "balanced", "sequential", "pass", "image_sequential"]
Kind = Literal["standard", "hard", "negative", "swap"]

Option = TypeVar("Option")
Pair = tuple[str, int]  # image id, class index
Need = str | Pair


@dataclass(frozen=True)
class Episode:
    """A query to segment for one class, and the annotated images that show the class.

    Attributes:
        query: image id.
        class_index: index into the source's `classes`, at least 1.
        supports: K image ids.
        seed: for whatever else is random in the episode.
    """

    query: str
    class_index: int
    supports: tuple[str, ...]
    seed: int

    @property
    def needs(self) -> list[Need]:
        """What an answer is made from: the images, and each support as annotated for the class."""
        return [self.query, *self.supports, *((image_id, self.class_index) for image_id in self.supports)]


def draw(
    items: Items,
    classes: Sequence[int],
    shots: int,
    episodes: int,
    seed: int,
    rule: str = "balanced",
    kind: str = "standard",
    repeats: bool = False,
    ways: int = 1,
) -> list[Episode]:
    """The frozen list of episodes of a fold.

    With several ways a query is asked for several classes: consecutive episodes, the first of them the one-way list's.

    Args:
        items: what the test images hold.
        classes: indices of the fold's classes.
        shots: supports an episode, other images than the query.
        episodes: how many, for each way; a `swap` list ends with the query whose episodes fill it.
        seed: another seed, another list.
        rule: how queries are drawn: `item` (a kept (image, class) pair, uniformly: frequent classes dominate), `class`
            (a class, then an image), `image` (an image, then one of its classes), `balanced` (the classes in turn, then
            an image), `sequential` (pair by pair, again from the start after the last), `pass` (all pairs once in
            shuffled order, then all of them in another) or `image_sequential` (image by image, again from the start
            after the last; then one of its classes, which may be too small to be an item once another one is).
        kind: which queries: `standard`, `hard` (those that also hold a kept object of another foreground class, of the
            fold or not), `negative` (those that hold some kept object but not one pixel of the class) or `swap` (the
            hard ones, with consecutive episodes for each of their kept classes, the drawn one first; a class outside
            the fold counts, since some folds have hardly an image with two of theirs; supports that hold none of the
            other classes come first).
        repeats: whether a support may be drawn twice.
        ways: classes of the fold that a query is asked for, whether or not it holds them: the drawn one, then others,
            those of fewer ways first.

    Raises:
        ConfigError: no such rule or kind, no shot, episode or class, or several ways of too few classes or of a kind
            other than `standard`.
        DataError: a class with too few images, named.
    """
    _check(items, classes, shots, episodes, rule, kind)
    _check_ways(ways, classes, kind)
    deck = _Deck(items, classes, shots, kind, repeats)
    drawn: list[Episode] = []
    number = 0
    while len(drawn) < episodes * ways:
        key = (seed, kind, rule, ",".join(map(str, classes)), number)
        passed = number // max(1, len(deck.pairs)) if rule == "pass" else number
        query, class_index = deck.query(rule, number, Random(hashed_seed(*key[:-1], passed)))
        swapped = deck.others(query, class_index) if kind == "swap" else []
        rest = [k for k in classes if k != class_index]
        asked = [class_index, *swapped, *sample(Random(hashed_seed(*key, "ways")), rest, ways - 1)]
        for k in asked:
            rivals = set(asked) - {k} if kind == "swap" else set()
            own_seed = hashed_seed(*key, k)
            drawn.append(Episode(query, k, deck.supports(query, k, rivals, Random(own_seed)), own_seed))
        number += 1
    return drawn


def draw_all_ways(items: Items, shots: int, seed: int) -> list[Episode]:
    """The frozen list that asks every image with a kept object for every class: consecutive episodes, in class order.

    Supports do not depend on which classes are novel, so that all folds are scored on one list.

    Args:
        items: what the test images hold.
        shots: supports of each class, other images than the query.
        seed: another seed, other supports.

    Raises:
        ConfigError: no shot, or no class.
        DataError: a class with too few images, named.
    """
    classes = range(1, len(items.classes))
    _check(items, classes, shots, episodes=1, rule="item", kind="standard")
    deck = _Deck(items, classes, shots, kind="standard", repeats=False)
    drawn = []
    for query in deck.images:
        for k in classes:
            own_seed = hashed_seed(seed, "all", query, k)
            drawn.append(Episode(query, k, deck.supports(query, k, set(), Random(own_seed)), own_seed))
    return drawn


def digest(episodes: Iterable[Episode]) -> str:
    """First 16 hex digits of a sha256 over a list of episodes."""
    whole = hashlib.sha256()
    for episode in episodes:
        words = (episode.query, str(episode.class_index), *episode.supports, str(episode.seed))
        whole.update("\0".join(words).encode() + b"\n")
    return whole.hexdigest()[:16]


def pick(random: Random, options: Sequence[Option]) -> Option:
    """One of some options, uniformly, from one random number."""
    return options[int(random.random() * len(options))]


def sample(random: Random, options: Sequence[Option], count: int) -> list[Option]:
    """Distinct ones of some options, uniformly; those of a smaller `count` are the first of these."""
    moved: dict[int, int] = {}  # by place, which option stands there now: a shuffle that copies none of the options
    for place in range(count):
        other = place + int(random.random() * (len(options) - place))
        moved[place], moved[other] = moved.get(other, other), moved.get(place, place)
    return [options[moved[place]] for place in range(count)]


class _Deck:
    """What a list is drawn from: the (image, class) pairs that its kind allows as queries, and each class's images."""

    def __init__(self, items: Items, classes: Sequence[int], shots: int, kind: str, repeats: bool) -> None:
        self.items, self.classes, self.shots, self.kind, self.repeats = items, list(classes), shots, kind, repeats
        self.holders = {k: items.holders(k) for k in range(1, len(items.classes))}
        self.places = {k: {i: place for place, i in enumerate(images)} for k, images in self.holders.items()}
        needed = 2 if repeats else shots + 1
        for k in classes:
            if len(self.holders[k]) < needed:
                raise DataError(
                    f"{items.name}: class {items.classes[k]} has {len(self.holders[k])} of {len(items.ids)} images,"
                    f" {shots}-shot episodes need {needed}; {items.remedy(k, shots)}"
                )
        self.kept = dict(zip(items.ids, items.kept, strict=True))
        self.present = dict(zip(items.ids, map(set, items.present), strict=True))
        self.supported = {k for k, images in self.holders.items() if len(images) >= needed}
        self.pairs = [(i, k) for i in items.ids for k in sorted(classes) if self.allows(i, k)]
        self.of_class = {k: [pair for pair in self.pairs if pair[1] == k] for k in classes}
        self.of_image: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            self.of_image.setdefault(pair[0], []).append(pair)
        self.images = list(self.of_image)

    def allows(self, image_id: str, k: int) -> bool:
        """Whether the image can be a query for class k."""
        if self.kind == "negative":
            return bool(self.kept[image_id]) and k not in self.present[image_id]
        if self.kind == "swap":
            return k in self.kept[image_id] and bool(self.others(image_id, k))
        return k in self.kept[image_id] and (self.kind == "standard" or len(self.kept[image_id]) > 1)

    def others(self, query: str, class_index: int) -> list[int]:
        """The other kept classes of a query for which there are supports."""
        return [k for k in self.kept[query] if k != class_index and k in self.supported]

    def query(self, rule: str, number: int, random: Random) -> Pair:
        """The query with this number and its class; with `pass`, all numbers of a pass have one state of `random`."""
        if rule == "item":
            return pick(random, self._some(self.pairs, self.classes))
        if rule == "sequential":
            return self._some(self.pairs, self.classes)[number % len(self.pairs)]
        if rule == "pass":
            pairs = self._some(self.pairs, self.classes)
            return sample(random, pairs, number % len(pairs) + 1)[-1]
        if rule == "image_sequential":
            images = self._some(self.images, self.classes)
            return pick(random, self.held(images[number % len(images)]))
        if rule == "image":
            return pick(random, self.of_image[pick(random, self._some(self.images, self.classes))])
        k = pick(random, self.classes) if rule == "class" else self.classes[number % len(self.classes)]
        return pick(random, self._some(self.of_class[k], [k]))

    def held(self, query: str) -> list[Pair]:
        """What a query may be asked for: of the standard kind its classes whatever their size, else its pairs."""
        if self.kind != "standard":
            return self.of_image[query]
        return [(query, k) for k in sorted(self.classes) if k in self.present[query]]

    def _some(self, options: Sequence[Option], classes: Sequence[int]) -> Sequence[Option]:
        """The options, of which there must be one."""
        if not options:
            names = ", ".join(self.items.classes[k] for k in classes)
            raise DataError(
                f"{self.items.name}: none of {len(self.items.ids)} images is a {self.kind} query for {names};"
                " leave the class out, choose another kind or set protocol.min_object=none"
            )
        return options

    def supports(self, query: str, k: int, rivals: set[int], random: Random) -> tuple[str, ...]:
        """Images of class k other than the query, those without a pixel of the rivals first."""
        held, others = self.holders[k], range(len(self.holders[k]) - (query in self.places[k]))  # by number
        own = self.places[k].get(query, len(held))

        def image(number: int) -> str:
            return held[number + (number >= own)]

        clean = [n for n in others if rivals.isdisjoint(self.present[image(n)])] if rivals else others
        if self.repeats:
            return tuple(image(pick(random, clean or others)) for _ in range(self.shots))
        first = sample(random, clean, min(self.shots, len(clean)))
        lacking = self.shots - len(first)
        unclean = [n for n in others if not rivals.isdisjoint(self.present[image(n)])] if lacking else []
        return tuple(image(n) for n in first + sample(random, unclean, lacking))


def _check(items: Items, classes: Sequence[int], shots: int, episodes: int, rule: str, kind: str) -> None:
    check_value(Rule, rule, "episodes.rule")
    check_value(Kind, kind, "episodes.kind")
    if shots < 1 or episodes < 1:
        raise ConfigError(f"episodes: {shots} shots, {episodes} episodes; expected at least one of each")
    foreground = range(1, len(items.classes))
    if not classes or len(set(classes)) != len(classes) or not set(classes) <= set(foreground):
        raise ConfigError(f"classes {list(classes)} of episodes: expected some of 1..{foreground.stop - 1}, once each")


def _check_ways(ways: int, classes: Sequence[int], kind: str) -> None:
    if not 1 <= ways <= len(classes):
        raise ConfigError(f"ways={ways}: the fold has {len(classes)} classes, expected 1..{len(classes)}")
    if ways > 1 and kind != "standard":
        raise ConfigError(f"ways={ways}: kind={kind} asks for one class at a time, expected ways=1 or kind=standard")
