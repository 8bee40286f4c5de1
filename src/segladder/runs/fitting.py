"""A run that is prepared: fit, score, write its record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger, WandbLogger

from segladder.data.sources.base import Source
from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method
from segladder.nets.stored import unpacked
from segladder.protocols.base import Protocol, Scoring
from segladder.protocols.classification import classification_score
from segladder.report import record as records
from segladder.report.provenance import device_name, peak_memory_mb
from segladder.runs import build
from segladder.runs.build import Training
from segladder.runs.callbacks import Finite, KeepWeights, Progress, ResumePoints, write_weights
from segladder.runs.folder import RESUME_POINT, WEIGHTS, is_first_process, sha256
from segladder.runs.interruption import Interruption
from segladder.runs.loading import fill, weights_of
from segladder.runs.ranks import watched
from segladder.runs.recording import write_status
from segladder.runs.scoring import fill_scores, log_scores, print_scores, write_panels
from segladder.runs.studying import Study


@dataclass
class Run:
    """What a training run is made of."""

    config: DictConfig
    folder: Path
    source: Source
    protocol: Protocol
    training: Training
    method: Method
    record: records.Record
    interruption: Interruption
    study: Study = field(default_factory=Study)
    mirrors: list[Logger] = field(default_factory=list)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def carry_out(run: Run) -> None:
    """Fit unless the final weights are there already, score, and write the finished record."""
    finished = False
    run.record.threads = torch.get_num_threads()
    try:
        weights = run.folder / WEIGHTS
        if not weights.exists():
            learn(run)
        if weights.exists():
            fill(run.method, weights_of(run.folder, run.record), weights)
            run.record.checkpoint = {"path": WEIGHTS, "sha256": sha256(weights)}
        settings = run.config.trainer
        run.method.to(run.device)
        result = run.protocol.score(run.method, run.source, batch_size=settings.score_batch, progress=settings.progress)
        if is_first_process():
            fill_scores(run.record, result, run.folder)
            panels = write_panels(run.method, run.source, run.protocol, result, run.folder, settings.panels)
            log_scores(run.record, run.mirrors, panels)
            write_status(run.record, run.folder, "finished")
            print_scores(run.record, run.folder)
        finished = True
    finally:
        finish(run.mirrors, 0 if finished else 1)


def learn(run: Run) -> None:
    """Write the weights, if there are any: what training ends with, what a study found, features that never learn."""
    if run.method.trains:
        fit(run)
        return
    if run.method.studies:
        run.study.carry_out(run.method, run.source)
    if (weights := run.method.state_dict()) and is_first_process():
        write_weights(weights, run.folder / WEIGHTS)


def fit(run: Run) -> None:
    """Optimise, from the last resume point where there is one. Raises KeyboardInterrupt when asked to stop."""
    points = ResumePoints(run.folder, run.config.trainer.checkpoint_every, run.interruption)

    def note(trainer: pl.Trainer, keep: KeepWeights) -> None:
        record, device = run.record, trainer.strategy.root_device
        record.steps = trainer.global_step
        record.train_seconds = round(points.seconds, 3)
        record.device = device_name(device)
        record.precision = str(trainer.precision)
        record.peak_memory_mb = round(peak_memory_mb(device), 1)
        if keep.best_epoch is not None:
            chosen_by = "scored pixels" if run.config.selection == "oracle" else run.training.held_out.labels.shows
            record.label_access |= {"epoch": keep.best_epoch, "score": keep.best, "chosen_by": chosen_by}
        write_status(record, run.folder, "running")

    keep = KeepWeights(run.folder, points, selection(run), note)
    finite = Finite(run.config.trainer.checkpoint_every)
    callbacks: list[pl.Callback] = [finite, points, keep, *([Progress()] if run.config.trainer.progress else [])]
    if is_first_process():
        run.mirrors = build.loggers(run.config, run.folder)
    trainer = build.trainer(run.config, run.folder, callbacks, run.mirrors)
    if run.config.strategy.compile:
        run.method.compile()
    start = whole_resume_point(run.folder)
    with watched(run.interruption, lambda status: write_status(run.record, run.folder, status)):
        trainer.fit(run.method, run.training.module, ckpt_path=start, weights_only=True)
    if points.interrupted:
        raise KeyboardInterrupt
    run.device = trainer.strategy.root_device


def whole_resume_point(folder: Path) -> Path | None:
    """Where training goes on from, None where it starts. Raises DataError for a file that no training wrote."""
    path = folder / RESUME_POINT
    if not path.exists():
        return None
    expected = "a resume point; remove it, and training starts anew"
    if "state_dict" not in unpacked(path, expected):
        raise DataError(f"{path}: no state of training in it, expected {expected}")
    return path


def selection(run: Run) -> Callable[[Method], float] | None:
    """The score that chooses the kept weights, or None for the last weights.

    On held-out images it follows from the labels that training is shown: where these are tags, it is how well tags are
    told, whatever the protocol.
    """
    choice, batch = run.config.selection, run.config.trainer.score_batch
    if choice == "fixed":
        return None
    if choice == "oracle":
        return lambda method: run.protocol.selection_score(method, run.source, None, batch)
    held_out = run.training.held_out
    if held_out.labels.shows != "tags":
        return lambda method: run.protocol.selection_score(method, held_out.source, held_out.judges, batch)
    if not run.method.tells_tags:
        raise ConfigError(
            f"selection=held_out: held-out images have tags alone, which method={run.method.name} does not tell; choose"
            " selection=fixed"
        )
    return lambda method: classification_score(Scoring(method, held_out.source, held_out.judges, batch))


def finish(mirrors: list[Logger], code: int) -> None:
    """Close the mirrors; wandb learns whether the run succeeded."""
    for mirror in mirrors:
        mirror.finalize("success" if code == 0 else "failed")
        if isinstance(mirror, WandbLogger):
            mirror.experiment.finish(exit_code=code)
