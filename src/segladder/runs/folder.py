"""A run's folder: where it lies, what it holds, what its content hashes to."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from segladder.command_line import quoted
from segladder.data.labels.kinds import kinds
from segladder.errors import ConfigError, DataError, SegLadderError
from segladder.foreign import links_elsewhere, text
from segladder.machine import rank
from segladder.report import record as records
from segladder.runs.instantiation import TARGET, trusted

CONFIG = "config.yaml"
PARENT, START = "parent", "start"  # keys whose value is the folder of a finished run
BACKBONE = "backbone.weights"  # may name one too
RESUME_POINT = Path("checkpoints") / "last.ckpt"
WEIGHTS = "weights.pt"
EMBEDDINGS = "embeddings.npz"  # what a zero-shot run is told of its classes: vectors, which are seen; see `told`
FOLDER_VARIABLE = "SEGLADDER_RUN_FOLDER"  # tells the other processes of a distributed run where it lies
NODES = ("method", "protocol", "data", "backbone", "strategy", "loader", "trainer")  # of every run's configuration
MOVED = {  # classes that runs of older versions name
    "segladder.data.davis.Davis": "segladder.data.sources.davis.Davis",
    "segladder.data.folder.Folder": "segladder.data.sources.folder.Folder",
    "segladder.data.shapes.Shapes": "segladder.data.sources.shapes.Shapes",
    "segladder.data.voc.VOC": "segladder.data.sources.voc.VOC",
    "segladder.data.annotation_cost.Prices": "segladder.data.labels.prices.Prices",
}
NOT_WHAT_IS_LEARNT = (
    "runs",
    "resume",
    "tag",
    "logger",
    "stages",
    "at_once",
)  # keys that do not make it another experiment


def is_first_process() -> bool:
    """Whether this process writes and prints (the only one, or the first of a distributed run)."""
    return rank() == 0


def plain_config(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration in plain types."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def stored_config(folder: Path) -> DictConfig:
    """The configuration that a run was started with, in today's words: where classes are now, and a node `labels`.

    Raises:
        ConfigError: the folder holds no run, or a configuration that is not its own or that asks for more than `conf/`.
    """
    if not (folder / CONFIG).exists():
        raise ConfigError(f"run={folder}: no {CONFIG} there, expected the folder of a run")
    require_own_folders(folder)
    try:
        written = OmegaConf.to_container(OmegaConf.create(without_aliases(text(folder / CONFIG))))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        fault = " ".join(str(error).split())  # YAML says it in several lines
        raise ConfigError(f"{folder / CONFIG}: damaged ({fault}), expected the configuration of a run") from error
    stored = trusted(with_todays_targets(written), folder / CONFIG)
    if missing := [name for name in NODES if not OmegaConf.is_dict(stored.get(name))]:
        raise ConfigError(f"{folder / CONFIG}: no {missing[0]} in it, expected the configuration of a run")
    require_unchanged(folder, written)
    if "labels" not in stored:
        stored.labels = labels_before_they_had_a_name(stored.method)
    return stored


def without_aliases(document: str) -> str:
    """A document of YAML in which nothing stands for a part of it, as many times as it likes. Raises YAMLError."""
    for event in yaml.parse(document):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"line {event.start_mark.line + 1} repeats another part, which no run writes")
    return document


def with_todays_targets(value: Any) -> Any:
    """Nested settings whose classes have the names that they have now."""
    if isinstance(value, Mapping):
        return {k: MOVED.get(str(v), v) if k == TARGET else with_todays_targets(v) for k, v in value.items()}
    return [with_todays_targets(item) for item in value] if isinstance(value, list) else value


def require_own_folders(folder: Path) -> None:
    """Raise ConfigError if a run's folder holds a link to a folder elsewhere, which it would be written to."""
    if links := links_elsewhere(folder):
        raise ConfigError(f"{links[0]}: a link to a folder elsewhere; copy what it leads to into the run's folder")


