"""Masks that a run makes of training images: palette PNGs and a manifest in its folder, made once for each key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segladder.data.sources.base import Source
from segladder.data.sources.palette import stored_png, voc_palette
from segladder.errors import DataError, some
from segladder.files import write_text, written
from segladder.mask_values import IGNORE
from segladder.report import record as records
from segladder.runs.folder import sha256

FOLDER = "pseudo_masks"
MANIFEST = "manifest.json"


def made_once(
    parent: Path,
    ids: Sequence[str],
    key: Mapping[str, Any],
    make: Callable[[Path], None],
    beside: Mapping[str, Any] | None = None,
) -> Path:
    """PARENT/pseudo_masks/KEY with ID.png (values of the data set's own class list) and manifest.json.

    Args:
        parent: the run's folder.
        ids: the images.
        key: what decides what their masks are; the manifest holds it.
        make: writes the masks to the folder that it is given, some of which may be there from before.
        beside: what names the folder too.

    Raises:
        DataError: the folder's masks are not those that were written.
    """
    folder = parent / FOLDER / records.hash_of({**key, **(beside or {})})
    if (folder / MANIFEST).exists():
        require_images(folder, ids, key)
    else:
        make(folder)
        write_manifest(folder, ids, {**key, "parent": records.read(parent).id})
    return folder


def write_mask(path: Path, labels: np.ndarray, source: Source) -> None:
    """Write class indices as the data set's own values in its colours, atomically."""
    values, table = np.full(256, IGNORE, np.uint8), voc_palette()
    values[: len(source.classes)] = [source.all_classes.index(name) for name in source.classes]
    own = source.colours.of
    table[values[: len(own)]] = np.reshape(own, (-1, 3))
    with written(path) as partial:
        partial.write_bytes(stored_png(values[labels], table))


def write_manifest(folder: Path, ids: Sequence[str], made_by: dict[str, Any]) -> None:
    """Write what made the masks and the sha256 of each, atomically; its presence says that the folder is complete."""
    digests = {i: sha256(folder / f"{i}.png") for i in ids}
    write_text(folder / MANIFEST, json.dumps({**made_by, "images": digests}, indent=1) + "\n")


def require_images(folder: Path, ids: Sequence[str], made_by: Mapping[str, Any]) -> None:
    """Raise DataError unless a folder holds the pseudo-masks of some ids as they were written, and of this making."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known, said = dict(manifest["images"]), {key: manifest[key] for key in made_by}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{folder / MANIFEST}: damaged ({error}); remove the folder to make the masks again") from error
    if said != records.plain(made_by):
        raise DataError(f"{folder / MANIFEST}: of other pseudo-masks; remove the folder to make them again")
    if missing := [i for i in ids if i not in known or not (folder / f"{i}.png").exists()]:
        raise DataError(f"{folder}: no pseudo-masks of {some(missing)}; remove the folder to make them again")
    if other := [i for i in ids if sha256(folder / f"{i}.png") != known[i]]:
        raise DataError(
            f"{folder}: pseudo-masks of {some(other)} are not those that were written (sha256 in {MANIFEST}); remove"
            " the folder to make them again"
        )
