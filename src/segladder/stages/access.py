"""Which classes the runs that a run builds on have learnt, and whether it may."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from segladder.errors import ConfigError
from segladder.protocols.base import Protocol
from segladder.report import record as records
from segladder.runs.recording import backbone_node


def backbone_parent(config: DictConfig) -> records.Record | None:
    """The record of the run whose folder `backbone.weights` names, if it does."""
    weights = config.backbone.get("weights")
    if backbone_node(config) is None or weights is None or not (Path(weights) / records.FILE_NAME).exists():
        return None
    return records.read(Path(weights))


def stage_parent(config: DictConfig) -> records.Record | None:
    """The record of the run that `parent` names, if it does."""
    return None if config.get("parent") is None else records.read(Path(config.parent))


def learnt_classes(record: records.Record) -> set[str]:
    """Names of the classes whose labels a run has learnt from: those of its data but its novel or unseen ones."""
    return set(record.data["classes"]) - hidden_classes(record)


def absent_classes(record: records.Record) -> set[str]:
    """Names of the classes that no training image of a run held."""
    fields = record.protocol.get("fields", {})
    drops = "drop" in (fields.get("novel_pixels"), fields.get("unseen_pixels"))
    return {*record.config["loader"].get("without", ()), *(hidden_classes(record) if drops else ())}


def hidden_classes(record: records.Record) -> set[str]:
    """Names of the classes that were novel or unseen in a run."""
    return set(record.label_access.get("hidden", _classes_of_fold(record)))


def _classes_of_fold(record: records.Record) -> Sequence[str]:
    folds = record.protocol.get("fields", {}).get("folds", [])
    return folds[record.fold] if record.fold is not None else ()


def check_rung(key: str, parent: records.Record, config: DictConfig, protocol: Protocol, supervision: str) -> None:
    """Raise ConfigError if a run of the ladder starts from one with other labels of novel classes than its own."""
    if not protocol.ladder or not set(protocol.novel) & learnt_classes(parent):
        return
    if (parent.supervision, parent.config.get("pool")) != (supervision, config.pool):
        raise ConfigError(
            f"{key}: run {parent.id} has learnt novel classes of fold={config.fold} as {parent.supervision} with"
            f" pool={parent.config.get('pool')}, but this run is {supervision} with pool={config.pool}"
        )


def check_leaks(key: str, parent: records.Record, fold: int, protocol: Protocol) -> None:
    """Raise ConfigError if a run that another starts from (`key` names it) has seen the fold's novel classes."""
    novel = set(protocol.hidden())
    if leaked := sorted(novel & learnt_classes(parent)):
        raise ConfigError(
            f"{key}: run {parent.id} has learnt {leaked[0]}, a novel class of fold={fold}; train it with other"
            " data.classes"
        )
    drops = "drop" in (getattr(protocol, "novel_pixels", None), getattr(protocol, "unseen_pixels", None))
    if drops and (seen := sorted(novel - absent_classes(parent))):
        raise ConfigError(
            f"{key}: run {parent.id} has seen images that hold {seen[0]}, which protocol={protocol.name} drops; train"
            f" it with loader.without=[{','.join(sorted(novel))}]"
        )
