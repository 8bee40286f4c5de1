"""Looks at a network while it trains: its score on images that it does not learn from, and a few of its answers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback

from segladder.data.sources.palette import Colours
from segladder.files import written
from segladder.methods.base import Method, evaluating
from segladder.metrics.scores import Score
from segladder.protocols.base import Shown
from segladder.report.pictures.panels import panel
from segladder.runs.callbacks import ResumePoints
from segladder.runs.watching.log import note
from segladder.runs.watching.mirrors import Mirror
from segladder.runs.watching.progress import place

FOLDER = "watched"  # RUN/watched/IMAGE/step-NNNNNN.png
Listener = Callable[[pl.Trainer, float], None]


@dataclass(frozen=True)
class Judge:
    """How a network is looked at.

    Attributes:
        on: whose labels are asked, `held_out` or `scored`.
        by: the score.
        score: method -> its value, times -1 where lower is better. All processes call it.
        pictures: method -> what it answers on a few images, always the same ones.
        classes: a name per class index.
        colours: of the classes.
    """

    on: str
    by: Score
    score: Callable[[Method], float]
    pictures: Callable[[Method], Iterator[Shown]]
    classes: Sequence[str]
    colours: Colours


class Looks(Callback):
    """Looks at a network and tells what it finds. What the network learns stays the same, to the bit.

    Args:
        folder: the run's folder.
        judge: how it looks.
        every: epochs between looks, or optimiser steps; the end of training is always one.
        in_steps: which of them.
        at_start: whether it also looks before the first step; nobody is told of that look.
        points: tells whether training was interrupted.
        told: who is told the score, higher is better.
    """

    def __init__(
        self,
        folder: Path,
        judge: Judge,
        every: int,
        in_steps: bool,
        at_start: bool,
        points: ResumePoints,
        *told: Listener,
    ) -> None:
        self.folder, self.judge, self.every, self.in_steps = folder, judge, every, in_steps
        self.at_start, self.points, self.told = at_start, points, told
        self.last = 0  # step of the last look
        self.text = ""  # the last score, for people

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A network that cannot be looked at says so before it has learnt anything."""
        if self.at_start and trainer.global_step == 0:
            self.look(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look when it is time."""
        step = trainer.global_step
        if self.in_steps and step % self.every == 0 and step != self.last:
            self.look_and_tell(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look when it is time, or when training ends."""
        ended = trainer.global_step >= trainer.max_steps > 0 or trainer.current_epoch + 1 == trainer.max_epochs
        due = not self.in_steps and (trainer.current_epoch + 1) % self.every == 0
        if (due or ended) and trainer.global_step != self.last and not self.points.interrupted:
            self.look_and_tell(trainer, pl_module)

    def look_and_tell(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look, and tell the score."""
        self.last = trainer.global_step
        value = self.look(trainer, pl_module)
        for hears in self.told:
            hears(trainer, value)

    def look(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> float:
        """Score, and hand score and pictures to the loggers."""
        method, judge = cast(Method, pl_module), self.judge
        with undisturbed(), evaluating(method):
            value = judge.score(method)
            if trainer.is_global_zero:
                for shown in judge.pictures(method):
                    self.show(trainer, shown)
        as_printed = judge.by.sign * value
        self.text = f"{judge.on.replace('_', '-')} {judge.by.title} {judge.by.text(as_printed)}"
        numbers = {f"{judge.on}/{judge.by.name}": as_printed, "epoch": float(trainer.current_epoch)}
        for mirror in trainer.loggers:
            mirror.log_metrics(numbers, trainer.global_step)
            mirror.save()
        note(self.folder, f"{place(trainer)}: {self.text}")
        return value

    def show(self, trainer: pl.Trainer, shown: Shown) -> None:
        """Draw an answer below RUN/watched and for the loggers that show pictures."""
        name, (image, truth, prediction, beside) = shown
        step = trainer.global_step
        folder = self.folder / FOLDER / re.sub(r"[^A-Za-z0-9_.]+", "_", name)[:80]
        folder.mkdir(parents=True, exist_ok=True)
        drawn = panel(image, truth, prediction, self.judge.classes, f"{name}, step {step}", beside, self.judge.colours)
        path = folder / f"step-{step:06d}.png"
        with written(path) as partial:
            Image.fromarray(drawn).save(partial, format="PNG")
        for mirror in cast(list[Mirror], trainer.loggers):
            mirror.log_image(f"{FOLDER}/{folder.name}", path, step)

    def state_dict(self) -> dict[str, Any]:
        """The step of the last look."""
        return {"last": self.last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the step of the last look."""
        self.last = state_dict["last"]


class Patience(Callback):
    """Ends training when looks find nothing better for a while.

    Args:
        patience: how many looks in a row.
        min_delta: how much better counts.
    """

    def __init__(self, patience: int, min_delta: float) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.best: float | None = None
        self.since = 0  # looks since it was found

    @property
    def ended(self) -> bool:
        """Whether it has ended training."""
        return self.since >= self.patience

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was killed after the look that ended it has nothing left to learn."""
        trainer.should_stop = trainer.should_stop or self.ended

    def hear(self, trainer: pl.Trainer, value: float) -> None:
        """Told of each look."""
        if self.best is None or value > self.best + self.min_delta:
            self.best, self.since = value, 0
        else:
            self.since += 1
        if self.ended:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """The best score and how long ago it was."""
        return {"best": self.best, "since": self.since}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the best score and how long ago it was."""
        self.best, self.since = state_dict["best"], state_dict["since"]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever draws random numbers within the block, the next ones are those that would have come without it."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002, libraries draw from it
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
