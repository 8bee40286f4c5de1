"""Everything of a training run that comes before its first step: what it is made of, and whether it may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from segladder.data.inspection.checks import check_scorable, check_training_ready, remarks
from segladder.data.labels.kinds.base import Labels
from segladder.data.sources.base import Source
from segladder.data.words.embeddings import class_embeddings
from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method
from segladder.protocols.base import Protocol
from segladder.report import record as records
from segladder.report.provenance import parameter_count
from segladder.runs import build
from segladder.runs.fitting import Run
from segladder.runs.folder import BACKBONE, START, WEIGHTS, content_of, has_learnt, is_first_process
from segladder.runs.interruption import Interruption
from segladder.runs.loading import fill, weights_of
from segladder.runs.recording import describe_scoring
from segladder.runs.studying import Study
from segladder.runs.told import Told, kept
from segladder.runs.watching.log import note, say
from segladder.stages.access import ORACLE, Access, absent_from, oracles_of, own_access, write_labelled
from segladder.stages.annotation_cost import cost_of, own_labels
from segladder.stages.claims import Ancestor, ancestors, check_claims, check_scored
from segladder.stages.inheritance import Learning, asked_labels, checked_parent, decided, provided


def prepare(config: DictConfig, folder: Path, record: records.Record, interruption: Interruption) -> Run:
    """Build everything and check the data before the first step; what takes long, such as pseudo-masks, comes last."""
    source = build.source(config)
    protocol = build.protocol(config)
    protocol.check_method(config.method.name, config.method.supervision)
    check_background(config, source, protocol)
    method = build.method(config, len(source.classes), **known(config, folder, record, source, protocol))
    protocol.check_built(method)
    learning = decided(config, method, source, protocol, checked_parent(config, method, source))
    above = ancestors(config)
    go_on_from(config.get(START), method, source)
    check_claims(above, config, source, protocol, learning.labels, learning.supervision)
    describe_learning(record, learning, above, protocol)
    describe_scoring(record, source, protocol)
    check_ready(config, folder, method, source, protocol, learning)
    train_source = provided(learning, config, method, source)
    training = build.training(config, train_source, learning.view, learning.shown)
    build.count_classes(method, training.module.dataset)
    ids = training.module.dataset.ids
    describe_images(record, folder, train_source.as_seen(learning.view.sight(train_source, learning.shown)), ids)
    study = Study.of(method, training)
    own = [*own_labels(config, source, protocol, learning, training), *study.told(source)]
    record.label_access |= described_oracle(study)
    oracles = oracles_of(record)
    access = own_access(own, absent_from(config, protocol), oracles).and_of([ancestor.access for ancestor in above])
    check_scored("data.train_split", access, source, protocol)
    record.annotation_cost = cost_of(config, source, protocol, learning, own, access)
    objects = told_objects(source, learning.labels, ids)
    record.label_access |= access.plain() | inherited_oracle(access, source) | objects
    if is_first_process():
        record.label_access["labelled"] = write_labelled(folder, access.labelled)
    record.parameters = parameter_count(method)
    record.config["method"].update(method.resolved)
    record.error = None
    held_out = len(training.held_out.ids)
    note(folder, f"{len(ids)} training images of {source.name}, {held_out} held out; scored under {protocol.name}")
    return Run(config, folder, source, protocol, training, method, record, interruption, study)


def check_background(config: DictConfig, source: Source, protocol: Protocol) -> None:
    """Raise ConfigError where a data set has no background and what was chosen needs one; the message names its key."""
    protocol.check_source(source)
    if build.method_class(config).needs_background:
        source.require_background(f"method={config.method.name}")
    labels = asked_labels(config, source, protocol)
    if labels.needs_background:
        source.require_background(f"labels={labels.words}")


def check_ready(
    config: DictConfig, folder: Path, method: Method, source: Source, protocol: Protocol, learning: Learning
) -> None:
    """Look at the data before the first step and say what looks odd.

    Raises:
        ConfigError: as `check_training_ready`.
        DataError: as `check_training_ready`, `check_scorable`, or `check_items` of the protocol.
    """
    learns = config.method.trains or method.studies
    scored = protocol.split if learns and not protocol.on_training_images else None
    check_training_ready(source, learning.paid, scored)
    if learns:
        check_scorable(source, protocol.split)
    protocol.check_items(source)
    if learns and is_first_process():
        for line in remarks(source, config.loader.augment.get("crop")):
            say(folder, f"remark: {line}")


def describe_images(record: records.Record, folder: Path, seen: Source, ids: Sequence[str]) -> None:
    """Write how many images training has, and the fingerprint of what it sees of them, into a run's record.

    Raises:
        DataError: a run that goes on began with other labels.
    """
    fingerprint, before = seen.fingerprint(ids), record.data.get("train_fingerprint")
    if before not in (None, fingerprint) and has_learnt(folder):
        raise DataError(
            f"{folder}: began with other training labels of {seen.name} ({before}, now {fingerprint}); put them back,"
            " or train anew in another folder"
        )
    record.data |= {"train_ids": len(ids), "train_fingerprint": fingerprint}


def go_on_from(start: str | None, method: Method, source: Source) -> None:
    """Give a method the weights of the run it trains on from, if it does.

    Raises:
        ConfigError: no finished run there, or one of another method, network or classes.
    """
    if start is None:
        return
    folder = Path(start)
    content_of(folder, named=START)
    theirs = records.read(folder)
    if theirs.method != method.name or tuple(theirs.data["classes"]) != source.classes:
        known = f"method={theirs.method} of {', '.join(theirs.colours.foreground(theirs.data['classes']))}"
        raise ConfigError(f"start={folder}: that run is {known}; expected method={method.name} and the classes of data")
    try:
        fill(method, weights_of(folder, theirs) or {}, folder / WEIGHTS)
    except DataError as error:
        raise ConfigError(f"start={folder}: that run has another network ({error})") from error


def described_oracle(study: Study) -> dict[str, Any]:
    """What a record says where masks named what a run found: its row in a leaderboard stands under `oracle`."""
    if not study.naming:
        return {}
    return {"selection": ORACLE, "chosen_by": f"masks of {len(study.naming)} training images, which name clusters"}


def inherited_oracle(access: Access, source: Source) -> dict[str, str]:
    """What a record says where an oracle that looked at labels of its data set chose it, or a run that it builds on."""
    return {"selection": ORACLE} if source.name in access.oracles else {}


def told_objects(source: Source, labels: Labels, ids: Sequence[str]) -> dict[str, Any]:
    """What told the objects of training images apart, where each has a label: in how many images each."""
    if not labels.by_object:
        return {}
    told = (source.told_objects(image_id) for image_id in ids)
    return {"objects": dict(sorted(Counter("components" if what is None else what[0] for what in told).items()))}


def describe_learning(
    record: records.Record, learning: Learning, above: Sequence[Ancestor], protocol: Protocol
) -> None:
    """Write what a run learns from, and from which runs, into its record."""
    record.supervision = learning.supervision
    record.label_access |= learning.access(protocol)
    record.parents, record.lineage = list(learning.parents), list(learning.lineage)
    for parent in (ancestor.record for ancestor in above if ancestor.key in (BACKBONE, START)):
        record.parents.append(parent.id)
        record.backbone["pretraining"] = f"{parent.method} on {parent.data['name']}"


def known(
    config: DictConfig, folder: Path, record: records.Record, source: Source, protocol: Protocol
) -> dict[str, Any]:
    """What a method is told of its classes that knows them by vectors; or nothing. A resumed run is told the same."""
    if not build.method_class(config).reads_class_vectors:
        return {}
    told = kept(folder)
    if told is None:
        told = told_of_classes(config, source, protocol)
        if is_first_process():
            told.save(folder)
    sources = list(told.embeddings.sources)
    record.label_access["embeddings"] = {"sources": sources, "control": config.embeddings.control}
    return told.arguments()


def told_of_classes(config: DictConfig, source: Source, protocol: Protocol) -> Told:
    """What a method is told of its classes that knows them by vectors. Raises ConfigError where there are none."""
    if "embeddings" not in config:
        raise ConfigError(f"data={source.name}: has no embeddings, expected them for method={config.method.name}")
    settings: Any = OmegaConf.to_container(config.embeddings, resolve=True)
    if not settings["sources"]:
        raise ConfigError(f"embeddings.sources is empty: give files of class vectors for method={config.method.name}")
    return Told(class_embeddings(settings, source.classes), protocol.seen(source), protocol.few_labels)
