"""Loggers that mirror a run beside its record: CSV, TensorBoard, Weights & Biases. Factories take the run's folder."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from segladder.errors import ConfigError
from segladder.report.record import read
from segladder.report.wandb_client import Project, mode_of, quiet
from segladder.settings import Positive


class Wandb(WandbLogger):
    """A run in Weights & Biases.

    Args:
        mode: `online`, `offline` or `disabled`.
        settings: further ones of `wandb.init`.
    """

    def __init__(self, mode: str, **settings: Any) -> None:
        super().__init__(mode=mode, **settings)
        self.mode, self.settings = mode, settings

    def offline(self) -> Wandb:
        """This run in a folder, for `wandb sync`, where it could not be started online."""
        import wandb as client

        client.teardown()  # its service keeps the id of a run that did not start
        return Wandb("offline", **self.settings)

    def finish(self, status: str) -> None:
        """End the run, if it was started, with the status of its record."""
        if self._experiment is None:
            return
        if status == "interrupted":
            self._experiment.mark_preempting()  # shown as preempted, not as failed
        self._experiment.finish(exit_code=0 if status == "finished" else 1)


def csv(folder: Path, every_steps: Positive) -> Logger:
    """Steps as rows of RUN/logs/csv/version_*/metrics.csv; a resumed run adds a version."""
    return CSVLogger(folder / "logs", name="csv", flush_logs_every_n_steps=every_steps)


def tensorboard(folder: Path, every_steps: Positive) -> Logger:
    """Event files in RUN/logs/tensorboard. Raises ConfigError where TensorBoard is not installed."""
    if not any(find_spec(name) for name in ("tensorboard", "tensorboardX")):
        raise ConfigError("logger=tensorboard: TensorBoard is not installed; pip install 'segladder[tensorboard]'")
    return TensorBoardLogger(folder / "logs", name="tensorboard")


def wandb(
    folder: Path,
    every_steps: Positive,
    project: Project,
    mode: Literal["online", "offline", "disabled"] | None,
) -> Logger:
    """A Weights & Biases run, named after the folder; its id is a digest of the record's, so that it is gone on with.

    Raises ConfigError where it is to be online and nobody is logged in.
    """
    chosen = mode_of(mode)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    run_id = hashlib.sha256(read(folder).id.encode()).hexdigest()[:16]
    settings: dict[str, Any] = {"id": run_id, "resume": "allow", "group": folder.parent.name, "settings": quiet()}
    named = {"name": folder.name, "project": project, "save_dir": folder / "logs"}
    return Wandb(chosen, **named, **settings, reinit="finish_previous")


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


def close(logger: Logger, status: str) -> None:
    """Close a logger, if it was ever opened, for a run whose record has this status."""
    logger.finalize("success" if status == "finished" else "failed")
    if isinstance(logger, Wandb):
        logger.finish(status)
