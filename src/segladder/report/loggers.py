"""Mirrors of a run beside its record: CSV, TensorBoard, Weights & Biases. Each factory takes the run's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from segladder.settings import Positive


def csv(folder: Path, every_steps: Positive) -> Logger:
    """Steps as rows of RUN/logs/csv/version_*/metrics.csv; a resumed run adds a version."""
    return CSVLogger(folder / "logs", name="csv", flush_logs_every_n_steps=every_steps)


def tensorboard(folder: Path, every_steps: Positive) -> Logger:
    """Event files in RUN/logs/tensorboard."""
    return TensorBoardLogger(folder / "logs", name="tensorboard")


def wandb(
    folder: Path, every_steps: Positive, project: str, mode: Literal["online", "offline", "disabled"] | None
) -> Logger:
    """A Weights & Biases run of its own, named after the folder; offline unless logged in or told otherwise."""
    mode = mode or ("online" if logged_in() else "offline")
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"mode": mode, "group": folder.parent.name, "reinit": "finish_previous"}
    return WandbLogger(name=folder.name, project=project, save_dir=folder / "logs", **settings)


def logged_in() -> bool:
    """Whether Weights & Biases has a key for this user, without asking for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb as client

    return bool(client.api.api_key)


def log_image(logger: Logger, name: str, path: Path, step: int | None = None) -> None:
    """Hand a PNG to the loggers that show pictures, as that of a step."""
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [str(path)], step)
    elif isinstance(logger, TensorBoardLogger):
        import cv2
        import numpy as np

        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is not None:
            logger.experiment.add_image(name, np.ascontiguousarray(picture[..., ::-1]), step, dataformats="HWC")
