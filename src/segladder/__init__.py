"""SegLadder compares segmentation methods that learn from full, weak, few or no masks under one evaluator.

The Python door; docs/python.md shows it. Names import what they need when they are used. Errors are those of the
command line: `segladder.errors.ConfigError` and `DataError`, each of one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from segladder import data

if TYPE_CHECKING:
    from segladder.door.creating import LabelledData
    from segladder.door.model import Model as Model
    from segladder.methods.base import Method
    from segladder.report.leaderboard import Table

__version__ = "0.2.0"
__all__ = ["Model", "create", "data", "export", "load", "rank"]


def load(run: str | Path, device: str | None = None, choices: str | Path | None = None) -> Model:
    """The trained model of a run.

    Args:
        run: its folder, or a packed run (`segladder export run=RUN out=run.zip`).
        device: `cpu`, `cuda` or `cuda:N`; None takes the first CUDA device where there is one.
        choices: the folder of yaml files that names classes of one's own, which the run is made of.

    Returns:
        A `Model` with `classes`, `palette` and `predict(images)`, in evaluation mode.

    Raises:
        ConfigError: no run there, or one whose training has not ended.
        DataError: its files are not what it wrote.
    """
    from segladder.door.model import load as loaded

    return loaded(run, device, choices)


def create(method: str = "fcn8s", classes: Sequence[str] | None = None, **settings: Any) -> Method:
    """A method with new weights, a LightningModule for a `Trainer` of one's own.

    Args:
        method: a name of `conf/method/`.
        classes: names, the background first; None: those of `data`, a name of `conf/data/`.
        settings: keys of `segladder train`: choices (`backbone="resnet18"`), values (`seed=1`), nodes as dictionaries
            (`backbone={"weights": "FILE.safetensors"}`) or by their place (`**{"method.optimizer.lr": 0.01}`).

    Raises:
        ConfigError: as on the command line.
    """
    from segladder.door.creating import create as created

    return created(method, classes, **settings)


def rank(runs: str | Path, metric: str | None = None) -> list[Table]:
    """The leaderboard of all records below a folder: a table for each protocol hash, rows with intervals.

    Args:
        runs: the folder.
        metric: the score that ranks; None: the one each protocol names.

    Raises:
        DataError: no record there. Records that cannot be read are warned of and skipped.
    """
    from segladder.door.ranking import rank as ranked

    return ranked(runs, metric)


def export(run: str | Path, out: str | Path, pixels: str = "uint8") -> Path:
    """Write a run as an ONNX graph (`out` ends in .onnx) or as one packed file (.zip); returns where.

    Args:
        run: its folder, or for .onnx a packed run.
        out: the file.
        pixels: `uint8` or `float32`, the type of the graph's raw pixels (B, 3, H, W) in 0..255.

    Raises:
        ConfigError: no run, or one that cannot be written so.
    """
    from segladder.door.exporting import export as exported

    exported(Path(run), Path(out), pixels)
    return Path(out)


class _Data(ModuleType):
    """The room `segladder.data`, which is also called as a function."""

    def __call__(
        self, data: str = "shapes", root: str | Path | None = None, method: str = "fcn8s", **settings: Any
    ) -> LabelledData:
        """A datamodule with `train_dataloader` and `val_dataloader` of a data set, for a `Trainer` of one's own.

        Batches are dictionaries: `image` raw pixels uint8 (B, 3, H, W), `mask` uint8 (B, H, W) with 255 ignored, or
        what else the labels show. Training items are augmented; validation reads whole images of the scored split.

        Args:
            data: a name of `conf/data/`.
            root: its folder, None: where `conf/data/` says.
            method: whose items are wanted; it decides which labels they show.
            settings: keys of `segladder train`, as of `segladder.create`.

        Raises:
            ConfigError, DataError: as on the command line.
        """
        from segladder.door.creating import datamodule

        return datamodule(data, root, method, **settings)


sys.modules[data.__name__].__class__ = _Data


def __getattr__(name: str) -> Any:
    """`segladder.Model`, imported when it is asked for."""
    if name == "Model":
        from segladder.door.model import Model

        return Model
    raise AttributeError(f"module 'segladder' has no attribute {name!r}")
