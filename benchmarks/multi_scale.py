"""Class scores of an image at four scales, mirrored too: each pair in one pass, channels_last, fused; also in bf16.

The reference sends one image a pass through the same network in the plain memory format, eight passes in all, as
published evaluation scripts do, and sums and normalises the maps in the same way. It is in float32 and, with gradients
switched on, not fused. All take turns; medians.
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


@torch.inference_mode(False)
@torch.enable_grad()
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
    """Seconds of the processor of each, taking turns behind one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(1 + repeats):
        for name, contender in contenders.items():
            started = time.process_time()
            contender()
            seconds[name].append(time.process_time() - started)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def rows(backbone: str, size: tuple[int, int], repeats: int) -> list[tuple[str, str, float, str]]:
    """One image in float32, where both give the same maps, and in bfloat16."""
    method = built(backbone)
    plain = in_plain_format(method)
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tags = torch.ones(1, CLASSES - 1)
    for parameter in plain.parameters():
        parameter.requires_grad_(False)  # so that the reference keeps nothing for a backward pass

    @torch.inference_mode()
    def ours() -> Tensor:
        return method.class_scores((), images, tags, SCALES, True)

    def ours_in_half() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return ours()

    contenders: dict[str, Contender] = {
        "float32": ours,
        "bfloat16": ours_in_half,
        "reference": lambda: one_pass_each(plain, images, tags),
    }
    answers = {name: contender() for name, contender in contenders.items()}
    seconds = medians(contenders, repeats)
    found = []
    for name in ("float32", "bfloat16"):
        difference = float((answers[name] - answers["reference"]).abs().max())
        detail = (
            f"{seconds[name]:.2f} s against {seconds['reference']:.2f} s; largest difference {difference:.0e};"
            f" {backbone}, {size[0]}x{size[1]}, {torch.get_num_threads()} threads"
        )
        what = f"class scores of an image at {len(SCALES)} scales with flip, {backbone}, {name}"
        found.append((what, "one image a pass, plain format, float32", seconds["reference"] / seconds[name], detail))
    return found


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    """Rows of name, reference, how many times as fast, detail."""
    keep_freed_memory()
    size, repeats = ((125, 167), 3) if quick else ((250, 333), 5)
    return [each for backbone in ("resnet50", "mobilenetv2") for each in rows(backbone, size, repeats)]


if __name__ == "__main__":
    for what, against, ratio, detail in run("--quick" in sys.argv):
        print(f"{what} | {against} | {ratio:.2f}x | {detail}")
