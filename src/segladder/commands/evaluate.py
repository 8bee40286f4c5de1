"""`segladder evaluate`: score a run's weights under a protocol, as a record beside the run's own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import torch
from omegaconf import DictConfig

from segladder.data.labels.kinds import kinds
from segladder.data.sources.base import Source
from segladder.door.packing import home, opened
from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method, Precision
from segladder.protocols.base import Protocol
from segladder.protocols.fields import Presence
from segladder.report import record as records
from segladder.report.provenance import git_state, versions
from segladder.runs import build
from segladder.runs.choices import check_choices
from segladder.runs.composition import check_keys, given_words
from segladder.runs.loading import chosen_device, load_run
from segladder.runs.recording import describe_scoring
from segladder.runs.scoring import fill_scores, print_scores, write_panels
from segladder.settings import Count, Device, Positive
from segladder.stages.access import ANY, Access, access_of
from segladder.stages.annotation_cost import cost_under
from segladder.stages.claims import Ancestor, check_kinds, check_leaks, check_rung, check_scored
from segladder.stages.scored_again import scored_again


class Keys(TypedDict, total=False):
    """The keys of the command; `data` and `protocol` are checked beside what the run has of them."""

    run: str
    shots: Positive | None
    presence: Presence | None
    device: Device | None
    batch_size: Positive
    precision: Precision
    progress: bool
    panels: Count
    data: Any
    protocol: Any
    loader: Any
    embeddings: Any


def run(config: DictConfig) -> int:
    """Score and write RUN/evaluations/PROTOCOL-HASH/record.json; few-shot runs: PROTOCOL-HASH-Kshot.

    Scored again on other labels or images, a run has a further folder that ends in their fingerprint. What is made of a
    packed run RUN.zip goes to the folder RUN beside it.
    """
    check_keys(config, Keys)
    device = chosen_device(config.device)
    with opened(Path(config.run)) as folder:
        run_config, record, method = load_run(folder)
        scored = scored_again(config, run_config)
        check_choices(scored)
        source, protocol = build.source(scored), build.protocol(scored)
        protocol.check_built(method)
        check_classes(method, source, record.data["classes"])
        access = access_of(folder, record)
        check_account(folder, record, access, source, protocol, scored.protocol)
    method.to(device)
    method.answers_in = config.precision
    result = protocol.score(method, source, batch_size=config.batch_size, progress=config.progress)
    describe_scoring(record, source, protocol)
    record.data["val_images"] = source.image_fingerprint(protocol.scored_somewhere(source))
    if (drawn := scored.protocol.get("pool_seed")) != run_config.get("pool_seed", drawn):
        record.protocol["pool_seed"] = drawn
    if config.precision != "32-true":
        record.protocol["precision"] = config.precision
    rung, place = place_of(record, home(Path(config.run)) / "evaluations")
    place.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    record.parents, record.id = [record.id], f"{record.id}-{rung}"
    record.time = now.isoformat(timespec="seconds")
    record.status, record.error = "finished", None  # of the scoring too
    record.commit, record.dirty = git_state()  # of the scoring; the parent's record has that of the training
    record.versions, record.threads = versions(), torch.get_num_threads()
    record.command = " ".join(["segladder", "evaluate", *map(shlex.quote, given_words())])
    if record.annotation_cost:
        record.annotation_cost = cost_under(record.annotation_cost, access, source, protocol, scored)
    fill_scores(record, result, place)
    write_panels(method, source, protocol, result, place, config.panels)
    records.write(record, place)
    print_scores(record, place)
    return 0


def place_of(record: records.Record, evaluations: Path) -> tuple[str, Path]:
    """What tells an evaluation from the others of its run, and its folder; one of other images is left alone."""
    words = [str(record.protocol["hash"]), *rung_words(record)]
    place = evaluations / "-".join([record.protocol["name"], *words])
    labels, images = (str(record.data[key]) for key in ("val_fingerprint", "val_images"))
    with suppress(DataError):
        before = records.read(place).data
        if before.get("val_fingerprint") != labels:
            words.append(labels[:8])
        elif before.get("val_images", images) != images:  # older versions looked at the labels alone
            words.append(images[:8])
    return "-".join(words), evaluations / "-".join([record.protocol["name"], *words])


def rung_words(record: records.Record) -> list[str]:
    """What tells apart the evaluations of one run under one hash."""
    presence, precision = record.protocol.get("presence", "always"), record.protocol.get("precision")
    shots = [] if record.shots is None else [f"{record.shots}shot"]
    drawn = [f"pool_seed{seed}"] if (seed := record.protocol.get("pool_seed")) is not None else []
    return [*shots, *drawn, *([] if presence == "always" else [presence]), *([precision] if precision else [])]


def check_account(
    folder: Path, record: records.Record, access: Access, source: Source, protocol: Protocol, asked: DictConfig
) -> None:
    """Raise ConfigError if a run, or one that it builds on, has learnt from what the protocol says it has not.

    Args:
        folder: of the run.
        record: its record.
        access: what it has seen with all that it builds on.
        source: the data set.
        protocol: the one asked for.
        asked: its settings.
    """
    ancestor = Ancestor(f"run={folder}", record, access)
    check_rung(ancestor, asked, source, protocol, record.supervision)
    said = kinds().get(record.label_access.get("kind", ""))  # older versions do not say
    if protocol.ladder and said is not None and record.supervision != "none":
        check_kinds(ancestor, protocol.novel, said)
    if protocol.few_labels and protocol.place().shots != record.shots:
        raise ConfigError(
            f"run={folder}: training was shown {record.shots or 'no'} masks of each unseen class, but the protocol says"
            f" pool={protocol.place().shots}; give protocol.pool={record.shots or 'null'}"
        )
    if not protocol.few_labels and ANY not in ancestor.access.seen:  # of older versions, some are alone by now
        check_leaks(ancestor, protocol.place().fold, protocol)
    check_scored(ancestor.named, ancestor.access, source, protocol)


def check_classes(method: Method, source: Source, learnt: Sequence[str]) -> None:
    """Raise ConfigError if a method that answers with the classes it learnt meets data with others."""
    if method.answers != "episodes" and tuple(learnt) != source.classes:
        raise ConfigError(
            f"data={source.name}: holds {', '.join(source.foreground)}, but the run knows {', '.join(learnt)}"
        )
