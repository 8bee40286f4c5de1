"""What people labelled for a run: image by image, and in seconds of human work, for its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from segladder.data.labels.annotation_cost import annotation_cost
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.labelled import Labelled, joined
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


def cost_under(
    cost: Mapping[str, Any], access: Access, source: Source, protocol: Protocol, config: DictConfig
) -> dict[str, Any]:
    """The cost of a run that another protocol asks, as if it had trained under it.

    Labels of what is novel there are novel labels; supports and masks that it asks for are paid for beside them, the
    latter where nobody has done so yet.

    Args:
        cost: of the run.
        access: what it has seen with all that it builds on; where that is not known, `at_least` so much was paid.
        source: the data set.
        protocol: the other one.
        config: with prices, where its version had some.
    """
    prices = instantiated(config.prices, "prices") if "prices" in config else VOC_PRICES  # not in older versions
    asked = Labelled.of(source, Masks(), protocol.judges(source), base_of(source, protocol))
    behind = joined([*access.labelled, asked])
    now = annotation_cost(Masks(), behind, novel=protocol.novel, supports=protocol.supports(source), prices=prices)
    paid = {key: now[key] for key in ("seconds", "novel_seconds", "novel_labels")}
    if access.unknown:
        before = cost.get("at_least") or cost.get("seconds") or 0.0
        paid |= {"seconds": None, "at_least": max(before, now["seconds"])}
    return {**cost, **paid}
