"""A run's folder: where it lies, what it holds, how it is found again and loaded."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from segladder.commands import build
from segladder.commands.callbacks import RESUME_POINT, WEIGHTS
from segladder.commands.class_scores import StoredScores
from segladder.data.embeddings import Embeddings
from segladder.errors import ConfigError, SegLadderError
from segladder.methods.base import Method
from segladder.methods.class_maps import Refinement
from segladder.report import record as records
from segladder.report.provenance import git_state, versions

CONFIG = "config.yaml"
EMBEDDINGS = "embeddings.npz"  # the semantic vectors of a zero-shot run
FOLDER_VARIABLE = "SEGLADDER_RUN_FOLDER"  # tells the other processes of a distributed run where it lies
NOT_WHAT_IS_LEARNT = ("runs", "resume", "tag", "logger", "stages")  # keys that do not make it another experiment


def is_first_process() -> bool:
    """Whether this process writes and prints (the only one, or the first of a distributed run)."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def place(config: DictConfig) -> tuple[DictConfig, Path]:
    """Configuration and folder of this job: those of the run it resumes, or its own with a fresh folder.

    Raises:
        ConfigError: `resume` names no run, or comes with other settings.
    """
    fresh = fresh_folder()
    if not is_first_process():
        folder = Path(os.environ.get(FOLDER_VARIABLE, fresh))
    elif config.resume == "auto":
        folder = newest_unfinished(Path(config.runs), hash_of(config)) or fresh
    else:
        folder = fresh if config.resume is None else resumed_folder(config.resume)
    if folder.resolve() != fresh.resolve():
        discard_if_empty(fresh, Path(config.runs))
    if (folder / CONFIG).exists():
        stored = OmegaConf.load(folder / CONFIG)
        assert isinstance(stored, DictConfig)
        return stored, folder
    if is_first_process():
        OmegaConf.save(OmegaConf.create(plain(config)), folder / CONFIG)
    return config, folder


def fresh_folder() -> Path:
    """The folder Hydra made for this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def discard_if_empty(folder: Path, runs: Path) -> None:
    """Remove a folder that nothing was written to, and the folders between `runs` and it that this leaves empty."""
    with suppress(OSError):  # not empty
        folder.rmdir()
        for above in folder.resolve().parents:
            if runs.resolve() not in above.parents:
                return
            above.rmdir()


def resumed_folder(resume: str) -> Path:
    """The folder `resume=DIR` names, checked."""
    given = [o for o in HydraConfig.get().overrides.task if not o.startswith(("resume=", "hydra."))]
    if given:
        raise ConfigError(f"resume={resume} goes on with that run's own configuration: leave out {' '.join(given)}")
    if not (Path(resume) / CONFIG).exists():
        raise ConfigError(f"resume={resume}: no {CONFIG} there, expected the folder of a run")
    return Path(resume)


def newest_unfinished(runs: Path, config_hash: str) -> Path | None:
    """The latest unfinished run of this configuration under `runs`."""
    if not runs.is_dir():
        return None
    found, _ = records.find_records(runs)
    open_runs = [(r.time, f) for r, f in found if r.config_hash == config_hash and r.status != "finished"]
    return max(open_runs)[1] if open_runs else None


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration in plain types."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def hash_of(config: DictConfig) -> str:
    """Hash of all that decides what a run learns and how it is scored."""
    return records.hash_of({k: v for k, v in plain(config).items() if k not in NOT_WHAT_IS_LEARNT})


def start_record(config: DictConfig, folder: Path) -> records.Record:
    """A record that holds what is known before anything ran; resumed runs keep their id and start."""
    with suppress(SegLadderError):
        return records.read(folder)
    now = datetime.now(UTC)
    state = git_state()
    overrides = [shlex.quote(o) for o in HydraConfig.get().overrides.task]
    return records.Record(
        id=f"{now:%Y%m%d-%H%M%S}-{hashlib.sha256(f'{folder.resolve()}{now}'.encode()).hexdigest()[:6]}",
        time=now.isoformat(timespec="seconds"),
        status="running",
        commit=state.commit,
        dirty=state.dirty,
        command=" ".join(["segladder", "train", *overrides]),
        config=plain(config),
        config_hash=hash_of(config),
        method=config.method.name,
        backbone=backbone_of(config),
        supervision=config.method.supervision,
        label_access={"labels": config.loss.labels, "selection": config.selection},
        seed=config.seed,
        versions=versions(),
        tag=config.tag,
    )


def backbone_of(config: DictConfig) -> dict[str, Any]:
    """Name and weights of the backbone; none for methods that bring a whole network of their own."""
    node = backbone_node(config)
    if node is None:
        return {}
    return {"name": node.get("name") or HydraConfig.get().runtime.choices["backbone"], "weights": node.get("weights")}


def backbone_node(config: DictConfig) -> DictConfig | None:
    """The configuration of the method's backbone, None where it has none."""
    return config.method.get("backbone") or config.method.get("features", {}).get("backbone")


def parent(config: DictConfig) -> records.Record | None:
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


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load(folder: Path) -> tuple[DictConfig, records.Record, Method]:
    """Configuration, record and trained method (in eval mode) of a run.

    Raises:
        ConfigError: the folder holds no run, or one whose training has not ended.
    """
    if not (folder / CONFIG).exists():
        raise ConfigError(f"run={folder}: no {CONFIG} there, expected the folder of a run")
    config = OmegaConf.load(folder / CONFIG)
    assert isinstance(config, DictConfig)
    record = records.read(folder)
    if config.method.trains and not (folder / WEIGHTS).exists():
        hint = f"; finish it with segladder train resume={folder}" if (folder / RESUME_POINT).exists() else ""
        raise ConfigError(f"run={folder}: no {WEIGHTS} there, its training has not ended{hint}")
    for node in (config.backbone, backbone_node(config)):
        if config.method.trains and node is not None and "weights" in node:
            node.weights = "none"  # the run's own weights follow
    method = build.method(config, len(record.data["classes"]), **known_of(folder))
    if method.trains:
        method.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
    if isinstance(method, Refinement):
        method.scores = StoredScores(Path(config.parent), trained_method)
    return config, record, method.eval()


def known_of(folder: Path) -> dict[str, torch.Tensor]:
    """What a run's method was told of its classes; which of them are seen comes with the weights."""
    if not (folder / EMBEDDINGS).exists():
        return {}
    vectors = torch.from_numpy(Embeddings.load(folder / EMBEDDINGS).vectors)
    return {"embeddings": vectors, "seen": torch.ones(len(vectors), dtype=torch.bool)}


def trained_method(folder: Path) -> Method:
    """The method of a run, with its weights, in eval mode; errors as of `load`."""
    return load(folder)[2]
