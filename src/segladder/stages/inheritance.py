"""What a run learns from: decided first, from settings and records alone; what a parent must compute comes last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig
from pydantic import TypeAdapter

from segladder.data.labels.kinds import kinds
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.masks import Masks
from segladder.data.sources.base import Source
from segladder.data.training.views import HiddenClasses, TrainingView
from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method
from segladder.methods.image_level.base import LaterStage
from segladder.protocols.base import Protocol
from segladder.report import record as records
from segladder.runs.class_scores import StoredScores
from segladder.runs.folder import content_of, is_first_process
from segladder.runs.instantiation import instantiated
from segladder.runs.loading import trained_method
from segladder.stages.pseudo_masks import PseudoMasks
from segladder.stages.self_training import SurestAnswers


@dataclass(frozen=True)
class Learning:
    """What a run learns from.

    Attributes:
        view: what of the training images the protocol allows.
        shown: the kind of label that training items show.
        labels: the kind that people gave of the classes that the run is asked about.
        paid: the kind that people gave of its training images' other classes.
        supervision: of the run as a whole, the parent's included.
        words: what its labels are, for the record.
        parents: ids of the runs it builds on.
        lineage: methods of that run and its own parents, the first ancestor first.
        masks: masks that the parent makes before training starts; None where training reads the data set's own.
    """

    view: TrainingView
    shown: Labels
    labels: Labels
    paid: Labels
    supervision: str
    words: str
    parents: tuple[str, ...] = ()
    lineage: tuple[str, ...] = ()
    masks: PseudoMasks | SurestAnswers | None = None

    def access(self, protocol: Protocol) -> dict[str, Any]:
        """Which labels a run learns from, classes it has none of, and images that alone show the masks of a class."""
        shown = self.view.shown
        labelled = {name for names in shown.values() for name in names}
        hidden = [name for name in protocol.hidden() if name not in labelled]
        access: dict[str, Any] = {"labels": self.words, "kind": self.labels.name, "hidden": hidden}
        if settings := {key: value for key, value in asdict(cast(Any, self.labels)).items() if key != "name"}:
            access["settings"] = settings
        return access | ({"shown": dict(shown)} if shown else {})


def checked_parent(config: DictConfig, method: Method, source: Source) -> records.Record | None:
    """The record of the run that `config.parent` names, if it does.

    Raises:
        ConfigError: a parent that is missing, unfinished, of other classes, or of no use to the method.
    """
    if config.parent is None:
        if method.needs_parent:
            raise ConfigError(f"method={method.name} builds on another run: give parent=RUN")
        return None
    folder = Path(config.parent)
    content_of(folder)  # raises unless it is a finished run
    if not method.takes:
        raise ConfigError(f"parent={folder}: method={method.name} takes nothing from another run; leave it out")
    record = records.read(folder)
    if tuple(record.data["classes"]) != source.classes:
        theirs = ", ".join(record.colours.foreground(record.data["classes"]))
        ours = ", ".join(source.foreground)
        raise ConfigError(f"parent={folder}: it knows the classes {theirs}, but data.classes gives {ours}")
    return record


def decided(
    config: DictConfig, method: Method, source: Source, protocol: Protocol, parent: records.Record | None
) -> Learning:
    """What a run learns from; nothing is computed or written.

    Raises:
        ConfigError: settings that do not fit together.
    """
    labels = asked_labels(config, source, protocol)
    own, view = shown_labels(labels), protocol.training(source)
    learning = Learning(view, own, labels, own, method.supervision, view.words(own))
    if protocol.ladder and labels.partial:  # each rung has masks of base classes
        words = f"masks of base classes and {labels.name} of novel ones"
        learning = replace(learning, paid=Masks(), words=words)
    if parent is not None:
        learning = replace(learning, parents=(parent.id,), lineage=(*parent.lineage, parent.method))
        learning = from_parent(learning, config, method, source, protocol, parent)
    return with_few_labels(learning)


def asked_labels(config: DictConfig, source: Source, protocol: Protocol) -> Labels:
    """The kind of label of the classes that a run is asked about, by an annotator who looks for the others."""
    labels: Labels = instantiated(config.labels, "labels")
    return labels.naming([k for k in source.foreground_indices if source.classes[k] not in protocol.hidden()])


def shown_labels(labels: Labels) -> Labels:
    """What training items show of them: masks of seen classes to runs that know the others by name."""
    return labels if labels.shows != "nothing" else Masks()


def from_parent(
    learning: Learning,
    config: DictConfig,
    method: Method,
    source: Source,
    protocol: Protocol,
    parent: records.Record,
) -> Learning:
    """What a run learns from that builds on another."""
    theirs = labels_of(parent)
    if isinstance(learning.view, HiddenClasses):  # what a parent with few labels has learnt, `check_leaks` refuses
        return from_surest_answers(learning, learning.view, config, method)
    own = learning.labels
    learning = replace(learning, labels=theirs, paid=theirs, supervision=parent.supervision)
    if "masks" not in method.takes or not method.trains or (isinstance(theirs, Masks) and "features" in method.takes):
        dearer = learning.shown.shows == "pixels" and own.rank > theirs.rank  # it learns from labels of its own
        return replace(learning, labels=own, paid=own) if dearer else learning
    if learning.shown.words != learning.shown.name:
        raise ConfigError(
            f"labels: {learning.shown.words}, but with parent={config.parent} training reads pseudo-masks, which nobody"
            " draws; leave labels.noise out, or give it to the parent"
        )
    ids, novel, base = without_masks(config, source, protocol, learning.view)
    masks = PseudoMasks(Path(config.parent), config.pseudo_masks, tuple(ids), tuple(novel), tuple(base), theirs)
    learning = replace(learning, shown=Masks(), words="pseudo-masks", masks=masks)
    return replace(learning, paid=Masks(), words="masks of base classes and pseudo-masks") if novel else learning


def from_surest_answers(learning: Learning, view: HiddenClasses, config: DictConfig, method: Method) -> Learning:
    """What a run learns from, with a parent's surest answers as labels of hidden classes (`pseudo_masks.surest`).

    Raises:
        ConfigError: drawn masks of unseen classes as well, or a method that learns nothing from their labels.
    """
    share = config.pseudo_masks.surest
    if share is None:
        return learning
    if view.shown:
        raise ConfigError(
            f"pool={config.pool} with pseudo_masks.surest={share}: a run learns unseen classes from drawn masks"
            " or from pseudo-masks, leave one out"
        )
    masks = SurestAnswers(Path(config.parent), view, share)
    if not method.learns_unseen:
        raise ConfigError(
            f"pseudo_masks.surest={share}: method={method.name} learns nothing from labels of unseen classes; choose"
            " method=spnet or transductive with method.softmax_over=all, or method=attribute, zs3net or cagnet"
        )
    return replace(learning, view=replace(view, hidden=()), words="masks and pseudo-masks", masks=masks)


def with_few_labels(learning: Learning) -> Learning:
    """What a run learns from, called few-shot: a zero-shot method has masks of unseen classes."""
    if not learning.view.shown:
        return learning
    return replace(learning, labels=Masks(), supervision="few_shot", words="masks, few of unseen classes")


def labels_of(record: records.Record) -> Labels:
    """The kind of label that a run has of the classes it is asked about, with its settings.

    A run that builds on others may have inherited the kind; then they are those of `label_access.settings`.
    """
    kind = kinds()[record.label_kind]
    settings = record.label_access.get("settings", {})
    try:
        if unknown := {*settings} - {field.name for field in fields(cast(Any, kind))}:
            raise ValueError(f"no key {min(unknown)}")
        text = json.dumps({**settings, "name": kind.name})
        return TypeAdapter(type(kind)).validate_json(text, strict=True)
    except (TypeError, ValueError) as error:  # pydantic's is of the latter
        told = " ".join(str(error).split())
        raise DataError(f"run {record.id}: label_access.settings do not fit labels={kind.name}: {told}") from error


def without_masks(
    config: DictConfig, source: Source, protocol: Protocol, view: TrainingView
) -> tuple[Sequence[str], Sequence[int], Sequence[str]]:
    """Training images that need pseudo-masks, the classes these show beside drawn ones (none: all), the other images.

    Raises:
        ConfigError: an unknown choice, or drawn masks where no protocol says which classes have some.
    """
    wanted = config.pseudo_masks.classes
    if wanted == "all":
        return view.ids(source), (), ()
    if wanted != "novel" or (pool := protocol.labelled(source)) is None:
        raise ConfigError(
            f"pseudo_masks.classes={wanted}: expected all, or with protocol=ladder novel, which keeps the drawn masks"
            " of base classes"
        )
    return pool.images, [source.classes.index(name) for name in source.classes if name in protocol.novel], pool.base


def provided(learning: Learning, config: DictConfig, method: Method, source: Source) -> Source:
    """Give the method what it takes from its parent, and return the source that training reads; this may take long."""
    if config.parent is None:
        return source
    folder = Path(config.parent)
    if "features" in method.takes:
        method.inherit(trained_method(folder))
    if isinstance(method, LaterStage):
        method.parent = StoredScores(folder, trained_method)
    progress = config.trainer.progress and is_first_process()
    return source if learning.masks is None else learning.masks.of(source, progress)
