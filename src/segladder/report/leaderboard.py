"""The leaderboard: a pure function of records. The same records in any order give the same tables.

A table holds one protocol hash on one set of evaluation data, never more. Runs that differ by nothing but their random
seed are one row: the mean, and the score of each seed. Runs that did not finish stand beneath, unranked.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from segladder.metrics.bootstrap import Comparison
from segladder.metrics.declaration import Declaration
from segladder.metrics.scores import Score
from segladder.report.declared import of_table
from segladder.report.fields import Place, set_apart
from segladder.report.means import agree, grouped, mean, mean_annotation, of_seeds, over_runs, unlike
from segladder.report.record import Record
from segladder.report.record import key as id_and_hash
from segladder.report.settings import Settings, draw_of, knows_parents, telling_keys, typed, value_of
from segladder.report.standing import Standing, standing_of


@dataclass(frozen=True)
class Row:
    """Runs of one method with one setting.

    Attributes:
        setting: values, by configuration key, in which it differs from other rows of this method and backbone.
        seeds: the seeds behind the mean; none where nothing depends on one, since nothing was trained.
        scores: of each seed.
        folds: how many folds each score is a mean of; 0 where the protocol has none.
        value: mean over seeds; None where no seed has every fold, then `note` says which are missing.
        low: lower end of the 95 % interval over images (and seeds, from five on), `high` the upper; None where counts
            of the runs are not at hand (`segladder.report.counted`).
        parameters: of the network.
        train_seconds: mean over runs, like `images_per_second`.
        peak_memory_mb: the most of any run.
        annotation_seconds: of human work behind its labels, mean over runs; None where one of them does not know it.
        novel_annotation_seconds: of that the work on novel classes, where the protocol has some.
        runs: ids of the runs that count.
        note: what a reader must know: missing folds, repeats that do not count.
        lineage: methods of the stages before this one, the first ancestor first.
        standing: its place on the ladder of labels, see `Standing`.
        others: means, over the runs behind `value`, of the scores that stand beside the one that ranks (shown in
            tables), those that all have.
        against_best: the paired difference to the table's best row (`Counted.with_significance`); None unless asked
            for, of the best row, without counts.
    """

    supervision: str
    method: str
    backbone: str
    pretraining: str
    tag: str
    shots: int | None
    selection: str
    setting: dict[str, Any]
    seeds: list[int | None]
    scores: list[float]
    folds: int
    value: float | None
    low: float | None
    high: float | None
    parameters: int | None
    train_seconds: float | None
    images_per_second: float | None
    peak_memory_mb: float | None
    annotation_seconds: float | None
    novel_annotation_seconds: float | None
    runs: list[str]
    note: str = ""
    lineage: tuple[str, ...] = ()
    others: dict[str, float] = field(default_factory=dict)
    standing: Standing = field(default_factory=lambda: Standing(0, True, ""))
    against_best: Comparison | None = None

    @property
    def label(self) -> str:
        """Method with the stages before it and the settings that tell it from its neighbours."""
        built_on = [f"from {'+'.join(self.lineage)}"] if self.lineage else []
        return " ".join([self.method, *built_on, *([f"[{self.tag}]"] if self.tag else []), *self.settings])

    @property
    def settings(self) -> list[str]:
        """The settings that tell the row from its neighbours, as KEY=VALUE."""
        return [f"{key.removesuffix('.name')}={typed(value)}" for key, value in self.setting.items()]


@dataclass(frozen=True)
class Unranked:
    """A run without a score, and why."""

    run: str
    method: str
    backbone: str
    seed: int | None
    status: str
    reason: str


@dataclass(frozen=True)
class Table:
    """All runs under one protocol hash on one set of evaluation data (both empty for runs that never got that far).

    Attributes:
        metric: name of the score that ranks.
        declared: what the runs say of their scores.
        called: the data set in titles: a user's folder by its name.
        apart: in which fields its protocol is unlike those of this name beside it, in words.
        background: whether the first class is one.
    """

    protocol: str
    hash: str
    data: str
    fingerprint: str
    metric: str
    classes: list[str]
    rows: list[Row] = field(default_factory=list)
    unranked: list[Unranked] = field(default_factory=list)
    declared: Declaration = field(default_factory=Declaration)
    called: str = ""
    apart: str = ""
    background: bool = True

    @property
    def foreground(self) -> list[str]:
        """The table's classes without the background."""
        return self.classes[self.background :]

    @property
    def score(self) -> Score:
        """The score that ranks."""
        return self.declared[self.metric]

    @property
    def best(self) -> Row | None:
        """The row that ranks first; None where none is ranked."""
        ranked = [row for row in self.rows if row.value is not None]
        return max(ranked, key=lambda row: self.score.sign * (row.value or 0.0), default=None)

    @property
    def title(self) -> str:
        """What was measured, on what."""
        if not self.hash:
            return "runs that ended before their protocol was known"
        asked = f"{self.protocol} {self.hash}{self.apart and f' ({self.apart})'}"
        return f"{asked} on {self.called} {self.fingerprint}: {len(self.classes)} classes"


