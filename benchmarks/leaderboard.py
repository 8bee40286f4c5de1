"""`segladder leaderboard` over 10,000 records, against parsing the same files as JSON one by one.

Each side runs in a process of its own, so that the most memory it ever held is its own. Seconds are of the processor:
the files were just written and need no disk. Asked for are 5 s and 500 MB.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from segladder.report.record import FILE_NAME, Record

RECORDS, QUICK = 10_000, 500
CLASSES = ["background", *(f"class_{k:02d}" for k in range(20))]
REFERENCE = """
import json, pathlib, sys, time, resource
started = time.process_time()
for file in pathlib.Path(sys.argv[1]).rglob("record.json"):
    json.loads(file.read_bytes())
"""
PRODUCT = """
import sys, time, resource
started = time.process_time()
sys.argv = ["segladder", "leaderboard", f"runs={sys.argv[1]}", "format=csv", f"out={sys.argv[1]}/table.csv"]
from segladder.cli import main
assert main() == 0
"""
MEASURED = """
print(time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def a_record(number: int) -> Record:
    """A record of the size that training writes: 20 methods, 5 losses, 4 protocols, the rest seeds."""
    method, loss, protocol, seed = number % 20, number // 20 % 5, number // 100 % 4, number // 400
    layers = {f"option_{k}": [k, 0.5, None, "text"] for k in range(60)}
    return Record(
        id=f"20260101-000000-{number:06d}",
        time=f"2026-01-01T00:00:00.{number:06d}+00:00",
        status="finished",
        command=f"segladder train method=method_{method} loss=loss_{loss} seed={seed}",
        config={"seed": seed, "method": {"name": f"method_{method}", **layers}, "loss": {"name": f"loss_{loss}"}},
        method=f"method_{method}",
        backbone={"name": "resnet50", "weights": "timm"},
        supervision=("full", "image_level", "few_shot", "zero_shot")[method % 4],
        protocol={"name": "semantic", "hash": f"{protocol:08x}", "fields": {"classes": CLASSES}},
        data={"name": "voc", "classes": CLASSES, "val_fingerprint": "feed"},
        seed=seed,
        metrics={f"score_{k}": {"value": 0.5, "low": 0.4, "high": 0.6} for k in range(12)}
        | {"mIoU": {"value": (number * 7919 % 1000) / 1000, "low": None, "high": None}},
        per_class=[{"class": name, "iou": 0.5, "tp": 1, "fp": 2, "fn": 3, "low": 0.4, "high": 0.6} for name in CLASSES],
        annotation_cost={"seconds": 1e6},
        train_seconds=100.0,
    )


def save(record: Record, folder: Path) -> int:
    """Write a record as runs do, but without waiting for the disk; returns its bytes."""
    folder.mkdir()
    return (folder / FILE_NAME).write_text(json.dumps(asdict(record), sort_keys=True, indent=1))


def measured(script: str, folder: str) -> tuple[float, float]:
    """Seconds a script took and the most MB it held."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script + MEASURED, folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds, megabytes = map(float, done.stdout.split()[-2:])
    return seconds, megabytes


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    count, repeats = (QUICK, 1) if quick else (RECORDS, 3)
    with tempfile.TemporaryDirectory() as folder:
        size = sum(save(a_record(number), Path(folder) / f"{number:05d}") for number in range(count)) / 1e6
        pairs = [(measured(REFERENCE, folder), measured(PRODUCT, folder)) for _ in range(repeats)]
    reference, ours = (statistics.median(side[0] for side in sides) for sides in zip(*pairs, strict=True))
    megabytes = max(product[1] for _, product in pairs)
    detail = (
        f"{ours:.2f} s, {megabytes:.0f} MB (asked: 1.5 s, 250 MB); JSON alone {reference:.2f} s; records {size:.0f} MB"
    )
    return [(f"leaderboard of {count} records", "json.loads of each file", reference / ours, detail)]


if __name__ == "__main__":
    for row in run("--quick" in sys.argv):
        print(*row, sep=" | ")
