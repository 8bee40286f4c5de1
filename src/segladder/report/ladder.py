"""What annotation buys: a ladder's accuracy against the cost of its labels, as a picture, a table and in words.

Cost is that of the novel classes alone: the masks of base classes are there in every rung. Ends of intervals are means
over runs, so they cover which images were scored, not which seed, fold, pool or supports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean

from segladder.metrics.scores import Score
from segladder.report.leaderboard import Row, Table, rank
from segladder.report.means import mean_annotation
from segladder.report.record import Record
from segladder.report.rendering import markdown_table, per_class

HOUR = 3600


@dataclass(frozen=True)
class Rung:
    """A row of a ladder's table with what its labels cost.

    Attributes:
        label: method, settings and shots.
        novel_seconds: of work on labels of the novel classes, mean over runs; `seconds` with those of base classes.
        value: what ranks, with the ends `low` and `high` of its interval where there is one.
    """

    label: str
    row: Row
    novel_seconds: float
    seconds: float
    value: float
    low: float | None
    high: float | None

    def is_better(self, other: Rung, score: Score) -> bool:
        """Whether it beats another rung."""
        return score.sign * self.value > score.sign * other.value


def by_fold(table: Table, found: Sequence[Record]) -> dict[str, Table]:
    """The table by a name for files; where no rung has every fold, a table for each fold that some rung has."""
    name = f"{table.protocol}-{table.hash}-{table.data}"
    if any(row.value is not None for row in table.rows):
        return {name: table}
    key = table.hash, table.fingerprint
    folds: dict[int, list[Record]] = {}
    for record in found:
        if record.fold is not None and (record.protocol.get("hash"), record.data.get("val_fingerprint")) == key:
            folds.setdefault(record.fold, []).append(replace(record, fold=None))
    return {f"{name}-fold{fold}": rank(records, table.metric)[0] for fold, records in sorted(folds.items())}


def rungs(table: Table, found: Iterable[Record]) -> list[Rung]:
    """The ranked rows of a ladder's table whose cost is known, the cheapest first."""
    by_id = {record.id: record for record in found if record.protocol.get("hash") == table.hash}
    made = [_rung(row, [by_id[run] for run in row.runs], table.metric) for row in table.rows if row.value is not None]
    sign = table.score.sign
    return sorted(
        (rung for rung in made if rung is not None), key=lambda rung: (rung.novel_seconds, -sign * rung.value)
    )


def _rung(row: Row, runs: Sequence[Record], metric: str) -> Rung | None:
    novel, whole = mean_annotation(runs, "novel_seconds"), mean_annotation(runs)
    if novel is None or whole is None or row.value is None:
        return None
    shots = "" if row.shots is None else f", {row.shots} mask{'s' if row.shots > 1 else ''} a class"
    ends = {side: [run.metrics[metric].get(side) for run in runs] for side in ("low", "high")}
    low, high = (_mean(ends[side]) for side in ("low", "high"))
    return Rung(row.label + shots, row, novel, whole, row.value, low, high)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def frontier(ladder: Sequence[Rung], score: Score) -> list[Rung]:
    """The rungs that are better than all that cost no more, the cheapest first."""
    best: list[Rung] = []
    for rung in ladder:
        if not best or rung.is_better(best[-1], score):
            best.append(rung)
    return best


def described(table: Table, ladder: Sequence[Rung], found: Sequence[Record]) -> str:
    """The summary, the table of costs and the table per class, as Markdown; `ladder` is the table's, not empty."""
    parts = [
        "\n".join(f"- {line}" for line in summary(table, ladder)) + "\n",
        costs(table, ladder),
        per_class(table, found),
    ]
    return "\n".join(parts)


