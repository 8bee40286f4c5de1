"""What the values of a record must be, so that a table made from records of strangers neither breaks nor misleads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from segladder.errors import DataError
from segladder.foreign import stays_inside
from segladder.metrics.declaration import Declaration

STATUSES = ("running", "finished", "interrupted", "diverged", "failed")
ENDS = ("value", "low", "high")


def check_values(value: Mapping[str, Any], place: str) -> None:
    """Raise DataError for what no run writes.

    Args:
        value: the fields of a record, each of its own type.
        place: a file or its line, which stands before what is wrong.
    """
    if value.get("status") not in STATUSES:
        raise DataError(f"{place}: status {value.get('status')}, expected {', '.join(STATUSES)}")
    try:
        Declaration.read(value.get("protocol", {}))
    except ValueError as error:
        raise DataError(f"{place}: protocol: {error}") from error
    protocol, data = value.get("protocol", {}), value.get("data", {})
    if not isinstance(protocol.get("fields", {}), dict):
        raise DataError(f"{place}: protocol.fields is {protocol['fields']!r}, expected an object")
    for name in (value.get("id"), protocol.get("name"), protocol.get("hash"), data.get("name")):
        if name not in (None, "") and not (isinstance(name, str) and stays_inside(name)):  # files are named by them
            raise DataError(f"{place}: {name!r} is no name, expected one that stays inside a folder")
    for place_of, words in (
        *((name, value.get(name, [])) for name in ("parents", "lineage")),
        ("data.classes", data.get("classes", [])),
        ("label_access.kind", [value.get("label_access", {}).get("kind") or ""]),
    ):
        if not isinstance(words, list) or not {*map(type, words)} <= {str}:
            raise DataError(f"{place}: {place_of} is {words!r}, expected text")
    for name, score in value.get("metrics", {}).items():
        if not isinstance(score, dict) or "value" not in score:
            raise DataError(f"{place}: metrics.{name} has no value, expected value, low and high")
        for end in ENDS:
            if not is_score(score.get(end)):
                raise DataError(f"{place}: metrics.{name}.{end} is {score[end]!r}, expected a finite number or null")
    for row in value.get("per_class", []):
        if not isinstance(row, dict) or type(row.get("class")) is not str:
            raise DataError(f"{place}: per_class is no list of objects with a class, expected a row for each class")


def is_score(value: Any) -> bool:
    """Whether a value is a finite number, or null where nothing was scored."""
    return value is None or (type(value) in (int, float) and math.isfinite(value))
