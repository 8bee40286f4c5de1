"""The record of a run, filled as the run goes on."""

from __future__ import annotations

import hashlib
import shlex
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from segladder.data.sources.base import Source
from segladder.errors import SegLadderError
from segladder.protocols.base import Protocol
from segladder.report import record as records
from segladder.report.provenance import git_state, versions
from segladder.runs.composition import given_words
from segladder.runs.folder import config_hash_of, has_learnt, is_first_process, plain_config, resuming
from segladder.runs.watching.log import note


def start_record(config: DictConfig, folder: Path) -> records.Record:
    """A record that holds what is known before anything ran; resumed runs keep their id and start.

    One that has learnt nothing yet is of the code of today.
    """
    state = git_state()
    with suppress(SegLadderError):
        record = records.read(folder)
        if not has_learnt(folder):
            record.commit, record.dirty, record.versions = state.commit, state.dirty, versions()
        return record
    now = datetime.now(UTC)
    overrides = [shlex.quote(o) for o in given_words() if not o.startswith("resume=")]
    return records.Record(
        id=f"{now:%Y%m%d-%H%M%S}-{hashlib.sha256(f'{folder.resolve()}{now}'.encode()).hexdigest()[:6]}",
        time=now.isoformat(timespec="seconds"),
        status="running",
        commit=state.commit,
        dirty=state.dirty,
        command=" ".join(["segladder", "train", *overrides]),
        config=plain_config(config),
        config_hash=config_hash_of(config),
        method=config.method.name,
        backbone=backbone_of(config),
        supervision=config.method.supervision,
        label_access={"labels": config.labels.name, "selection": config.selection},
        seed=config.seed,
        versions=versions(),
        tag=config.tag,
    )


def describe_scoring(record: records.Record, source: Source, protocol: Protocol) -> None:
    """Write into a record how a run is scored and on what: for training and for further evaluations."""
    record.protocol = protocol.described()
    record.fold, record.shots = protocol.place()
    record.data |= {
        "name": source.name,
        "classes": list(source.classes),
        "val_fingerprint": source.fingerprint(protocol.scored_somewhere(source)),
    }
    record.data.pop("title", None)
    if source.title != source.name:
        record.data["title"] = source.title
    if not source.background:
        record.data["background"] = False
    if source.colours.of:
        record.data["colours"] = [list(rgb) for rgb in source.colours.of]


def backbone_of(config: DictConfig) -> dict[str, Any]:
    """Name and weights of the backbone; none for methods that bring a whole network of their own."""
    node = backbone_node(config)
    if node is None:
        return {}
    return {"name": node.get("name") or HydraConfig.get().runtime.choices["backbone"], "weights": node.get("weights")}


def backbone_node(config: DictConfig | dict[str, Any]) -> DictConfig | None:
    """The configuration of the method's backbone, None where it has none."""
    method = config["method"]
    node: DictConfig | None = method.get("backbone") or method.get("features", {}).get("backbone")
    return node


def write_status(record: records.Record, folder: Path, status: str) -> None:
    """Write the record with its status, from the first process only; an interrupted run says how it goes on."""
    record.status = status
    if is_first_process():
        records.write(record, folder)
        if status == "interrupted":
            text = f"interrupted; go on with: {resuming(folder)}"
            print(text, file=sys.stderr, flush=True)
            note(folder, text)
