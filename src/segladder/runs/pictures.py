"""What `segladder predict` reads and writes: images of a folder in, masks, overlays and an animated preview out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from segladder.data.sources.decoding import read_image
from segladder.data.sources.folder import IMAGE_SUFFIXES, by_id, files_and_links
from segladder.data.sources.palette import VOC_COLOURS, Colours
from segladder.errors import ConfigError, DataError, some
from segladder.files import write_text, written
from segladder.foreign import content, json_values, printable
from segladder.report import record as records
from segladder.report.pictures.few_shot_panel import overlay

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".gif": "GIF"}
NOT_READ = (".avif", ".cr2", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".nef", ".ppm", ".svg", ".tga")
MAKER = "made_by.json"  # in `out`: the run and the settings behind its results
PREVIEW_WIDTH, PREVIEW_FRAMES, PREVIEW_MILLISECONDS = 320, 100, 100

EXPECTED = f"expected files ending in {' '.join(IMAGE_SUFFIXES)}"

RESULTS = ("masks", "overlays", "panels", "probabilities")  # folders in `out`

Segment = Callable[[str, np.ndarray], None]


def listed(key: str, folder: Path, below: bool = True) -> dict[str, Path]:
    """The image files of the folder that `key` names, by name: the place in it without the ending.

    Hidden ones (those still being written) are left out, and results of this command. A line on standard error says
    which pictures of other formats there are.

    Args:
        key: of the command.
        folder: its value.
        below: whether those in folders below count.

    Raises:
        ConfigError: no such folder, or no image in it.
        DataError: two images of one name.
    """
    if not folder.is_dir():
        raise ConfigError(f"{key}={folder}: no such folder")
    found, others = by_id(folder, IMAGE_SUFFIXES), pictures_not_read(folder, below)
    if others:
        print(f"segladder: {key}={folder}: not read: {printable(some(others))}; {EXPECTED}", file=sys.stderr)
    places = {name: PurePosixPath(name).parents[:-1] for name in found}  # the last is the folder itself
    passed_over = {place for place in {*chain(*places.values())} if not below or is_result(folder / place)}
    images = {name: path for name, path in found.items() if passed_over.isdisjoint(places[name])}
    if not images:
        raise ConfigError(f"{key}={folder}: no image there, {EXPECTED}")
    return images


def pictures_not_read(folder: Path, below: bool) -> list[str]:
    """Names of the pictures in a folder whose formats are not read, but for previews of this command, in order."""
    paths = sorted(files_and_links(folder) if below else folder.iterdir())
    others = [path for path in paths if path.suffix.lower() in NOT_READ and not (path.parent / MAKER).is_file()]
    return [path.relative_to(folder).as_posix() for path in others]


def is_result(folder: Path) -> bool:
    """Whether this command has written a folder."""
    return folder.name in RESULTS and (folder.parent / MAKER).is_file()


def segment_each(
    images: Mapping[str, Path],
    out: Path,
    segment: Segment,
    made_by: Mapping[str, Any],
    progress: bool,
    probabilities: bool = False,
) -> int:
    """Call `segment(name, image)` for what is not done yet; an image that cannot be read is named, the others go on.

    An image is done that has an overlay, and its probabilities where these are asked for, which are not older.
    `made_by` says which run and settings make them. Raises ConfigError where others made those in `out`.

    Returns:
        1 if any could not be read, else 0.
    """
    note_maker(out, made_by)
    wanted = (overlay_path, probabilities_path) if probabilities else (overlay_path,)
    todo = [name for name, path in images.items() if not all(is_made(place(out, name), path) for place in wanted)]
    faults = 0
    for name in track(todo, f"predict {out}", disable=not progress):
        try:
            image = read_image(images[name])
        except DataError as error:
            print(f"segladder: {printable(str(error))}", file=sys.stderr)
            faults += 1
        else:
            segment(name, image)
    done = len(images) - len(todo)
    print(f"{len(todo) - faults} images segmented, {done} already there, {faults} unreadable: {out}")
    return 1 if faults else 0


def is_made(result: Path, image: Path) -> bool:
    """Whether a result is there, of the image as it is now: written to, and put there, before the result."""
    source = image.stat()
    return result.exists() and result.stat().st_mtime >= max(source.st_mtime, source.st_ctime)


def note_maker(out: Path, made_by: Mapping[str, Any]) -> None:
    """Write down what makes the results in a folder. Raises ConfigError where something else made those there."""
    note = out / MAKER
    try:
        before = json_values(content(note)) if note.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{note}: damaged ({error}); choose another out") from error
    if not isinstance(before, dict):
        raise ConfigError(f"{note}: damaged, expected what segladder predict wrote; choose another out")
    now = records.plain(made_by)
    if not before and (out / "overlays").is_dir():
        raise ConfigError(f"out={out}: holds results without {MAKER}, as older versions wrote; choose another folder")
    if before and (odd := [key for key in now if before.get(key) != now[key]]):
        raise ConfigError(
            f"out={out}: holds results of {odd[0]}={before.get(odd[0])}, now it is {now[odd[0]]};"
            " choose another folder, or remove this one"
        )
    write_text(note, json.dumps(now, indent=1) + "\n")


def save(
    out: Path,
    name: str,
    image: np.ndarray,
    prediction: np.ndarray,
    probabilities: np.ndarray | None = None,
    colours: Colours = VOC_COLOURS,
) -> None:
    """Write mask and overlay of class indices uint8 (H, W); the overlay last, as the sign that an image is done.

    Probabilities (K, H, W), where there are any, are written in half precision.
    """
    write_picture(out / "masks" / f"{name}.png", palette_picture(prediction, colours))
    if probabilities is not None:
        with written(probabilities_path(out, name)) as partial:
            np.save(partial, probabilities.astype(np.float16), allow_pickle=False)
    write_picture(overlay_path(out, name), Image.fromarray(overlay(image, prediction, colours)), quality=90)


def palette_picture(prediction: np.ndarray, colours: Colours = VOC_COLOURS) -> Image.Image:
    """Class indices uint8 (H, W) as a picture in the colours of their classes."""
    mask = Image.fromarray(prediction, mode="P")
    mask.putpalette(colours.table.tobytes())
    return mask


def probabilities_path(out: Path, name: str) -> Path:
    """Where the probabilities of an image go."""
    return out / "probabilities" / f"{name}.npy"


def overlay_path(out: Path, name: str) -> Path:
    """Where the overlay of an image goes."""
    return out / "overlays" / f"{name}.jpg"


def write_picture(path: Path, picture: Image.Image, **options: Any) -> None:
    """Save a picture whole or not at all, in the format its ending names."""
    with written(path) as partial:
        picture.save(partial, format=FORMATS[path.suffix], **options)


def write_preview(path: Path, pictures: Sequence[Path]) -> None:
    """An animated GIF of picture files in their order, 320 pixels wide or less; 100 of them at most, evenly spaced."""
    kept = np.linspace(0, len(pictures) - 1, min(len(pictures), PREVIEW_FRAMES)).round().astype(int)
    with Image.open(pictures[0]) as first:
        width = min(first.width, PREVIEW_WIDTH)
        size = width, max(1, round(first.height * width / first.width))
    first_frame, *frames = [small_frame(pictures[i], size) for i in kept]
    milliseconds = round(PREVIEW_MILLISECONDS * len(pictures) / len(kept))
    write_picture(path, first_frame, save_all=True, append_images=frames, duration=milliseconds, loop=0)


def small_frame(path: Path, size: tuple[int, int]) -> Image.Image:
    """A picture file resized to (width, height), in 256 colours of its own."""
    with Image.open(path) as picture:
        return picture.resize(size, Image.Resampling.LANCZOS).quantize(256)