def costs(table: Table, ladder: Sequence[Rung]) -> str:
    """A Markdown table: the cost of each rung, its score with the interval, and the scores beside it."""
    wanted = [table.declared[name] for name in table.declared.ladder or ()]
    beside = [score for score in wanted if any(score.name in rung.row.others for rung in ladder)]
    headings = ["supervision", "rung", "novel labels", "all labels", table.score.heading, *(s.heading for s in beside)]
    lines = []
    for rung in ladder:
        others = [score.text(rung.row.others.get(score.name)) for score in beside]
        work = duration(rung.novel_seconds), duration(rung.seconds)
        lines.append([rung.row.supervision, rung.label, *work, with_interval(rung, table.score), *others])
    return markdown_table(headings, lines)


def with_interval(rung: Rung, score: Score) -> str:
    """What ranks, with its interval."""
    known = rung.low is not None and rung.high is not None
    return score.text(rung.value) + (f" [{score.text(rung.low)}, {score.text(rung.high)}]" if known else "")


def duration(seconds: float) -> str:
    """Seconds of work as a reader says them: 0, 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds else "0"
    return f"{seconds / 60:.0f} min" if seconds < 1.5 * HOUR else f"{seconds / HOUR:.1f} h"


def summary(table: Table, ladder: Sequence[Rung]) -> list[str]:
    """In plain words: what each further piece of work buys, what an hour buys, and what is not worth its labels."""
    score = table.score
    steps = frontier(ladder, score)
    first = steps[0]
    work = "without a label of the novel classes" if not first.novel_seconds else f"for {duration(first.novel_seconds)}"
    lines = [f"The cheapest here, {first.label}, reaches {with_interval(first, score)}{score.percent} {work}."]
    lines += [_step(before, after, score) for before, after in pairwise(steps)]
    lines += _first_hour(steps, score)
    lines += [line for rung in ladder if rung not in steps for line in _not_worth(rung, steps, score)]
    return lines + _remarks(steps[-1], table)


def _step(before: Rung, after: Rung, score: Score) -> str:
    more, gain = after.novel_seconds - before.novel_seconds, _gain(before, after, score)
    line = f"{duration(more)} more buy {score.rounded(gain)} points: {after.label}, {with_interval(after, score)}"
    line += score.percent
    if more >= HOUR:
        line += f", {score.rounded(gain * HOUR / more)} points an hour"
    return line + ("; the intervals overlap, so it may be chance." if _overlap(before, after) else ".")


def _gain(before: Rung, after: Rung, score: Score) -> float:
    return score.scale * score.sign * (after.value - before.value)


def _overlap(one: Rung, other: Rung) -> bool:
    lows, highs = [one.low, other.low], [one.high, other.high]
    known = [end for end in (*lows, *highs) if end is not None]
    return len(known) == 4 and max(known[:2]) <= min(known[2:])


def _first_hour(steps: Sequence[Rung], score: Score) -> list[str]:
    within = [rung for rung in steps if rung.novel_seconds <= HOUR]
    if len(within) < 2:
        return []
    return [
        f"The first hour of annotation buys {score.rounded(_gain(within[0], within[-1], score))} points at most:"
        f" {within[-1].label}, which takes {duration(within[-1].novel_seconds)} of it."
    ]


def _not_worth(rung: Rung, steps: Sequence[Rung], score: Score) -> list[str]:
    """That a cheaper rung is as good, where one is."""
    rival = max((r for r in steps if r.novel_seconds <= rung.novel_seconds), key=lambda r: score.sign * r.value)
    if rival.novel_seconds >= rung.novel_seconds:
        return []
    return [
        f"{rung.label} ({duration(rung.novel_seconds)}, {score.text(rung.value)}{score.percent}) buys nothing here:"
        f" {rival.label} costs {duration(rival.novel_seconds)} and reaches {score.text(rival.value)}{score.percent}."
    ]


def _remarks(best: Rung, table: Table) -> list[str]:
    """What scores beside the one that ranks say of the best rung, in one sentence."""
    parts = [
        score.remark.replace("{rung}", best.label).replace(
            "{score}", score.text(best.row.others[score.name]) + score.percent
        )
        for score in table.declared.scores
        if score.remark and score.name in best.row.others
    ]
    text = "; ".join(parts)
    return [f"{text[0].upper()}{text[1:]}."] if text else []
