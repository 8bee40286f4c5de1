"""Class scores at image size: projected at feature resolution and enlarged, against enlarging the features first."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch.nn.functional import interpolate

from segladder.ops.projection import class_scores

CLASSES, DIMENSIONS = 20, 600
IMAGE, STRIDE = 512, 8


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    random = torch.Generator().manual_seed(0)
    side = IMAGE // STRIDE
    features = torch.randn(1, DIMENSIONS, side, side, generator=random)
    embeddings = torch.nn.functional.normalize(torch.randn(CLASSES, DIMENSIONS, generator=random))
    first, second = interleaved(
        lambda: enlarged(class_scores(features, embeddings)).argmax(1),
        lambda: class_scores(enlarged(features), embeddings).argmax(1),
        3 if quick else 9,
    )
    (fast, labels), (slow, expected) = first, second
    differ = int((labels != expected).sum())
    assert differ <= IMAGE * IMAGE * 1e-4, f"{differ} pixels differ: more than rounding explains"
    name = f"projection and argmax, {CLASSES} classes x {DIMENSIONS} dimensions at {IMAGE}x{IMAGE}"
    times = f"{1e3 * fast:.0f} ms against {1e3 * slow:.0f} ms, {torch.get_num_threads()} threads"
    return [(name, "features enlarged first", slow / fast, f"{times}; {differ} of {IMAGE**2} labels differ")]


def enlarged(maps: torch.Tensor) -> torch.Tensor:
    """Maps (B, C, h, w) at image size."""
    return interpolate(maps, (IMAGE, IMAGE), mode="bilinear", align_corners=False)


def interleaved(
    first: Callable[[], torch.Tensor], second: Callable[[], torch.Tensor], repeats: int
) -> tuple[tuple[float, torch.Tensor], tuple[float, torch.Tensor]]:
    """Median seconds and result of each, taken in turns after one round of warming up."""
    times: tuple[list[float], list[float]] = ([], [])
    results: list[torch.Tensor] = []
    for _ in range(repeats + 1):
        results = []
        for action, taken in zip((first, second), times, strict=True):
            started = perf_counter()
            results.append(action())
            taken.append(perf_counter() - started)
    return (median(times[0][1:]), results[0]), (median(times[1][1:]), results[1])
