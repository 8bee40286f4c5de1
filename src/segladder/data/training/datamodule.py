"""The Lightning datamodule: training items in an order that depends on seed and epoch alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from segladder.data.hashing import hashed_share
from segladder.data.labels.seen_labels import SeenLabels
from segladder.data.sources.base import Source
from segladder.data.training.augmentation import TrainAugmentation
from segladder.data.training.dataset import SegmentationDataset, collate
from segladder.data.training.episode_dataset import EpisodeDataset, collate_episodes
from segladder.errors import ConfigError


class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffled `(index, item_seed)` keys of one process, a pure function of (seed, epoch); can start inside an epoch.

    Args:
        size: number of items.
        batch_size: items of a batch of one process; items that fill no whole batch everywhere wait for another epoch.
        seed: the run's seed.
        rank: this process.
        world: number of processes.
        resumed: the epoch it starts in and how many batches of that are done.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, resumed: tuple[int, int] = (0, 0)
    ) -> None:
        self.batch_size = min(batch_size, size // world)
        if not self.batch_size:
            raise ConfigError(f"{size} training images cannot feed {world} processes: use fewer devices")
        self.size, self.seed, self.rank, self.world = size, seed, rank, world
        self.batches = size // (self.batch_size * world)
        self.resumed = resumed
        self.epoch = resumed[0]  # Lightning starts to iterate before it names the epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives (Lightning calls this)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.Generator(np.random.PCG64([self.seed, self.epoch])).permutation(self.size)
        mine = order[self.rank :: self.world][: len(self)]
        done = self.resumed[1] if self.resumed[0] == self.epoch else 0
        for index in mine[done * self.batch_size :].tolist():
            yield index, item_seed(self.seed, self.epoch, index)


def item_seed(seed: int, epoch: int, index: int) -> int:
    """A 31-bit seed for the augmentation of one item in one epoch."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


class DataModule(pl.LightningDataModule):
    """Feeds a source's training split to a method of a given supervision.

    Args:
        source: the data set.
        supervision: decides which labels a batch holds.
        seed: the run's seed.
        batch_size: items a step and process.
        workers: loading processes.
        augment: arguments of `TrainAugmentation`.
        held_out: share of the training ids kept from training, chosen by a hash of the id.
        without: classes of the data set (in use or not) whose images are left out of training, be it for one pixel.
        episodes: arguments of `EpisodeDataset`, which `few_shot` supervision needs: `novel`, `shots`, ...
        labels: arguments of `SeenLabels`, which `zero_shot` supervision needs: `hidden`, ...
        ids: which images of the training split may be used; None for all.
    """

    def __init__(
        self,
        source: Source,
        supervision: str,
        seed: int,
        batch_size: int,
        workers: int,
        augment: Mapping[str, Any],
        held_out: float,
        without: Sequence[str] = (),
        episodes: Mapping[str, Any] | None = None,
        labels: Mapping[str, Any] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.seed, self.batch_size, self.workers = seed, batch_size, workers
        ids = source.ids_without(source.split(source.train_split) if ids is None else ids, without)
        self.held_out_ids = [i for i in ids if held_out > 0 and hashed_share(i) < held_out]
        self.train_ids = sorted(set(ids) - set(self.held_out_ids))
        if not self.train_ids:
            raise ConfigError(
                f"loader.held_out={held_out} and loader.without leave no training image of {source.train_split}"
            )
        transform = TrainAugmentation(**augment)
        self.dataset: SegmentationDataset | EpisodeDataset
        if supervision == "few_shot":
            if episodes is None:
                raise ConfigError("few_shot training needs episodes: choose a protocol that has folds and shots")
            self.dataset = EpisodeDataset(source, self.train_ids, augment=transform, **episodes)
        else:
            visible = None if labels is None or supervision != "zero_shot" else SeenLabels(**labels)
            if visible is not None:
                self.train_ids = visible.ids(source, self.train_ids)
            self.dataset = SegmentationDataset(source, self.train_ids, supervision, transform, visible)
        self.resumed = (0, 0)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches of uint8 images and what the supervision may see."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochSampler(len(self.dataset), self.batch_size, self.seed, rank, world, self.resumed)
        return DataLoader(
            self.dataset,
            batch_size=sampler.batch_size,
            sampler=sampler,
            collate_fn=collate_episodes if isinstance(self.dataset, EpisodeDataset) else collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=single_threaded,
            drop_last=True,
        )

    def state_dict(self) -> dict[str, int]:
        """How far the running epoch has come, for a resume point."""
        loops = self.trainer.fit_loop if self.trainer else None
        batches = loops.epoch_loop.batch_progress.current.ready if loops else 0
        return {"epoch": self.trainer.current_epoch if self.trainer else 0, "batches": batches}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Start inside the epoch a resume point was written in."""
        self.resumed = (state["epoch"], state["batches"])


def single_threaded(worker: int) -> None:
    """One thread a loading process: the processes are the parallelism."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
