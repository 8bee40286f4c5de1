"""On a CUDA device: training against a resident batch, scoring of many sizes, few-shot, class scores, walks, dense CRF.

Without a device it says so in one line and gives no rows. Networks have random weights; images are noise.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_module
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segladder.data.training.datamodule import single_threaded
from segladder.methods.base import Method, evaluating
from segladder.metrics.counts import Asked
from segladder.metrics.episodes import EpisodeCounts
from segladder.nets.answering import float32_products
from segladder.ops.affinity import random_walk
from segladder.ops.crf import dense_crf
from segladder.protocols.inference import class_maps
from segladder.runs import build

Row = tuple[str, str, float, str]
CLASSES, SIDE, WORKERS = 21, 512, 8
TRAINED = ("fcn8s", "deeplabv3plus", "puzzle_cam")
SCALES = (0.5, 1.0, 1.5, 2.0)
EPISODES, AT_ONCE = 5_900, 8


def built(method: str, backbone: str, *words: str) -> tuple[Any, Method]:
    """The configuration of `strategy=gpu`, and a method on the device."""
    choices = [f"method={method}", f"backbone={backbone}", "backbone.weights=none", "strategy=gpu", *words]
    with initialize_config_module("segladder.conf", version_base="1.3"):
        config = compose("train", overrides=[*choices, "trainer.progress=false"])
    return config, build.method(config, CLASSES).cuda()


def seconds(work: Callable[[], object]) -> float:
    """Wall time, the device included."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


