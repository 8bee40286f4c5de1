"""What the colours or numbers of a folder's masks mean: found in all of them, or named by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segladder.data.conversion.base import Found
from segladder.data.conversion.naming import GIVEN, TRANSPARENT, Naming, in_order, of_file, shown
from segladder.data.conversion.raw_masks import RawMask, Seen, named, read
from segladder.data.sources.lists import MOST_CLASSES
from segladder.errors import ConfigError, DataError
from segladder.mask_values import IGNORE

BLACK = 0
MANY = 32  # numbers that are asked whether they are grays of soft edges


@dataclass(frozen=True)
class Palette:
    """How a raw mask becomes one of class values.

    Attributes:
        by: `colours` or `numbers`.
        values: the class value of each colour or number.
        names: of the values; 255 is ignored.
        words: what the masks are, in words.
        guessed: whether nobody has named the classes.
    """

    by: str
    values: Mapping[int, int]
    names: Mapping[int, str]
    words: str
    guessed: bool = False

    def mask(self, seen: Seen) -> np.ndarray:
        """Class values uint8 (H, W) of a file. Raises DataError naming a colour or number that has no class."""
        counts = (seen.colours if self.by == "colours" else seen.numbers) or {}
        if unknown := [look for look in counts if look not in self.values]:
            expected = ", ".join(named(look, self.by) for look in list(self.values)[:8])
            kind = "colour" if self.by == "colours" else "value"
            raise DataError(
                f"{seen.path}: {kind} {named(unknown[0], self.by)} ({counts[unknown[0]]} pixels) has no class;"
                f" named are {expected}"
            )
        return self._looked_up(read(seen.path))

    def _looked_up(self, raw: RawMask) -> np.ndarray:
        held = raw.colours if self.by == "colours" else raw.numbers
        assert held is not None
        looks = np.array(sorted(self.values), held.dtype)
        table = np.array([self.values[int(look)] for look in looks], np.uint8)
        return table[np.searchsorted(looks, held)]

    def classes(self) -> list[Found]:
        """Each class with what it was."""
        looks = {value: [look for look, of in self.values.items() if of == value] for value in self.names}
        return [
            Found(value, name, " ".join(named(look, self.by) for look in looks[value]) or "-")
            for value, name in sorted(self.names.items())
        ]

    def asking(self) -> str | None:
        """The `classes=` that names classes which nobody has named."""
        return (
            _written({self.names[value]: look for look, value in self.values.items()}, self.by)
            if self.guessed
            else None
        )


def palette_of(seen: Sequence[Seen], naming: Naming, files: Sequence[Path]) -> Palette:
    """The palette of all masks.

    Args:
        seen: what each holds.
        naming: the names that were given, if any.
        files: beside the masks; without given names one of them may tell some.

    Raises:
        DataError: masks whose meaning cannot be told, with the `classes=` that tells it, or fewer names than numbers.
        ConfigError: names that do not fit what the masks are.
    """
    numbered = _are_numbers(seen)
    if not naming.names:
        naming = _beside(seen, numbered, files)
    if naming.by == "numbers" and not numbered:
        raise ConfigError(f"classes: numbers, but the masks have colours: {_list(_total(seen, 'colours'), 'colours')}")
    if naming.looks is not None:
        return _told(naming)
    if numbered:
        return _numbers(seen, naming)
    return _colours(seen, naming)


def _beside(seen: Sequence[Seen], numbered: bool, files: Sequence[Path]) -> Naming:
    """Names from a file: of colours, or in the order of numbers, which does not tell more than two colours apart."""
    coloured = of_file(files)
    if coloured is not None and (not numbered or _is_palette(seen)):
        return coloured
    listed = in_order(files)
    if not numbered:
        return listed if len(listed.names) == len(_total(seen, "colours")) == 2 else Naming()
    if listed.names and (most := max({*_total(seen, "numbers")} - {IGNORE}, default=0)) >= len(listed.names):
        held = next(each for each in seen if most in (each.numbers or {}))
        raise DataError(
            f"{listed.place}: {len(listed.names)} names, but {held.path} holds value {most}; expected a name for each"
            " value from 0, the background, on, or classes=[background,...]"
        )
    return listed


def _are_numbers(seen: Sequence[Seen]) -> bool:
    """Whether the values of all masks are one set of numbers, which no two files paint in two colours."""
    painted: dict[int, int] = {}
    for each in seen:
        if each.numbers is None:
            return False
        if _has_palette(each) and any(painted.setdefault(n, c) != c for n, c in each.painted.items()):
            return False
    return True


def _has_palette(seen: Seen) -> bool:
    return any(colour != number * 0x010101 for number, colour in seen.painted.items())


def _is_palette(seen: Sequence[Seen]) -> bool:
    return any(map(_has_palette, seen))


def _total(seen: Sequence[Seen], by: str) -> Counter[int]:
    """Pixels of each colour or number over all masks."""
    total: Counter[int] = Counter()
    for each in seen:
        total.update((each.colours if by == "colours" else each.numbers) or {})
    return total


def _told(naming: Naming) -> Palette:
    assert naming.looks is not None
    values = naming.values()
    looks = {look: value for codes, value in zip(naming.looks, values, strict=True) for look in codes}
    kind = "colour-coded masks" if naming.by == "colours" else "masks of class numbers"
    return Palette(naming.by, looks, dict(zip(values, naming.names, strict=True)), f"{kind}, named by {naming.place}")


def _numbers(seen: Sequence[Seen], naming: Naming) -> Palette:
    total = _total(seen, "numbers")
    if set(total) <= {0, IGNORE} and IGNORE in total and len(naming.names) in (0, 2):
        names = dict(enumerate(naming.names or ("background", "foreground")))
        return Palette("numbers", {0: 0, IGNORE: 1}, names, "binary masks of 0 and 255; 255 becomes 1")
    if not (naming.names and naming.place == GIVEN) and (unlike := _unlike_foregrounds(seen)):
        raise DataError(unlike)
    found = sorted(set(total) - {IGNORE})
    kept = naming.values()
    count = len(kept) or (found[-1] + 1 if found else 0)
    if not naming.names:
        if set(total) <= {0}:
            raise DataError(f"{seen[0].path}: like every mask, 0 alone; expected pixels of a class in some mask")
        if 2 * len(found) < count and _is_palette(seen):
            return _renumbered(found)
        if 2 * len(found) < count or (count > MANY and _soft(seen)):
            raise DataError(_unclear(seen, total))
    names = {k: name for k, name in zip(kept, naming.names, strict=True) if k != IGNORE} or _unnamed(count)
    values = {**dict(enumerate(kept or range(count))), IGNORE: IGNORE}
    words = f"masks of class numbers, kept as they are; {IGNORE} is ignored"
    return Palette("numbers", values, {**names, IGNORE: "ignore"}, words, guessed=not naming.names)


def _unlike_foregrounds(seen: Sequence[Seen]) -> str | None:
    """What to ask where some masks hold 0 and 1, others 0 and 255: whether two programs marked one thing."""
    held = [(each.path, {*(each.numbers or {})}) for each in seen]
    ones = [path for path, values in held if 1 in values]
    whites = [path for path, values in held if IGNORE in values]
    if not ones or not whites or {*ones} & {*whites} or any(values - {0, 1, IGNORE} for _, values in held):
        return None
    return (
        f"{ones[0]} holds 1 and never {IGNORE}, {whites[0]} {IGNORE} and never 1: are both the class, or is {IGNORE}"
        ' ignored? Say so: classes="{background: 0, foreground: [1, 255]}" or'
        ' classes="{background: 0, foreground: 1, ignore: 255}"'
    )


def _renumbered(found: Sequence[int]) -> Palette:
    """Numbers with gaps, which a palette says are classes."""
    names = {k: f"class_{number}" if k else "background" for k, number in enumerate(found)}
    values = {number: k for k, number in enumerate(found)} | {IGNORE: IGNORE}
    words = f"palette masks of class numbers with gaps, numbered anew; {IGNORE} is ignored"
    return Palette("numbers", values, {**names, IGNORE: "ignore"}, words, guessed=True)


def _unclear(seen: Sequence[Seen], total: Counter[int]) -> str:
    """Why numbers are no class numbers, and what to do."""
    if soft := _soft(seen):
        return soft
    names = {"background" if value == min(total) else f"class_{value}": value for value in sorted(total)}
    return (
        f"{seen[0].path}: the masks hold the values {_list(total, 'numbers')}: class numbers or grays?"
        f" Name each (ignore: not used): {_written(names, 'numbers')}"
    )


def _colours(seen: Sequence[Seen], naming: Naming) -> Palette:
    total = _total(seen, "colours")
    if soft := _soft(seen):
        raise DataError(soft)
    ground = next((look for look in (TRANSPARENT, BLACK) if look in total), total.most_common(1)[0][0])
    looks = [ground, *sorted(set(total) - {ground})]
    if len(looks) < 2:
        raise DataError(f"{seen[0].path}: like every mask, {shown(ground)} alone; expected two colours at least")
    names = naming.names or tuple(_unnamed(len(looks)).values())
    if len(names) != len(looks):
        raise ConfigError(f"classes: {len(names)} names for {len(looks)} colours: {_list(total, 'colours')}")
    why = "black" if ground == BLACK else "transparent" if ground == TRANSPARENT else "most frequent"
    words = f"colour-coded masks; {shown(ground)} is value 0 ({why})"
    told = Naming(names, tuple((look,) for look in looks), "colours")
    return Palette("colours", _told(told).values, _told(told).names, words, guessed=not naming.names)


def _soft(seen: Sequence[Seen]) -> str | None:
    """Why colours are not those that were drawn: some lie on edges alone, as between two others."""
    total = _total(seen, "colours")
    mixed = set(total).difference(*(each.solid for each in seen))
    if not mixed and len(total) <= MOST_CLASSES:
        return None
    rare = min(mixed or total, key=lambda look: (total[look], look))
    first = next(each for each in seen if rare in each.colours)
    return (
        f"{first.path}: {len(first.colours)} colours, {len(total)} in all masks; some, such as {shown(rare)}, fill 2x2"
        " pixels nowhere, so it was a JPEG once or has soft edges (anti-aliasing, resizing). Export the masks with hard"
        " edges as PNG, or name every colour with classes="
    )


def _unnamed(count: int) -> dict[int, str]:
    return {k: f"class_{k}" if k else "background" for k in range(count)}


def _list(total: Counter[int], by: str) -> str:
    looks = [named(look, by) for look, _ in total.most_common(9)]
    return ", ".join(looks[:8]) + (f" ... ({len(total)} in all)" if len(looks) > 8 else "")


def _written(names: Mapping[str, int], by: str) -> str:
    """Names with their colours or numbers as the command line takes them."""
    looks = {name: f"'{shown(look)}'" if by == "colours" else str(look) for name, look in names.items()}
    return 'classes="{' + ", ".join(f"{name}: {look}" for name, look in looks.items()) + '}"'
