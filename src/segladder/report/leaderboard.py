"""The leaderboard: a pure function of records. The same records in any order give the same tables.

A table holds one protocol hash on one set of evaluation data, never more. Runs that differ by nothing but their random
seed are one row: mean and standard deviation over seeds. Runs that did not finish stand beneath, unranked.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from segladder.report.record import Record
from segladder.report.rungs import Rung, rung_of

BESIDE = (  # what ordinary episodes hide
    *("mIoU_oracle", "threshold_oracle", "over_activation_oracle", "under_activation_oracle"),
    *("harmonic_mIoU", "seen_mIoU", "unseen_mIoU", "oracle_harmonic_mIoU", "gamma_area"),
    *("unseen_only_pixel_accuracy", "majority_rate"),
    *("base_mIoU", "novel_mIoU"),
    *("average_precision", "fb_iou", "predicted_share"),
    *("F", "J_without_last", "F_without_last"),
    *("hard_mIoU", "negative_area", "negative_empty", "swap_follows", "swap_wrong_iou"),
)
LOWER_IS_BETTER = ("negative_area", "swap_wrong_iou", "over_activation", "under_activation")
NOT_THE_METHOD = (  # settings in which runs of one row may differ
    *("seed", "fold", "runs", "resume", "tag", "logger", "hydra", "protocol", "experiment"),
    *("parent", "stages"),  # the lineage says what a run builds on
    "labels.name",  # the rung says
    *("method.backbone", "method.features.backbone", "method.criterion"),  # copies of `backbone` and `loss`
    "backbone.weights",  # the column pretraining, without the folder of a file
    *("embeddings.seed", "embeddings.cache_dir"),
    *("data.folds", "data.root", "data.cache", "data.cache_dir", "loader.workers"),
    *("trainer.progress", "trainer.panels", "trainer.checkpoint_every", "trainer.score_batch"),
)
LATER: dict[str, Any] = {"loader.augment.extra": []}  # keys that older records lack, with the value their runs had
VIEWS = ("input_size", "scales", "flip")  # of a parent's protocol: how its class scores are made


@dataclass(frozen=True)
class Row:
    """Runs of one method with one setting.

    Attributes:
        setting: values, by configuration key, in which it differs from other rows of this method and backbone.
        seeds: the seeds behind the mean, one score each.
        folds: how many folds each score is a mean of; 0 where the protocol has none.
        value: mean over seeds; None where no seed has every fold, then `note` says which are missing.
        std: sample standard deviation over seeds (n - 1); None for one seed.
        low: lower end of the 95 % interval over images of a single run, `high` the upper; None for several.
        parameters: of the network.
        train_seconds: mean over runs, like `images_per_second`.
        peak_memory_mb: the most of any run.
        runs: ids of the runs that count.
        note: what a reader must know: missing folds, repeats that do not count.
        lineage: methods of the stages before this one, the first ancestor first.
        rung: its place on the ladder of labels.
        others: means over runs of the scores that stand beside the one that ranks (`BESIDE`), those that all have.
        against_best: `difference` to the table's best row, `low`, `high` and `p_value` of the paired bootstrap
            (`segladder.report.study.with_significance`); None unless asked for, of the best row, and without counts.
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
    folds: int
    value: float | None
    std: float | None
    low: float | None
    high: float | None
    parameters: int | None
    train_seconds: float | None
    images_per_second: float | None
    peak_memory_mb: float | None
    runs: list[str]
    note: str = ""
    lineage: tuple[str, ...] = ()
    others: dict[str, float] = field(default_factory=dict)
    rung: Rung = field(default_factory=lambda: Rung(0, True, ""))
    against_best: dict[str, float] | None = None

    @property
    def label(self) -> str:
        """Method with the stages before it and the settings that tell it from its neighbours."""
        built_on = [f"from {'+'.join(self.lineage)}"] if self.lineage else []
        return " ".join([self.method, *built_on, *([f"[{self.tag}]"] if self.tag else []), *self.settings])

    @property
    def settings(self) -> list[str]:
        """Those settings, as KEY=VALUE."""
        return [f"{key.removesuffix('.name')}={value}" for key, value in self.setting.items()]


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
    """All runs under one protocol hash on one set of evaluation data (both empty for runs that never got that far)."""

    protocol: str
    hash: str
    data: str
    fingerprint: str
    metric: str
    classes: list[str]
    rows: list[Row] = field(default_factory=list)
    unranked: list[Unranked] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What was measured, on what."""
        if not self.hash:
            return "runs that ended before their protocol was known"
        return f"{self.protocol} {self.hash} on {self.data} {self.fingerprint}: {len(self.classes)} classes"


def rank(records: Iterable[Record], metric: str | None = None) -> list[Table]:
    """Tables of all records, ordered by protocol and data; rows by supervision, then score.

    Args:
        records: of any status, in any order.
        metric: name of the score that ranks; higher is better; None takes the one each protocol names.
    """
    found = sorted(records, key=_age)
    known = {record.id: record for record in found}
    tables: dict[tuple[str, str, str, str], list[Record]] = defaultdict(list)
    for record in found:
        tables[_comparable(record)].append(record)
    return [_table(tables[key], metric, known) for key in sorted(tables, key=lambda key: (not key[1], key))]


def _comparable(record: Record) -> tuple[str, str, str, str]:
    """Records with equal keys may stand in one table."""
    names = (record.protocol.get("name"), record.protocol.get("hash"))
    return tuple(str(part or "") for part in (*names, record.data.get("name"), record.data.get("val_fingerprint")))  # type: ignore[return-value]


def _age(record: Record) -> tuple[str, str, str]:
    return record.time, record.id, record.config_hash


def _table(records: Sequence[Record], metric: str | None, known: Mapping[str, Record]) -> Table:
    metric = metric or next((r.protocol["ranked_by"] for r in records if "ranked_by" in r.protocol), "mIoU")
    protocol, protocol_hash, data, fingerprint = _comparable(records[0])
    classes = next((list(r.data["classes"]) for r in records if r.data.get("classes")), [])
    scored = [record for record in records if protocol_hash and not _reason(record, metric)]
    rows = [row for group in _grouped(scored, _kind).values() for row in _rows(group, metric, known)]
    others = [record for record in records if not protocol_hash or _reason(record, metric)]
    unranked = [_unranked(record, metric) for record in others]
    return Table(protocol, protocol_hash, data, fingerprint, metric, classes, _sorted(rows, metric), unranked)


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


def _sorted(rows: Iterable[Row], metric: str) -> list[Row]:
    """Rung after rung, the best first."""
    sign = 1 if metric in LOWER_IS_BETTER else -1

    def place(row: Row) -> tuple[Any, ...]:
        return (
            row.rung,
            row.supervision,
            row.value is None,
            sign * (row.value or 0.0),
            row.method,
            row.backbone,
            row.label,
            row.runs,
        )

    return sorted(rows, key=place)


def _grouped(records: Iterable[Record], key: Any) -> dict[Any, list[Record]]:
    groups: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return groups


def _kind(record: Record) -> tuple[str, ...]:
    """What a row says in columns of its own."""
    backbone = record.backbone
    lineage = "+".join(record.lineage)
    network = (record.method, lineage, backbone.get("name"), _pretraining(backbone))
    parts = (
        record.supervision,
        rung_of(record).labels,
        *network,
        record.tag,
        record.shots,
        record.label_access.get("selection"),
    )
    return tuple("" if part is None else str(part) for part in parts)


def _pretraining(backbone: Mapping[str, Any]) -> str:
    return str(backbone.get("pretraining") or PurePath(str(backbone.get("weights") or "none")).name)


def _rows(records: Sequence[Record], metric: str, known: Mapping[str, Record]) -> list[Row]:
    """Rows of records of one kind: as many as there are settings of theirs and of the runs they build on."""
    settings = {id(record): _settings(record, known) for record in records}
    told = telling_keys(list(settings.values()))
    groups = _grouped(records, lambda record: tuple(repr(settings[id(record)].get(key)) for key in told))
    return [_row(group, {key: settings[id(group[0])].get(key) for key in told}, metric) for group in groups.values()]


def _read_by(record: Record) -> dict[str, Any]:
    """A record's configuration without the nodes that its run did not read."""
    knows_names = record.supervision == "zero_shot" or "embeddings" in record.label_access
    unread = set() if knows_names else {"embeddings"}
    unread |= {"pseudo_masks"} if record.config.get("parent") is None else set()
    return {key: value for key, value in record.config.items() if key not in unread}


