"""A run's folder: where it lies, what it holds, how it is found again and loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from segladder.data.labels.kinds import kinds
from segladder.errors import ConfigError, SegLadderError
from segladder.report import record as records

CONFIG = "config.yaml"
RESUME_POINT = Path("checkpoints") / "last.ckpt"
WEIGHTS = "weights.pt"
EMBEDDINGS = "embeddings.npz"  # what a zero-shot run is told of its classes: vectors, which are seen; see `told`
FOLDER_VARIABLE = "SEGLADDER_RUN_FOLDER"  # tells the other processes of a distributed run where it lies
MOVED = {  # classes that runs of older versions name
    "segladder.data.davis.Davis": "segladder.data.sources.davis.Davis",
    "segladder.data.folder.Folder": "segladder.data.sources.folder.Folder",
    "segladder.data.shapes.Shapes": "segladder.data.sources.shapes.Shapes",
    "segladder.data.voc.VOC": "segladder.data.sources.voc.VOC",
    "segladder.data.annotation_cost.Prices": "segladder.data.labels.prices.Prices",
}
NOT_WHAT_IS_LEARNT = ("runs", "resume", "tag", "logger", "stages")  # keys that do not make it another experiment


def is_first_process() -> bool:
    """Whether this process writes and prints (the only one, or the first of a distributed run)."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def plain_config(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration in plain types."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def stored_config(folder: Path) -> DictConfig:
    """The configuration that a run was started with, in today's words: where classes are now, and a node `labels`.

    Raises:
        ConfigError: the folder holds no run.
    """
    if not (folder / CONFIG).exists():
        raise ConfigError(f"run={folder}: no {CONFIG} there, expected the folder of a run")
    text = (folder / CONFIG).read_text(encoding="utf-8")
    for before, after in MOVED.items():
        text = text.replace(f"_target_: {before}\n", f"_target_: {after}\n")
    stored = OmegaConf.create(text)
    assert isinstance(stored, DictConfig)
    if "labels" not in stored:
        stored.labels = labels_before_they_had_a_name(stored.method)
    return stored


def labels_before_they_had_a_name(method: DictConfig) -> dict[str, str]:
    """The node `labels` of a run whose version had none: the one kind that its method could learn from."""
    found: Any = get_class(method._target_)
    kind = next(kind for kind in kinds().values() if kind.shows == found.learns_from)
    return {"_target_": f"{type(kind).__module__}.{type(kind).__name__}", "name": kind.name}


def config_hash_of(config: DictConfig) -> str:
    """Hash of all that decides what a run learns and how it is scored, wherever its classes lie."""
    learnt = {key: value for key, value in plain_config(config).items() if key not in NOT_WHAT_IS_LEARNT}
    return records.hash_of(without_targets(learnt))


def without_targets(value: Any) -> Any:
    """Nested settings without the classes they are for: their names say which those are."""
    if isinstance(value, Mapping):
        return {key: without_targets(item) for key, item in value.items() if key != "_target_"}
    return [without_targets(item) for item in value] if isinstance(value, list) else value


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    with suppress(SegLadderError):
        return records.read(folder).status == "finished"
    return False


def content_of(folder: Path) -> str:
    """A hash of what a run gives its children: its weights, or its configuration and its own parent's content.

    Raises:
        ConfigError: the run is not there or has not finished.
    """
    if not (folder / records.FILE_NAME).exists():
        raise ConfigError(f"parent={folder}: no {records.FILE_NAME} there, expected the folder of a run")
    record = records.read(folder)
    if record.status != "finished":
        hint = f"; go on with segladder train resume={folder}" if record.status in ("running", "interrupted") else ""
        raise ConfigError(f"parent={folder}: that run is {record.status}, expected a finished one{hint}")
    above = record.config.get("parent")
    parts = {"checkpoint": record.checkpoint.get("sha256"), "parent": above and content_of(Path(above))}
    if parts["checkpoint"] is None:
        parts["method"] = record.config["method"]
    return records.hash_of(parts)
