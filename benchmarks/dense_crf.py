"""The dense CRF's backends: torch's lattice against pydensecrf's and the exact mean field; pydensecrf in a pool."""

from __future__ import annotations

import statistics
import sys
import time
from importlib.util import find_spec

import torch
from torch.nn import functional as F

from segladder.ops.crf import dense_crf, dense_crf_each

CLASSES, ITERATIONS = 21, 10
EXACT_SIZE = (72, 96)  # what all pairs of pixels still allow


def drawn(size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture of smooth patches with a little noise, and class maps of patches of their own."""
    generator = torch.Generator().manual_seed(0)
    patches = 255 * torch.rand(1, 3, 6, 8, generator=generator)
    picture = F.interpolate(patches, size, mode="bicubic")[0] + 5 * torch.randn(3, *size, generator=generator)
    logits = 6 * torch.randn(1, CLASSES, 6, 8, generator=generator)
    probabilities = F.interpolate(logits, size, mode="bilinear")[0].softmax(0)
    return picture.clamp(0, 255).byte().permute(1, 2, 0).contiguous(), probabilities


def compare(size: tuple[int, int], reference: str, repeats: int) -> tuple[str, str, float, str]:
    """The torch form against another backend, taking turns."""
    image, probabilities = drawn(size)
    times: dict[str, list[float]] = {"torch": [], reference: []}
    results = {}
    for _ in range(repeats):
        for backend, taken in times.items():
            started = time.perf_counter()
            results[backend] = dense_crf(image, probabilities, ITERATIONS, backend=backend)
            taken.append(time.perf_counter() - started)
    ours, theirs = (statistics.median(taken) for taken in times.values())
    agree = (results["torch"].argmax(0) == results[reference].argmax(0)).float().mean()
    what = f"dense CRF in torch, {size[0]}x{size[1]}, {CLASSES} classes, {ITERATIONS} iterations"
    detail = f"{ours:.2f} s against {theirs:.2f} s an image, {torch.get_num_threads()} threads"
    return what, reference, theirs / ours, f"{detail}; same class on {agree:.2%}"


def compare_pool(size: tuple[int, int], repeats: int) -> tuple[str, str, float, str]:
    """Eight images in the pool of processes against one after the other, taking turns."""
    images, probabilities = ([each] * 8 for each in drawn(size))
    dense_crf_each(images, probabilities, 1, backend="pydensecrf")  # starts the processes
    together, alone = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        dense_crf_each(images, probabilities, ITERATIONS, backend="pydensecrf")
        together.append(time.perf_counter() - started)
        started = time.perf_counter()
        for image, given in zip(images, probabilities, strict=True):
            dense_crf(image, given, ITERATIONS, backend="pydensecrf")
        alone.append(time.perf_counter() - started)
    ours, theirs = statistics.median(together), statistics.median(alone)
    what = f"dense CRF, pydensecrf, 8 images of {size[0]}x{size[1]}, {CLASSES} classes"
    return what, "one image after the other", theirs / ours, f"{ours:.2f} s against {theirs:.2f} s, a process a core"


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    """Rows of name, reference, how many times as fast, detail; pydensecrf where it is installed."""
    torch.set_grad_enabled(False)
    repeats = 1 if quick else 5
    rows = [compare(EXACT_SIZE, "exact", repeats)]
    if find_spec("pydensecrf"):
        size = (188, 250) if quick else (375, 500)
        rows += [compare(size, "pydensecrf", repeats), compare_pool(size, repeats)]
    return rows


if __name__ == "__main__":
    for what, against, ratio, detail in run("--quick" in sys.argv):
        print(f"{what} | {against} | {ratio:.2f}x | {detail}")
