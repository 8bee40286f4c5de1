"""`segladder train`: optimise a method, score it, write its record."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger, WandbLogger

from segladder.commands import build, labelling, parents, runs
from segladder.commands.callbacks import RESUME_POINT, WEIGHTS, Interruption, KeepWeights, Progress, ResumePoints
from segladder.commands.complaints import check_choices
from segladder.commands.scoring import fill_scores, log_scores, print_scores, write_panels
from segladder.commands.stages import run_stages
from segladder.data.checks import check_training_ready
from segladder.data.embeddings import class_embeddings
from segladder.data.module import DataModule
from segladder.data.source import Source
from segladder.errors import ConfigError
from segladder.methods.base import Method
from segladder.protocols.base import Protocol
from segladder.protocols.ladder import LadderProtocol
from segladder.protocols.zero_shot import ZeroShotProtocol
from segladder.report import record as records
from segladder.report.provenance import device_name, parameter_count, peak_memory_mb

LAUNCH_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", runs.FOLDER_VARIABLE)


@dataclass
class Run:
    """What a training run is made of."""

    config: DictConfig
    folder: Path
    source: Source
    protocol: Protocol
    data: DataModule
    method: Method
    record: records.Record
    interruption: Interruption
    mirrors: list[Logger] = field(default_factory=list)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def run(config: DictConfig) -> int:
    """Train and score one run, or a chain of them; returns 0 when finished, 130 when interrupted.

    Faults raise once they are recorded.
    """
    if config.stages:
        runs.discard_if_empty(runs.fresh_folder(), Path(config.runs))
        return run_stages(config)
    try:
        check_choices(config)
    except ConfigError:
        runs.discard_if_empty(runs.fresh_folder(), Path(config.runs))
        raise
    config, folder = runs.place(config)
    record = runs.start_record(config, folder)
    with Interruption() as interruption, relaunchable(folder):
        try:
            write(record, folder, "running")
            carry_out(prepare(config, folder, record, interruption))
        except KeyboardInterrupt:
            write(record, folder, "interrupted")
            if runs.is_first_process():
                print(f"interrupted; go on with: segladder train resume={folder}", file=sys.stderr)
            return 130
        except BaseException as error:
            record.error = "".join(traceback.format_exception(error))[-4000:]
            write(record, folder, "failed")
            raise
    return 0


def write(record: records.Record, folder: Path, status: str) -> None:
    """Write the record with its status, from the first process only."""
    record.status = status
    if runs.is_first_process():
        records.write(record, folder)


def prepare(config: DictConfig, folder: Path, record: records.Record, interruption: Interruption) -> Run:
    """Build everything and check the data before the first step."""
    source = build.source(config)
    protocol = build.protocol(config)
    method = build.method(config, len(source.classes), **known(config, folder, record, source, protocol))
    learns = parents.learns(config, method, source, protocol)
    protocol.check_method(method.name, learns.supervision)
    learns = parents.with_few_labels(learns)
    record.supervision = learns.supervision
    record.label_access |= parents.label_access(learns, protocol)
    check_training_ready(learns.source, learns.visible)
    data = build.data_module(config, learns.source, learns.visible, learns.limits)
    record.data = {
        "name": source.name,
        "classes": list(source.classes),
        "train_ids": len(data.dataset.ids),
        "train_fingerprint": learns.source.fingerprint(data.dataset.ids),
        "val_fingerprint": source.fingerprint(source.split(protocol.split)),
    }
    record.protocol = protocol.described()
    record.fold, record.shots = protocol.place().values()
    record.annotation_cost = labelling.cost_of(config, source, protocol, learns, data.dataset.ids)
    record.parameters = parameter_count(method)
    record.config["method"].update(method.resolved)
    record.parents, record.lineage = learns.parents, learns.lineage
    inherit(record, config, protocol)
    record.error = None
    return Run(config, folder, source, protocol, data, method, record, interruption)


def known(
    config: DictConfig, folder: Path, record: records.Record, source: Source, protocol: Protocol
) -> dict[str, Any]:
    """What a zero-shot method is told of its classes, kept as FOLDER/embeddings.npz; nothing for other methods."""
    if config.method.supervision != "zero_shot":
        return {}
    protocol.check_method(config.method.name, "zero_shot")
    assert isinstance(protocol, ZeroShotProtocol | LadderProtocol)
    if "embeddings" not in config:
        raise ConfigError(f"data={source.name}: has no embeddings, expected them for method={config.method.name}")
    settings: Any = OmegaConf.to_container(config.embeddings, resolve=True)
    if not settings["sources"]:
        raise ConfigError(f"embeddings.sources is empty: give files of class vectors for method={config.method.name}")
    embeddings = class_embeddings(settings, source.classes)
    if runs.is_first_process():
        embeddings.save(folder / runs.EMBEDDINGS)
    record.label_access["embeddings"] = {"sources": list(embeddings.sources), "control": settings["control"]}
    few = isinstance(protocol, ZeroShotProtocol) and bool(protocol.pool)
    seen = torch.from_numpy(protocol.seen(source))
    return {"embeddings": torch.from_numpy(embeddings.vectors), "seen": seen, "few_labels": few}


def inherit(record: records.Record, config: DictConfig, protocol: Protocol) -> None:
    """Name the run that the backbone's weights come from; raises ConfigError if novel classes were in its training."""
    for key, parent in (("backbone.weights", runs.parent(config)), ("parent", runs.stage_parent(config))):
        if parent is not None:
            check_leaks(key, parent, config.fold, protocol, record.supervision)
            check_rung(key, parent, config, protocol, record.supervision)
    if (parent := runs.parent(config)) is None:
        return
    record.parents = [*record.parents, parent.id]
    record.backbone["pretraining"] = f"{parent.method} on {parent.data['name']}"


