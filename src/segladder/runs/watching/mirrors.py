"""What mirrors a run beside its record, and may fail without harm to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from segladder.report import loggers
from segladder.runs.watching.log import say

OFFLINE = "it is kept there for wandb sync (WANDB_MODE=offline does so at once)"


class Mirror(Logger):
    """A logger for Lightning and for us. What it raises becomes one remark, and the run goes on without it.

    Args:
        choice: its name in `logger=`.
        logger: what it hands everything to.
        folder: of the run.
    """

    def __init__(self, choice: str, logger: Logger, folder: Path) -> None:
        super().__init__()
        self.choice, self.logger, self.folder, self.failed = choice, logger, folder, False

    def attempt(self, act: Callable[[Logger], None], otherwise: str = "the run goes on without it") -> None:
        """Do something with the logger, unless it has failed before."""
        if self.failed:
            return
        try:
            act(self.logger)
        except Exception as error:
            self.failed = True
            fault = " ".join(str(error).split()) or type(error).__name__
            say(self.folder, f"remark: logger={self.choice} failed, {otherwise}: {fault}")

    def open(self, known: Mapping[str, Any]) -> None:
        """Start it with what is known of the run; what cannot be started online is kept in the run's folder."""
        if not isinstance(self.logger, loggers.Wandb) or self.logger.mode != "online":
            self.attempt(lambda logger: logger.log_hyperparams({**known}))
            return
        self.attempt(lambda logger: logger.log_hyperparams({**known}), OFFLINE)
        if self.failed:
            self.logger, self.failed = self.logger.offline(), False
            self.open(known)

    def close(self, status: str) -> None:
        """Close it for a run whose record has this status, also after it has failed."""
        self.attempt(lambda logger: loggers.close(logger, status))
        if self.failed:
            with suppress(Exception):
                loggers.close(self.logger, status)

    def log_image(self, name: str, path: Path, step: int | None = None) -> None:
        """Hand a PNG to a logger that shows pictures."""
        self.attempt(lambda logger: loggers.log_image(logger, name, path, step))

    @property
    def name(self) -> str:
        """The logger's choice: `csv`, `tensorboard` or `wandb`."""
        return self.choice

    @property
    def version(self) -> None:
        """None: a run is one."""
        return None

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """For Lightning."""
        self.attempt(lambda logger: logger.log_hyperparams(params, *args, **kwargs))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Numbers of a step."""
        self.attempt(lambda logger: logger.log_metrics({**metrics}, step))

    def save(self) -> None:
        """Write what was logged."""
        self.attempt(lambda logger: logger.save())

    def finalize(self, status: str) -> None:
        """Told by Lightning that training has ended."""
        self.attempt(lambda logger: logger.finalize(status))


def close(mirrors: list[Mirror], status: str) -> None:
    """Close and forget the mirrors of a run whose record has this status."""
    while mirrors:
        mirrors.pop().close(status)
