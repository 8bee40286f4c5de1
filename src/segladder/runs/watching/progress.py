"""Where training is and how fast: for the loggers, the screen and the log."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich import progress
from torch import Tensor

from segladder.methods.base import Method
from segladder.runs.watching.log import note

REDRAWN = 0.2  # seconds between looks at a loss, which a device computes ahead


def place(trainer: pl.Trainer) -> str:
    """`epoch 3/8, step 120/300`, where the steps are those of all epochs; of a run counted in steps `step 120/300`."""
    step = f"step {trainer.global_step}/{steps_of(trainer)}"
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return step
    return f"epoch {min(trainer.current_epoch + 1, trainer.max_epochs)}/{trainer.max_epochs}, {step}"


def steps_of(trainer: pl.Trainer) -> int:
    """The optimiser steps of the whole training."""
    return int(trainer.estimated_stepping_batches)


class Rates(Callback):
    """Hands learning rates and images a second to the loggers: `rate/lr`, `rate/images_per_second`.

    Args:
        every_steps: optimiser steps between two times.
    """

    def __init__(self, every_steps: int) -> None:
        self.every_steps = every_steps
        self.seen: deque[tuple[float, int]] = deque(maxlen=50)  # seconds and images of the last steps
        self.before = 0.0
        self.used: dict[str, float] = {}  # learning rates of the last step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the rates that it takes. The first step of an epoch, or of a resumed one, counts nothing before it."""
        self.used = self.learning_rates(trainer, pl_module)
        if not batch_idx or not self.before:
            self.before = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; log with the loss."""
        now = time.perf_counter()
        self.seen.append((now - self.before, images_in(batch) * trainer.world_size))
        self.before = now
        if trainer.loggers and trainer.global_step % self.every_steps == 0:
            pl_module.log_dict({**self.used, "rate/images_per_second": self.speed}, rank_zero_only=True, batch_size=1)

    def learning_rates(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """Learning rates; those of groups at other rates by their factor, `rate/lr_x10`."""
        base = cast(Method, pl_module).optimizer_settings["lr"]
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        found = {}
        for group in groups:
            factor = group.get("initial_lr", group["lr"]) / base
            found["rate/lr" if factor == 1 else f"rate/lr_x{factor:g}"] = float(group["lr"])
        return found

    @property
    def speed(self) -> float:
        """Images a second over the last steps."""
        seconds = sum(seconds for seconds, _ in self.seen)
        return sum(images for _, images in self.seen) / seconds if seconds else 0.0

    def passed(self) -> None:
        """Time until now went into something else."""
        self.before = time.perf_counter()


def images_in(batch: Mapping[str, Any]) -> int:
    """How many images a batch shows, supports included."""
    supports: Tensor | None = batch.get("support_image")
    return len(batch["image"]) + (supports.shape[0] * supports.shape[1] if supports is not None else 0)


class Lines(Callback):
    """A line in the run's log when training starts and after each epoch.

    Args:
        folder: the run's folder.
        rates: knows how fast it goes.
    """

    def __init__(self, folder: Path, rates: Rates) -> None:
        self.folder, self.rates = folder, rates

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where it starts, or goes on."""
        how = "goes on after" if trainer.global_step else "starts at"
        note(self.folder, f"training {how} {place(trainer)}, on {trainer.strategy.root_device}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Loss, learning rate and speed."""
        loss, rate = float(trainer.callback_metrics["train/loss"]), min(self.rates.used.values())
        note(self.folder, f"{place(trainer)}: loss {loss:.4g}, lr {rate:.3g}, {self.rates.speed:.1f} images/s")


class Progress(Callback):
    """One bar for the whole training: where it is, the time that is left, the loss and what the last look found.

    Args:
        found: gives the text of the last look.
    """

    def __init__(self, found: Callable[[], str]) -> None:
        self.found = found
        self.bar: progress.Progress | None = None
        self.drawn = 0.0
        self.loss = ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar, in the first process."""
        if not trainer.is_global_zero:
            return
        columns = (progress.TextColumn("{task.description}"), progress.BarColumn(8), progress.TimeRemainingColumn())
        self.bar = progress.Progress(*columns, progress.TextColumn("{task.fields[beside]}"))
        self.bar.start()
        self.bar.add_task(place(trainer), total=steps_of(trainer), completed=trainer.global_step, beside="")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if time.monotonic() - self.drawn > REDRAWN:
            self.drawn = time.monotonic()
            self.move(trainer, float(outputs["loss"]))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What a look has found."""
        self.move(trainer, float(trainer.callback_metrics["train/loss"]))

    def move(self, trainer: pl.Trainer, loss: float) -> None:
        """Show where training is."""
        if self.bar is not None:
            beside = ", ".join(word for word in (f"loss {loss:.3f}", self.found()) if word)
            task = progress.TaskID(0)
            self.bar.update(task, completed=trainer.global_step, description=place(trainer), beside=beside)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the bar as it is."""
        self.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the bar as it is."""
        self.stop()

    def stop(self) -> None:
        """The screen is free again."""
        if self.bar is not None:
            self.bar.stop()
