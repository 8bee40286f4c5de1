"""Means over the runs of a leaderboard's row: over folds and seeds, what their labels cost, the score of each class.

Also remarks on what such runs should have in common and have not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from segladder.metrics.pooling import POOLED
from segladder.metrics.scores import Score
from segladder.report.checked import is_score
from segladder.report.record import Record
from segladder.report.record import key as id_and_hash


def mean_annotation(records: Sequence[Record], key: str = "seconds") -> float | None:
    """Mean annotation cost of runs in seconds, None where one does not know it.

    Args:
        records: of one row.
        key: `seconds` for all labels, `novel_seconds` for those of novel classes.
    """
    costs = [(record.annotation_cost or {}).get(key) for record in records]
    return fmean(cost for cost in costs if cost is not None) if costs and None not in costs else None


def class_means(records: Sequence[Record], score: str) -> dict[str, float]:
    """Mean of a score of every class or video that some run of a row has scored."""
    values = defaultdict(list)
    for line in (line for record in records for line in record.per_class):
        if (value := line.get(score)) is not None and is_score(value):
            values[str(line["class"])].append(value)
    return {name: fmean(scores) for name, scores in values.items()}


def of_seeds(records: Sequence[Record], metric: str, seedless: bool) -> tuple[dict[int | None, float], int, str]:
    """One score per seed, of how many folds it is the mean, and which folds other seeds lack (`seed 0: 2, 3`)."""
    expected = _expected_folds(records)
    scores: dict[int | None, float] = {}
    missing = []
    for seed, runs in grouped(records, lambda record: None if seedless else record.seed).items():
        values = {run.fold: float(run.metrics[metric]["value"] or 0.0) for run in runs}
        if lacking := sorted(set(expected) - {fold for fold in values if fold is not None}):
            missing.append(f"seed {seed}: {', '.join(map(str, lacking))}")
        else:
            scores[seed] = fmean(values.values())
    return scores, len(expected), "; ".join(missing)


def _expected_folds(records: Sequence[Record]) -> list[int]:
    """Folds that a mean needs: the protocol's `folds` (their classes or how many), none for runs without a fold."""
    if all(record.fold is None for record in records):
        return []
    folds = records[0].protocol.get("fields", {}).get("folds", 4)  # PASCAL-5i and COCO-20i have four
    return list(range(folds if isinstance(folds, int) else len(folds)))


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are known, None where none is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def over_runs(records: Sequence[Record], score: Score) -> float | None:
    """A score's mean over runs of seeds that have every fold; or of what pools the folds of a seed."""
    pooled = POOLED.get(score.over_folds)
    if pooled is None:
        return _mean_score(records, score.name)
    if all(record.fold is None for record in records):
        return None
    seeds = grouped(records, lambda record: record.seed).values()
    return mean(pooled([row for record in runs for row in record.per_class]) for runs in seeds)


def _mean_score(records: Sequence[Record], name: str) -> float | None:
    values = [record.metrics.get(name, {}).get("value") for record in records]
    return None if None in values or not values else fmean(value for value in values if value is not None)


def agree(records: Sequence[Record], metric: str) -> bool:
    """Whether runs of equal folds have one score: with other seeds, other images may be labelled or supports."""
    found = grouped(records, lambda record: record.fold).values()
    scores = ([record.metrics[metric]["value"] or 0.0 for record in runs] for runs in found)
    return all(max(values) - min(values) < 1e-6 for values in scores)


def differ(first: Record, second: Record) -> bool:
    """Whether two records of one run say other scores, or were scored on other labels."""
    if first.data.get("val_fingerprint") != second.data.get("val_fingerprint"):
        return True
    values = (
        (first.metrics[name]["value"], second.metrics[name]["value"]) for name in first.metrics.keys() & second.metrics
    )
    return any((one is None) != (other is None) or abs((one or 0.0) - (other or 0.0)) > 1e-6 for one, other in values)


def unlike(records: Sequence[Record], counted: Sequence[Record]) -> list[str]:
    """What runs of one row should have in common and have not, in words.

    Args:
        records: of the row; one run may stand in several of them, of which one may be edited.
        counted: those of which the score is the mean, one for each seed and fold.
    """
    copies = grouped(records, id_and_hash).values()
    folds = grouped(counted, lambda record: record.fold).values()
    notes = ["records of one run differ"] if any(differ(runs[0], run) for runs in copies for run in runs[1:]) else []
    asked = [{repr(run.protocol.get("items")) for run in runs} for runs in folds]  # another data set draws others
    notes += ["runs were asked other items"] if any(len(items) > 1 for items in asked) else []
    known = [{str(run.data["train_ids"]) for run in runs if run.data.get("train_ids") is not None} for runs in folds]
    numbers = sorted({number for found in known if len(found) > 1 for number in found}, key=lambda n: (len(n), n))
    return [*notes, *([f"runs were trained on {' or '.join(numbers)} images"] if numbers else [])]


def grouped(records: Iterable[Record], key: Any) -> dict[Any, list[Record]]:
    """Records by what a function `key` makes of each, in their order."""
    groups: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return groups
