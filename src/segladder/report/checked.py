"""What the values of a record must be, so that a table made from records of strangers neither breaks nor misleads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segladder.data.hashing import hashed_fields
from segladder.errors import DataError
from segladder.foreign import stays_inside
from segladder.metrics.declaration import Declaration

STATUSES = ("running", "finished", "interrupted", "diverged", "failed")
ENDS = ("value", "low", "high")
LARGEST = 1e18  # of any number
LONGEST = 120  # characters of a name, which files may be named by
MOST_FOLDS = 1000
NODES = ("method", "labels", "labels.noise", "protocol")  # of the configuration, in which tables look for settings
COSTS = ("seconds", "novel_seconds", "at_least")
OLDER = ("recomputed", "unknown")  # what becomes of costs of older versions, see `segladder.report.costs`


def check_values(value: Mapping[str, Any], place: str) -> None:
    """Raise DataError for what no run writes.

    Args:
        value: the fields of a record, each of its own type.
        place: a file or its line, which stands before what is wrong.
    """
    if value.get("status") not in STATUSES:
        raise DataError(f"{place}: status {value.get('status')}, expected {', '.join(STATUSES)}")
    if value.get("status") == "finished" and not value.get("method"):
        raise DataError(f"{place}: finished, but names no method")
    try:
        declared = Declaration.read(value.get("protocol", {}))
    except ValueError as error:
        raise DataError(f"{place}: protocol: {error}") from error
    if odd := [name for name, number in value.items() if type(number) in (int, float) and not is_score(number)]:
        raise DataError(f"{place}: {odd[0]} is no finite number")
    protocol = value.get("protocol", {})
    if not isinstance(protocol.get("fields", {}), dict):
        raise DataError(f"{place}: protocol.fields is {protocol['fields']!r}, expected an object")
    check_text(value, place)
    check_hash(protocol, place)
    check_nodes(value, place)
    check_cost(value.get("annotation_cost") or {}, place)
    check_scores(value, declared, place)


def check_text(value: Mapping[str, Any], place: str) -> None:
    """Raise DataError where a name leads out of a folder or is too long, or what people read is no text."""
    protocol, data = value.get("protocol", {}), value.get("data", {})
    for name in (value.get("id"), protocol.get("name"), protocol.get("hash"), data.get("name")):
        if name in (None, ""):
            continue
        if not (isinstance(name, str) and len(name) <= LONGEST and stays_inside(name)):  # files are named by them
            raise DataError(f"{place}: {name!r} is no name, expected one that stays inside a folder")
    for place_of, words in (
        *((name, value.get(name, [])) for name in ("parents", "lineage")),
        ("data.classes", data.get("classes", [])),
        ("data.title", [data.get("title") or ""]),
        ("annotation_cost.labels", [(value.get("annotation_cost") or {}).get("labels") or ""]),
        ("label_access.kind", [value.get("label_access", {}).get("kind") or ""]),
    ):
        if not isinstance(words, list) or not {*map(type, words)} <= {str}:
            raise DataError(f"{place}: {place_of} is {words!r}, expected text")


def check_scores(value: Mapping[str, Any], declared: Declaration, place: str) -> None:
    """Raise DataError where scores, rows of classes or the curve hold what is no finite number."""
    shares = {score.name for score in declared.scores if score.unit == "share"}
    for name, score in value.get("metrics", {}).items():
        if not isinstance(score, dict) or "value" not in score:
            raise DataError(f"{place}: metrics.{name} has no value, expected value, low and high")
        for end in ENDS:
            if not is_score(score.get(end)):
                raise DataError(f"{place}: metrics.{name}.{end} is {score[end]!r}, expected a finite number or null")
        if name in shares and not -1 <= (score["value"] or 0) <= 1:
            raise DataError(f"{place}: metrics.{name}.value is {score['value']!r}, expected a share")
    for row in value.get("per_class", []):
        if not isinstance(row, dict) or type(row.get("class")) is not str:
            raise DataError(f"{place}: per_class is no list of objects with a class, expected a row for each class")
    for row in value.get("curve", []):
        if not isinstance(row, dict) or not all(map(is_score, row.values())):
            raise DataError(f"{place}: curve holds {row!r}, expected finite numbers by name")


def check_nodes(value: Mapping[str, Any], place: str) -> None:
    """Raise DataError where what a record says of its configuration or its folds has another form."""
    for path in NODES:
        node: Any = value.get("config", {})
        for key in path.split("."):
            node = node.get(key, {})
        if not isinstance(node, dict) and (node, path) != (None, "protocol"):
            raise DataError(f"{place}: config.{path} is {node!r}, expected an object")
    folds = value.get("protocol", {}).get("fields", {}).get("folds", 0)
    count = len(folds) if isinstance(folds, list) else folds
    if not (type(count) is int and 0 <= count <= MOST_FOLDS):
        raise DataError(f"{place}: protocol.fields.folds is {folds!r}, expected a list or a number of folds")


def check_cost(cost: Mapping[str, Any], place: str) -> None:
    """Raise DataError unless an annotation cost is one: seconds of work, null where nobody knows."""
    for key in COSTS:
        if not is_score(cost.get(key)) or (cost.get(key) or 0) < 0:
            raise DataError(f"{place}: annotation_cost.{key} is {cost[key]!r}, expected seconds or null")
    if cost.get("older", OLDER[0]) not in OLDER:
        raise DataError(f"{place}: annotation_cost.older is {cost['older']!r}, expected {' or '.join(OLDER)}")


def check_hash(protocol: Mapping[str, Any], place: str) -> None:
    """Raise DataError unless a record's protocol, where its fields are said, is the one of its hash."""
    fields, said = protocol.get("fields"), protocol.get("hash")
    if fields and said and hashed_fields(fields) != said:
        raise DataError(
            f"{place}: protocol.hash is {said!r}, but protocol.fields are those of {hashed_fields(fields)}; put back"
            " what the run wrote"
        )


def is_score(value: Any) -> bool:
    """Whether a value is a finite number, or null where nothing was scored."""
    return value is None or (type(value) in (int, float) and -LARGEST < value < LARGEST)
