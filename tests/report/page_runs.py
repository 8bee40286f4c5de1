"""Runs for the tests of the page: records with counts, panels of predictions and a log, without training."""

import numpy as np

from segladder.data.labels.annotation_cost import SCHEME
from segladder.metrics.counts import COUNTS, Counts
from segladder.report.pictures.panels import save_panels
from segladder.report.record import Record, write

CLASSES = ("background", "disc", "square")
SIZE = (48, 64)
SAYS = {
    "scores": [{"name": "mIoU", "statistic": {"formula": "mean_iou"}}],
    "columns": [{"name": "iou", "label": "IoU"}],
    "ranked_by": "mIoU",
    "resampled": "images",
    "fields": {"name": "semantic", "split": "val"},
}
METHODS = {"unet": ("masks", 36_000.0, 1), "fcn8s": ("points", 3_600.0, 4), "cam": ("tags", 600.0, 9)}


def truth(number):
    """A square in every image, in the odd ones of another class."""
    mask = np.zeros(SIZE, np.uint8)
    mask[8 + number : 28 + number, 12:40] = 1 + number % 2
    return mask


def scored(shift):
    """Counts of answers that lie `shift` pixels beside the truth, for eight images."""
    counts = Counts(len(CLASSES))
    for number in range(8):
        flat = truth(number).astype(int) * 3 + np.roll(truth(number), shift, 1)
        counts.add(f"image{number}", np.bincount(flat.reshape(-1), minlength=9).reshape(3, 3))
    counts.seed = 0
    return counts


def panels_of(folder, counts, shift):
    """Panels of those answers."""

    def load(asked):
        mask = truth(int(asked.image.removeprefix("image")))
        return np.full((*SIZE, 3), 90, np.uint8), mask, np.roll(mask, shift, 1), {}

    save_panels(folder / "panels", counts, 1, load, CLASSES)


def write_runs(folder, data="shapes", methods=METHODS):
    """A run's folder for each method; returns the records."""
    records = []
    for number, (method, (labels, seconds, shift)) in enumerate(methods.items()):
        counts = scored(shift)
        total = counts.total()
        union = total.sum(0) + total.sum(1) - np.diagonal(total)
        iou = [float(hit / all_) for hit, all_ in zip(np.diagonal(total), union, strict=True)]
        record = Record(
            id=f"{data}-{method}",
            time=f"2026-01-01T00:00:0{number}+00:00",
            status="finished",
            command=f"segladder train method={method}",
            config={"method": {"name": method, "trains": True}, "pool": 8},
            method=method,
            backbone={"name": "tiny"},
            supervision={"tags": "image_level"}.get(labels, "full"),
            label_access={"kind": labels, "labels": labels, "selection": "fixed"},
            protocol={"name": "semantic", "hash": "5afdba84", **SAYS},
            data={"name": data, "classes": list(CLASSES), "val_fingerprint": f"{data}0123456789"},
            seed=0,
            metrics={"mIoU": {"value": float(np.mean(iou)), "low": None, "high": None}},
            per_class=[{"class": name, "iou": value} for name, value in zip(CLASSES, iou, strict=True)],
            annotation_cost={"seconds": seconds, "scheme": SCHEME},
            parameters=1_000_000 + number,
            train_seconds=60.0 + number,
            images_per_second=100.0 + number,
            peak_memory_mb=500.0 + number,
        )
        run = folder / record.id
        write(record, run)
        counts.save(run / COUNTS)
        panels_of(run, counts, shift)
        logs = run / "logs" / "csv" / "version_0"
        logs.mkdir(parents=True)
        (logs / "metrics.csv").write_text("step,train/loss,lr\n1,2.5,0.1\n2,1.5,0.1\n3,1.2,0.1\n")
        records.append(record)
    return records
