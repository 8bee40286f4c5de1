"""Everything of a training run that comes before its first step: what it is made of, and whether it may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from segladder.data.inspection.checks import check_training_ready
from segladder.data.sources.base import Source
from segladder.data.words.embeddings import class_embeddings
from segladder.errors import ConfigError
from segladder.protocols.base import Protocol
from segladder.protocols.ladder import LadderProtocol
from segladder.protocols.zero_shot import ZeroShotProtocol
from segladder.report import record as records
from segladder.report.provenance import parameter_count
from segladder.runs import build
from segladder.runs.callbacks import Interruption
from segladder.runs.fitting import Run
from segladder.runs.folder import EMBEDDINGS, is_first_process
from segladder.stages.access import (
    backbone_parent,
    check_leaks,
    check_rung,
    stage_parent,
)
from segladder.stages.annotation_cost import cost_of
from segladder.stages.inheritance import label_access, what_is_learnt, with_few_labels


def prepare(config: DictConfig, folder: Path, record: records.Record, interruption: Interruption) -> Run:
    """Build everything and check the data before the first step."""
    source = build.source(config)
    protocol = build.protocol(config)
    method = build.method(config, len(source.classes), **known(config, folder, record, source, protocol))
    learns = what_is_learnt(config, method, source, protocol)
    protocol.check_method(method.name, learns.supervision)
    learns = with_few_labels(learns)
    record.supervision = learns.supervision
    record.label_access |= label_access(learns, protocol)
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
    record.annotation_cost = cost_of(config, source, protocol, learns, data.dataset.ids)
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
    if is_first_process():
        embeddings.save(folder / EMBEDDINGS)
    record.label_access["embeddings"] = {"sources": list(embeddings.sources), "control": settings["control"]}
    few = isinstance(protocol, ZeroShotProtocol) and bool(protocol.pool)
    seen = torch.from_numpy(protocol.seen(source))
    return {"embeddings": torch.from_numpy(embeddings.vectors), "seen": seen, "few_labels": few}


def inherit(record: records.Record, config: DictConfig, protocol: Protocol) -> None:
    """Name the run that the backbone's weights come from; raises ConfigError if novel classes were in its training."""
    for key, parent in (("backbone.weights", backbone_parent(config)), ("parent", stage_parent(config))):
        if parent is not None:
            check_leaks(key, parent, config.fold, protocol, record.supervision)
            check_rung(key, parent, config, protocol, record.supervision)
    if (parent := backbone_parent(config)) is None:
        return
    record.parents = [*record.parents, parent.id]
    record.backbone["pretraining"] = f"{parent.method} on {parent.data['name']}"
