"""A training step beside another program, against the same step on a quiet machine.

The other program is a loop on one core, or the same training. A process of its own for each setting of how threads wait
for each other (read when torch starts) and how many there are. Each steps through quiet and shared spells in turn, so
that all see the same machine; medians. With two cores and two threads, a step is done when the slower core has done its
share: 2x would be fair.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable

BATCH, SIZE, CLASSES, WARM_UP, SPELLS = 8, 96, 21, 3, 3
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SETTINGS = {
    "threads of the product": {},
    "threads that wait as libgomp has it": {"GOMP_SPINCOUNT": "300000"},
    "threads that sleep while they wait": {"OMP_WAIT_POLICY": "passive"},
    "a thread less": {"OMP_NUM_THREADS": str(max(1, THREADS - 1))},
}
OTHERS = {"a busy core": ["-c", "print(flush=True)\nwhile True: pass"], "another training": [__file__, "--endless"]}


def training() -> Callable[[], float]:
    """One step of FCN-8s on the tiny backbone, random pixels; says how many milliseconds it took."""
    from segladder.processes.waiting import wait_briefly

    wait_briefly()
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
    return step


def steps(count: int) -> dict[str, float]:
    """Milliseconds of a step in this process: `quiet`, and beside each of `OTHERS`."""
    step = training()
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(SPELLS):
        found["quiet"] += [step() for _ in range(count)]
        for name, words in OTHERS.items():
            with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE) as other:
                assert other.stdout is not None
                other.stdout.readline()  # it has begun
                step()
                found[name] += [step() for _ in range(count)]
                other.kill()
    return {spell: statistics.median(times) for spell, times in found.items()}


def train_on() -> None:
    """Train until killed; an empty line says that it has begun."""
    step = training()
    print(flush=True)
    while True:
        step()


def measured(environment: dict[str, str], count: int) -> dict[str, float]:
    """`steps` in a process of its own with some variables set."""
    told = subprocess.run(
        [sys.executable, __file__, "--steps", str(count)],
        env={**{k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}, **environment},
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
        for other in OTHERS:
            detail = f"{ms[other]:.0f} ms against {ms['quiet']:.0f} ms; {setting}"
            what = f"training step beside {other}, {name}"
            rows.append((what, "quiet machine", ms["quiet"] / ms[other], detail))
    return rows


if __name__ == "__main__":
    if "--endless" in sys.argv:
        train_on()
    elif "--steps" in sys.argv:
        print(json.dumps(steps(int(sys.argv[-1]))))
    else:
        for what, against, ratio, detail in run("--quick" in sys.argv):
            print(f"{what} | {against} | {ratio:.2f}x | {detail}")
