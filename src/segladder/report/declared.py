"""What a record says of its scores, and what is known of the scores of records that say nothing.

Records of schema 1 do not describe their scores. `undeclared.json` describes them. It never needs an edit,
since newer records describe their own scores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from segladder.metrics.declaration import Declaration
from segladder.metrics.scores import Score
from segladder.report.record import Record


def declared(record: Record) -> Declaration:
    """What a record says of its scores."""
    return Declaration.read(record.protocol) if "scores" in record.protocol else _undeclared(record)


def of_table(records: Sequence[Record]) -> Declaration:
    """What the records of one table, at least one, say of their scores; the latest words it where they differ."""
    latest_first = sorted(records, key=lambda record: (record.time, record.id), reverse=True)
    return Declaration.merged(list({id(said): said for said in map(declared, latest_first)}.values()))


@cache
def _known() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(
        files("segladder.report").joinpath("undeclared.json").read_text(encoding="utf-8")
    )
    return known


def _undeclared(record: Record) -> Declaration:
    """The scores that a record of schema 1 holds, each as it was known then."""
    curve, rows = (next(iter(lines), {}) for lines in (record.curve, record.per_class))
    protocol = (str(record.protocol.get(key) or default) for key, default in (("ranked_by", "mIoU"), ("name", "")))
    return _made(tuple(record.metrics), tuple(curve), tuple(rows), *protocol)


@lru_cache(maxsize=256)
def _made(
    metrics: tuple[str, ...], curve: tuple[str, ...], rows: tuple[str, ...], ranked_by: str, name: str
) -> Declaration:
    known = _known()
    scores = [Score.read(score) for score in known["scores"] if score["name"] in (*metrics, *curve)]
    if "tp" in rows:
        scores.append(Score.read(known["over_folds"]))
    unknown = [Score(metric) for metric in metrics if metric not in {score.name for score in scores}]
    columns = [Score.read(column) for column in known["columns"] if column["name"] in rows]
    swept = next((sweep for sweep in known["swept"] if sweep in curve), "")
    ladder = tuple(known["ladder"][name]) if name in known["ladder"] else None
    return Declaration((*scores, *unknown), tuple(columns), ranked_by, "", swept, ladder)
