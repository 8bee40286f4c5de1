"""Class scores of an image at four scales, mirrored too: each scale's pair in one pass and channels_last.

The reference sends one image a pass through the same network in the plain memory format, eight passes in all, as
published evaluation scripts do, and sums and normalises the maps in the same way. Both take turns; medians.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_module
from torch import Tensor
from torch.nn.functional import interpolate

from segladder.methods.image_level.base import ClassMapMethod
from segladder.ops.cam import normalize_cam
from segladder.processes.memory import keep_freed_memory
from segladder.runs import build

CLASSES, SCALES = 21, (0.5, 1.0, 1.5, 2.0)
Contender = Callable[[], Tensor]


def built(backbone: str) -> ClassMapMethod:
    """CAM at output stride 16 with random weights, channels_last as `strategy=cpu` has it."""
    choices = ["method=cam", f"backbone={backbone}", "backbone.weights=none"]
    with initialize_config_module("segladder.conf", version_base="1.3"):
        method = build.method(compose("train", overrides=choices), CLASSES).eval()
    assert isinstance(method, ClassMapMethod)
    return method


def in_plain_format(method: ClassMapMethod) -> ClassMapMethod:
    """The same network without channels_last."""
    plain = copy.deepcopy(method).to(memory_format=torch.contiguous_format)
    plain.memory_format = torch.contiguous_format
    return plain


def one_pass_each(method: ClassMapMethod, images: Tensor, tags: Tensor) -> Tensor:
    """The reference."""
    height, width = images.shape[-2:]
    grid = -(-height // 4), -(-width // 4)
    totals = []
    for image in images.split(1):
        total = torch.zeros(())
        for scale in SCALES:
            size = round(height * scale), round(width * scale)
            view = interpolate(image.float(), size=size, mode="bilinear", align_corners=False)
            for mirror in (False, True):
                maps = method.class_maps(method.normalize(view.flip(-1) if mirror else view)).relu()
                total = total + interpolate(maps.flip(-1) if mirror else maps, size=grid, mode="bilinear")
        totals.append(total)
    return normalize_cam(torch.cat(totals) * tags[:, :, None, None])


def medians(contenders: dict[str, Contender], repeats: int) -> dict[str, float]:
    """Seconds of each, taking turns behind one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(1 + repeats):
        for name, contender in contenders.items():
            started = time.perf_counter()
            contender()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def row(backbone: str, size: tuple[int, int], repeats: int) -> tuple[str, str, float, str]:
    """One image in float32, where both give the same maps."""
    method = built(backbone)
    plain = in_plain_format(method)
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tags = torch.ones(1, CLASSES - 1)
    contenders: dict[str, Contender] = {
        "ours": lambda: method.class_scores((), images, tags, SCALES, True),
        "reference": lambda: one_pass_each(plain, images, tags),
    }
    difference = float((contenders["ours"]() - contenders["reference"]()).abs().max())
    seconds = medians(contenders, repeats)
    detail = (
        f"{seconds['ours']:.2f} s against {seconds['reference']:.2f} s; largest difference {difference:.0e};"
        f" {backbone}, {size[0]}x{size[1]}, {torch.get_num_threads()} threads"
    )
    what = f"class scores of an image at {len(SCALES)} scales with flip, {backbone}"
    return what, "one image a pass, plain format", seconds["reference"] / seconds["ours"], detail


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    """Rows of name, reference, how many times as fast, detail."""
    keep_freed_memory()
    size, repeats = ((125, 167), 3) if quick else ((250, 333), 5)
    with torch.inference_mode():
        return [row(backbone, size, repeats) for backbone in ("resnet50", "mobilenetv2")]


if __name__ == "__main__":
    for what, against, ratio, detail in run("--quick" in sys.argv):
        print(f"{what} | {against} | {ratio:.2f}x | {detail}")