class Noise(Dataset[dict[str, Tensor]]):
    """Training items as the loader gives them, without decoding."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A new array each time: what the loader has to move."""
        random = np.random.default_rng(index)
        image = torch.from_numpy(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).permute(2, 0, 1)
        mask = torch.from_numpy(random.integers(0, CLASSES, (SIDE // 64, SIDE // 64), np.uint8))
        mask = mask.repeat_interleave(64, 0).repeat_interleave(64, 1)
        return {"image": image, "mask": mask, "tags": torch.ones(CLASSES - 1)}


class Clock(pl.Callback):
    """When each step began."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *step: Any) -> None:
        """Now."""
        self.times.append(time.perf_counter())


def training_row(method: str, batch_size: int, steps: int) -> Row:
    """The product's trainer and loader against the network alone, its batch resident on the device."""
    config, module = built(method, "resnet50", f"trainer.steps={10 + steps}")
    loader: DataLoader[Any] = DataLoader(
        Noise(batch_size * (10 + steps)),
        batch_size,
        num_workers=WORKERS,
        pin_memory=True,
        worker_init_fn=single_threaded,
    )
    rate = batch_size / resident(module, next(iter(loader)), steps)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build.trainer(config, Path(folder), [clock], [])
        with float32_products(module.tf32):
            trainer.fit(module, loader)
            torch.cuda.synchronize()
    reached = batch_size * (len(clock.times) - 10) / (time.perf_counter() - clock.times[10])
    what = f"training {method}, ResNet-50, batch {batch_size}, {SIDE} px, bf16"
    detail = f"{reached:.0f} against {rate:.0f} images/s; {torch.cuda.get_device_name()}"
    return what, "the network alone, batch resident", reached / rate, detail


def resident(module: Method, batch: dict[str, Tensor], steps: int) -> float:
    """Median seconds of a step on one batch."""
    held: Any = {key: value.cuda() for key, value in batch.items()}
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = module.loss(module.normalized(held))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return statistics.median(seconds(step) for _ in range(10 + steps))


def scoring_row(method: str, backbone: str, sizes: int) -> Row:
    """Images of many sizes for the first and the second time; above 0.67 the first takes at most 1.5 times as long."""
    module = built(method, backbone)[1].train()
    images = [torch.randint(0, 256, (8, 3, 192 + 4 * n, 256 - n), dtype=torch.uint8).cuda() for n in range(sizes)]

    def once() -> None:
        for each in images:
            class_maps(module.predict, each, (each.shape[2], each.shape[3])).cpu()

    with evaluating(module), torch.inference_mode():
        module.predict(images[0])
        first, second = seconds(once), seconds(once)
    detail = f"{second:.2f} against {first:.2f} s for {8 * sizes} images; {torch.cuda.get_device_name()}"
    return f"scoring {method}, {backbone}, {sizes} sizes, first pass", "the second pass", second / first, detail


def counting_row(episodes: int) -> Row:
    """Episodes of 256 px counted on the device, against the same on a core."""
    maps = torch.rand(AT_ONCE, 1, 256, 256)
    truth = torch.randint(0, 2, (AT_ONCE, 256, 256), dtype=torch.uint8) * 3
    asked = [Asked(str(n), (3,)) for n in range(AT_ONCE)]

    def count(device: str) -> float:
        given = [each.to(device) for each in ((maps[:, 0] > 0.5).to(torch.uint8), maps, truth)]
        tally = EpisodeCounts(CLASSES)
        return seconds(lambda: [tally.add(asked, *given) for _ in range(episodes // AT_ONCE)])

    count("cuda")
    ours, theirs = count("cuda"), count("cpu")
    detail = f"{ours:.2f} s against {theirs:.2f} s; {torch.cuda.get_device_name()}"
    return f"counting {episodes} few-shot episodes, 256x256", "on the CPU", theirs / ours, detail


def class_scores_row(backbone: str) -> Row:
    """Class scores of images at four scales with flip, four images a pass against one."""
    module: Any = built("cam", backbone)[1]
    images = torch.randint(0, 256, (4, 3, 375, 500), dtype=torch.uint8).cuda()
    tags = torch.ones(4, CLASSES - 1).cuda()

    def scored(at_once: int) -> None:
        for some, theirs in zip(images.split(at_once), tags.split(at_once), strict=True):
            module.class_scores((), some, theirs, SCALES, True)

    with evaluating(module), torch.inference_mode():
        together, alone = ([seconds(lambda n=n: scored(n)) for _ in range(6)] for n in (4, 1))
    ours, theirs = (statistics.median(times[1:]) / 4 for times in (together, alone))
    detail = f"{1000 * ours:.0f} ms against {1000 * theirs:.0f} ms an image; {torch.cuda.get_device_name()}"
    return f"class scores at 4 scales with flip, {backbone}, batch 4", "batch 1", theirs / ours, detail


def op_row(what: str, work: Callable[[str], Callable[[], object]]) -> Row:
    """An operation on the device against the same on the CPU."""
    ours, theirs = (statistics.median([seconds(work(device)) for _ in range(4)][1:]) for device in ("cuda", "cpu"))
    detail = f"{1000 * ours:.1f} ms against {1000 * theirs:.0f} ms; {torch.cuda.get_device_name()}"
    return what, "on the CPU", theirs / ours, detail


def walk(device: str) -> Callable[[], object]:
    """A random walk of three classes at 94x125."""
    scores, edge = (torch.rand(*shape).to(device) for shape in ((3, 94, 125), (94, 125)))
    return lambda: random_walk(scores, edge)


def crf(device: str) -> Callable[[], object]:
    """A dense CRF of 21 classes at 188x250."""
    image = torch.randint(0, 256, (188, 250, 3), dtype=torch.uint8)
    probabilities = torch.rand(CLASSES, 188, 250).softmax(0).to(device)
    return lambda: dense_crf(image, probabilities, backend="torch")


def run(quick: bool) -> list[Row]:
    """Rows of name, reference, how many times as fast, detail; none without a device."""
    if not torch.cuda.is_available():
        print("gpu: no CUDA device is visible, nothing to measure", file=sys.stderr)
        return []
    warnings.filterwarnings("ignore")
    batches = (16,) if quick else (16, 32)
    rows = [training_row(method, size, 20 if quick else 60) for method in TRAINED for size in batches]
    networks = (("fcn8s", "mobilenetv2"), ("deeplabv3plus", "resnet50"))
    rows += [scoring_row(*network, 12 if quick else 48) for network in networks]
    rows += [counting_row(EPISODES // 10 if quick else EPISODES)]
    rows += [class_scores_row(backbone) for backbone in ("mobilenetv2", "resnet50")]
    with torch.inference_mode():
        return [*rows, op_row("random walk, 94x125", walk), op_row("dense CRF in torch, 188x250, 21 classes", crf)]


if __name__ == "__main__":
    for what, against, ratio, detail in run("--quick" in sys.argv):
        print(f"{what} | {against} | {ratio:.2f}x | {detail}")