def rank(
    records: Iterable[Record], metric: str | None = None, known: Mapping[str, Record] | None = None
) -> list[Table]:
    """Tables of all records, ordered by protocol and data; rows by supervision, then score.

    Args:
        records: of any status, in any order.
        metric: name of the score that ranks, the best first; None takes the one each protocol names.
        known: all records by id, where those to rank build on others.
    """
    found = sorted(records, key=_age)
    known = {record.id: record for record in found} if known is None else known
    tables: dict[Place, list[Record]] = defaultdict(list)
    for record in found:
        tables[_comparable(record)].append(record)
    apart = set_apart(tables)
    places = sorted(tables, key=lambda place: (not place[1], place))
    return [replace(_table(tables[place], metric, known), apart=apart[place]) for place in places]


def _comparable(record: Record) -> Place:
    """Records with equal keys may stand in one table."""
    names = (record.protocol.get("name"), record.protocol.get("hash"))
    return tuple(str(part or "") for part in (*names, record.data.get("name"), record.data.get("val_fingerprint")))  # type: ignore[return-value]


def _age(record: Record) -> tuple[str, str, str]:
    return record.time, record.id, record.config_hash


def _table(records: Sequence[Record], metric: str | None, known: Mapping[str, Record]) -> Table:
    declared = of_table(records)
    metric = metric or declared.ranked_by
    protocol, protocol_hash, data, fingerprint = _comparable(records[0])
    classes = next((list(r.data["classes"]) for r in records if r.data.get("classes")), [])
    scored = [record for record in records if protocol_hash and not _reason(record, metric)]
    rows = [row for group in grouped(scored, _kind).values() for row in _rows(group, metric, declared, known)]
    rows = _told_apart(rows)
    others = [record for record in records if not protocol_hash or _reason(record, metric)]
    unranked = [_unranked(record, metric) for record in others]
    rows = _sorted(rows, declared[metric].sign)
    background = all(record.data.get("background", True) for record in records)
    place = protocol, protocol_hash, data, fingerprint
    titles = {record.data_title for record in records if record.data.get("title")}
    called = titles.pop() if len(titles) == 1 else data
    return Table(*place, metric, classes, rows, unranked, declared, called, background=background)


def _reason(record: Record, metric: str) -> str:
    """Why a record has no rank; empty if it has one."""
    if record.status != "finished":
        lines = (record.error or "").strip().splitlines()
        return lines[-1] if lines else record.status
    return "" if record.metrics.get(metric, {}).get("value") is not None else f"no {metric}"


def _unranked(record: Record, metric: str) -> Unranked:
    backbone = str(record.backbone.get("name") or "")
    reason = _reason(record, metric) or "no protocol"
    return Unranked(record.id, record.method, backbone, record.seed, record.status, reason)


def _sorted(rows: Iterable[Row], sign: int) -> list[Row]:
    """Rung after rung, the best first; times `sign` higher is better."""

    def place(row: Row) -> tuple[Any, ...]:
        scored = row.value is None, -sign * (row.value or 0.0)
        return row.standing, row.supervision, *scored, row.method, row.backbone, row.label, row.runs

    return sorted(rows, key=place)


def _kind(record: Record) -> tuple[str, ...]:
    """What a row says in columns of its own."""
    backbone = record.backbone
    lineage = "+".join(record.lineage)
    network = (record.method, lineage, backbone.get("name"), _pretraining(backbone))
    parts = (
        record.supervision,
        standing_of(record).labels,
        *network,
        record.tag,
        record.shots,
        record.label_access.get("selection"),
    )
    return tuple("" if part is None else str(part) for part in parts)


def _pretraining(backbone: Mapping[str, Any]) -> str:
    return str(backbone.get("pretraining") or _file_name(str(backbone.get("weights") or "none")))


@lru_cache
def _file_name(path: str) -> str:
    return PurePath(path).name


