"""A training step of a ResNet-50 FCN-8s: what Lightning costs, and what channels_last with bf16 saves.

Three steps take turns within one run: the product's (its method and trainer, as `segladder train` builds them), a
hand-written loop of the same network in the same precision, and that loop in plain float32. Medians of their times.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_module
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from segladder.methods.base import Method
from segladder.runs import build

BATCH, SIZE, CLASSES, WARM_UP = 2, 256, 21, 3
CHOICES = ["method=fcn8s", "backbone=resnet50", "backbone.weights=none", "strategy.precision=bf16-mixed"]


class HandWritten:
    """The step as a script would write it."""

    def __init__(self, method: Method, fast: bool) -> None:
        self.format = torch.channels_last if fast else torch.contiguous_format
        self.fast = fast
        self.network = copy.deepcopy(method).network.to(memory_format=self.format).train()
        self.mean, self.std = method.pixel_mean.clone(), method.pixel_std.clone()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=2e-3, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / (step + 1))

    def __call__(self, batch: Mapping[str, torch.Tensor]) -> None:
        """One optimisation step."""
        images = ((batch["image"].float() - self.mean) / self.std).contiguous(memory_format=self.format)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.fast):
            logits = self.network(images)
            loss = torch.nn.functional.cross_entropy(logits.float(), batch["mask"].long(), ignore_index=255)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()


class TakeTurns(pl.Callback):
    """Times each Lightning step and runs every other contender's step after it."""

    def __init__(self, others: Mapping[str, Callable[[Mapping[str, torch.Tensor]], None]]) -> None:
        self.others = others
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.started = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock starts."""
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The others' turn."""
        self.seconds["lightning"].append(time.perf_counter() - self.started)
        for name, step in self.others.items():
            self.started = time.perf_counter()
            step(batch)
            self.seconds[name].append(time.perf_counter() - self.started)
        self.started = time.perf_counter()


def batches(count: int) -> list[dict[str, torch.Tensor]]:
    """Random pixels and masks, the same each time they are asked for."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    mask = torch.randint(0, CLASSES, (BATCH, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return [{"image": image, "mask": mask}] * count


def medians(steps: int) -> dict[str, float]:
    """Milliseconds of each contender's step."""
    with initialize_config_module("segladder.conf", version_base="1.3"):
        config = compose("train", overrides=[*CHOICES, "trainer.progress=false", f"trainer.steps={steps}"])
    method = build.method(config, CLASSES)
    others = {"by hand": HandWritten(method, fast=True), "by hand, float32": HandWritten(method, fast=False)}
    turns = TakeTurns(others)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build.trainer(config, Path(folder), [turns], [CSVLogger(folder)])
        trainer.fit(method, DataLoader(batches(steps), batch_size=None))
    return {name: 1000 * statistics.median(times[WARM_UP:]) for name, times in turns.seconds.items()}


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    """Rows of name, reference, how many times as fast, detail."""
    warnings.filterwarnings("ignore")
    ms = medians(WARM_UP + (4 if quick else 30))
    setting = f"ResNet-50 FCN-8s, {BATCH}x{SIZE}x{SIZE}, {torch.get_num_threads()} threads"
    return [
        (
            "training step through Lightning",
            "hand-written loop",
            ms["by hand"] / ms["lightning"],
            f"{ms['lightning']:.0f} ms against {ms['by hand']:.0f} ms, both channels_last + bf16; {setting}",
        ),
        (
            "training step, channels_last + bf16",
            "plain float32",
            ms["by hand, float32"] / ms["by hand"],
            f"{ms['by hand']:.0f} ms against {ms['by hand, float32']:.0f} ms, both by hand; {setting}",
        ),
    ]


if __name__ == "__main__":
    for what, against, ratio, detail in run("--quick" in sys.argv):
        print(f"{what} | {against} | {ratio:.2f}x | {detail}")
