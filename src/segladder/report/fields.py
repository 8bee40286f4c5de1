"""The fields of protocols in words, and the fields in which protocols differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from segladder.report.record import Record

Place = tuple[str, str, str, str]  # of a table: protocol, its hash, data, their fingerprint
MOST_NAMED = 6  # items of a list


def fields_of(records: Sequence[Record]) -> Mapping[str, Any]:
    """The fields that records of one protocol share; none where nothing is known of them."""
    fields = records[0].protocol.get("fields") if records else None
    return fields if isinstance(fields, Mapping) else {}


def in_words(value: Any) -> str:
    """A value of a field as a reader says it: `yes`, `none`, `cow, cat`."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if not isinstance(value, list):
        return str(value)
    more = [f"{len(value) - MOST_NAMED} more"] if len(value) > MOST_NAMED else []
    return ", ".join([*map(str, value[:MOST_NAMED]), *more])


def unlike(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each of several protocols the fields in which one is unlike another: `transductive no; unseen cow, cat`."""
    keys = sorted({key for fields in protocols for key in fields})
    telling = [key for key in keys if len({repr(fields.get(key)) for fields in protocols}) > 1]
    return [
        "; ".join(f"{key.replace('_', ' ')} {in_words(fields.get(key))}" for key in telling) for fields in protocols
    ]


def set_apart(tables: Mapping[Place, Sequence[Record]]) -> dict[Place, str]:
    """Of each table in which fields its protocol is unlike those of its name on the same data; often empty."""
    alike = defaultdict(list)
    for place in tables:
        alike[place[0], place[2]].append(place)
    return {
        place: words
        for places in alike.values()
        for place, words in zip(places, unlike([fields_of(tables[place]) for place in places]), strict=True)
    }
