"""Training a frozen-BatchNorm backbone on the CPU: what folding it and keeping freed memory save.

A step (forward, backward, no optimiser) of FCN-8s on MobileNetV2 with random weights. The two networks take turns; the
process's memory policy can only be changed once, so its effect is measured before and after, on the same network.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping

import torch
from hydra import compose, initialize_config_module

from segladder.methods.base import Method
from segladder.processes.memory import keep_freed_memory
from segladder.runs import build

BATCH, SIZE, CLASSES, WARM_UP = 8, 224, 7, 2


def built(batch_norm: str) -> Method:
    """FCN-8s whose backbone's first three levels do not learn."""
    choices = [
        "backbone=mobilenetv2",
        "backbone.weights=none",
        "backbone.freeze=3",
        f"backbone.batch_norm={batch_norm}",
    ]
    with initialize_config_module("segladder.conf", version_base="1.3"):
        return build.method(compose("train", overrides=choices), CLASSES).train()


def medians(methods: Mapping[str, Method], steps: int) -> dict[str, float]:
    """Milliseconds of each method's step, taken in turns."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    mask = torch.randint(0, CLASSES, (BATCH, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(WARM_UP + steps):
        for name, method in methods.items():
            started = time.perf_counter()
            method.loss(method.normalized({"image": image, "mask": mask}))["loss"].backward()
            seconds[name].append(time.perf_counter() - started)
    return {name: 1000 * statistics.median(times[WARM_UP:]) for name, times in seconds.items()}


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    """Rows of name, reference, how many times as fast, detail."""
    steps = 3 if quick else 12
    methods = {"frozen": built("frozen"), "folded": built("folded")}
    default = medians({"frozen": methods["frozen"]}, steps)["frozen"]
    keep_freed_memory()
    kept = medians(methods, steps)
    setting = f"FCN-8s on MobileNetV2, {BATCH}x{SIZE}x{SIZE}, float32, {torch.get_num_threads()} threads"
    return [
        (
            "training step, freed memory kept",
            "glibc's default",
            default / kept["frozen"],
            f"{kept['frozen']:.0f} ms against {default:.0f} ms; {setting}",
        ),
        (
            "training step, BatchNorm folded",
            "BatchNorm frozen",
            kept["frozen"] / kept["folded"],
            f"{kept['folded']:.0f} ms against {kept['frozen']:.0f} ms; {setting}",
        ),
    ]


if __name__ == "__main__":
    for what, against, ratio, detail in run("--quick" in sys.argv):
        print(f"{what} | {against} | {ratio:.2f}x | {detail}")
