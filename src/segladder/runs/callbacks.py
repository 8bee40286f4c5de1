"""What happens around optimisation: resume points, choosing the weights that are kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from segladder.errors import Diverged
from segladder.files import written
from segladder.methods.base import Method
from segladder.protocols.inference import gathered
from segladder.runs.folder import RESUME_POINT, WEIGHTS
from segladder.runs.interruption import Interruption

NEVER = 2**62
BEST = Path("checkpoints") / "best.pt"


class Finite(Callback):
    """Ends training whose loss or weights are no longer finite, before a resume point or weights are written.

    Args:
        points: a device that computes ahead is looked at when a resume point is due; the CPU in each batch.
    """

    def __init__(self, points: ResumePoints) -> None:
        self.points = points
        self.first = torch.tensor(NEVER)  # step with such a loss

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the step; look when it is time."""
        loss = outputs["loss"].detach()
        at_fault = torch.where(loss.isfinite(), NEVER, trainer.global_step)
        self.first = torch.minimum(self.first.to(loss.device), at_fault)
        if loss.device.type == "cpu" or self.points.due:
            self.look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before weights are scored."""
        self.look(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last step may have spoilt the weights without a loss that shows it."""
        if not all(bool(parameter.isfinite().all()) for parameter in pl_module.parameters()):
            raise diverged("the weights are not finite", trainer.global_step, pl_module)

    def look(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """All processes look at once. Raises Diverged."""
        first = int(self.first)
        if trainer.strategy.reduce_boolean_decision(first < NEVER, all=False):
            raise diverged("the loss is not finite", min(first, trainer.global_step), pl_module)


def diverged(what: str, step: int, module: pl.LightningModule) -> Diverged:
    """What is said of training that diverged."""
    rate = cast(Method, module).optimizer_settings["lr"]
    return Diverged(
        f"training diverged at step {step}: {what}; try a lower method.optimizer.lr (now {rate:g}), trainer.clip=1 or"
        " strategy.precision=32-true"
    )


class ResumePoints(Callback):
    """Writes `checkpoints/last.ckpt` every few steps and when interrupted; also keeps each process's random state.

    Gradients that wait for the next optimiser step are in no resume point, so one is written where none wait.

    Args:
        folder: the run's folder.
        every_steps: batches between resume points.
        interruption: asked at each step.
    """

    def __init__(self, folder: Path, every_steps: int, interruption: Interruption) -> None:
        self.path = folder / RESUME_POINT
        self.every_steps = every_steps
        self.interruption = interruption
        self.interrupted = False
        self.unsaved = 0  # batches begun since the last resume point
        self.earlier_seconds = 0.0  # of training before this resume
        self.random: list[Mapping[str, Any]] = []  # states of the processes to restore at the first batch
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Training time so far, the sessions before a resume included."""
        return self.earlier_seconds + time.perf_counter() - self.started

    @property
    def due(self) -> bool:
        """Whether the next optimiser step writes a resume point."""
        return self.unsaved >= self.every_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on the loop looks at interruptions."""
        self.interruption.wait_for_loop()
        self.started = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Restore the random state of the resume point: what starting the loader has drawn meanwhile does not count.

        An epoch whose only optimiser step is its end is saved before it begins.
        """
        if self.random:
            restore_random(self.random[trainer.global_rank % len(self.random)])
            self.random = []
        if batch_idx == 0 and trainer.num_training_batches <= trainer.accumulate_grad_batches:
            self.save_or_stop(trainer)
        self.unsaved += 1

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on interruptions act at once."""
        self.interruption.patient = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimiser step save when it is time or when asked to stop."""
        last_of_epoch = batch_idx + 1 >= trainer.num_training_batches
        if last_of_epoch:  # the epoch's counters are in motion; the next step will do
            return
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.save_or_stop(trainer)

    def save_or_stop(self, trainer: pl.Trainer) -> None:
        """Save when it is time or when asked to stop (all processes call this)."""
        self.interrupted = trainer.strategy.reduce_boolean_decision(self.interruption.asked, all=False)
        if self.interrupted or self.due:
            self.save(trainer)
            self.unsaved = 0
        if self.interrupted:
            trainer.should_stop = True

    def save(self, trainer: pl.Trainer) -> None:
        """Write a resume point atomically (all processes call this)."""
        with written(self.path) if trainer.is_global_zero else nullcontext(self.path) as partial:
            trainer.save_checkpoint(partial)  # the first process writes

    def state_dict(self) -> dict[str, Any]:
        """Random states of all processes (all call this), in the order of their ranks, and the time spent."""
        return {"random": gathered(random_state()), "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the time spent, and the random states until the first batch; older versions kept the first process's."""
        self.earlier_seconds = state_dict["seconds"]
        self.random = state_dict.get("random", [state_dict])


def random_state() -> dict[str, Any]:
    """Of torch in this process, on the CPU and each CUDA device."""
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_available() else {})


def restore_random(state: Mapping[str, Any]) -> None:
    """Go on with random numbers where `random_state` found them."""
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


class KeepWeights(Callback):
    """Writes the run's `weights.pt`: the last weights, or the best of those that it is told the score of.

    Args:
        folder: the run's folder.
        points: tells whether training was interrupted (then nothing is final).
        chooses: whether the best are kept, not the last.
        note: writes down what is known of the training, before its weights appear: whoever finds them finds that too.
    """

    def __init__(
        self, folder: Path, points: ResumePoints, chooses: bool, note: Callable[[pl.Trainer, KeepWeights], None]
    ) -> None:
        self.folder = folder
        self.points = points
        self.chooses = chooses
        self.note = note
        self.best: float | None = None
        self.best_epoch: int | None = None

    def hear(self, trainer: pl.Trainer, value: float) -> None:
        """Told of each look, higher is better; all processes call it. Keep the weights if they are the best."""
        if self.chooses and (self.best is None or value > self.best):
            self.best, self.best_epoch = value, trainer.current_epoch
            save_weights(trainer, self.folder / BEST)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the final weights."""
        if self.points.interrupted:
            return
        self.note(trainer, self)
        if not self.chooses:
            save_weights(trainer, self.folder / WEIGHTS)
        elif trainer.is_global_zero:
            os.replace(self.folder / BEST, self.folder / WEIGHTS)
        trainer.strategy.barrier()

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score so far."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]


def save_weights(trainer: pl.Trainer, path: Path) -> None:
    """Write the module's state dict atomically; every process calls this, the first one writes."""
    weights = trainer.strategy.lightning_module_state_dict()
    if trainer.is_global_zero:
        write_weights(weights, path)


def write_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict atomically, under the names it has without compilation."""
    with written(path) as partial, partial.open("wb") as stream:  # torch writes a path's name into the file
        torch.save({key.replace("_orig_mod.", ""): value.cpu() for key, value in weights.items()}, stream)
