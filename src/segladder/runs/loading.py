"""A run's folder back in memory: its configuration, record and trained method."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from segladder.data.words.embeddings import Embeddings
from segladder.errors import ConfigError
from segladder.methods.base import Method
from segladder.methods.image_level.base import Refinement
from segladder.report import record as records
from segladder.runs import build
from segladder.runs.class_scores import StoredScores
from segladder.runs.folder import EMBEDDINGS, RESUME_POINT, WEIGHTS, stored_config
from segladder.runs.recording import backbone_node


def load_run(folder: Path) -> tuple[DictConfig, records.Record, Method]:
    """Configuration, record and trained method (in eval mode) of a run.

    Raises:
        ConfigError: the folder holds no run, or one whose training has not ended.
    """
    config = stored_config(folder)
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
    return load_run(folder)[2]
