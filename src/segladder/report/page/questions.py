"""What a protocol asks, in words: the heading of a table. Hashes, which nobody reads, stand in its tooltip."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from segladder.data.labels.kinds import kinds
from segladder.report.fields import fields_of, in_words, unlike
from segladder.report.leaderboard import Table
from segladder.report.record import Record


def questions(tables: Sequence[Table], found: Sequence[Sequence[Record]]) -> list[str]:
    """A heading for each table: what is asked, on which data, of which folds; what sets equal ones apart goes behind.

    Args:
        tables: of one page.
        found: the records of each.
    """
    fields = [fields_of(records) for records in found]
    texts = [_heading(table, own, records) for table, own, records in zip(tables, fields, found, strict=True)]
    alike = defaultdict(list)
    for place, text in enumerate(texts):
        alike[text].append(place)
    for places in (places for places in alike.values() if len(places) > 1):
        for place, words in zip(places, unlike([fields[place] for place in places]), strict=True):
            texts[place] += f" ({words or f'{tables[place].hash} on {tables[place].fingerprint[:8]}'})"
    return texts


def asked(name: str, fields: Mapping[str, Any]) -> str:
    """What a protocol of a name and these fields asks; the name itself where no words are known for it."""
    known = {key: in_words(value) for key, value in fields.items()}
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


def _heading(table: Table, fields: Mapping[str, Any], records: Sequence[Record]) -> str:
    if not table.hash:
        return "Runs that ended before their protocol was known"
    classes = len(table.foreground)
    data = f"{table.called}, {classes} class{'' if classes == 1 else 'es'}" if table.data else "data never read"
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