def check_rung(key: str, parent: records.Record, config: DictConfig, protocol: Protocol, supervision: str) -> None:
    """Raise ConfigError if a run of the ladder starts from one with other labels of novel classes than its own."""
    if not isinstance(protocol, LadderProtocol) or not set(protocol.novel) & runs.learnt_classes(parent):
        return
    if (parent.supervision, parent.config.get("pool")) != (supervision, config.pool):
        raise ConfigError(
            f"{key}: run {parent.id} has learnt novel classes of fold={config.fold} as {parent.supervision} with"
            f" pool={parent.config.get('pool')}, but this run is {supervision} with pool={config.pool}"
        )


def check_leaks(key: str, parent: records.Record, fold: int, protocol: Protocol, supervision: str) -> None:
    """Raise ConfigError if a run that another starts from (`key` names it) has seen the fold's novel classes."""
    novel = set(protocol.hidden(supervision))
    if leaked := sorted(novel & runs.learnt_classes(parent)):
        raise ConfigError(
            f"{key}: run {parent.id} has learnt {leaked[0]}, a novel class of fold={fold}; train it with other"
            " data.classes"
        )
    drops = "drop" in (getattr(protocol, "novel_pixels", None), getattr(protocol, "unseen_pixels", None))
    if drops and (seen := sorted(novel - runs.absent_classes(parent))):
        raise ConfigError(
            f"{key}: run {parent.id} has seen images that hold {seen[0]}, which protocol={protocol.name} drops; train"
            f" it with loader.without=[{','.join(sorted(novel))}]"
        )


def carry_out(run: Run) -> None:
    """Fit unless the final weights are there already, score, and write the finished record."""
    finished = False
    try:
        if run.method.trains and not (run.folder / WEIGHTS).exists():
            fit(run)
        if run.method.trains:
            weights = run.folder / WEIGHTS
            run.method.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
            run.record.checkpoint = {"path": WEIGHTS, "sha256": runs.sha256(weights)}
        settings = run.config.trainer
        run.method.to(run.device)
        result = run.protocol.score(run.method, run.source, batch_size=settings.score_batch, progress=settings.progress)
        if runs.is_first_process():
            fill_scores(run.record, result, run.folder)
            panels = write_panels(run.method, run.source, run.protocol, result, run.folder, settings.panels)
            log_scores(run.record, run.mirrors, panels)
            write(run.record, run.folder, "finished")
            print_scores(run.record, run.folder)
        finished = True
    finally:
        finish(run.mirrors, 0 if finished else 1)


def fit(run: Run) -> None:
    """Optimise, from the last resume point where there is one. Raises KeyboardInterrupt when asked to stop."""
    points = ResumePoints(run.folder, run.config.trainer.checkpoint_every, run.interruption)
    keep = KeepWeights(run.folder, points, selection(run))
    callbacks: list[pl.Callback] = [points, keep, *([Progress()] if run.config.trainer.progress else [])]
    if runs.is_first_process():
        run.mirrors = build.loggers(run.config, run.folder)
    trainer = build.trainer(run.config, run.folder, callbacks, run.mirrors)
    if run.config.strategy.compile:
        run.method.compile()
    resume_point = run.folder / RESUME_POINT
    start = resume_point if resume_point.exists() else None
    trainer.fit(run.method, run.data, ckpt_path=start, weights_only=True)
    if points.interrupted:
        raise KeyboardInterrupt
    run.device = trainer.strategy.root_device
    record = run.record
    record.steps = trainer.global_step
    record.train_seconds = round(points.seconds, 3)
    record.device = device_name(run.device)
    record.peak_memory_mb = round(peak_memory_mb(run.device), 1)
    if keep.best_epoch is not None:
        record.label_access |= {"epoch": keep.best_epoch, "score": keep.best}
    write(record, run.folder, "running")  # a run killed while it is scored is resumed behind this line


def selection(run: Run) -> Callable[[Method], float] | None:
    """The score that chooses the kept weights, or None for the last weights."""
    if run.config.selection == "fixed":
        return None
    ids = run.data.held_out_ids if run.config.selection == "held_out" else None
    source = run.source if ids is None else run.data.source  # held-out images have the labels of training
    return lambda method: run.protocol.selection_score(method, source, ids, run.config.trainer.score_batch)


@contextmanager
def relaunchable(folder: Path) -> Iterator[None]:
    """Let Lightning start this very job in further processes, and leave no trace for the next job of a sweep."""
    before = {name: os.environ.get(name) for name in LAUNCH_VARIABLES}
    arguments = sys.argv
    os.environ[runs.FOLDER_VARIABLE] = str(folder.resolve())
    sys.argv = [arguments[0], "train", *HydraConfig.get().overrides.task]
    try:
        yield
    finally:
        sys.argv = arguments
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def finish(mirrors: list[Logger], code: int) -> None:
    """Close the mirrors; wandb learns whether the run succeeded."""
    for mirror in mirrors:
        mirror.finalize("success" if code == 0 else "failed")
        if isinstance(mirror, WandbLogger):
            mirror.experiment.finish(exit_code=code)
