"""Reading a file in COCO's format, which each process does once, against Python's own JSON reader on its text.

Loading processes are forked from the one that read the file and read nothing. Seconds are of the processor.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from segladder.data.sources.coco_file import CocoFile

IMAGES, QUICK = 8_000, 500
OBJECTS, POINTS = 7, 22  # of an image, of a polygon: about those of COCO 2017


def write(path: Path, count: int) -> None:
    """Images of COCO's size with random polygons."""
    draw = random.Random(0)
    images = [{"id": i, "file_name": f"{i:012}.jpg", "height": 480, "width": 640} for i in range(count)]
    objects = [
        {
            **{"id": k, "image_id": k // OBJECTS, "category_id": 1 + k % 80, "iscrowd": 0, "area": 1000.5},
            "segmentation": [[round(draw.uniform(0, 480), 2) for _ in range(2 * POINTS)]],
        }
        for k in range(count * OBJECTS)
    ]
    categories = [{"id": k, "name": f"class_{k}"} for k in range(1, 81)]
    path.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))


def seconds(work: Callable[[], object]) -> float:
    """Of the processor."""
    started = time.process_time()
    work()
    return time.process_time() - started


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    count, repeats = (QUICK, 1) if quick else (IMAGES, 5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.json"
        write(path, count)
        sides = [
            (seconds(lambda: json.loads(path.read_text())), seconds(lambda: CocoFile.read(path)))
            for _ in range(repeats)
        ]
        size = path.stat().st_size / 1e6
    reference, ours = (statistics.median(side) for side in zip(*sides, strict=True))
    detail = f"{ours:.2f} s against {reference:.2f} s for {size:.0f} MB; {OBJECTS} objects an image"
    return [(f"COCO file of {count} images", "json.loads alone", reference / ours, detail)]


if __name__ == "__main__":
    for row in run("--quick" in sys.argv):
        print(*row, sep=" | ")
