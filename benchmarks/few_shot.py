"""Few-shot evaluation that encodes each image once, against encoding each episode anew; pooling without upsampling.

The evaluator answers all episodes of a list; the reference, which takes the same time for each episode, answers a few
of them, and its seconds are scaled to the list. Both give the same predictions on those. Images are noise in memory, as
many as 1000 episodes of a PASCAL-5i fold touch (345), so that only the network counts.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_module

from segladder.data.sources.base import Source
from segladder.data.sources.items import Items
from segladder.data.training.episodes import Episode, draw
from segladder.methods.few_shot.base import FewShotMethod
from segladder.ops.prototypes import masked_average_pooling
from segladder.processes.memory import keep_freed_memory
from segladder.protocols.episode_runner import EpisodeRunner, InputSize
from segladder.runs import build

IMAGES, SIZE, CLASSES = 345, (192, 256), 5
CHOICES = ["method=sg_one", "backbone=resnet50", "backbone.weights=none"]
REFERENCE_EPISODES = 8


class Noise(Source):
    """Images of noise with one rectangle of one class each."""

    def __init__(self) -> None:
        super().__init__("noise", ["background", *map(str, range(1, CLASSES + 1))])

    def split(self, name: str) -> list[str]:
        """Numbers."""
        return [str(number) for number in range(IMAGES)]

    def image_path(self, image_id: str) -> Path:
        """None: images lie in memory."""
        raise NotImplementedError

    drawn_mask_path = image_path

    def image(self, image_id: str) -> np.ndarray:
        """Noise, uint8 (H, W, 3)."""
        return np.random.default_rng(int(image_id)).integers(0, 256, (*SIZE, 3), np.uint8)

    def mask(self, image_id: str) -> np.ndarray:
        """A rectangle, uint8 (H, W)."""
        mask = np.zeros(SIZE, np.uint8)
        mask[40:150, 50:200] = 1 + int(image_id) % CLASSES
        return mask


def built() -> FewShotMethod:
    """SG-One on a ResNet-50 with random weights."""
    with initialize_config_module("segladder.conf", version_base="1.3"):
        method = build.method(compose("train", overrides=CHOICES), CLASSES + 1).eval()
    assert isinstance(method, FewShotMethod)
    return method


def evaluator(method: FewShotMethod, source: Noise, episodes: Sequence[Episode]) -> tuple[float, dict[int, np.ndarray]]:
    """Seconds for all episodes, and their predictions."""
    runner = EpisodeRunner(method, source, InputSize("native", None), "mean", batch_size=8)
    started = time.perf_counter()
    predictions = {id(answer.episode): answer.prediction for answer in runner.answers(episodes)}
    return time.perf_counter() - started, predictions


def reference(method: FewShotMethod, source: Noise, episodes: Sequence[Episode]) -> tuple[float, dict[int, np.ndarray]]:
    """Median seconds an episode when each encodes its query and supports, and the predictions."""
    seconds, predictions = [], {}
    for episode in episodes:
        started = time.perf_counter()
        query, *supports = (
            torch.from_numpy(source.image(i)).permute(2, 0, 1) for i in (episode.query, *episode.supports)
        )
        masks = torch.stack([torch.from_numpy(source.mask(i)) == episode.class_index for i in episode.supports])
        logits = method.predict(query[None], torch.stack(supports)[None], masks[None].to(torch.uint8))
        predictions[id(episode)] = logits[0].argmax(0).numpy().astype(bool)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), predictions


def evaluation_rows(quick: bool) -> list[tuple[str, str, float, str]]:
    """1- and 5-shot lists against the reference, and how the time grows with the list."""
    method, source = built(), Noise()
    items = Items.read(source, source.split("val"))
    count = 100 if quick else 1000
    rows = []
    for shots in (5, 1):
        episodes = draw(items, range(1, CLASSES + 1), shots, count, seed=0)
        ours, predictions = evaluator(method, source, episodes)
        each, expected = reference(method, source, episodes[:REFERENCE_EPISODES])
        agreement = min((predictions[key] == value).mean() for key, value in expected.items())
        detail = f"{ours:.0f} s against {each * count:.0f} s ({each:.2f} s each); predictions agree on {agreement:.4%}"
        rows.append(
            (
                f"{count} {shots}-shot episodes, {IMAGES} images",
                "encode supports and query",
                each * count / ours,
                detail,
            )
        )
    seconds = {
        n: evaluator(method, source, draw(items, range(1, CLASSES + 1), 1, n, seed=0))[0]
        for n in (count // 2, count, 5 * count)
    }
    growth = ", ".join(f"{n}: {s:.0f} s" for n, s in seconds.items())
    ratio = 10 * seconds[count // 2] / seconds[5 * count]
    return [*rows, (f"{5 * count} episodes", f"ten times {count // 2} episodes", ratio, growth)]


def pooling_row(quick: bool) -> tuple[str, str, float, str]:
    """Masked average pooling at SG-One's size."""
    features, mask = torch.randn(1, 512, 41, 41), torch.zeros(1, 321, 321)
    mask[:, 60:200, 80:250] = 1

    def upsampled() -> torch.Tensor:
        enlarged = torch.nn.functional.interpolate(features, (321, 321), mode="bilinear", align_corners=False)
        return (enlarged * mask[:, None]).sum((2, 3)) / mask.sum((1, 2))[:, None]

    contenders: dict[str, Callable[[], torch.Tensor]] = {
        "ours": lambda: masked_average_pooling(features, mask),
        "upsampled": upsampled,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(5 if quick else 20):
        for name, pool in contenders.items():
            started = time.perf_counter()
            pool()
            seconds[name].append(time.perf_counter() - started)
    ms = {name: 1000 * statistics.median(times) for name, times in seconds.items()}
    difference = float((contenders["ours"]() - upsampled()).abs().max())
    detail = f"{ms['ours']:.2f} ms against {ms['upsampled']:.0f} ms; largest difference {difference:.0e}"
    what = "masked average pooling, 512 channels, 41x41 under a 321x321 mask"
    return what, "upsample, then pool", ms["upsampled"] / ms["ours"], detail


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    """Rows of name, reference, how many times as fast, detail."""
    keep_freed_memory()
    with torch.inference_mode():
        return [*evaluation_rows(quick), pooling_row(quick)]


if __name__ == "__main__":
    for what, against, ratio, detail in run("--quick" in sys.argv):
        print(f"{what} | {against} | {ratio:.2f}x | {detail}")
