"""What a protocol asks, in words: the heading of a table. Hashes, which nobody reads, stand in its tooltip."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from segladder.data.labels.kinds import kinds
from segladder.report.leaderboard import Table
from segladder.report.record import Record

MOST_NAMED = 6  # classes in a heading


def questions(tables: Sequence[Table], found: Sequence[Sequence[Record]]) -> list[str]:
    """A heading for each table: what is asked, on which data, of which folds; what sets equal ones apart goes behind.

    Args:
        tables: of one page.
        found: the records of each.
    """
    fields = [_fields(records) for records in found]
    texts = [_heading(table, own, records) for table, own, records in zip(tables, fields, found, strict=True)]
    often = Counter(texts)
    return [
        text
        if often[text] == 1
        else f"{text} ({_apart(i, [j for j, t in enumerate(texts) if t == text], tables, fields)})"
        for i, text in enumerate(texts)
    ]


def asked(name: str, fields: Mapping[str, Any]) -> str:
    """What a protocol of a name and these fields asks; the name itself where no words are known for it."""
    known = {key: _words(value) for key, value in fields.items()}
    template = _templates().get(name)
    if template is None:
        return name.replace("_", " ") or "Unknown protocol"
    try:
        text = template.format_map({**known, "supports": _supports(fields)})
    except KeyError:
        text = template.partition(":")[0].partition("{")[0].strip() or name
    return text[0].upper() + text[1:]


def told(table: Table) -> str:
    """The protocol and the data by their hashes: what a heading's tooltip says."""
    return f"protocol {table.protocol} {table.hash}, data {table.data} {table.fingerprint}"


@cache
def _templates() -> dict[str, str]:
    found: dict[str, str] = json.loads(
        files("segladder.report.page").joinpath("questions.json").read_text(encoding="utf-8")
    )
    return found


def _fields(records: Sequence[Record]) -> Mapping[str, Any]:
    fields = records[0].protocol.get("fields") if records else None
    return fields if isinstance(fields, Mapping) else {}


def _heading(table: Table, fields: Mapping[str, Any], records: Sequence[Record]) -> str:
    if not table.hash:
        return "Runs that ended before their protocol was known"
    classes = len([name for name in table.classes if name != "background"])
    data = f"{table.data}, {classes} class{'' if classes == 1 else 'es'}" if table.data else "data never read"
    return ", ".join([asked(table.protocol, fields), *_folds(table, records)]) + f" · {data}"


def _folds(table: Table, records: Sequence[Record]) -> list[str]:
    folds = sorted({record.fold for record in records if record.fold is not None})
    if not folds:
        return []
    mean = any(row.folds > 1 and row.value is not None for row in table.rows)
    return [f"mean of {len(folds)} folds" if mean else f"fold{'s' if folds[1:] else ''} {', '.join(map(str, folds))}"]


def _supports(fields: Mapping[str, Any]) -> str:
    """`one mask`, `5 boxes`: what shows a class."""
    shots, singular = fields.get("shots"), str(fields.get("support_annotation") or "mask")
    plural = next((kind.name for kind in kinds().values() if kind.singular == singular), f"{singular}s")
    return f"one {singular}" if shots == 1 else f"{shots} {plural}" if shots else plural


def _words(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if not isinstance(value, list):
        return str(value)
    more = [f"{len(value) - MOST_NAMED} more"] if len(value) > MOST_NAMED else []
    return ", ".join([*map(str, value[:MOST_NAMED]), *more])


def _apart(place: int, others: Sequence[int], tables: Sequence[Table], fields: Sequence[Mapping[str, Any]]) -> str:
    """The fields in which one of several tables with equal headings is unlike another; else its hashes."""
    keys = sorted({key for other in others for key in fields[other]})
    unlike = [key for key in keys if len({repr(fields[other].get(key)) for other in others}) > 1]
    said = ", ".join(f"{key.replace('_', ' ')} {_words(fields[place].get(key))}" for key in unlike)
    return said or f"{tables[place].hash} on {tables[place].fingerprint[:8]}"
