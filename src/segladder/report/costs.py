"""Annotation costs of records of older versions, which left out the costs of the runs that a run builds on.

What can be told from the records of a run's ancestors is added; where that is not enough, the cost is not known, and
charts leave the run out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from segladder.data.labels.annotation_cost import SCHEME
from segladder.data.labels.kinds import kinds
from segladder.report.record import Record

OLDER = "older"  # key of a cost whose run is of an older version: `recomputed`, or `unknown` with `seconds` None
WITHIN = {"train": ("train_aug", "trainval"), "train_sbd": ("train_aug",)}  # VOC's splits, and those that hold them


def with_costs_of_today(records: Iterable[Record]) -> list[Record]:
    """The records, their costs with all labels behind them, or with `seconds` None where nobody can tell any more."""
    records = list(records)
    by_id = {record.id: record for record in records}
    return [of_today(record, by_id) for record in records]


def of_today(record: Record, by_id: Mapping[str, Record]) -> Record:
    """A record with its cost as today's version counts it; `by_id` holds its ancestors, as far as they are known."""
    cost = record.annotation_cost
    if not cost or "scheme" in cost:
        return record
    if "novel_seconds" not in cost:  # means of VOC for 20 classes, whatever was labelled
        return _unknown(record)
    parents = [by_id.get(run) for run in record.parents]
    if None in parents:
        return _unknown(record)
    for parent in (of_today(parent, by_id) for parent in parents if parent is not None):
        seconds = _joined(record, cost, parent)
        if seconds is None:
            return _unknown(record)
        if seconds != cost["seconds"]:
            cost = {**cost, "seconds": seconds, OLDER: "recomputed"}
    return replace(record, annotation_cost={**cost, "scheme": SCHEME})


def flagged(records: Iterable[Record]) -> dict[str, list[str]]:
    """Ids of the runs of older versions by what became of their costs: `recomputed` or `unknown`."""
    found: dict[str, list[str]] = {}
    for record in records:
        if (what := (record.annotation_cost or {}).get(OLDER)) is not None:
            found.setdefault(what, []).append(record.id)
    return found


def _unknown(record: Record) -> Record:
    cost = record.annotation_cost or {}
    return replace(record, annotation_cost={**cost, "seconds": None, "novel_seconds": None, OLDER: "unknown"})


def _joined(record: Record, cost: Mapping[str, Any], parent: Record) -> float | None:
    """Seconds of a run's labels and those behind its parent, each once; None where the records do not tell."""
    theirs = parent.annotation_cost
    if not theirs or theirs.get("seconds") is None:
        return None
    before = theirs["seconds"] - theirs["novel_seconds"]  # supports of a parent are not learnt from
    if record.id.startswith(f"{parent.id}-") or not record.config["method"].get("trains", bool(record.checkpoint)):
        return float(round(max(before, cost["seconds"] - cost["novel_seconds"]) + cost["novel_seconds"], 1))
    ranks = [kinds()[each["labels"]].rank if each["labels"] in kinds() else 0 for each in (cost, theirs)]
    known = _same_images(record, parent)
    known |= _holds(parent, record) and ranks[0] <= ranks[1]
    known |= _holds(record, parent) and ranks[1] <= ranks[0]
    return float(max(cost["seconds"], theirs["seconds"])) if known else None


def _place(record: Record) -> tuple[Any, ...]:
    """What decides which training images a run is shown, but for its split."""
    loader = record.config["loader"]
    return record.data["name"], record.fold, record.config.get("pool"), loader["held_out"], tuple(loader["without"])


def _same_images(record: Record, parent: Record) -> bool:
    splits = [each.config["data"]["train_split"] for each in (record, parent)]
    counts = [each.data.get("train_ids") for each in (record, parent)]
    return _place(record) == _place(parent) and splits[0] == splits[1] and counts[0] == counts[1]


def _holds(larger: Record, smaller: Record) -> bool:
    """Whether a run's training images are known to hold those of another."""
    splits = [each.config["data"]["train_split"] for each in (smaller, larger)]
    return _place(larger) == _place(smaller) and larger.fold is None and splits[1] in WITHIN.get(splits[0], ())
