"""The files below a folder, whatever they are called; nothing outside it and nothing hidden."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from segladder.data.sources.folder import IMAGE_SUFFIXES
from segladder.foreign import composed, content

PICTURES = (*IMAGE_SUFFIXES, ".gif")
PASSED_OVER = ("__MACOSX", "Thumbs.db", "SegmentationObject")  # the last: which object, not which class


class Listing:
    """What lies below a folder.

    Args:
        folder: the folder.

    Attributes:
        files: all files but hidden ones, ordered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Path] = []
        for at, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if _counts(name))
            self.files += [path for name in sorted(names) if _counts(name) and (path := Path(at, name)).is_file()]

    @cached_property
    def pictures(self) -> list[Path]:
        """Images and masks, by their endings in lower or upper case."""
        return [path for path in self.files if path.suffix.lower() in PICTURES]

    def jsons(self, *keys: str) -> list[Path]:
        """JSON files that name all of some keys."""
        marks = [f'"{key}"'.encode() for key in keys]
        return [path for path, text in self._jsons.items() if all(mark in text for mark in marks)]

    @cached_property
    def _jsons(self) -> dict[Path, bytes]:
        """JSON files with the keys that formats ask for, so that pictures inside them are not kept."""
        asked = (b'"shapes"', b'"imagePath"', b'"annotations"', b'"categories"', b'"images"')
        found = ((path, content(path)) for path in self.files if path.suffix.lower() == ".json")
        return {path: b" ".join(key for key in asked if key in text) for path, text in found}

    def place_of(self, paths: Sequence[Path]) -> str:
        """Where some files lie, for messages: the only one, or the folder."""
        return str(paths[0] if len(paths) == 1 else self.folder)

    def name_of(self, path: Path) -> PurePosixPath:
        """A file's place below the folder, in the one form (NFC) of letters that Unicode writes in several."""
        return PurePosixPath(composed(path.relative_to(self.folder).as_posix()))

    def image(self, name: str, near: Path) -> Path | None:
        """The picture that an annotation file calls so: of that path's end, the one nearest to the file; or None."""
        parts = tuple(part for part in PureWindowsPath(composed(name)).parts if part not in ("..", ".", "/", "\\"))
        called = self._by_name.get(parts[-1], []) if parts else []
        fits = [path for path in called if self.name_of(path).parts[-len(parts) :] == parts] or called
        closeness = [len(Path(os.path.commonpath([path.parent, near.parent])).parts) for path in fits]
        nearest = [path for path, close in zip(fits, closeness, strict=True) if close == max(closeness)]
        return nearest[0] if len(nearest) == 1 else None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in self.pictures:
            found[composed(path.name)].append(path)
        return found


def _counts(name: str) -> bool:
    return not name.startswith(".") and name not in PASSED_OVER
