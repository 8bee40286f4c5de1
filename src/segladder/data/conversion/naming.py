"""`classes=`: names for colours, numbers or labels, given by hand or by a file beside the data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segladder.data.sources.folder import CLASSES, read_class_names
from segladder.data.sources.lists import MOST_CLASSES
from segladder.errors import ConfigError, DataError
from segladder.foreign import printable, text
from segladder.mask_values import IGNORE

IGNORED = ("ignore", "ignored", "void", "__ignore__")  # names of what becomes 255
TRANSPARENT = 1 << 24  # beside the 24-bit codes of colours
GIVEN = "classes"  # the place of names that are told on the command line
COLOUR_FILES = (
    CLASSES,
    "labelmap.txt",
    "label_colors.txt",
    "class_dict.csv",
    "classes.csv",
    "colors.txt",
    "colours.txt",
)
COLOUR_LINE = re.compile(
    r"^(?P<before>.*?)[\s,;:]*\b(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})(?:[\s,;:]+(?P<after>\D.*))?$"
)
HEX = re.compile(r"#?([0-9a-fA-F]{6})")

Spec = str | int | Sequence[str | int]


@dataclass(frozen=True)
class Naming:
    """Names in the order of their values.

    Attributes:
        names: the first is value 0; empty where nobody has given any.
        looks: what each name stands for, codes of colours or numbers; None where only names are given.
        by: what `looks` are.
        place: where the names come from, for messages.
    """

    names: tuple[str, ...] = ()
    looks: tuple[tuple[int, ...], ...] | None = None
    by: str = "names"
    place: str = GIVEN

    @property
    def told(self) -> str:
        """The names of objects as they were told; the first is the background's."""
        return f"{self.place}={list(self.names)}: the first is the background"

    def values(self) -> list[int]:
        """The mask value of each name: 0, 1, ... for classes, 255 for what is ignored.

        Raises ConfigError, or DataError naming the file they come from, for more classes than a mask has values.
        """
        kept = [name for name in self.names if name not in IGNORED]
        if len(kept) > MOST_CLASSES:
            fault = ConfigError if self.place == GIVEN else DataError
            raise fault(
                f"{self.place}: {len(kept) - 1} classes and the background, expected {MOST_CLASSES - 1} at most: a mask"
                f" holds 0..{MOST_CLASSES - 1}, and {IGNORE} is ignored"
            )
        return [IGNORE if name in IGNORED else kept.index(name) for name in self.names]


def given(classes: Mapping[str, Spec] | Sequence[str] | None) -> Naming:
    """The key `classes` of the command. Raises ConfigError for what is no colour or number, or stands twice."""
    if not classes:
        return Naming()
    if not isinstance(classes, Mapping):
        return _checked(Naming(tuple(classes)))
    looks = [_looks(name, spec) for name, spec in classes.items()]
    kinds = {kind for kind, _ in looks}
    if len(kinds) > 1:
        raise ConfigError("classes: colours and numbers, expected either")
    return _checked(Naming(tuple(map(str, classes)), tuple(codes for _, codes in looks), kinds.pop()))


def of_file(files: Iterable[Path]) -> Naming | None:
    """Names of the first file that lists colours, a line each, such as CVAT's labelmap.txt; None without one."""
    for path in files:
        if path.name.lower() not in COLOUR_FILES:
            continue
        found: dict[str, tuple[int, ...]] = {}
        for line in text(path).splitlines():
            parts = COLOUR_LINE.match(line.strip().rstrip(":"))
            name = printable((parts["before"] + (parts["after"] or "")).strip(" ,;:\t\"'")) if parts else ""
            colour = [int(parts[k]) for k in (2, 3, 4)] if parts else []
            if name and not name.startswith("#") and max(colour) <= 255:
                found[name] = (*found.get(name, ()), code(*colour))
        if len(found) > 1:
            first = min(found, key=lambda name: (name.lower() != "background", 0 not in found[name]))
            names = (first, *(name for name in found if name != first))
            return Naming(names, tuple(found[name] for name in names), "colours", str(path))
    return None


def in_order(files: Iterable[Path]) -> Naming:
    """Names of the first classes.txt, a line each in the order of their values; none without such a file.

    Raises DataError for one that is no list of names.
    """
    path = next((path for path in files if path.name.lower() == CLASSES), None)
    return Naming() if path is None else _checked(Naming(tuple(read_class_names(path)), place=str(path)))


def code(red: int, green: int, blue: int) -> int:
    """A colour as one number."""
    return red << 16 | green << 8 | blue


def shown(colour: int) -> str:
    """A colour's code as it is written: #rrggbb, or transparent."""
    return "transparent" if colour == TRANSPARENT else f"#{colour:06x}"


def _looks(name: str, spec: Spec) -> tuple[str, tuple[int, ...]]:
    if isinstance(spec, str | int):
        return _look(name, spec)
    if len(spec) == 3 and all(isinstance(part, int) and 0 <= part <= 255 for part in spec):
        red, green, blue = (int(part) for part in spec)
        return "colours", (code(red, green, blue),)
    several = [_look(name, part) for part in spec]
    if len({kind for kind, _ in several}) != 1:
        raise ConfigError(f"classes.{name}: expected colours or numbers, one or more of a kind")
    return several[0][0], tuple(each for _, codes in several for each in codes)


def _look(name: str, spec: str | int) -> tuple[str, tuple[int, ...]]:
    if spec == "transparent":
        return "colours", (TRANSPARENT,)
    if isinstance(spec, str) and (found := HEX.fullmatch(spec)):
        return "colours", (int(found[1], 16),)
    if re.fullmatch(r"\d{1,3}", str(spec)) and int(spec) <= 255:
        return "numbers", (int(spec),)
    raise ConfigError(f"classes.{name}={spec}: expected a colour such as '#ff0000' or [255,0,0], or a number 0..255")


def _checked(naming: Naming) -> Naming:
    if len({*naming.names}) != len(naming.names) or max(naming.values(), default=0) == 0:
        fault = ConfigError if naming.place == GIVEN else DataError
        raise fault(
            f"{naming.place}: {', '.join(naming.names)}; expected the background and at least one class, each once"
        )
    codes = [each for codes in naming.looks or () for each in codes]
    if twice := [each for each in codes if codes.count(each) > 1]:
        look = shown(twice[0]) if naming.by == "colours" else str(twice[0])
        raise ConfigError(f"classes: {look} stands twice, expected each colour or number once")
    return naming
