"""How seconds and memory grow with what a run is given: four times as much, and four times that.

Each size is a run of `segladder` in a process of its own on the embedded shapes; seconds and the most memory are those
of its record, so that starting Python counts for nothing. The slope is that of the logarithms: 1 is linear, 0 free.
The ratio is how much less than in proportion the largest took.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

GROWTH = 4
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
Measured = tuple[float, float]  # seconds, MB


def segladder(folder: Path, *words: str) -> dict[str, object]:
    """The record of one run in a folder."""
    command = [sys.executable, "-m", "segladder", "train", "trainer.progress=false", "trainer.panels=0", *words]
    settings = [f"runs={folder / 'runs'}", f"data.root={folder / 'shapes'}", "data.size=64", "backbone=tiny"]
    subprocess.run([*command, *settings], check=True, capture_output=True, env=ONE_THREAD)
    newest = max((folder / "runs").rglob("record.json"), key=lambda path: path.stat().st_mtime)
    record: dict[str, object] = json.loads(newest.read_bytes())
    return record


def of(record: dict[str, object], seconds: str) -> Measured:
    """Seconds and MB of a record."""
    return float(str(record[seconds])), float(str(record["peak_memory_mb"] or 0))


def training(folder: Path, images: int) -> Measured:
    """One epoch of FCN-8s."""
    sizes = [f"data.train_size={images}", "data.val_size=16"]
    return of(segladder(folder, "method=fcn8s", "data=shapes", "trainer.epochs=1", *sizes), "train_seconds")


def episodes(folder: Path, count: int) -> Measured:
    """Episodes of one fold, answered by prototypes of a network without training."""
    words = [
        "method=prototype",
        "data=shapes",
        "protocol=strict",
        "protocol.min_object=none",
        f"protocol.episodes={count}",
    ]
    return of(segladder(folder, *words, "data.train_size=300", "data.val_size=250"), "eval_seconds")


def questions(folder: Path, images: int) -> Measured:
    """A zero-shot network asked for 20 classes on each image, with every gamma."""
    words = ["method=spnet", "data=shapes", "protocol=zero_shot", "trainer.steps=2", "data.train_size=200"]
    return of(segladder(folder, *words, f"data.val_size={images}"), "eval_seconds")


def records(folder: Path, count: int) -> Measured:
    """A leaderboard."""
    board = sibling("leaderboard")
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        for number in range(count):
            board.save(board.a_record(number), Path(runs) / f"{number:05d}")
        seconds, megabytes = board.measured(board.PRODUCT, runs)
    return float(seconds), float(megabytes)


def sibling(name: str) -> ModuleType:
    """Another file of this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PATHS: dict[str, tuple[Callable[[Path, int], Measured], int]] = {  # and the smallest size
    "training images, one epoch": (training, 250),
    "few-shot episodes of 250 images": (episodes, 500),
    "images asked for 20 classes, zero-shot": (questions, 64),
    "records of a leaderboard": (records, 500),
}


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    """Rows of name, reference, how many times less than in proportion, detail."""
    rows = []
    for name, (measure, least) in PATHS.items():
        sizes = [least // 8, least // 2] if quick else [least, GROWTH * least, GROWTH**2 * least]
        with tempfile.TemporaryDirectory() as folder:
            found = [measure(Path(folder), size) for size in sizes]
        slope = math.log(found[-1][0] / found[0][0]) / math.log(sizes[-1] / sizes[0])
        ratio = sizes[-1] / sizes[0] * found[0][0] / found[-1][0]
        told = ", ".join(
            f"{size}: {s:.1f} s" + (f", {mb:.0f} MB" if mb else "") for size, (s, mb) in zip(sizes, found, strict=True)
        )
        rows.append((name, f"{sizes[-1] // sizes[0]} times {sizes[0]}", ratio, f"slope {slope:.2f}; {told}; 1 thread"))
    return rows


if __name__ == "__main__":
    for what, against, ratio, detail in run("--quick" in sys.argv):
        print(f"{what} | {against} | {ratio:.2f}x | {detail}")
