"""Running a dense method over images: same-size batches, test-time augmentation, shards of a distributed run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn.functional import interpolate

from segladder.data.sources.base import Source
from segladder.data.sources.decoding import image_size
from segladder.methods.base import Method, evaluating
from segladder.protocols.base import Scoring

Predict = Callable[[Tensor], Tensor]
Item = TypeVar("Item")

MOST_WAITING = 32  # answers whose counting is put off
MOST_SCORES = 500_000_000  # of a batch at the size of its labels; 2 GB in float32


def same_size_chunks(source: Source, ids: Sequence[str], batch_size: int, maps: int = 0) -> list[list[str]]:
    """Ids in chunks of images of one size, in an order that depends on sizes and ids alone.

    Args:
        source: the data set.
        ids: of its images.
        batch_size: images in a chunk, or fewer where their `maps` would have more than `MOST_SCORES` values.
        maps: of scores for each image, at its own size.
    """
    groups: dict[tuple[int, int], list[str]] = {}
    for image_id in sorted(ids):
        groups.setdefault(image_size(source.image_path(image_id)), []).append(image_id)
    chunks = []
    for (width, height), group in sorted(groups.items()):
        most = min(batch_size, max(1, MOST_SCORES // max(1, maps * width * height)))
        chunks += [group[i : i + most] for i in range(0, len(group), most)]
    return chunks


def shard() -> tuple[int, int]:
    """Rank and number of the processes of a distributed run, (0, 1) outside one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def gathered(item: Item) -> list[Item]:
    """The items of all processes, on all processes."""
    _, world = shard()
    if world == 1:
        return [item]
    items: list[Item | None] = [None] * world
    torch.distributed.all_gather_object(items, item)
    return [i for i in items if i is not None]


def loaded(
    source: Source, chunks: Sequence[Sequence[str]]
) -> Iterator[tuple[Sequence[str], list[np.ndarray], list[np.ndarray]]]:
    """Ids, images and masks of each chunk, decoded one chunk ahead in threads."""
    with ThreadPoolExecutor(2) as pool:
        ahead = [pool.submit(source.pair, i) for i in chunks[0]] if chunks else []
        for number, chunk in enumerate(chunks):
            futures = ahead
            ahead = [pool.submit(source.pair, i) for i in chunks[number + 1]] if number + 1 < len(chunks) else []
            pairs = [future.result() for future in futures]
            yield chunk, [image for image, _ in pairs], [mask for _, mask in pairs]


