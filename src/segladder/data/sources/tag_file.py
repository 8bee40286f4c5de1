"""Image-level tags in a file beside the masks: a user's list, or `cls_labels.npy`.

`cls_labels.npy` is the file that the codes of AffinityNet, IRNet and SEAM share, a pickled dictionary of id to 20 zeros
and ones. Only what such a dictionary is made of is unpickled, so that a foreign file can run nothing. Ids are strings
(`2007_000032`) or, in IRNet's file, numbers (2007000032).
"""

from __future__ import annotations

import csv
import io
import pickle
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segladder.data.sources.base import Source
from segladder.errors import DataError
from segladder.foreign import content, printable, text
from segladder.settings import suggestion

ARRAYS = {  # what numpy's pickles name
    *(("numpy", name) for name in ("ndarray", "dtype")),
    *(("numpy._core.multiarray", name) for name in ("_reconstruct", "scalar")),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),  # bytes in old protocols
}


class Tagged(Source):
    """A data set whose tags may be told beside its masks. An image of training may then have tags and no mask."""

    @abstractmethod
    def told_tags(self, image_id: str) -> np.ndarray | None:
        """Tags that are told beside the mask, float32 (len(foreground),); None where those of the mask count."""

    @abstractmethod
    def noted_tags(self, image_id: str) -> tuple[Path, np.ndarray] | None:
        """Tags that stand anywhere beside the mask, whether they count or not, with their file; None where none do."""

    def has_tags_alone(self, image_id: str) -> bool:
        """Whether an image has tags and no mask."""
        return not self.mask_path(image_id).is_file() and self.told_tags(image_id) is not None

    def tags(self, image_id: str) -> np.ndarray:
        """Which foreground classes the image holds, float32 (len(foreground),). Raises DataError naming the file."""
        told = self.told_tags(image_id)
        return super().tags(image_id) if told is None else told

    def label_bytes(self, image_id: str) -> bytes:
        """The tags that are told where they alone are seen or there is no mask, else the file of the mask."""
        alone = (self.sight is not None and self.sight.shows == "tags") or self.has_tags_alone(image_id)
        told = self.told_tags(image_id) if alone else None
        return super().label_bytes(image_id) if told is None else told.tobytes()


def read_tag_list(path: Path, classes: Sequence[str], id_of: Callable[[str], str]) -> dict[str, frozenset[str]]:
    """Names of the classes that each image holds, by its id.

    Args:
        path: a CSV file, an image a line: its id or file, then the names of its classes, none where it holds none.
        classes: the names that there are.
        id_of: what stands first in a line to an id; raises DataError where there is no such image.

    Raises:
        DataError: the file is missing or no text; or naming a line: no such image or class, an image listed twice.
    """
    try:
        reader = csv.reader(text(path).splitlines(), skipinitialspace=True, strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        fault = error.strerror if isinstance(error, OSError) else "no text in UTF-8 with commas"
        raise DataError(f"{path}: {fault}, expected an image and its classes a line (data.tags=FILE.csv)") from error
    found: dict[str, frozenset[str]] = {}
    for number, (first, *words) in (line for line in lines if any(line[1])):
        names = frozenset(filter(None, words))
        try:
            image_id = id_of(first)
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from error
        if unknown := sorted(names - set(classes)):
            name = printable(unknown[0])
            offer = suggestion(unknown[0], list(classes))
            raise DataError(f"{path}:{number}: no such class {name}{offer}; expected {', '.join(classes)}")
        if image_id in found:
            raise DataError(f"{path}:{number}: {image_id} is listed twice, expected each image once")
        found[image_id] = names
    return found


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # its name before numpy 2
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no table of tags needs")
        return super().find_class(module, name)


def read_tag_file(path: Path, classes: int) -> dict[str, np.ndarray]:
    """Tags by image id, float32 (classes,) of 0 and 1.

    Args:
        path: an `.npy` file of a pickled dictionary.
        classes: foreground classes of the data set, in whose order the tags stand.

    Raises:
        DataError: the file is missing, holds anything but arrays and plain values, or other than 0 and 1.
    """
    try:
        with io.BytesIO(content(path)) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            _, _, dtype = read(file)
            if not dtype.hasobject:
                raise DataError(f"{path}: an array of {dtype}, expected a dictionary of tags")
            table = _ArraysOnly(file).load().item()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}, expected a file of tags (data.tags=FILE.npy)") from error
    except (pickle.UnpicklingError, ValueError, EOFError, AttributeError, TypeError, IndexError) as error:
        raise DataError(f"{path}: not read: {error}; expected a dictionary of tags as in cls_labels.npy") from error
    if not isinstance(table, dict):
        raise DataError(f"{path}: holds a {type(table).__name__}, expected a dictionary of tags")
    return {_image_id(key): _tags(path, key, value, classes) for key, value in table.items()}


def _image_id(key: Any) -> str:
    return f"{key // 1_000_000}_{key % 1_000_000:06d}" if isinstance(key, int | np.integer) else str(key)


def _tags(path: Path, key: Any, value: Any, classes: int) -> np.ndarray:
    tags = np.asarray(value)
    if tags.shape != (classes,) or not np.isin(tags, (0, 1)).all():
        raise DataError(f"{path}: {key}: {tags.shape} values, expected {classes} zeros and ones")
    return tags.astype(np.float32)
