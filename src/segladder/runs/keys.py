"""The keys of `segladder train` and what each may hold; a choice's own are in the signature of the class it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field

from segladder.data.training.augmentation import TrainAugmentation
from segladder.data.training.episode_dataset import ClassDraw
from segladder.data.words.embeddings import EmbeddingSettings
from segladder.settings import AboveZero, Count, KeysOf, Name, Node, NotNegative, Positive, Seed, Share

Background = Literal["constant", "power", "base"]  # what pseudo-masks take as its score


class Watch(TypedDict):
    """How a network is looked at while it trains."""

    every: Positive | None
    pictures: Count


class EarlyStopping(TypedDict):
    """When training ends before its time."""

    patience: Positive | None
    min_delta: NotNegative


class Trainer(TypedDict):
    """Length of training, and what is written meanwhile."""

    epochs: Positive
    steps: Positive | None
    accumulate: Positive
    clip: AboveZero | None
    checkpoint_every: Positive
    progress: bool
    panels: Count
    score_batch: Positive
    watch: Watch
    early_stopping: EarlyStopping


class EpisodeDraw(TypedDict):
    """How training episodes are drawn."""

    class_draw: ClassDraw
    multi_object: Share


class Loader(TypedDict):
    """How a data set is fed to training."""

    batch_size: Positive
    workers: Count
    held_out: Annotated[float, Field(ge=0, lt=1)]
    without: list[str]
    balanced: bool
    episodes: EpisodeDraw
    augment: Annotated[Node, KeysOf(TrainAugmentation)]


class PseudoMasks(TypedDict):
    """How the class scores of a parent become masks."""

    background: Background
    classes: Literal["all", "novel"]
    foreground_at: NotNegative
    background_at: NotNegative
    surest: Annotated[float, Field(gt=0, le=1)] | None
    agreement: Share | None
    motion: NotNegative | None
    crf: bool


class Strategy(TypedDict):
    """What Lightning's trainer runs on; precisions are Lightning's, beside `auto`."""

    accelerator: Literal["cpu", "gpu"]
    devices: Literal[-1] | Positive
    nodes: Positive
    name: Literal["auto", "ddp", "fsdp"]
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"]
    tf32: bool
    channels_last: bool
    fused: bool
    compile: bool
    deterministic: bool | Literal["warn"]


class Chain(TypedDict):
    """Runs that build on each other, each with overrides of its own; its name names a folder."""

    stages: Mapping[Name, list[Any]] | None
    at_once: Positive


class Keys(Chain):
    """Of a run, choices that others refer to first."""

    labels: Node
    backbone: Node
    loss: Node
    prices: Node
    strategy: Strategy
    trainer: Trainer
    loader: Loader
    logger: Mapping[str, Node] | None
    seed: Seed
    fold: Count
    pool: Count | None
    pool_seed: Seed
    tag: str | int | float | None
    runs: str
    parent: str | None
    start: str | None
    pseudo_masks: PseudoMasks
    resume: str | None
    selection: Literal["fixed", "held_out", "oracle"]
    data: Node
    protocol: Node
    method: Node


class TrainKeys(Keys, total=False):
    """With those that not every data set brings along."""

    embeddings: Annotated[Node, KeysOf(EmbeddingSettings)]
