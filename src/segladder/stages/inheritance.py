"""Stages: what a run takes from its parent, and so what it learns from and whose labels it has seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from segladder.data.labels.seen_labels import SeenLabels
from segladder.data.sources.base import Source
from segladder.errors import ConfigError
from segladder.methods.base import Method
from segladder.methods.image_level.base import Refinement
from segladder.protocols.base import Protocol
from segladder.protocols.ladder import LadderProtocol
from segladder.report import record as records
from segladder.runs.class_scores import StoredScores
from segladder.runs.folder import content_of, is_first_process
from segladder.runs.loading import trained_method
from segladder.stages.pseudo_masks import pseudo_masks
from segladder.stages.self_training import self_training_masks

PAID = {"full": "masks", "image_level": "tags", "few_shot": "masks", "zero_shot": "masks"}


class Learns(NamedTuple):
    """What a run learns from.

    Attributes:
        source: the data set with the masks that training reads.
        visible: the supervision by which the data layer hands out labels.
        limits: what of it the protocol allows, `Protocol.training`.
        supervision: of the run as a whole, the parent's included.
        labels: what its labels are, in words.
        paid: what people had to draw or tick, `masks` or `tags`.
        parents: ids of the runs it builds on.
        lineage: methods of that run and its own parents, the first ancestor first.
    """

    source: Source
    visible: str
    limits: dict[str, Any] | None
    supervision: str
    labels: str
    paid: str
    parents: list[str]
    lineage: list[str]


def what_is_learnt(config: DictConfig, method: Method, source: Source, protocol: Protocol) -> Learns:
    """What a run learns from; gives the method what it takes from `config.parent`.

    Raises:
        ConfigError: a parent that is missing, unfinished, of other classes, or of no use to the method.
    """
    own = PAID[method.supervision]
    if config.parent is None:
        if method.needs_parent:
            raise ConfigError(f"method={method.name} builds on another run: give parent=RUN")
        return Learns(source, method.supervision, protocol.training(source), method.supervision, own, own, [], [])
    folder = Path(config.parent)
    content_of(folder)  # raises unless it is a finished run
    record = records.read(folder)
    if not method.takes:
        raise ConfigError(f"parent={folder}: method={method.name} takes nothing from another run; leave it out")
    if tuple(record.data["classes"]) != source.classes:
        theirs, ours = ", ".join(record.data["classes"][1:]), ", ".join(source.classes[1:])
        raise ConfigError(f"parent={folder}: it knows the classes {theirs}, but data.classes gives {ours}")
    if "features" in method.takes:
        method.inherit(trained_method(folder))
    if isinstance(method, Refinement):
        method.scores = StoredScores(folder, trained_method)
    visible, labels, paid = method.supervision, own, PAID[record.supervision]
    progress = config.trainer.progress and is_first_process()
    hides = protocol.training(source)
    share, supervision = config.pseudo_masks.surest, record.supervision
    if method.supervision == "zero_shot":
        supervision = method.supervision  # what a parent with few labels has learnt, `check_leaks` refuses
        if share is not None and "masks" in method.takes:
            if hides and "shown" in hides:
                raise ConfigError(
                    f"pool={config.pool} with pseudo_masks.surest={share}: a run learns unseen classes from drawn masks"
                    " or from pseudo-masks, leave one out"
                )
            source = source.with_training_masks(
                self_training_masks(folder, source, SeenLabels(**(hides or {})), share, progress)
            )
            labels, hides = "masks and pseudo-masks", {**(hides or {}), "hidden": ()}
    elif "masks" in method.takes and method.trains:
        ids, novel, base = without_masks(config, source, protocol)
        made = pseudo_masks(folder, source, config.pseudo_masks, ids, novel, base, progress)
        source = source.with_training_masks(made, ids)
        visible, labels = "full", "pseudo-masks"
        if novel:
            labels, paid = "masks of base classes and pseudo-masks", "masks"
    lineage = [*record.lineage, record.method]
    return Learns(source, visible, hides, supervision, labels, paid, [record.id], lineage)


def with_few_labels(learns: Learns) -> Learns:
    """The same, named for what it is: with masks of unseen classes a zero-shot method learns from few shots."""
    if not (learns.limits or {}).get("shown"):
        return learns
    return learns._replace(supervision="few_shot", labels="masks, few of unseen classes")


def label_access(learns: Learns, protocol: Protocol) -> dict[str, Any]:
    """Which labels a run learns from, classes it has none of, and images that alone show the masks of a class."""
    shown = (learns.limits or {}).get("shown", {})
    labelled = {name for names in shown.values() for name in names}
    hidden = [name for name in protocol.hidden(learns.supervision) if name not in labelled]
    return {"labels": learns.labels, "hidden": hidden, **({"shown": shown} if shown else {})}


def without_masks(
    config: DictConfig, source: Source, protocol: Protocol
) -> tuple[Sequence[str], Sequence[int], Sequence[str]]:
    """Training images that need pseudo-masks, the classes these show beside drawn ones (none: all), the other images.

    Raises:
        ConfigError: an unknown choice, or drawn masks where no protocol says which classes have some.
    """
    limits, wanted = protocol.training(source) or {}, config.pseudo_masks.classes
    if wanted == "all":
        return limits.get("ids", source.split(source.train_split)), (), ()
    if wanted != "novel" or not isinstance(protocol, LadderProtocol):
        raise ConfigError(
            f"pseudo_masks.classes={wanted}: expected all, or with protocol=ladder novel, which keeps the drawn masks"
            " of base classes"
        )
    pool = protocol.labelled(source)
    return pool.images, protocol.indices(source), pool.base
