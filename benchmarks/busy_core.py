"""A training step while another program keeps one of the cores busy, against the same step on a quiet machine.

A process of its own for each setting of how threads wait for each other (`OMP_WAIT_POLICY`, read when torch starts)
and how many there are. Each steps through quiet and busy spells in turn, so that both see the same machine; medians.
With two cores and two threads, a step is done when the slower core has done its share: 2x would be fair.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

BATCH, SIZE, CLASSES, WARM_UP, SPELLS = 8, 96, 21, 3, 3
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SETTINGS = {
    "threads of the product": {},
    "threads that sleep while they wait": {"OMP_WAIT_POLICY": "passive"},
    "a thread less": {"OMP_NUM_THREADS": str(max(1, THREADS - 1))},
}


def steps(count: int) -> dict[str, float]:
    """Milliseconds of a step, quiet and busy, in this process: FCN-8s on the tiny backbone, random pixels."""
    import torch

    import segladder

    method = segladder.create(method="fcn8s", backbone="tiny", data="shapes").train()
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)
    images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8)
    masks = torch.randint(0, CLASSES, (BATCH, SIZE, SIZE), dtype=torch.uint8)

    def step() -> float:
        started = time.perf_counter()
        loss = method.loss({"image": method.normalize(images.float()), "mask": masks, "id": [""] * BATCH})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return 1000 * (time.perf_counter() - started)

    for _ in range(WARM_UP):
        step()
    seconds: dict[str, list[float]] = {"quiet": [], "busy": []}
    for _ in range(SPELLS):
        seconds["quiet"] += [step() for _ in range(count)]
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
            step()
            seconds["busy"] += [step() for _ in range(count)]
            other.kill()
    return {spell: statistics.median(found) for spell, found in seconds.items()}


def measured(environment: dict[str, str], count: int) -> dict[str, float]:
    """`steps` in a process of its own with some variables set."""
    told = subprocess.run(
        [sys.executable, __file__, "--steps", str(count)],
        env={**{k: v for k, v in os.environ.items() if not k.startswith("OMP_")}, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return found


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    """Rows of name, reference, how many times as fast, detail."""
    rows = []
    setting = f"at most 2.5 times asked; FCN-8s, tiny, {BATCH}x{SIZE}x{SIZE}, {THREADS} cores"
    for name, environment in SETTINGS.items():
        ms = measured(environment, 3 if quick else 20)
        rows.append(
            (
                f"training step beside a busy core, {name}",
                "quiet machine",
                ms["quiet"] / ms["busy"],
                f"{ms['busy']:.0f} ms against {ms['quiet']:.0f} ms; {setting}",
            )
        )
    return rows


if __name__ == "__main__":
    if "--steps" in sys.argv:
        print(json.dumps(steps(int(sys.argv[-1]))))
    else:
        for what, against, ratio, detail in run("--quick" in sys.argv):
            print(f"{what} | {against} | {ratio:.2f}x | {detail}")
