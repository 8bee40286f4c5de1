"""The pictures of the page: each run's panels, and one image with the predictions of all rows side by side."""

from __future__ import annotations

import base64
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from segladder.foreign import files_below
from segladder.report.pictures.panels import PLACES, SAME

MOST_BYTES = 12 * 2**20  # of all pictures before they are encoded as text
QUALITY = 80  # of WebP: letters stay sharp
EFFORT = 2  # of WebP, 0 fast to 6 small: a third of the time of the usual 4 for a twentieth more bytes
MOST_PIXELS = 2**23  # of a panel that is cut
MOST_IMAGES = 3  # side by side, of one table
KINDS = ("best", "median", "worst", SAME)


@dataclass(frozen=True)
class Picture:
    """A picture as a data URL, with what it shows and the id of what tells more."""

    caption: str
    url: str
    link: str = ""


@dataclass(frozen=True)
class SideBySide:
    """One image: itself, its truth, and what the rows made of it."""

    image: str
    pictures: list[Picture]
    missing: int  # rows without a panel of it


class Room:
    """How many bytes of pictures may still be embedded."""

    def __init__(self, most: int) -> None:
        self.left = most

    def takes(self, size: int) -> bool:
        """Whether a picture of this size fits; then its room is gone."""
        if size > self.left:
            return False
        self.left -= size
        return True


def panels(folder: Path) -> list[Path]:
    """The panels of a run's folder, links that leave it passed over."""
    return sorted((file for file in files_below(folder, "panels/*.png") if place(file)[0] in KINDS), key=place)


def place(file: Path) -> tuple[str, int, str]:
    """Kind, number and image of a panel `best-1-ID.png`."""
    kind, _, rest = file.stem.partition("-")
    number, _, image = rest.partition("-")
    return kind, int(number) if number.isdigit() else 0, image


def embedded(file: Path, room: Room) -> Picture | None:
    """A panel, where there is room."""
    data = cut(file)
    if data is None or not room.takes(len(data)):
        return None
    kind, number, image = place(file)
    what = "also of other runs" if kind == SAME else f"{kind} {number}"
    return Picture(f"{what}: {image}", _url(data))


def side_by_side(rows: Sequence[tuple[str, str, Sequence[Path]]], room: Room) -> list[SideBySide]:
    """Images of which two rows or more have a panel, those of most rows first.

    Args:
        rows: name, id and panels of each.
        room: for what is embedded.
    """
    having: dict[str, dict[int, Path]] = defaultdict(dict)
    for number, (_, _, files) in enumerate(rows):
        for file in files:
            having[place(file)[2]].setdefault(number, file)
    shared = sorted(
        (image for image in having if len(having[image]) > 1), key=lambda image: (-len(having[image]), image)
    )
    made = []
    for image in shared[:MOST_IMAGES]:
        found = having[image]
        first = next(iter(found.values()))
        pictures = _fitting([(heading, "", cut(first, heading)) for heading in ("image", "truth")], room)
        named = [(rows[i][0], rows[i][1], cut(file, "prediction") or cut(file)) for i, file in found.items()]
        pictures += _fitting(named, room)
        if len(pictures) > 1:
            made.append(SideBySide(image, pictures, len(rows) - len(found)))
    return made


def cut(file: Path, heading: str | None = None) -> bytes | None:
    """One picture of a panel as WebP, an eighth of its bytes as PNG; None where it does not say where that lies.

    Args:
        file: a panel. None is returned for what is no such picture or too large.
        heading: of the picture; None: the whole panel.
    """
    try:
        with Image.open(file, formats=("PNG",)) as sheet:
            if sheet.width * sheet.height > MOST_PIXELS:
                return None
            sheet.load()
            box = 0, 0, sheet.width, sheet.height
            if heading is not None:
                left, top, right, bottom = json.loads(getattr(sheet, "text", {}).get(PLACES, "{}"))[heading]
                box = int(left), int(top), int(right), int(bottom)
            left, top, right, bottom = box
            if not (0 <= left < right <= sheet.width and 0 <= top < bottom <= sheet.height):
                return None
            stream = io.BytesIO()
            sheet.crop(box).convert("RGB").save(stream, format="WEBP", quality=QUALITY, method=EFFORT)
            return stream.getvalue()
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        SyntaxError,
        OverflowError,
        RecursionError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ):
        return None


def _fitting(found: Iterable[tuple[str, str, bytes | None]], room: Room) -> list[Picture]:
    return [
        Picture(caption, _url(data), link)
        for caption, link, data in found
        if data is not None and room.takes(len(data))
    ]


def _url(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"
