"""A run that is prepared: fit, score, write its record."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from segladder.data.sources.base import Source
from segladder.errors import DataError
from segladder.methods.base import Method
from segladder.nets.answering import float32_products
from segladder.nets.stored import unpacked
from segladder.protocols.base import Protocol
from segladder.report import record as records
from segladder.report.provenance import device_name, peak_memory_mb
from segladder.runs import build
from segladder.runs.build import Training
from segladder.runs.callbacks import Finite, KeepWeights, ResumePoints, write_weights
from segladder.runs.folder import RESUME_POINT, WEIGHTS, is_first_process, sha256
from segladder.runs.interruption import Interruption
from segladder.runs.loading import fill, weights_of
from segladder.runs.ranks import watched
from segladder.runs.recording import write_status
from segladder.runs.scoring import fill_scores, log_scores, print_scores, scores_text, write_panels
from segladder.runs.studying import Study
from segladder.runs.watching.judging import judge_of, watched_every
from segladder.runs.watching.log import note
from segladder.runs.watching.looks import Looks, Patience
from segladder.runs.watching.mirrors import Mirror
from segladder.runs.watching.progress import Lines, Progress, Rates

STATE: dict[str, type] = {  # what Lightning writes and goes on from
    "pytorch-lightning_version": str,
    "epoch": int,
    "global_step": int,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


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
    mirrors: list[Mirror] = field(default_factory=list)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def carry_out(run: Run) -> None:
    """Fit unless the final weights are there already, score, and write the finished record."""
    known = {"record_id": run.record.id, "protocol_hash": run.record.protocol["hash"], **run.record.config}
    for mirror in run.mirrors:
        mirror.open(known)
    run.record.threads = torch.get_num_threads()
    weights = run.folder / WEIGHTS
    if not weights.exists():
        learn(run)
    if weights.exists():
        run.method.float()  # precision=bf16-true trains in less; whoever scores the weights again does so in this
        fill(run.method, weights_of(run.folder, run.record) or {}, weights)
        run.record.checkpoint = {"path": WEIGHTS, "sha256": sha256(weights)}
    settings = run.config.trainer
    run.method.to(run.device)
    result = run.protocol.score(run.method, run.source, batch_size=settings.score_batch, progress=settings.progress)
    if is_first_process():
        fill_scores(run.record, result, run.folder)
        panels = write_panels(run.method, run.source, run.protocol, result, run.folder, settings.panels)
        write_status(run.record, run.folder, "finished")
        log_scores(run.record, run.mirrors, panels)
        print_scores(run.record, run.folder)
        note(run.folder, f"finished\n{scores_text(run.record, run.folder)}")


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
    trainer = build.trainer(run.config, run.folder, callbacks(run, points), run.mirrors)
    if run.config.strategy.compile:
        compile_network(run.method)
    start = whole_resume_point(run.folder)
    held = watched(run.interruption, lambda status: give_up(run, status))
    with held, float32_products(run.method.tf32):
        trainer.fit(run.method, run.training.module, ckpt_path=start, weights_only=True)
    if points.interrupted:
        raise KeyboardInterrupt
    run.device = trainer.strategy.root_device


def give_up(run: Run, status: str) -> None:
    """Record how a run ends that another of its processes has left hanging, and print a line where that one failed."""
    if status == "failed":
        run.record.error = "another process of the run failed; see what it printed"
        print(f"segladder: {run.record.error}", file=sys.stderr, flush=True)
    write_status(run.record, run.folder, status)


def compile_network(method: Method) -> None:
    """Compile what training runs, at its first step; answers are computed without."""
    if is_first_process():
        print(
            "strategy.compile=true: the first step compiles the network, which may take more than a minute", flush=True
        )
    method.compile()
    method.compiled = True


def callbacks(run: Run, points: ResumePoints) -> list[pl.Callback]:
    """What happens around optimisation, in this order: what a look has found is in the resume point of its step."""
    settings = run.config.trainer
    rates, patience = Rates(build.logged_every(run.config)), patience_of(run.config)
    judge = judge_of(run.config, run.method, run.source, run.protocol, run.training.held_out)

    def note_training(trainer: pl.Trainer, keep: KeepWeights) -> None:
        describe_training(run, trainer, keep, patience)
        run.record.train_seconds = round(points.seconds, 3)
        write_status(run.record, run.folder, "running")

    keep = KeepWeights(run.folder, points, run.config.selection != "fixed", note_training)
    looks = []
    if judge is not None:
        every = watched_every(run.config)
        told = [keep.hear, *([patience.hear] if patience else []), lambda trainer, value: rates.passed()]
        in_steps = every is not None and settings.steps is not None
        looks = [Looks(run.folder, judge, every or 1, in_steps, every is not None, points, *told)]
    bars = [Progress(lambda: looks[0].text if looks else "")] if settings.progress else []
    finite = Finite(points)
    lines = Lines(run.folder, rates)
    return [finite, rates, lines, *looks, *([patience] if patience else []), points, keep, *bars]


def patience_of(config: DictConfig) -> Patience | None:
    """What ends training early, if anything; nothing did in older versions."""
    settings = config.trainer.get("early_stopping", {})
    return Patience(settings.patience, settings.min_delta) if settings.get("patience") else None


def describe_training(run: Run, trainer: pl.Trainer, keep: KeepWeights, patience: Patience | None) -> None:
    """Write into the record of a run how training went, and what was chosen by what."""
    record, device = run.record, trainer.strategy.root_device
    record.steps = trainer.global_step
    record.device = device_name(device)
    record.precision = str(trainer.precision)
    record.peak_memory_mb = round(peak_memory_mb(device), 1)
    if keep.best_epoch is not None:
        chosen_by = "scored pixels" if run.config.selection == "oracle" else run.training.held_out.labels.shows
        record.label_access |= {"epoch": keep.best_epoch, "score": keep.best, "chosen_by": chosen_by}
        if patience:
            ended = {"patience": patience.patience, "ended": patience.ended, "chosen_by": chosen_by}
            record.label_access["early_stopping"] = ended


def whole_resume_point(folder: Path) -> Path | None:
    """Where training goes on from, None where it starts. Raises DataError for a file that no training wrote."""
    path = folder / RESUME_POINT
    if not path.exists():
        return None
    expected = "a resume point; remove it, and training starts anew"
    found = unpacked(path, expected)
    if missing := [key for key, kind in STATE.items() if not isinstance(found.get(key), kind)]:
        raise DataError(f"{path}: no state of training in it ({missing[0]}), expected {expected}")
    return path
