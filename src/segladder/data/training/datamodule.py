"""The Lightning datamodule: training items in an order that depends on seed and epoch alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from segladder.data.hashing import hashed_share
from segladder.data.sources.base import Source
from segladder.data.training.dataset import Item, TrainingSet
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
        groups: indices of the items that hold each class; given, classes take turns and each gives its next item.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        resumed: tuple[int, int] = (0, 0),
        groups: Sequence[Sequence[int]] = (),
    ) -> None:
        self.batch_size = min(batch_size, size // world)
        if not self.batch_size:
            raise ConfigError(f"{size} training images cannot feed {world} processes: use fewer devices")
        self.size, self.seed, self.rank, self.world = size, seed, rank, world
        self.batches = size // (self.batch_size * world)
        self.resumed = resumed
        self.groups = groups
        self.epoch = resumed[0]  # Lightning starts to iterate before it names the epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives (Lightning calls this)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        order = in_turn(self.groups, self.size, random) if self.groups else random.permutation(self.size)
        keys = list(zip(order.tolist(), appearances(order), strict=True))  # of all processes
        done = self.resumed[1] if self.resumed[0] == self.epoch else 0
        for index, before in keys[self.rank :: self.world][done * self.batch_size : len(self)]:
            yield index, item_seed(self.seed, self.epoch, index, before)


def appearances(order: np.ndarray) -> list[int]:
    """How often the item at each place of an order (N,) came before."""
    counts: Counter[int] = Counter()
    found = []
    for index in order.tolist():
        found.append(counts[index])
        counts[index] += 1
    return found


def in_turn(groups: Sequence[Sequence[int]], count: int, random: np.random.Generator) -> np.ndarray:
    """So many items, int64 (count,): one of each group in turn, of a group all before one comes again."""
    rounds = -(-count // len(groups))
    queues = []
    for group in groups:
        again = -(-rounds // len(group))
        queues.append(np.concatenate([random.permutation(group) for _ in range(again)])[:rounds])
    columns = np.stack(queues, 1)  # (rounds, groups)
    return np.concatenate([row[random.permutation(len(groups))] for row in columns])[:count]


def item_seed(seed: int, epoch: int, index: int, before: int = 0) -> int:
    """A 31-bit seed for the augmentation of one item in one epoch, where it came `before` so often already."""
    place = f"{seed}/{epoch}/{index}" + (f"/{before}" if before else "")
    digest = hashlib.blake2b(place.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


def training_ids(
    source: Source, ids: Sequence[str], held_out: float = 0.0, without: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """The images that training reads and those that are kept from it, both without some classes.

    Args:
        source: the data set.
        ids: images that may be used.
        held_out: share of them that is kept from training, chosen by a hash of the id.
        without: classes of the data set (in use or not) whose images are left out, even for one pixel.

    Raises:
        ConfigError: no image is left for training, or an unknown class.
    """
    ids = source.ids_without(ids, without)
    kept_back = [i for i in ids if held_out > 0 and hashed_share(i) < held_out]
    train = sorted(set(ids) - set(kept_back))
    if not train:
        raise ConfigError(
            f"loader.held_out={held_out} and loader.without leave no training image of {source.train_split}"
        )
    return train, kept_back


class DataModule(pl.LightningDataModule):
    """Feeds a training set in an order that depends on seed and epoch alone.

    Args:
        dataset: what training reads.
        seed: the run's seed.
        batch_size: items a step and process.
        workers: loading processes.
        groups: as of `EpochSampler`.
    """

    def __init__(
        self,
        dataset: TrainingSet,
        seed: int,
        batch_size: int,
        workers: int,
        groups: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__()
        self.groups = groups
        self.dataset = dataset
        self.seed, self.batch_size, self.workers = seed, batch_size, workers
        self.resumed = (0, 0)

    def train_dataloader(self) -> DataLoader[Item]:
        """Batches of uint8 images and what the labels show."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochSampler(len(self.dataset), self.batch_size, self.seed, rank, world, self.resumed, self.groups)
        return DataLoader(
            self.dataset,
            batch_size=sampler.batch_size,
            sampler=sampler,
            collate_fn=self.dataset.collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=single_threaded,
            drop_last=True,
        )

    def state_dict(self) -> dict[str, int]:
        """How far the running epoch has come, for a resume point."""
        if not self.trainer:
            return {"epoch": 0, "batches": 0}
        current = self.trainer.fit_loop.epoch_loop.batch_progress.state_dict()["current"]
        return {"epoch": self.trainer.current_epoch, "batches": current["started"]}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Start inside the epoch a resume point was written in."""
        self.resumed = (state["epoch"], state["batches"])


def single_threaded(worker: int) -> None:
    """One thread a loading process: the processes are the parallelism."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
