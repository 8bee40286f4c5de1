"""What annotation buys: accuracy against the cost of labels, as a picture, a table and in words.

On a ladder cost is that of the novel classes alone: the masks of base classes are there in every rung. Intervals and
tests cover which images were scored, not which pool or supports were drawn, nor the seeds where there are fewer than
five.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from segladder.metrics.bootstrap import LEVEL, Comparison
from segladder.metrics.scores import Score
from segladder.report.counted import Counted
from segladder.report.leaderboard import Row, Table
from segladder.report.means import mean_annotation
from segladder.report.record import Record
from segladder.report.rendering import duration, inert, interval, markdown_table, per_class
from segladder.report.settings import Settings, is_amount

HOUR = 3600


@dataclass(frozen=True)
class Rung:
    """A row of a ladder's table with what its labels cost.

    Attributes:
        label: method, settings and shots, and whether labels that score it, or that nobody paid for, chose something.
        curve: the same without what says how many labels there are: rungs of one curve differ in nothing else.
        work: seconds on labels of the classes asked about (a ladder's novel ones), mean over runs; `seconds` on all.
        value: what ranks, with the ends `low` and `high` of its interval where there is one.
        prices: the list that its labels were priced by; empty where its record does not say.
    """

    label: str
    row: Row
    curve: str
    work: float
    seconds: float
    value: float
    low: float | None
    high: float | None
    prices: str

    @property
    def cost(self) -> int:
        """The work in whole seconds: means of other runs differ by less and cost the same."""
        return round(self.work)

    def is_better(self, other: Rung, score: Score) -> bool:
        """Whether it beats another rung."""
        return score.sign * self.value > score.sign * other.value


def by_fold(table: Table, counted: Counted) -> dict[str, Table]:
    """The table by a name for files; where no rung has every fold, a table for each fold that some rung has."""
    name = f"{table.protocol}-{table.hash}-{table.data}"
    if any(row.value is not None for row in table.rows):
        return {name: table}
    return {f"{name}-fold{fold}": alone for fold, alone in counted.of_each_fold(table).items()}


def rungs(table: Table, found: Iterable[Record]) -> list[Rung]:
    """The ranked rows of a table whose cost is known, the cheapest first; with their backbones where these differ."""
    found = list(found)
    by_id = {record.id: record for record in found if record.protocol.get("hash") == table.hash}
    of_novel, among = table.declared.ladder is not None, Settings({record.id: record for record in found})
    ranked = [row for row in table.rows if row.value is not None]
    told: dict[tuple[str, ...], set[str]] = defaultdict(set)  # of one method, whatever its shots
    for row in ranked:
        told[without_amount(row)].update(row.setting)
    several = len({row.backbone for row in ranked if row.backbone}) > 1
    made = []
    for row in ranked:
        runs = [by_id[run] for run in row.runs]
        settings = among.of(runs[0])
        shared = {key: settings[key] for key in told[without_amount(row)] if key in settings}
        rung = _rung(row, runs, shared | row.setting, of_novel)
        if rung is not None and several and row.backbone:
            rung = replace(rung, label=f"{rung.label} on {row.backbone}", curve=f"{rung.curve} on {row.backbone}")
        made.append(rung)
    sign = table.score.sign
    return sorted((rung for rung in made if rung is not None), key=lambda rung: (rung.cost, -sign * rung.value))


def without_amount(row: Row) -> tuple[str, ...]:
    """What rows have in common that may differ in settings and shots."""
    network = row.method, *row.lineage, row.backbone, row.pretraining
    return row.supervision, row.standing.labels, *network, row.tag, row.selection


def _rung(row: Row, runs: Sequence[Record], setting: dict[str, Any], of_novel: bool) -> Rung | None:
    whole = mean_annotation(runs)
    work = mean_annotation(runs, "novel_seconds") if of_novel else whole
    if work is None or whole is None or row.value is None:
        return None
    labels = row.standing.singular if row.shots == 1 else row.standing.labels
    shots = "" if row.shots is None else f", {row.shots} {labels} a class"
    oracle = ", by an oracle" if row.selection == "oracle" else ""
    fixed = {key: setting[key] for key in sorted(setting) if not is_amount(key)}
    curve = replace(row, setting=fixed).label + oracle
    prices = str(runs[0].config.get("prices") or "")
    return Rung(row.label + shots + oracle, row, curve, work, whole, row.value, row.low, row.high, prices)


def frontier(ladder: Sequence[Rung], score: Score) -> list[Rung]:
    """The rungs that are better than all that cost no more, the cheapest first."""
    best: list[Rung] = []
    for rung in ladder:
        if not best or rung.is_better(best[-1], score):
            best.append(rung)
    return best


def described(table: Table, ladder: Sequence[Rung], counted: Counted) -> str:
    """The summary, the table of costs and the table per class, as Markdown; `ladder` is the table's, not empty."""
    parts = [
        "\n".join(f"- {inert(line)}" for line in summary(table, ladder, counted)) + "\n",
        costs(table, ladder),
        per_class(table, counted.records),
    ]
    return "\n".join(parts)


def costs(table: Table, ladder: Sequence[Rung]) -> str:
    """A Markdown table: the cost of each rung, its score with the interval, and the scores beside it."""
    wanted = [table.declared[name] for name in table.declared.ladder or ()]
    beside = [score for score in wanted if any(score.name in rung.row.others for rung in ladder)]
    labels = ["labels"] if table.declared.ladder is None else ["novel labels", "all labels"]
    headings = ["supervision", "rung", *labels, table.score.heading, *(s.heading for s in beside)]
    lines = []
    for rung in ladder:
        others = [score.text(rung.row.others.get(score.name)) for score in beside]
        work = [duration(rung.work), duration(rung.seconds)][: len(labels)]
        lines.append([rung.row.supervision, rung.label, *work, with_interval(rung, table.score), *others])
    return markdown_table(headings, lines)


def with_interval(rung: Rung, score: Score) -> str:
    """What ranks, with its interval."""
    return score.text(rung.value) + interval(rung.low, rung.high, score)


def summary(table: Table, ladder: Sequence[Rung], counted: Counted) -> list[str]:
    """In plain words: what each further piece of work buys, what an hour buys, and what is not worth its labels.

    Each difference is a paired test of the two rungs on the same images, adjusted for their number (Holm).
    """
    worth, not_worth, remarks = findings(table, ladder, counted)
    return [*worth, *not_worth, *remarks]


def findings(table: Table, ladder: Sequence[Rung], counted: Counted) -> tuple[list[str], list[str], list[str]]:
    """The sentences of `summary`: what is worth its labels, what is not, and remarks on the best rung and on prices."""
    score = table.score
    steps = frontier(ladder, score)
    pairs = [(after, before) for before, after in pairwise(steps)]
    rivals = {id(rung): rival for rung in ladder if rung not in steps and (rival := _rival(rung, steps, score))}
    pairs += [(rung, rivals[id(rung)]) for rung in ladder if id(rung) in rivals]
    tests = counted.compared(table, [(first.row, second.row) for first, second in pairs])
    first = steps[0]
    none = "without a label" + ("" if table.declared.ladder is None else " of the novel classes")
    work = f"for {duration(first.work)}" if first.work else none
    worth = [f"The cheapest here, {first.label}, reaches {with_interval(first, score)}{score.percent} {work}."]
    said = [(*pair, test) for pair, test in zip(pairs, tests, strict=True)]
    worth += [_step(before, after, test, score) for after, before, test in said[: len(steps) - 1]]
    worth += _first_hour(steps, score)
    not_worth = [_not_worth(rung, rival, test, score) for rung, rival, test in said[len(steps) - 1 :]]
    return worth, not_worth, [*_remarks(steps[-1], table), *_priced_apart(ladder)]


def _step(before: Rung, after: Rung, test: Comparison | None, score: Score) -> str:
    more, gain = after.work - before.work, _gain(before, after, score)
    rate = f", {score.rounded(gain * HOUR / more)} points an hour" if more >= HOUR else ""
    found = f"{duration(more)} more buy {score.rounded(gain)} points{_tested(test, score)}{rate}: {after.label}"
    return f"{found} reaches {with_interval(after, score)}{score.percent}{'.' if _is_sure(test) else '; ' + CHANCE}"


CHANCE = "this may be chance."


def _tested(test: Comparison | None, score: Score) -> str:
    """The interval of a difference, from low to high gain, and its p-value."""
    if test is None:
        return " (no counts were kept, so not tested)"
    if not test.has_interval:
        return " (too few images to test)"
    low, high = sorted(score.sign * score.scale * end for end in (test.low, test.high))
    sign = "" if test.p_text.startswith("<") else "= "
    return f" [{score.rounded(low)}, {score.rounded(high)}; p {sign}{test.p_text}]"


def _is_sure(test: Comparison | None) -> bool:
    """Whether a test leaves no doubt, or none was made and the sentence has said so."""
    return test is None or test.p_value < 1 - LEVEL


def _gain(before: Rung, after: Rung, score: Score) -> float:
    return score.scale * score.sign * (after.value - before.value)


def _first_hour(steps: Sequence[Rung], score: Score) -> list[str]:
    within = [rung for rung in steps if rung.work <= HOUR]
    if len(within) < 2 or within[0].work:  # the cheapest has spent some of the hour
        return []
    return [
        f"The first hour of annotation buys {score.rounded(_gain(within[0], within[-1], score))} points at most:"
        f" {within[-1].label}, which takes {duration(within[-1].work)} of it."
    ]


def _rival(rung: Rung, steps: Sequence[Rung], score: Score) -> Rung | None:
    """The best rung that costs less or nothing more, where it is as good."""
    return max((r for r in steps if r.cost <= rung.cost), key=lambda r: score.sign * r.value, default=None)


def _not_worth(rung: Rung, rival: Rung, test: Comparison | None, score: Score) -> str:
    """That a rung no dearer is better, or as good as far as anybody can tell."""
    less = f"costs {duration(rival.work)}" if rival.work else "costs nothing"
    cost = "costs no more" if rival.cost == rung.cost else less
    what = f"{rung.label} ({duration(rung.work)}, {score.text(rung.value)}{score.percent})"
    best = f"{rival.label} {cost} and reaches {score.text(rival.value)}{score.percent}"
    difference = f"better by {score.rounded(_gain(rung, rival, score))}{_tested_backwards(test, score)}"
    if not rung.work:
        found = f"{what} costs nothing either: {rival.label} reaches {score.text(rival.value)}{score.percent}"
        return f"{found}, {difference}{'.' if _is_sure(test) else '; ' + CHANCE}"
    if not _is_sure(test):
        return f"{what} is not told apart from what costs no more: {best}, {difference}."
    return f"{what} buys nothing here: {best}, {difference}."


def _tested_backwards(test: Comparison | None, score: Score) -> str:
    if test is None:
        return _tested(None, score)
    return _tested(replace(test, low=-test.high, high=-test.low), score)


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


def _priced_apart(ladder: Sequence[Rung]) -> list[str]:
    """That costs do not compare, where rungs of one ladder were priced by different lists."""
    lists = {rung.prices for rung in ladder if rung.prices}
    return ["Not all rungs were priced by one list (prices), so their costs do not compare."] if len(lists) > 1 else []
