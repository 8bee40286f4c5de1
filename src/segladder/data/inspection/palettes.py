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


def unlike_palettes(paths: Sequence[Path]) -> str | None:
    """Which value two masks paint in two colours, or None; masks are decoded only where palettes differ in some value.

    Masks without a palette and damaged ones are passed over, and so is 255.
    """
    palettes = {path: palette for path in dict.fromkeys(paths) if (palette := png_palette(path)) is not None}
    colours: dict[int, set[bytes]] = defaultdict(set)
    for palette in {*palettes.values()}:
        for value in range(len(palette) // 3):
            colours[value].add(colour_of(palette, value))
    unlike = [value for value, found in colours.items() if len(found) > 1 and value != IGNORE]
    painted: dict[int, tuple[bytes, Path]] = {}
    for path, palette in palettes.items() if unlike else ():
        with suppress(DataError):
            held = np.intersect1d(read_mask(path), unlike).tolist()
            for value in (each for each in held if each < len(palette) // 3):  # palettes may be shorter than values go
                own = colour_of(palette, value)
                colour, first = painted.setdefault(value, (own, path))
                if own != colour:
                    return (
                        f"{path}: value {value} is painted #{own.hex()}, in {first} #{colour.hex()}: are classes told"
                        " by colour? segladder data action=convert makes numbers of colours; if by value, save the"
                        " masks with one palette"
                    )
    return None


def colour_of(palette: bytes, value: int) -> bytes:
    """Red, green and blue of a value."""
    return palette[3 * value : 3 * value + 3]