def _settings(record: Record, known: Mapping[str, Record]) -> dict[str, Any]:
    """What tells a record from others of its kind; settings of the runs it builds on begin with `parent.`."""
    settings = LATER | settings_of(_read_by(record)) | _trained_on(record)
    for parent in _built_on(record, known):
        views = {f"protocol.{key}": parent.protocol.get("fields", {}).get(key) for key in VIEWS}
        settings |= {f"parent.{key}": value for key, value in (_settings(parent, known) | views).items()}
    return settings


def _built_on(record: Record, known: Mapping[str, Record]) -> list[Record]:
    """The runs a record builds on; a run that was scored again is not one of them."""
    parents = [known[parent] for parent in record.parents if parent in known]
    return [
        above
        for parent in parents
        for above in (_built_on(parent, known) if parent.lineage == record.lineage else [parent])
    ]


def _trained_on(record: Record) -> dict[str, Any]:
    """The fold that a run was trained on, where its score is that of no fold (a video's)."""
    return {"fold": record.config.get("fold")} if record.fold is None else {}


def telling_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values differ between settings; where `loss.name` differs, not also those that follow from it."""
    keys = sorted({key for setting in settings for key in setting})
    values = {key: [repr(setting.get(key)) for setting in settings] for key in keys}
    told = [key for key in keys if len(set(values[key])) > 1]

    def follows(key: str) -> bool:
        name = f"{key.split('.')[0]}.name"
        if name not in told or key == name:
            return False
        return len(set(zip(values[name], values[key], strict=True))) == len(set(values[name]))

    return [key for key in told if not follows(key)]


def settings_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Configuration values by dotted key, without those in which runs of one row may differ."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in NOT_THE_METHOD or key == "_target_":
            continue
        flat |= settings_of(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _row(records: Sequence[Record], setting: dict[str, Any], metric: str) -> Row:
    latest = {(record.seed, record.fold): record for record in sorted(records, key=_age)}
    kept = sorted(latest.values(), key=lambda record: (record.seed is not None, record.seed, record.fold or 0))
    scores, folds, missing = _scores(kept, metric)
    notes = [f"{len(records) - len(kept)} older repeats not counted"] if len(records) > len(kept) else []
    notes += [f"folds missing: {missing}"] if missing else []
    single = kept[0].metrics[metric] if len(kept) == 1 and scores else {}
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
        seeds=list(scores),
        folds=folds,
        value=statistics.fmean(scores.values()) if scores else None,
        std=statistics.stdev(scores.values()) if len(scores) > 1 else None,
        low=single.get("low"),
        high=single.get("high"),
        parameters=first.parameters,
        train_seconds=_mean(record.train_seconds for record in kept),
        images_per_second=_mean(record.images_per_second for record in kept),
        peak_memory_mb=max((r.peak_memory_mb for r in kept if r.peak_memory_mb is not None), default=None),
        runs=[record.id for record in kept if record.seed in scores],
        note="; ".join(notes),
        lineage=tuple(first.lineage),
        others=_others(kept, metric, complete=bool(scores)),
        rung=rung_of(first),
    )


def _others(records: Sequence[Record], metric: str, complete: bool) -> dict[str, float]:
    found = {name: _mean_score(records, name) for name in BESIDE if name != metric}
    if complete and any(record.fold is not None for record in records):
        found["fb_iou_pooled"] = _mean(map(_pooled_fb_iou, _grouped(records, lambda record: record.seed).values()))
    return {name: value for name, value in found.items() if value is not None}


def _pooled_fb_iou(records: Sequence[Record]) -> float | None:
    """Mean IoU of background and foreground, the classes of all folds pooled as one foreground."""
    rows = [row for record in records for row in record.per_class]
    if not rows or any("tp" not in row for row in rows):
        return None
    background = [row for row in rows if row["class"] == "background"]
    kept, invented, missed = (sum(row[key] for row in background) for key in ("tp", "fn", "fp"))
    found = sum(row["tp"] + row["fn"] for row in rows if row["class"] != "background") - missed  # as whichever class
    mean: float = (kept / max(1, kept + invented + missed) + found / max(1, found + invented + missed)) / 2
    return mean


def _mean_score(records: Sequence[Record], name: str) -> float | None:
    values = [record.metrics.get(name, {}).get("value") for record in records]
    return None if None in values else statistics.fmean(value for value in values if value is not None)


def _scores(records: Sequence[Record], metric: str) -> tuple[dict[int | None, float], int, str]:
    """One score per seed, of how many folds it is the mean, and which folds other seeds lack (`seed 0: 2, 3`)."""
    expected = _expected_folds(records)
    scores: dict[int | None, float] = {}
    missing = []
    for seed, runs in _grouped(records, lambda record: record.seed).items():
        values = {run.fold: float(run.metrics[metric]["value"] or 0.0) for run in runs}
        if lacking := sorted(set(expected) - {fold for fold in values if fold is not None}):
            missing.append(f"seed {seed}: {', '.join(map(str, lacking))}")
        else:
            scores[seed] = statistics.fmean(values.values())
    return scores, len(expected), "; ".join(missing)


def _expected_folds(records: Sequence[Record]) -> list[int]:
    """Folds that a mean needs: the protocol's `folds` (their classes or how many), none for runs without a fold."""
    if all(record.fold is None for record in records):
        return []
    folds = records[0].protocol.get("fields", {}).get("folds", 4)  # PASCAL-5i and COCO-20i have four
    return list(range(folds if isinstance(folds, int) else len(folds)))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
