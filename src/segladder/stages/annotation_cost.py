"""What the labels behind a run cost, for its record: those of its training images and those of the novel classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from omegaconf import DictConfig

from segladder.data.labels.annotation_cost import annotation_cost
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.prices import VOC_PRICES
from segladder.data.sources.base import Source
from segladder.machine import cores
from segladder.protocols.base import Protocol
from segladder.runs.instantiation import instantiated
from segladder.stages.access import backbone_parent
from segladder.stages.inheritance import Learning

MOST_THREADS = 4


def cost_of(
    config: DictConfig, source: Source, protocol: Protocol, learning: Learning, train_ids: Sequence[str]
) -> dict[str, Any]:
    """Seconds of human work behind a run, as of `annotation_cost`.

    Classes that are not novel are labelled in all training images; a method that does not train needs none of that,
    but where its backbone comes from another run, that one's labels. Labels that two runs share count once.

    Args:
        config: of the run, with its `prices`.
        source: the data set with its drawn masks.
        protocol: says what is novel and what is labelled for it.
        learning: says which labels people gave.
        train_ids: the training images.
    """
    images = train_ids if config.method.trains else ()
    base = [k for k, name in enumerate(source.classes) if k and name not in protocol.novel]
    held = pairs(source, images, base) if learning.paid.shows == "pixels" else None
    added = protocol.added_labels(source, learning.labels)
    cost = annotation_cost(learning.paid, len(images), len(base), held, added, instantiated(config.prices, "prices"))
    if (parent := backbone_parent(config)) is not None and parent.annotation_cost:
        before = parent.annotation_cost["seconds"] - parent.annotation_cost.get("novel_seconds", 0.0)
        cost["seconds"] = round(max(before, cost["seconds"] - cost["novel_seconds"]) + cost["novel_seconds"], 1)
    return cost


def with_supports(cost: Mapping[str, Any], source: Source, protocol: Protocol, config: DictConfig) -> dict[str, Any]:
    """The cost of a few-shot run with the supports that another protocol asks for instead of its own."""
    prices = instantiated(config.prices, "prices") if "prices" in config else VOC_PRICES  # not in older versions
    supports = protocol.added_labels(source, Masks())
    novel = sum(work.seconds(prices) for work in supports)
    return {
        **cost,
        "seconds": round(cost["seconds"] - cost.get("novel_seconds", 0.0) + novel, 1),
        "novel_seconds": round(novel, 1),
        "novel_labels": [work.labels.name for work in supports],
    }


def pairs(source: Source, ids: Sequence[str], classes: Sequence[int]) -> int:
    """How many (image, class) pairs some images hold."""
    columns = [k - 1 for k in classes]
    with ThreadPoolExecutor(cores(most=MOST_THREADS)) as pool:
        return int(sum(tags[columns].sum() for tags in pool.map(source.tags, ids)))
