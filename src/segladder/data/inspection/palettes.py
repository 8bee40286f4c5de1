"""Do palettes of masks agree? Programs that reduce colours to a palette number them anew in each file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from segladder.data.sources.decoding import png_palette, read_mask
from segladder.errors import DataError
from segladder.mask_values import IGNORE

Colour = tuple[int, ...]


def unlike_palettes(paths: Sequence[Path]) -> str | None:
    """Which value two masks paint in two colours, or None; masks are decoded only where palettes differ in some value.

    Masks without a palette and damaged ones are passed over, and so is 255.
    """
    palettes = {path: palette for path in dict.fromkeys(paths) if (palette := png_palette(path)) is not None}
    colours: dict[int, set[Colour]] = defaultdict(set)
    for palette in {*palettes.values()}:
        for value, colour in enumerate(palette):
            colours[value].add(colour)
    unlike = [value for value, found in colours.items() if len(found) > 1 and value != IGNORE]
    painted: dict[int, tuple[Colour, Path]] = {}
    for path, palette in palettes.items() if unlike else ():
        with suppress(DataError):
            held = np.intersect1d(read_mask(path), unlike).tolist()
            for value in (each for each in held if each < len(palette)):  # palettes may be shorter than values go
                colour, first = painted.setdefault(value, (palette[value], path))
                if palette[value] != colour:
                    here, there = hexadecimal(palette[value]), hexadecimal(colour)
                    return (
                        f"{path}: value {value} is painted {here}, in {first} {there}: are classes told by colour?"
                        " segladder data action=convert makes numbers of colours; if by value, save the masks with one"
                        " palette"
                    )
    return None


def hexadecimal(colour: Colour) -> str:
    """`#ff0000` of (255, 0, 0)."""
    return "#" + "".join(f"{part:02x}" for part in colour)
