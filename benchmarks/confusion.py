"""Confusion-matrix update against torchmetrics' MulticlassJaccardIndex on the same label maps, in one run."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torchmetrics.classification import MulticlassJaccardIndex

from segladder.metrics.confusion import ConfusionMatrix

CLASSES = 21
SHAPE = (8, 512, 512)


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    repeats = 5 if quick else 31
    pred, target = label_maps()
    rows = []
    for kind, dtype in (("int64", torch.int64), ("uint8", torch.uint8)):
        ours, theirs = ConfusionMatrix(CLASSES), MulticlassJaccardIndex(CLASSES, ignore_index=255)
        narrow = pred.to(dtype), target.to(dtype)
        fast, slow = interleaved(
            lambda m=ours, x=narrow: m.update(*x), lambda m=theirs: m.update(pred, target), repeats
        )
        assert torch.equal(ours.compute(), theirs.confmat), "the two count differently"
        name = f"confusion matrix update, {kind} {'x'.join(map(str, SHAPE))}, {CLASSES} classes"
        detail = f"{1e3 * fast:.2f} ms against {1e3 * slow:.2f} ms (int64), {torch.get_num_threads()} threads"
        rows.append((name, "torchmetrics MulticlassJaccardIndex", slow / fast, detail))
    return rows


def label_maps() -> tuple[torch.Tensor, torch.Tensor]:
    """Blocky truth with 5 % ignored pixels and a prediction that is right on nine of ten, int64."""
    random = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, CLASSES, (SHAPE[0], 16, 16), generator=random)
    target = blocks.repeat_interleave(SHAPE[1] // 16, 1).repeat_interleave(SHAPE[2] // 16, 2)
    noise = torch.rand(SHAPE, generator=random)
    pred = torch.where(noise < 0.1, torch.randint(0, CLASSES, SHAPE, generator=random), target)
    return pred, target.masked_fill(noise > 0.95, 255)


def interleaved(first: Callable[[], None], second: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Median seconds of each, taken in turns after one round of warming up."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for action, taken in zip((first, second), times, strict=True):
            started = perf_counter()
            action()
            taken.append(perf_counter() - started)
    return median(times[0][1:]), median(times[1][1:])
