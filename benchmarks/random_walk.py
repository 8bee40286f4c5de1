"""The random walk over affinities as sparse steps, against the dense matrix the official codes square eight times.

`--dense-size 94x125` compares at the size of a 375x500 image at stride 4, which takes the dense form minutes.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time

import torch

from segladder.ops.affinity import affinity_from_edges, pair_offsets, random_walk

RADIUS, BETA, SQUARINGS = 5, 10, 8
CLASSES = 3  # an image seldom holds more
SIZES = (47, 63), (94, 125), (188, 250)
LARGE = (375, 500)


def drawn(size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and an edge map of noise, most of it weak."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(CLASSES, *size, generator=generator), torch.rand(size, generator=generator) ** 4


def dense(scores: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
    """The walk through the matrix of all pairs of places."""
    height, width = edge.shape
    places = torch.arange(height * width).view(height, width)
    matrix = torch.eye(height * width)
    for (dy, dx), weights in zip(pair_offsets(RADIUS), affinity_from_edges(edge[None], RADIUS)[0], strict=True):
        columns = slice(max(0, -dx), min(width, width - dx))
        here = places[: height - dy, columns]
        there = here + dy * width + dx
        matrix[here, there] = matrix[there, here] = weights[: height - dy, columns] ** BETA
    matrix /= matrix.sum(0, keepdim=True)
    for _ in range(SQUARINGS):
        matrix = matrix @ matrix
    return ((scores * (1 - edge)).flatten(1) @ matrix).view_as(scores)


def seconds(size: tuple[int, int], repeats: int) -> float:
    """Median seconds of a walk."""
    scores, edge = drawn(size)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        random_walk(scores, edge, RADIUS, BETA, 2**SQUARINGS)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def peak_megabytes() -> float:
    """The most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_detail() -> str:
    """What the largest map takes; to be asked before anything else that needs memory."""
    seconds((16, 16), 1)
    before = peak_megabytes()
    large = seconds(LARGE, 1)
    return f"{LARGE[0]}x{LARGE[1]}: {large:.1f} s, {peak_megabytes() - before:.0f} MB at its peak"


def dense_row(size: tuple[int, int], repeats: int) -> tuple[str, str, float, str]:
    """The sparse walk against the dense one at a size."""
    scores, edge = drawn(size)
    ours = seconds(size, repeats)
    started = time.perf_counter()
    expected = dense(scores, edge)
    reference = time.perf_counter() - started
    difference = float((random_walk(scores, edge, RADIUS, BETA, 2**SQUARINGS) - expected).abs().max())
    detail = f"{ours:.3f} s against {reference:.1f} s; largest difference {difference:.0e}"
    return (
        f"random walk, {size[0]}x{size[1]}, {CLASSES} classes",
        "dense matrix squared 8 times",
        reference / ours,
        detail,
    )


def run(quick: bool, dense_size: tuple[int, int] = SIZES[0]) -> list[tuple[str, str, float, str]]:
    """Rows of name, reference, how many times as fast, detail."""
    torch.set_grad_enabled(False)
    memory = memory_detail()
    repeats = 1 if quick else 5
    times = {size: seconds(size, repeats) for size in SIZES}
    (small, *_, large) = SIZES
    growth = large[0] * large[1] / (small[0] * small[1])
    detail = ", ".join(f"{h}x{w}: {t:.2f} s" for (h, w), t in times.items())
    linear = (
        f"random walk, {large[0]}x{large[1]}",
        f"{growth:.1f} times {small[0]}x{small[1]}",
        growth * times[small] / times[large],
        f"{detail}; {memory}",
    )
    return [dense_row((24, 32) if quick else dense_size, repeats), linear]


if __name__ == "__main__":
    asked = sys.argv[sys.argv.index("--dense-size") + 1].split("x") if "--dense-size" in sys.argv else SIZES[0]
    for what, against, ratio, detail in run("--quick" in sys.argv, (int(asked[0]), int(asked[1]))):
        print(f"{what} | {against} | {ratio:.2f}x | {detail}")
