"""Which label to buy: the best rung that a budget of work on each class pays for, against rungs without labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Annotated

from pydantic import Field

from segladder.errors import ConfigError, DataError
from segladder.report.counted import Counted
from segladder.report.ladder import HOUR, Rung, with_interval
from segladder.report.leaderboard import Table
from segladder.report.record import Record
from segladder.report.rendering import comparison_cells, duration

Duration = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(s|min|h)$", description="a duration such as 30s, 10min or 1h")]
UNITS = {"s": 1, "min": 60, "h": HOUR}
HEADINGS = ("budget a class", "best for it", "takes a class")
CHEAPER = "cheapest not told apart, takes a class: difference"


def seconds_of(text: str) -> float:
    """Seconds of a `Duration`."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number) * UNITS[text[len(number) :]]


def decisions(
    table: Table, ladder: Sequence[Rung], counted: Counted, budgets: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """For each budget the best rung that costs no more, and how far it is above the best free one: headings and lines.

    Beside it stands the cheapest rung that is not told apart from it. Rungs that an oracle chose are left out. The best
    of many is the luckiest too: its score flatters it a little.

    Args:
        table: whose rungs they are.
        ladder: the rungs.
        counted: the runs with their counts, for paired tests (Holm).
        budgets: each a `Duration` of work on one class.
    """
    fair = [rung for rung in ladder if rung.row.selection != "oracle"]
    each = {id(rung): rung.work / classes_asked(rung, table, counted.records) for rung in fair}
    free = _best([rung for rung in fair if not rung.work], table)
    bought = [_best([rung for rung in fair if each[id(rung)] <= seconds_of(budget)], table) for budget in budgets]
    distinct = {id(rung): rung for rung in bought if rung and free and rung is not free}  # one test each, for Holm
    pairs = [(rung.row, free.row) for rung in distinct.values() if free]
    tests = dict(zip(distinct, counted.compared(table, pairs), strict=True))
    second = {id(rung): as_good(rung, fair, table, counted) for rung in bought if rung}
    lines = []
    for budget, rung in zip(budgets, bought, strict=True):
        test = tests.get(id(rung))
        cells = ["-"] * 3 if test is None else comparison_cells(test, table.score)
        found = ["-"] * 3 if rung is None else [rung.label, duration(each[id(rung)]), with_interval(rung, table.score)]
        cheaper = "-"
        if other := second.get(id(rung)):
            cheaper = f"{other[0].label}, {duration(each[id(other[0])])}: {' '.join(other[1])}"
        lines.append([budget, *found, *cells, cheaper])
    against = "the best without a label" if free is None else free.label
    return [*HEADINGS, table.score.heading, f"over {against}", "95 % interval", "p", CHEAPER], lines


def as_good(rung: Rung, ladder: Sequence[Rung], table: Table, counted: Counted) -> tuple[Rung, tuple[str, str]] | None:
    """The cheapest rung whose difference to another's has no 95 % interval without 0, and that difference."""
    cheaper = [other for other in ladder if other.cost < rung.cost and _may_be_as_good(other, rung)]
    for other in sorted(cheaper, key=lambda other: other.work):
        try:
            found = counted.compare(table, other.row, rung.row)
        except (DataError, ConfigError):
            continue
        if not (found.low > 0 or found.high < 0):
            difference, interval, _ = comparison_cells(found, table.score)
            return other, (difference, interval)
    return None


def _may_be_as_good(other: Rung, rung: Rung) -> bool:
    """Whether the intervals overlap: of equal images they are wider than that of the difference."""
    ends = other.low, other.high, rung.low, rung.high
    if any(end is None for end in ends):
        return True
    (other_low, other_high, low, high) = (end or 0.0 for end in ends)
    return other_high >= low and high >= other_low


def classes_asked(rung: Rung, table: Table, records: Iterable[Record]) -> float:
    """How many classes a run of a rung is asked about: those it has a row for, a background left out; at least 1."""
    runs = [r for r in records if r.id in rung.row.runs and r.protocol.get("hash") == table.hash]
    return max(1.0, fmean(sum(line["class"] in table.foreground for line in run.per_class) for run in runs))


def _best(rungs: Sequence[Rung], table: Table) -> Rung | None:
    """The best rung, the cheapest of equals."""
    return max(rungs, key=lambda rung: (table.score.sign * rung.value, -rung.work), default=None)