def _rows(records: Sequence[Record], metric: str, declared: Declaration, known: Mapping[str, Record]) -> list[Row]:
    """Rows of records of one kind: as many as there are settings of theirs and of the runs they build on."""
    among = Settings(known)
    settings = {id(record): among.of(record) for record in records}
    told = telling_keys(list({id(one): one for one in settings.values()}.values()))
    groups = grouped(records, lambda record: tuple(repr(value_of(settings[id(record)], key)) for key in told))
    own = [{key: value_of(settings[id(group[0])], key) for key in told} for group in groups.values()]
    return [_row(group, setting, metric, declared, known) for group, setting in zip(groups.values(), own, strict=True)]


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """These rows; where rows of one name learnt from different kinds of label, the name says which."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        kinds[row.label].add(row.standing.labels)
    return [
        replace(row, setting={"labels": row.standing.labels} | row.setting) if len(kinds[row.label]) > 1 else row
        for row in rows
    ]


def _is_seedless(record: Record, known: Mapping[str, Record]) -> bool:
    """Whether nothing depends on the random seed: neither the run nor any before it trained, no weights are random."""
    method = record.config.get("method", {})
    random = bool(record.backbone) and not (record.backbone.get("weights") or record.backbone.get("pretraining"))
    if random or method.get("trains", True):
        return False
    above = record.lineage or record.config.get("parent") or record.backbone.get("pretraining")  # runs of before
    return all(_is_seedless(known[run], known) if run in known else not above for run in record.parents)


def _row(
    records: Sequence[Record], setting: dict[str, Any], metric: str, declared: Declaration, known: Mapping[str, Record]
) -> Row:
    seedless = agree(records, metric) and all(_is_seedless(record, known) for record in records)
    latest = {(not seedless and record.seed, record.fold): record for record in sorted(records, key=_age)}
    kept = sorted(latest.values(), key=lambda record: (record.seed is not None, record.seed, record.fold or 0))
    scores, folds, missing = of_seeds(kept, metric, seedless)
    complete = [record for record in kept if (None if seedless else record.seed) in scores]
    single = kept[0].metrics[metric] if len(kept) == 1 and scores and kept[0].has_intervals else {}
    first = kept[0]
    return Row(
        supervision=first.supervision,
        method=first.method,
        backbone=str(first.backbone.get("name") or ""),
        pretraining=_pretraining(first.backbone),
        tag=first.tag or "",
        shots=first.shots,
        selection=str(first.label_access.get("selection") or ""),
        setting=setting,
        seeds=[] if seedless else list(scores),
        scores=list(scores.values()),
        folds=folds,
        value=statistics.fmean(scores.values()) if scores else None,
        low=single.get("low"),
        high=single.get("high"),
        parameters=first.parameters,
        train_seconds=mean(record.train_seconds for record in kept),
        images_per_second=mean(record.images_per_second for record in kept),
        peak_memory_mb=max((r.peak_memory_mb for r in kept if r.peak_memory_mb is not None), default=None),
        annotation_seconds=mean_annotation(complete),
        novel_annotation_seconds=mean_annotation(complete, "novel_seconds"),
        runs=[record.id for record in complete],
        note="; ".join(_notes(records, kept, missing, seedless, known)),
        lineage=tuple(first.lineage),
        others=_others(
            [replace(record, seed=None) for record in complete] if seedless else complete,
            [score for score in declared.shown("table") if score.name != metric],
        ),
        standing=standing_of(first),
    )


def _notes(
    records: Sequence[Record], kept: Sequence[Record], missing: str, seedless: bool, known: Mapping[str, Record]
) -> list[str]:
    """What a reader of a row has to know: repeats, missing folds, records that differ, parents that are not there."""
    repeats = len({id_and_hash(record) for record in records}) - len(kept)
    notes = [_not_counted(records, repeats)] if repeats and not seedless else []
    notes += [f"folds missing: {missing}"] if missing else []
    notes += unlike(records, kept)
    alone = sum(not knows_parents(record, known) for record in kept)
    return [*notes, f"what {alone} of {len(kept)} runs build on is not at hand"] if 0 < alone < len(kept) else notes


def _not_counted(records: Sequence[Record], repeats: int) -> str:
    """Why some runs of equal seed and fold do not count: they are older, and may have had other labels."""
    draws = {(r.seed, r.fold, repr(draw_of(r))) for r in records}
    drawn = len(draws) > len({(r.seed, r.fold) for r in records})
    told = "1 older repeat" if repeats == 1 else f"{repeats} older repeats"
    return f"{told} not counted{', of other labels: give each draw a seed of its own' if drawn else ''}"


def _others(records: Sequence[Record], scores: Sequence[Score]) -> dict[str, float]:
    found = {score.name: over_runs(records, score) for score in scores}
    return {name: value for name, value in found.items() if value is not None}