class Beside(ExitStack):
    """Calls in their order; where a device answers meanwhile they run in a thread of their own, and a few may wait."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.pool = self.enter_context(ThreadPoolExecutor(1)) if device.type == "cuda" else None
        self.waiting: deque[Future[None]] = deque()
        self.callback(self.finish)

    def call(self, work: Callable[..., None], *given: Any) -> None:
        """Call now or soon. Raises what an earlier call raised."""
        if self.pool is None:
            work(*given)
            return
        self.waiting.append(self.pool.submit(torch.inference_mode()(work), *given))
        while len(self.waiting) > MOST_WAITING:
            self.waiting.popleft().result()

    def finish(self) -> None:
        """Wait for all calls. Raises what one of them raised."""
        while self.waiting:
            self.waiting.popleft().result()


def answered(
    scoring: Scoring,
    ids: Sequence[str],
    answer: Callable[[Sequence[str], list[np.ndarray], list[np.ndarray]], Iterable[Item]],
    count: Callable[[str, Item, np.ndarray], None],
    title: str,
) -> float:
    """Answer this process's share of some images, and count every answer; returns the seconds that answering took.

    Args:
        scoring: whose method is put into evaluation mode meanwhile.
        ids: of all processes.
        answer: ids, images (H, W, 3) and masks (H, W) of one size to an answer for each image.
        count: an id, its answer and its mask.
        title: of the progress bar.
    """
    method, source = scoring.method, scoring.source
    rank, world = shard()
    chunks = same_size_chunks(source, ids, scoring.batch_size, len(source.classes))[rank::world]
    seconds = 0.0
    bar = Progress(disable=not scoring.progress or rank > 0)
    with evaluating(method), bar, torch.inference_mode(), Beside(method.device) as beside:
        task = bar.add_task(title, total=sum(map(len, chunks)))
        for chunk, images, masks in loaded(source, chunks):
            before = time.perf_counter()
            answers = answer(chunk, images, masks)
            seconds += time.perf_counter() - before
            for counted in zip(chunk, answers, masks, strict=True):
                beside.call(count, *counted)
            bar.advance(task, len(chunk))
    return seconds


def to_pixels(images: Sequence[np.ndarray], input_size: int | None, device: torch.device) -> Tensor:
    """Images uint8 (H, W, 3) of one size as raw pixels (B, 3, h, w) uint8, the long side resized to `input_size`."""
    if input_size is not None:
        height, width = images[0].shape[:2]
        factor = input_size / max(height, width)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        images = [cv2.resize(image, size, interpolation=method) for image in images]
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2)  # (B, 3, h, w)


class Views(NamedTuple):
    """How an image is looked at.

    Attributes:
        input_size: long side that it is resized to, None for native.
        scales: factors on both sides, whose probabilities are averaged.
        flip: also look at the mirrored image.
    """

    input_size: int | None = None
    scales: Sequence[float] = (1.0,)
    flip: bool = False


class DenseAnswers(NamedTuple):
    """What a method says of B images of one size.

    Attributes:
        classes: indices uint8 (B, H, W).
        probabilities: float32 (B, K, H, W).
    """

    classes: np.ndarray
    probabilities: np.ndarray


@torch.inference_mode()
def dense_answers(method: Method, images: Sequence[np.ndarray], views: Views) -> DenseAnswers:
    """The answers of a dense method, in evaluation mode, to images uint8 (H, W, 3) of one size.

    Probabilities are the softmax of its scores, or the mean of that over views.
    """
    pixels = to_pixels(images, views.input_size, method.device)
    size = images[0].shape[0], images[0].shape[1]
    scores = class_scores(method.predict, pixels, size, views.scales, views.flip)
    several = tuple(views.scales) != (1.0,) or views.flip
    probabilities = scores / len(views.scales) if several else scores.softmax(1)
    return DenseAnswers(best(scores).cpu().numpy(), probabilities.float().cpu().numpy())


def class_maps(
    predict: Predict, pixels: Tensor, size: tuple[int, int], scales: Sequence[float] = (1.0,), flip: bool = False
) -> Tensor:
    """Predicted classes (B, H, W) uint8 at `size`: the argmax of `class_scores`, which see."""
    return best(class_scores(predict, pixels, size, scales, flip))


def best(scores: Tensor) -> Tensor:
    """The class of the highest score, the first of equals, uint8 (B, H, W); on a CPU a fourth of the time of argmax."""
    return scores.max(1).indices.to(torch.uint8)


def class_scores(
    predict: Predict, pixels: Tensor, size: tuple[int, int], scales: Sequence[float] = (1.0,), flip: bool = False
) -> Tensor:
    """Scores (B, K, H, W) at `size` whose argmax is the answer.

    With one view bilinearly resized scores; with several (scales, flip) the sum over scales of their softmax.

    Args:
        predict: raw pixels (B, 3, h, w) to scores (B, K, h, w).
        pixels: raw pixels (B, 3, h, w).
        size: (H, W) of the result.
        scales: factors on h and w.
        flip: also look at the mirrored image.
    """
    if tuple(scales) == (1.0,) and not flip:
        return resized(predict(pixels), size)
    total = None
    for scale in scales:
        scaled = scaled_pixels(pixels, scale)
        views = torch.cat([scaled, scaled.flip(3)]) if flip else scaled  # (2B or B, 3, h, w)
        probabilities = resized(predict(views), size).softmax(1)  # (2B or B, K, H, W)
        if flip:
            plain, mirrored = probabilities.chunk(2)
            probabilities = (plain + mirrored.flip(3)) / 2
        total = probabilities if total is None else total + probabilities
    assert total is not None, "at least one scale"
    return total


def scaled_pixels(pixels: Tensor, scale: float) -> Tensor:
    """Raw pixels (B, 3, h, w) with both sides times `scale`, float32, bilinear with antialiasing; as they are at 1."""
    if scale == 1:
        return pixels
    height, width = pixels.shape[2:]
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return interpolate(pixels.float(), size, mode="bilinear", align_corners=False, antialias=scale < 1)


def resized(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Scores (B, K, h, w) at `size`, bilinear."""
    if scores.shape[2:] == size:
        return scores
    return interpolate(scores, size, mode="bilinear", align_corners=False)
