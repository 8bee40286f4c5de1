"""From a configuration to the objects of a run."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from segladder.data.sources.base import Source
from segladder.data.training.datamodule import DataModule
from segladder.errors import ConfigError
from segladder.methods.base import Method
from segladder.protocols.base import Protocol
from segladder.runs.instantiation import made


def source(config: DictConfig) -> Source:
    """The data set of `config.data`."""
    source: Source = made(config.data, "data")
    return source


def method(config: DictConfig, num_classes: int, **known: Any) -> Method:
    """The method of `config.method`, with random weights drawn from the seed, in the strategy's memory format.

    `known` is what a method learns of its classes beforehand: `embeddings` and `seen` of zero-shot methods.
    """
    pl.seed_everything(config.seed, workers=False, verbose=False)
    settings: Any = OmegaConf.create(OmegaConf.to_container(config.method, resolve=True))
    if "criterion" in settings:
        settings.criterion.pop("labels")  # only `check_choices` reads it
    built: Method = made(settings, "method", num_classes=num_classes, **known)
    if config.strategy.channels_last:
        built.memory_format = torch.channels_last
        built.to(memory_format=torch.channels_last)
    built.fused = config.strategy.fused
    return built


def protocol(config: DictConfig) -> Protocol:
    """The protocol of `config.protocol`."""
    protocol: Protocol = made(config.protocol, "protocol")
    return protocol


def data_module(config: DictConfig, data: Source, visible: str, limits: dict[str, Any] | None) -> DataModule:
    """What feeds a method that sees what the supervision `visible` shows, within a protocol's `training` limits."""
    settings: Any = OmegaConf.to_container(config.loader, resolve=True)
    recipe = settings.pop("episodes")
    labels = limits if visible == "zero_shot" else None
    episodes = {**limits, **recipe} if visible == "few_shot" and limits is not None else None
    ids = (limits or {}).get("ids")
    try:
        return DataModule(data, visible, config.seed, episodes=episodes, labels=labels, ids=ids, **settings)
    except TypeError as error:
        raise ConfigError(f"loader: {error}") from error


def loggers(config: DictConfig, folder: Path) -> list[Logger]:
    """The mirrors chosen by `logger=`."""
    return [made(node, f"logger.{name}", folder=folder) for name, node in (config.logger or {}).items()]


def trainer(config: DictConfig, folder: Path, callbacks: list[pl.Callback], mirrors: list[Logger]) -> pl.Trainer:
    """A Lightning trainer for `config.strategy` and `config.trainer`; resume points are ours, not Lightning's."""
    strategy, settings = config.strategy, config.trainer
    if strategy.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("strategy: needs a CUDA device and none is visible; choose strategy=cpu or ddp_cpu")
    quieten()
    return pl.Trainer(
        accelerator=strategy.accelerator,
        devices=strategy.devices,
        strategy=strategy.name,
        precision=strategy.precision,
        deterministic=strategy.deterministic,
        max_epochs=settings.epochs if settings.steps is None else -1,
        max_steps=-1 if settings.steps is None else settings.steps,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip,
        log_every_n_steps=min((node.every_steps for node in (config.logger or {}).values()), default=50),
        logger=mirrors,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=settings.progress,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def quieten() -> None:
    """Silence Lightning's remarks on what is meant to be so here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    remarks = (
        "module.* in eval mode",
        "LeafSpec",
        "does not have many workers",
        "logging interval",
        "is not resumable",
    )
    for remark in remarks:
        warnings.filterwarnings("ignore", f".*{remark}")
