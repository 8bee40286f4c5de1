"""From a configuration to the objects of a run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from hydra.utils import get_class
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from segladder.data.labels.kinds.base import Labels
from segladder.data.sources.base import Source
from segladder.data.sources.items import Items
from segladder.data.training.augmentation import TrainAugmentation
from segladder.data.training.datamodule import DataModule, training_ids
from segladder.data.training.dataset import TrainingSet
from segladder.data.training.held_out import HeldOut
from segladder.data.training.views import Recipe, TrainingView
from segladder.errors import ConfigError
from segladder.machine import tasks
from segladder.methods.base import Method
from segladder.nets.bfloat16 import CpuBfloat16, has_bfloat16
from segladder.nets.losses import CrossEntropy
from segladder.protocols.base import Protocol
from segladder.runs.folder import is_first_process
from segladder.runs.instantiation import instantiated
from segladder.runs.watching.mirrors import Mirror


def source(config: DictConfig) -> Source:
    """The data set of `config.data`."""
    source: Source = instantiated(config.data, "data")
    return source


def method_class(config: DictConfig) -> type[Method]:
    """The class of `config.method`."""
    found = get_class(config.method._target_)
    assert issubclass(found, Method)
    return found


def method(config: DictConfig, num_classes: int, **known: Any) -> Method:
    """The method of `config.method`, with random weights drawn from the seed, in the strategy's memory format.

    `known` is what a method learns of its classes beforehand: `embeddings` and `seen` of zero-shot methods.
    """
    pl.seed_everything(config.seed, workers=False, verbose=False)
    settings: Any = OmegaConf.create(OmegaConf.to_container(config.method, resolve=True))
    if "criterion" in settings:
        settings.criterion.pop("labels", None)  # of runs of older versions
    built: Method = instantiated(settings, "method", num_classes=num_classes, **known)
    if config.strategy.channels_last:
        built.memory_format = torch.channels_last
        built.to(memory_format=torch.channels_last)
    built.fused, built.tf32 = config.strategy.fused, config.strategy.get("tf32")
    return built


def protocol(config: DictConfig) -> Protocol:
    """The protocol of `config.protocol`."""
    protocol: Protocol = instantiated(config.protocol, "protocol")
    return protocol


class Training(NamedTuple):
    """What feeds a run: its datamodule, and the images that are kept from training, as its labels show them."""

    module: DataModule
    held_out: HeldOut


def training(config: DictConfig, source: Source, view: TrainingView, labels: Labels) -> Training:
    """What feeds a method whose training items show labels of one kind, within a protocol's view."""
    settings: Any = OmegaConf.to_container(config.loader, resolve=True)
    settings = {key: value for key, value in settings.items() if key not in ("augment", "episodes")}
    ids, kept_back = training_ids(source, view.ids(source), settings.pop("held_out"), settings.pop("without"))
    dataset = view.dataset(source, ids, labels, recipe(config))
    held_out = HeldOut.of(source, kept_back, labels, view)
    groups = (
        by_class(config, source.as_seen(view.sight(source, labels)), ids) if settings.pop("balanced", False) else ()
    )
    try:
        module = DataModule(dataset, config.seed, **settings, groups=groups)
    except TypeError as error:
        raise ConfigError(f"loader: {error}") from error
    return Training(module, held_out)


def count_classes(method: Method, dataset: TrainingSet) -> None:
    """Count the pixels of training masks for losses that weigh classes by them.

    Raises:
        ConfigError: training items hold no masks of all classes.
    """
    asking = [part for part in method.modules() if isinstance(part, CrossEntropy) and part.counts]
    if not asking:
        return
    if (pixels := dataset.pixels_of_classes()) is None:
        raise ConfigError(
            f"loss.class_weights=median_frequency: method={method.name} is not shown pixels of whole images"
        )
    for loss in asking:
        loss.learn_frequencies(pixels.tolist())


def by_class(config: DictConfig, seen: Source, ids: Sequence[str]) -> list[list[int]]:
    """Which training images hold each class, as far as their labels show, by position; those without any are a group.

    Raises:
        ConfigError: training items are no images with labelled pixels.
    """
    if method_class(config).learns_from != "pixels" or method_class(config).answers == "episodes":
        raise ConfigError(f"loader.balanced=true: method={config.method.name} is not shown pixels of whole images")
    kept = Items.read(seen, ids, "none").kept
    groups = [[i for i, held in enumerate(kept) if k in held] for k in seen.foreground_indices]
    groups.append([i for i, held in enumerate(kept) if not held])
    return [group for group in groups if group]


def recipe(config: DictConfig) -> Recipe:
    """How training items of `config.loader` are made for `config.method`."""
    settings: Any = OmegaConf.to_container(config.loader, resolve=True)
    reads = method_class(config)
    augment = TrainAugmentation(**settings["augment"])
    return Recipe(augment, settings["episodes"], reads.reads_objects, reads.reads_flow)


def mirrors(config: DictConfig, folder: Path) -> list[Mirror]:
    """The mirrors chosen by `logger=`, not opened yet; the first process has them."""
    nodes = (config.logger or {}) if is_first_process() else {}
    return [Mirror(name, instantiated(node, f"logger.{name}", folder=folder), folder) for name, node in nodes.items()]


def trainer(config: DictConfig, folder: Path, callbacks: list[pl.Callback], mirrors: Sequence[Logger]) -> pl.Trainer:
    """A Lightning trainer for `config.strategy` and `config.trainer`; resume points are ours, not Lightning's."""
    strategy, settings = config.strategy, config.trainer
    if strategy.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("strategy: needs a CUDA device and none is visible; choose strategy=cpu or ddp_cpu")
    quieten()
    return pl.Trainer(
        accelerator=strategy.accelerator,
        devices=strategy.devices,
        num_nodes=strategy.get("nodes", 1),
        plugins=plugins(config),
        strategy=strategy.name,
        precision=None if in_cpu_bfloat16(config) else precision(config),
        deterministic=strategy.deterministic,
        max_epochs=settings.epochs if settings.steps is None else -1,
        max_steps=-1 if settings.steps is None else settings.steps,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip,
        log_every_n_steps=logged_every(config),
        logger=[*mirrors],
        callbacks=callbacks,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,  # ours is a callback
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def plugins(config: DictConfig) -> list[Any]:
    """What Lightning would choose otherwise by itself."""
    own: list[Any] = [SLURMEnvironment(auto_requeue=False)] if tasks() > 1 else []  # ends as Interruption says
    return [*own, CpuBfloat16()] if in_cpu_bfloat16(config) else own


def in_cpu_bfloat16(config: DictConfig) -> bool:
    """Whether a CPU trains in bfloat16."""
    return (config.strategy.accelerator, precision(config)) == ("cpu", "bf16-mixed")


def logged_every(config: DictConfig) -> int:
    """Optimiser steps between the losses that mirrors get."""
    return min((node.every_steps for node in (config.logger or {}).values()), default=50)


def precision(config: DictConfig) -> Any:
    """What Lightning is told of `strategy.precision`: `auto` is bf16-mixed where the device has it, else float32."""
    strategy = config.strategy
    if strategy.precision == "auto":
        return "bf16-mixed" if has_bfloat16(strategy.accelerator) else "32-true"
    return strategy.precision


def quieten() -> None:
    """Silence Lightning's remarks on what is meant to be so here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    remarks = (
        "module.* in eval mode",
        "LeafSpec",
        "does not have many workers",
        "logging interval",
        "is not resumable",
        "have no `val_dataloader`",
    )
    for remark in remarks:
        warnings.filterwarnings("ignore", f".*{remark}")
