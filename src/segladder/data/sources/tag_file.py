"""`cls_labels.npy`, the image-level tags that the codes of AffinityNet, IRNet, SEAM and their kin hand around.

The file is a pickled dictionary, id to 20 zeros and ones. Only what such a dictionary is made of is unpickled, so that
a foreign file can run nothing. Ids are strings (`2007_000032`) or, in IRNet's file, numbers (2007000032).
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from segladder.errors import DataError
from segladder.foreign import content

ARRAYS = {  # what numpy's pickles name
    *(("numpy", name) for name in ("ndarray", "dtype")),
    *(("numpy._core.multiarray", name) for name in ("_reconstruct", "scalar")),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),  # bytes in old protocols
}


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