def require_unchanged(folder: Path, written: Any) -> None:
    """Raise ConfigError unless a run's record, if there is one, is of the configuration that its folder holds."""
    if not (folder / records.FILE_NAME).exists():
        return
    said = records.read(folder).config_hash
    if said not in (hash_of_learnt(written), hash_of_learnt(written, with_targets=True)):
        raise ConfigError(
            f"{folder / CONFIG}: not the configuration of this run (config_hash in its record); put back what it was,"
            " or start another run with other settings"
        )


def labels_before_they_had_a_name(method: DictConfig) -> dict[str, str]:
    """The node `labels` of a run whose version had none: the one kind that its method could learn from."""
    found: Any = get_class(method._target_)
    kind = next(kind for kind in kinds().values() if kind.shows == found.learns_from and not kind.partial)
    return {"_target_": f"{type(kind).__module__}.{type(kind).__name__}", "name": kind.name}


def config_hash_of(config: DictConfig) -> str:
    """Hash of all that decides what a run learns and how it is scored, wherever its classes lie."""
    return hash_of_learnt(plain_config(config))


def hash_of_learnt(plain: Mapping[str, Any], with_targets: bool = False) -> str:
    """`hash_of_config` of a configuration in plain types; version 0.1 hashed the places of classes too."""
    learnt = {key: value for key, value in plain.items() if key not in NOT_WHAT_IS_LEARNT}
    return records.hash_of(learnt if with_targets else without_targets(learnt))


def without_targets(value: Any) -> Any:
    """Nested settings without the classes they are for: their names say which those are."""
    if isinstance(value, Mapping):
        return {key: without_targets(item) for key, item in value.items() if key != TARGET}
    return [without_targets(item) for item in value] if isinstance(value, list) else value


def sha256(path: Path) -> str:
    """Hex digest of a file. Raises DataError for what is none: reading a pipe would wait for ever."""
    if not path.is_file():
        raise DataError(f"{path}: no regular file, expected one that can be read")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_weights(folder: Path, record: records.Record) -> None:
    """Raise DataError if a run's weights are there and not those that it wrote; older records do not say which."""
    said, path = record.checkpoint.get("sha256"), folder / WEIGHTS
    if said is not None and path.exists() and sha256(path) != said:
        raise DataError(f"{path}: not the file that the run wrote (sha256 in its record); copy the run's folder anew")


def has_learnt(folder: Path) -> bool:
    """Whether a run has begun to train."""
    return (folder / WEIGHTS).exists() or (folder / RESUME_POINT).exists()


def resuming(folder: Path) -> str:
    """The command that goes on with a run, as one writes it in a shell."""
    return shlex.join(["segladder", "train", f"resume={quoted(folder)}"])


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    with suppress(SegLadderError):
        return records.read(folder).status == "finished"
    return False


def content_of(folder: Path, below: tuple[Path, ...] = (), named: str = PARENT) -> str:
    """A hash of what a run gives its children: its weights, or its configuration and its own parent's content.

    Args:
        folder: of the run.
        below: runs that build on it.
        named: the key that names it, for messages.

    Raises:
        ConfigError: the run is not there, has not finished, or builds on itself, by way of those `below` it.
    """
    if folder.resolve() in below:
        raise ConfigError(f"{named}={folder}: that run builds on itself, so it is none that was trained")
    if not (folder / records.FILE_NAME).exists():
        raise ConfigError(f"{named}={folder}: no {records.FILE_NAME} there, expected the folder of a run")
    require_own_folders(folder)
    record = records.read(folder)
    if record.status != "finished":
        hint = f"; go on with {resuming(folder)}" if record.status in ("running", "interrupted") else ""
        raise ConfigError(f"{named}={folder}: that run is {record.status}, expected a finished one{hint}")
    above = record.config.get(PARENT)
    parts = {
        "checkpoint": record.checkpoint.get("sha256"),
        PARENT: above and content_of(Path(above), (*below, folder.resolve())),
    }
    if parts["checkpoint"] is None:
        parts["method"] = record.config["method"]
    return records.hash_of(parts)
