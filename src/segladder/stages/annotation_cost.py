"""What people labelled for a run: image by image, and in seconds of human work, for its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from segladder.data.labels.annotation_cost import annotation_cost
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.labelled import Labelled, joined, seconds_of
from segladder.data.labels.prices import VOC_PRICES
from segladder.data.sources.base import Source
from segladder.protocols.base import Protocol
from segladder.runs import build
from segladder.runs.build import Training
from segladder.runs.instantiation import instantiated
from segladder.runs.watching.judging import looks_at
from segladder.stages.access import Access
from segladder.stages.inheritance import Learning
from segladder.stages.pseudo_masks import PseudoMasks


def own_labels(
    config: DictConfig, source: Source, protocol: Protocol, learning: Learning, training: Training
) -> list[Labelled]:
    """What people labelled for a run itself.

    Classes that are not novel are labelled in all images that training reads or that choose something for it, such as
    the weights that are kept, gamma or a threshold; a method that does not train needs the last alone.

    Args:
        config: of the run.
        source: the data set with its drawn masks.
        protocol: says what is novel and what is labelled for it.
        learning: says which labels people gave.
        training: the images.
    """
    novel = protocol.labelled_novel(source, learning.labels)
    images = list(protocol.judges(source))
    if config.method.trains or build.method_class(config).studies == "labels":
        images += [*training.module.dataset.ids, *judges(config, learning, training)]
    return [Labelled.of(source, learning.paid, images, base_of(source, protocol)), *novel] if images else novel


def base_of(source: Source, protocol: Protocol) -> list[str]:
    """Names of the classes that are not novel."""
    return [name for name in source.foreground if name not in protocol.novel]


def judges(config: DictConfig, learning: Learning, training: Training) -> Sequence[str]:
    """Images beside those of training whose labels choose weights or the threshold of masks, or show how it goes."""
    masks = learning.masks
    thresholds = masks.judges if isinstance(masks, PseudoMasks) else ()
    held_out = training.held_out.judges if looks_at(config) == "held_out" else ()
    return [*thresholds, *held_out]


def cost_of(
    config: DictConfig, source: Source, protocol: Protocol, learning: Learning, own: Sequence[Labelled], access: Access
) -> dict[str, Any]:
    """Seconds of human work behind a run and all that it builds on, as of `annotation_cost`.

    Where a run of an older version is among these, `seconds` is not known: it is `at_least` so many.

    Args:
        config: of the run, with its `prices`.
        source: the data set.
        protocol: says what is novel and what is labelled for the questions alone.
        learning: says which labels people gave.
        own: what they labelled for the run itself.
        access: what the run has seen with all that it builds on.
    """
    prices = instantiated(config.prices, "prices")
    supports = protocol.supports(source)
    cost = annotation_cost(learning.paid, own, access.labelled, protocol.novel, supports, prices)
    return cost | {"at_least": cost["seconds"], "seconds": None} if access.unknown else cost


def with_judges(
    cost: Mapping[str, Any], labelled: Sequence[Labelled], source: Source, protocol: Protocol, config: DictConfig
) -> dict[str, Any]:
    """The cost of a run with masks of base classes that another protocol asks for, where nobody has paid for them yet.

    Args:
        cost: of the run.
        labelled: what has been labelled for it and for all that it builds on.
        source: the data set.
        protocol: the other one.
        config: with prices, where its version had some.
    """
    prices = instantiated(config.prices, "prices") if "prices" in config else VOC_PRICES  # not in older versions
    if not (images := protocol.judges(source)):
        return dict(cost)
    asked = Labelled.of(source, Masks(), images, base_of(source, protocol))
    more = seconds_of(joined([*labelled, asked]), prices) - seconds_of(joined(labelled), prices)
    return {**cost, **{k: round(cost[k] + more, 1) for k in ("seconds", "at_least") if cost.get(k) is not None}}


def with_supports(cost: Mapping[str, Any], source: Source, protocol: Protocol, config: DictConfig) -> dict[str, Any]:
    """The cost of a few-shot run with the supports that another protocol asks for instead of its own, if it does."""
    prices = instantiated(config.prices, "prices") if "prices" in config else VOC_PRICES  # not in older versions
    if not (supports := protocol.supports(source)):
        return dict(cost)
    novel = sum(work.seconds(prices) for work in supports)
    more = novel - cost.get("novel_seconds", 0.0)
    known = {key: round(cost[key] + more, 1) for key in ("seconds", "at_least") if cost.get(key) is not None}
    return {**cost, **known, "novel_seconds": round(novel, 1), "novel_labels": [work.labels.name for work in supports]}
