"""How well a network tells which classes an image holds: what image-level runs may be chosen by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch

from segladder.data.hashing import hashed_share
from segladder.mask_values import IGNORE
from segladder.methods.base import evaluating
from segladder.methods.image_level.base import ClassMapMethod
from segladder.protocols.base import Picture, Scoring, Shown
from segladder.protocols.inference import class_maps, same_size_chunks, to_pixels


def classification_score(scoring: Scoring) -> float:
    """Mean over classes of the average precision of the tags of `scoring.ids`; reads images and tags only.

    The method is one that `tells_tags`.
    """
    method, source, ids = cast(ClassMapMethod, scoring.method), scoring.source, scoring.ids or ()
    logits, tags = [], []
    with evaluating(method), torch.inference_mode():
        for chunk in same_size_chunks(source, ids, scoring.batch_size):
            pixels = to_pixels([source.image(i) for i in chunk], None, method.device)
            logits.append(method.tag_logits(method.normalize(pixels)).cpu().numpy())
            tags += [source.tags(i) for i in chunk]
    return float(np.nanmean(ranked_precision(np.concatenate(logits), np.stack(tags))))


def tag_glimpses(scoring: Scoring, count: int) -> Iterator[Shown]:
    """What a method predicts on a few of `scoring.ids`, always the same ones; their masks are not known: 255."""
    method, source = scoring.method, scoring.source
    for image_id in sorted(scoring.ids or (), key=hashed_share)[:count]:
        image = source.image(image_id)
        size = image.shape[0], image.shape[1]
        with evaluating(method), torch.inference_mode():
            prediction = class_maps(method.predict, to_pixels([image], None, method.device), size, (1.0,), False)
        yield image_id, Picture(image, np.full(size, IGNORE, np.uint8), prediction[0].cpu().numpy(), {})


def ranked_precision(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average precision per class (C,) of scores (N, C) for truth (N, C) of 0 and 1; nan for classes never true."""
    order = np.argsort(-scores, axis=0, kind="stable")
    hits = np.take_along_axis(truth, order, 0)
    precision = hits.cumsum(0) / np.arange(1, len(hits) + 1)[:, None]
    found = hits.sum(0)
    means: np.ndarray = np.divide(
        (precision * hits).sum(0), found, out=np.full(truth.shape[1], np.nan), where=found > 0
    )
    return means
