"""SBD (Hariharan et al. 2011), the masks that extend VOC's training set: lists and .mat files of its release."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from segladder.data.sources.lists import listed
from segladder.errors import DataError


def derive_train_aug(voc_train: Sequence[str], voc_val: Iterable[str], sbd: Iterable[str]) -> list[str]:
    """VOC train in its order, then the other SBD ids sorted, without VOC val: 10,582 ids when all of SBD is there."""
    excluded = {*voc_train, *voc_val}
    return [*voc_train, *sorted(set(sbd) - excluded)]


def sbd_root(folder: Path) -> Path:
    """The folder that holds `cls/`: `folder` itself, `folder/dataset` or `folder/benchmark_RELEASE/dataset`.

    Raises:
        DataError: none of them does.
    """
    for candidate in (folder, folder / "dataset", folder / "benchmark_RELEASE" / "dataset"):
        if (candidate / "cls").is_dir():
            return candidate
    raise DataError(f"{folder}: no SBD here, expected benchmark_RELEASE with dataset/cls/*.mat; check data.sbd")


def sbd_ids(folder: Path) -> list[str]:
    """Ids of SBD train + val, from its two lists, or from the .mat files where the lists are missing."""
    root = sbd_root(folder)
    lists = [root / "train.txt", root / "val.txt"]
    if all(path.is_file() for path in lists):
        return [image_id for path in lists for image_id in listed(path)]
    return sorted(path.stem for path in (root / "cls").glob("[!.]*.mat"))


def read_sbd_mask(path: Path) -> np.ndarray:
    """Class values of one SBD .mat file, uint8 (H, W). Raises DataError for a missing or damaged file."""
    from scipy.io import loadmat

    try:
        return np.ascontiguousarray(loadmat(path, mat_dtype=False)["GTcls"]["Segmentation"][0, 0], np.uint8)  # (H, W)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, expected an SBD mask") from error
    except Exception as error:  # scipy raises whatever the damaged bytes lead it to
        raise DataError(f"{path}: damaged ({error}), expected SBD's GTcls.Segmentation") from error
