"""The page's name for a row: the settings in which it differs from the other rows of its table, and no others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from segladder.report.leaderboard import Row, Table
from segladder.report.record import Record
from segladder.report.settings import is_amount


@dataclass(frozen=True)
class Name:
    """A row's name: `lead`, and the further words that tell it apart; `amounts` are those of them that say how many."""

    lead: str
    more: tuple[str, ...] = ()
    amounts: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """On one line."""
        return ", ".join([self.lead, *self.more])

    @property
    def short(self) -> str:
        """For charts: at most about forty letters."""
        return _cut(self.text)

    @property
    def curve(self) -> str:
        """For the line of rows that differ in how many labels they have."""
        return _cut(", ".join(word for word in (self.lead, *self.more) if word not in self.amounts) or self.lead)


@dataclass(frozen=True)
class Shown:
    """A row as the page shows it.

    Attributes:
        row: of a table.
        name: what the page calls it.
        anchor: the id of its details; empty where none are shown.
        records: of all of its runs.
    """

    row: Row
    name: Name
    anchor: str
    records: list[Record]


def names(table: Table) -> list[Name]:
    """The name of every row of a table."""
    words = [_words(row) for row in table.rows]
    keys = [key for key in dict.fromkeys(key for row in words for key in row) if len({w.get(key) for w in words}) > 1]
    if keys[:1] not in (["method"], ["labels"], ["tag"]):  # a setting alone names nothing
        keys = ["method", *keys]
    told = [{key: row[key] for key in keys if row.get(key)} for row in words]
    told = [named or {"method": row["method"]} for named, row in zip(told, words, strict=True)]
    for key, extra in (("backbone", _backbone), ("pretraining", _pretraining), ("selection", _selection)):
        often = Counter(tuple(_spoken(named)) for named in told)
        told = [
            {**named, key: extra(row)} if often[tuple(_spoken(named))] > 1 else named
            for named, row in zip(told, table.rows, strict=True)
        ]
    spoken = [_spoken(named) for named in told]
    return [Name(said[0], tuple(said[1:]), _amounts(row)) for row, said in zip(table.rows, spoken, strict=True)]


def method_of(row: Row) -> str:
    """The method with the stages before it."""
    return row.method + (f" from {'+'.join(row.lineage)}" if row.lineage else "")


def labels_of(row: Row) -> str:
    """What training sees of the classes asked about, in words: `tags`, `no labels`, `one mask a class`."""
    if row.shots is None:
        return "no labels" if row.standing.labels == "none" else row.standing.labels
    return f"one {row.standing.singular} a class" if row.shots == 1 else f"{row.shots} {row.standing.labels} a class"


def _words(row: Row) -> dict[str, str]:
    return {
        "method": method_of(row),
        "labels": labels_of(row),
        "tag": row.tag.replace("_", " "),
        **{key: _setting(key, value) for key, value in row.setting.items()},
    }


def _amounts(row: Row) -> tuple[str, ...]:
    settings = [_setting(key, value) for key, value in row.setting.items() if is_amount(key)]
    return (*([] if row.shots is None else [labels_of(row)]), *settings)


def _cut(text: str) -> str:
    return text if len(text) <= 42 else f"{text[:40]}…"


def _setting(key: str, value: Any) -> str:
    own = key.removeprefix("parent.")
    if own == "pool":
        return "all images" if value is None else f"{value} image{'' if value == 1 else 's'}"
    if own == "labels.amount":
        return "amount by default" if value is None else f"{value} a class"
    name = own.removesuffix(".name").split(".")[-1].replace("_", " ")
    whose = "its parent's " if key != own else ""
    return f"{whose}{name} {'none' if value is None else value}"


def _spoken(named: dict[str, str]) -> list[str]:
    """Each word once: a tag that repeats the labels says nothing."""
    return list(dict.fromkeys(word for word in named.values() if word))


def _backbone(row: Row) -> str:
    return row.backbone


def _pretraining(row: Row) -> str:
    return f"pretraining {row.pretraining}"


def _selection(row: Row) -> str:
    return f"selection {row.selection}" if row.selection else ""
