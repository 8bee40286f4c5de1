"""What labels cost in seconds of human work (Bearman et al., "What's the Point", ECCV 2016, measured on PASCAL VOC)."""

from __future__ import annotations

from typing import Any

SECONDS_PER_IMAGE = {"tags": 20.0, "masks": 239.7}  # 20 classes x 1 s; 18.5 s + 2.8 objects x 79 s


def annotation_cost(labels: str, images: int) -> dict[str, Any]:
    """Seconds for labelling `images` training images with `tags` or `masks`, at VOC's mean cost of an image."""
    each = SECONDS_PER_IMAGE[labels]
    return {"seconds": each * images, "seconds_per_image": each, "labels": labels, "source": "VOC mean, Bearman 2016"}
