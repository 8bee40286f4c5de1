"""The sliding-window classifier of a centre pixel, against the same weights as a fully convolutional network.

The reference classifies one window for each pixel of an image, a row of them at once; the network of the paper (N4,
windows of 95 pixels) and the one of `method=patch_cnn` (47 pixels). Both take turns behind one warm-up; medians.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from segladder.methods.full.patch_cnn import PatchNetwork
from segladder.processes.memory import keep_freed_memory

CLASSES = 21
NETWORKS = {  # channels, kernels, side of the image
    "patch_cnn": ((24, 48, 48), (4, 5, 4), 64),
    "N4 of the paper": ((48, 48, 48, 48), (4, 5, 4, 4), 32),
}


def row(name: str, quick: bool) -> tuple[str, str, float, str]:
    """One square image in float32."""
    channels, kernels, size = NETWORKS[name]
    size, repeats = (24, 1) if quick else (size, 3)
    torch.manual_seed(0)
    network = PatchNetwork(CLASSES, channels, kernels, top_kernel=3, hidden_channels=200).eval()
    image = torch.randn(1, 3, size, size)
    contenders = {"ours": network, "reference": network.slide}
    difference = float((network(image) - network.slide(image)).abs().max())
    seconds: dict[str, list[float]] = {key: [] for key in contenders}
    for _ in range(repeats):
        for key, contender in contenders.items():
            started = time.perf_counter()
            contender(image)
            seconds[key].append(time.perf_counter() - started)
    ours, reference = (statistics.median(seconds[key]) for key in contenders)
    detail = (
        f"{ours:.3f} s against {reference:.2f} s; largest difference {difference:.0e};"
        f" {size}x{size}, windows of {network.window}, {torch.get_num_threads()} threads"
    )
    return f"class of every pixel, {name}, fully convolutional", "window after window", reference / ours, detail


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    """Rows of name, reference, how many times as fast, detail."""
    keep_freed_memory()
    with torch.inference_mode():
        return [row(name, quick) for name in NETWORKS]


if __name__ == "__main__":
    for what, against, ratio, detail in run("--quick" in sys.argv):
        print(f"{what} | {against} | {ratio:.2f}x | {detail}")
