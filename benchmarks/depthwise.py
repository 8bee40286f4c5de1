"""Training depthwise networks in bf16-mixed on a CPU: what float32 for a few of their convolutions saves.

A step (forward, backward, no optimiser) of FCN-8s with random weights, folded BatchNorm and nothing frozen, in plain
float32, under autocast, and as `strategy.precision=bf16-mixed` runs it. They take turns; medians of their times.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import AbstractContextManager

import torch
from hydra import compose, initialize_config_module
from pytorch_lightning.plugins.precision import MixedPrecision, Precision

from segladder.methods.base import Method
from segladder.nets.bfloat16 import CpuBfloat16
from segladder.runs import build

BATCH, SIZE, CLASSES, WARM_UP = 8, 160, 7, 2
BACKBONES = {"EfficientNet-Lite2": "tf_efficientnet_lite2", "MobileNetV2": "mobilenetv2_100"}
PRECISIONS = {"float32": Precision(), "autocast": MixedPrecision("bf16-mixed", "cpu"), "ours": CpuBfloat16()}


def built(name: str) -> Method:
    """FCN-8s on a backbone, in the format in which it trains."""
    choices = ["backbone=mobilenetv2", f"backbone.name={name}", "backbone.options={}", "backbone.weights=none"]
    with initialize_config_module("segladder.conf", version_base="1.3"):
        config = compose("train", overrides=[*choices, "backbone.batch_norm=folded"])
    return build.method(config, CLASSES).to(memory_format=torch.channels_last).train()


def step(method: Method, context: AbstractContextManager[None], batch: dict[str, torch.Tensor]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    with context:
        loss = method.loss(method.normalized(batch))["loss"]
    loss.backward()
    return time.perf_counter() - started


def medians(method: Method, steps: int) -> dict[str, float]:
    """Milliseconds of a step in each precision."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    mask = torch.randint(0, CLASSES, (BATCH, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    seconds: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for _ in range(WARM_UP + steps):
        for name, precision in PRECISIONS.items():
            seconds[name].append(step(method, precision.forward_context(), {"image": image, "mask": mask}))
    return {name: 1000 * statistics.median(times[WARM_UP:]) for name, times in seconds.items()}


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    """Rows of name, reference, how many times as fast, detail."""
    rows = []
    for words, name in BACKBONES.items():
        ms = medians(built(name), 3 if quick else 12)
        setting = f"FCN-8s, {BATCH}x{SIZE}x{SIZE}, {torch.get_num_threads()} threads"
        for against in ("autocast", "float32"):
            detail = f"{ms['ours']:.0f} ms against {ms[against]:.0f} ms; {setting}"
            what = f"training step of {words}, bf16-mixed"
            rows.append((what, f"{against} alone", ms[against] / ms["ours"], detail))
    return rows


if __name__ == "__main__":
    for what, against, ratio, detail in run("--quick" in sys.argv):
        print(f"{what} | {against} | {ratio:.2f}x | {detail}")
