"""A run's folder back in memory: its configuration, record and trained method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method
from segladder.methods.image_level.base import LaterStage
from segladder.nets.stored import unpacked
from segladder.report import record as records
from segladder.runs import build
from segladder.runs.class_scores import StoredScores
from segladder.runs.folder import RESUME_POINT, WEIGHTS, require_weights, resuming, stored_config
from segladder.runs.instantiation import trusted
from segladder.runs.recording import backbone_node
from segladder.runs.told import kept, kept_by_older_versions


def load_run(folder: Path) -> tuple[DictConfig, records.Record, Method]:
    """Configuration, record and trained method (in eval mode) of a run.

    Raises:
        ConfigError: the folder holds no run, or one whose training has not ended.
        DataError: its record or its weights are not what it wrote.
    """
    config = stored_config(folder)
    record = records.read(folder)
    if not record.data.get("classes") or not isinstance(record.config.get("method"), dict):
        raise DataError(f"{folder / records.FILE_NAME}: no classes or no method in it, expected the record of a run")
    if config.method.trains and not (folder / WEIGHTS).exists():
        hint = f"; finish it with {resuming(folder)}" if (folder / RESUME_POINT).exists() else ""
        raise ConfigError(f"run={folder}: no {WEIGHTS} there, its training has not ended{hint}")
    config.method.update(left_open(config, record, folder))
    weights = weights_of(folder, record)
    for node in (config.backbone, backbone_node(config)):
        if weights is not None and node is not None and "weights" in node:
            node.weights = "none"  # the run's own weights follow
    told = told_of(folder, record, weights or {}) if build.method_class(config).reads_class_vectors else {}
    with isolate_rng():  # a run that builds on it draws on, whether or not it had to be loaded
        method = build.method(config, len(record.data["classes"]), **told)
    if weights is not None:
        fill(method, weights, folder / WEIGHTS)
    if isinstance(method, LaterStage):
        method.parent = StoredScores(Path(config.parent), trained_method)
    return config, record, method.eval()


def left_open(config: DictConfig, record: records.Record, folder: Path) -> Any:
    """What settings left to `auto` came to when the run was made; elsewhere they might come to something else."""
    found = {key: value for key, value in record.config["method"].items() if config.method.get(key) == "auto"}
    return trusted({"method": found}, folder / records.FILE_NAME).method


def weights_of(folder: Path, record: records.Record) -> dict[str, Tensor] | None:
    """A run's weights; None where it wrote none. Raises DataError if they are not those that it wrote."""
    if not (folder / WEIGHTS).exists():
        return None
    require_weights(folder, record)
    weights: dict[str, Tensor] = unpacked(folder / WEIGHTS, "the weights that a run wrote")
    return weights


def fill(method: Method, weights: dict[str, Tensor], path: Path) -> None:
    """Give a method its weights. Raises DataError where those of the file `path` are of another method."""
    try:
        method.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        found = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not the weights of method={method.name} ({found})") from error


def told_of(folder: Path, record: records.Record, weights: dict[str, Tensor]) -> dict[str, Any]:
    """What a run's method was told of its classes, as its arguments."""
    told = kept(folder) or kept_by_older_versions(folder, weights, record.label_access)
    return told.arguments()


def trained_method(folder: Path) -> Method:
    """The method of a run, with its weights, in eval mode; errors as of `load_run`."""
    return load_run(folder)[2]


def chosen_device(asked: str | None) -> torch.device:
    """The device asked for (`cpu`, `cuda`, `cuda:N`), or the first CUDA device, or the CPU where there is none.

    Raises:
        ConfigError: a name of no device, or of none that is visible.
    """
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        device = torch.device(asked or ("cuda" if visible else "cpu"))
    except RuntimeError as error:
        raise ConfigError(f"device={asked}: expected cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= visible:
        raise ConfigError(f"device={asked}: {visible or 'no'} CUDA devices are visible; leave it out, or choose cpu")
    return device
