"""What is counted of answers: few-shot episodes together against one at a time, boundaries of classes that are there.

The references are the forms that stood in the package before, in numpy; both take turns and give the same counts.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from segladder.metrics.average_precision import BINS
from segladder.metrics.boundary import boundary_counts, boundary_width
from segladder.metrics.counts import Asked
from segladder.metrics.episodes import EpisodeCounts
from segladder.processes.memory import keep_freed_memory
from segladder.protocols.cam_seeds import peaks
from segladder.protocols.inference import best

CLASSES, BATCH = 21, 8


def blocks(random: np.random.Generator, values: list[int], size: tuple[int, int]) -> np.ndarray:
    """A mask of large blocks, uint8."""
    small = random.choice(np.array(values, np.uint8), (6, 8))
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_NEAREST)


def episode(probability: np.ndarray, mask: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """An episode's confusion and histogram as they were counted before."""
    found = probability > 0.5
    indices = np.zeros(256, np.uint8)
    indices[[k, 255]] = k, 255
    truth = indices[mask]
    claims = np.stack([np.where(found, probability, -1)])
    prediction = np.where(claims.max(0) >= 0, np.array([k], np.uint8)[claims.argmax(0)], np.uint8(0))
    known = truth < CLASSES
    joint = truth[known].astype(np.intp) * CLASSES + prediction[known]
    confusion = np.bincount(joint, minlength=CLASSES**2)
    binary = np.where(known, truth == k, np.uint8(255))
    bins = np.minimum((probability * BINS).astype(np.int32), BINS - 1)
    scored = binary < 2
    histogram = np.bincount(bins[scored] + BINS * binary[scored].astype(np.int32), minlength=2 * BINS)
    return confusion.reshape(CLASSES, CLASSES), histogram.reshape(2, BINS)


def episodes_row(size: tuple[int, int], repeats: int) -> tuple[str, str, float, str]:
    """Eight episodes, as many as are answered at once."""
    random = np.random.default_rng(0)
    maps = torch.from_numpy(random.random((BATCH, 1, *size), np.float32))
    masks = [blocks(random, [0, 0, 3, 5, 255], size) for _ in range(BATCH)]
    asked = [Asked(str(number), (3,)) for number in range(BATCH)]
    indices = np.zeros(256, np.uint8)
    indices[[3, 255]] = 3, 255

    def together() -> EpisodeCounts:
        tally = EpisodeCounts(CLASSES)
        truth = torch.from_numpy(np.stack([cv2.LUT(mask, indices) for mask in masks]))
        tally.add(asked, (maps[:, 0] > 0.5).to(torch.uint8), maps, truth)
        return tally

    def one_by_one() -> EpisodeCounts:
        tally = EpisodeCounts(CLASSES)
        for what, (probability,), mask in zip(asked, maps.numpy(), masks, strict=True):
            confusion, histogram = episode(probability, mask, 3)
            tally.counts.add(what, confusion)
            tally.histograms[3] += histogram
        return tally

    ours, former = turns([together, one_by_one], repeats)
    counted, expected = together(), one_by_one()
    assert np.array_equal(counted.counts.dense(), expected.counts.dense())
    assert np.array_equal(counted.histograms, expected.histograms)
    detail = f"{ours / BATCH:.2f} ms against {former / BATCH:.2f} ms an episode, 1 thread"
    return f"counting few-shot episodes of {size[0]}x{size[1]}", "numpy, one by one", former / ours, detail


def boundaries(pred: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """Boundary counts of every class, there or not, as before."""
    counts = np.zeros((num_classes, 2), np.int64)
    side = 2 * boundary_width(*target.shape) + 1
    counted = target != 255
    for k in range(num_classes):
        truth, guess = (target == k) & counted, (pred == k) & counted
        rows, columns = (np.flatnonzero((truth | guess).any(axis)) for axis in (1, 0))
        if not rows.size:
            continue
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        strips = []
        for mask in (truth[box].astype(np.uint8), guess[box].astype(np.uint8)):
            inner = cv2.erode(mask, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
            strips.append((mask > inner).astype(bool))
        counts[k] = (strips[0] & strips[1]).sum(), (strips[0] | strips[1]).sum()
    return counts


def boundary_row(classes: int, size: tuple[int, int], repeats: int) -> tuple[str, str, float, str]:
    """An image that holds five classes of many."""
    random = np.random.default_rng(0)
    pred, target = (blocks(random, values, size) for values in ([0, 0, 3, 5, 9], [0, 0, 3, 5, 8, 255]))
    contenders = [lambda: boundary_counts(pred, target, classes), lambda: boundaries(pred, target, classes)]
    assert np.array_equal(*(count() for count in contenders))
    ours, former = turns(contenders, repeats)
    what = f"counting boundaries, {size[0]}x{size[1]}, {classes} classes"
    return what, "numpy, every class", former / ours, f"{ours:.2f} ms against {former:.2f} ms an image, 1 thread"


def best_rows(size: tuple[int, int], repeats: int) -> list[tuple[str, str, float, str]]:
    """The best class of each pixel of eight images: what dense answers and, with its score, seeds are made of."""
    scores = torch.from_numpy(np.random.default_rng(0).random((BATCH, CLASSES - 1, *size), np.float32))

    def twice() -> list[tuple[np.ndarray, np.ndarray]]:
        labels = [(each.argmax(0), each.max(0)) for each in scores.numpy()]
        for each in scores.numpy():  # the sweep over thresholds sought them again
            np.take_along_axis(each, each.argmax(0)[None], 0)
        return labels

    for found, expected in zip(peaks(scores), twice(), strict=True):
        assert all(map(np.array_equal, found, expected))
    assert torch.equal(best(scores), scores.argmax(1).to(torch.uint8))
    rows = []
    for what, contender, reference, former in (
        ("best class", lambda: best(scores), "torch's argmax", lambda: scores.argmax(1)),
        ("best class and its score, seeds", lambda: peaks(scores), "numpy, for labels and for thresholds", twice),
    ):
        ours, theirs = turns([contender, former], repeats)
        detail = f"{ours / BATCH:.2f} ms against {theirs / BATCH:.2f} ms an image, 1 thread"
        rows.append((f"{what}, {CLASSES - 1} classes, {size[0]}x{size[1]}", reference, theirs / ours, detail))
    return rows


def turns(contenders: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median milliseconds of processor time of each, which other work on the machine does not count in."""
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(1 + repeats):
        for contender, taken in zip(contenders, times, strict=True):
            started = time.process_time()
            contender()
            taken.append(1000 * (time.process_time() - started))
    return [statistics.median(taken[1:]) for taken in times]


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    """Rows of name, reference, how many times as fast, detail."""
    keep_freed_memory()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    repeats = 10 if quick else 60
    rows = [episodes_row(size, repeats) for size in ((256, 256), (375, 500))]
    return [
        *rows,
        *best_rows((256, 256), repeats),
        *(boundary_row(classes, (375, 500), repeats) for classes in (21, 81)),
    ]


if __name__ == "__main__":
    for what, against, ratio, detail in run("--quick" in sys.argv):
        print(f"{what} | {against} | {ratio:.2f}x | {detail}")
