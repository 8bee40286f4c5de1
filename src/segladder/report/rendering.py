"""Leaderboard tables as text: terminal, Markdown, CSV, JSON. Shares are shown in percent; CSV and JSON are exact."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import rich.table
from rich.console import Console
from rich.text import Text

from segladder.metrics.bootstrap import SEEDS_DRAWN_FROM, Comparison
from segladder.metrics.scores import Score
from segladder.report.leaderboard import Row, Table
from segladder.report.means import class_means
from segladder.report.record import Record, plain

Column = tuple[str, Callable[[Row], str]]
TAG = re.compile(r"<(?=[A-Za-z/!?])")
NUMBERS = re.compile(r"-|[-+]?[\d.]+(e[-+]?\d+)?( [-+]?[\d.]+(e[-+]?\d+)?)*")
UNRANKED = ("method", "backbone", "seed", "status", "reason", "run")


def columns(table: Table) -> list[Column]:
    """Headings and cells of a table's rows, those of which no row has anything left out."""
    rows, score = table.rows, table.score
    others = map(table.declared.__getitem__, dict.fromkeys(name for row in rows for name in row.others))
    found: list[Column | None] = [
        ("supervision", lambda row: row.supervision),
        ("method", lambda row: row.label),
        ("backbone", lambda row: row.backbone),
        ("pretraining", lambda row: row.pretraining),
        ("shots", shots) if any(row.shots is not None for row in rows) else None,
        ("selection", lambda row: row.selection),
        (score.title, partial(ranking, score=score)),
        ("against the best", partial(against_best, score=score)) if any(row.against_best for row in rows) else None,
        *((other.heading, partial(beside, score=other)) for other in others),
        ("seeds", lambda row: str(len(row.seeds) or "-")),
        ("folds", lambda row: str(row.folds or "-")) if any(row.folds for row in rows) else None,
        ("parameters", lambda row: "-" if row.parameters is None else f"{row.parameters / 1e6:.2f} M"),
        ("train s", lambda row: number(row.train_seconds, 0)),
        ("images/s", lambda row: number(row.images_per_second, 1)),
        ("peak MB", lambda row: number(row.peak_memory_mb, 0)),
        ("note", lambda row: row.note) if any(row.note for row in rows) else None,
    ]
    return [column for column in found if column is not None]


def duration(seconds: float | None) -> str:
    """Seconds as people say them: `0`, `45 s`, `12 min`, `3.4 h`; a dash for None."""
    if seconds is None:
        return "-"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds else "0"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def shots(row: Row) -> str:
    """Supports of each class."""
    return "-" if row.shots is None else str(row.shots)


def ranking(row: Row, score: Score) -> str:
    """The score that ranks with its 95 % interval, and seeds one by one where this does not cover them."""
    covered = len(row.scores) >= SEEDS_DRAWN_FROM and row.low is not None
    each = f" ({seeds(row, score)})" if row.scores[1:] and not covered else ""
    return score.text(row.value, 2) + interval(row.low, row.high, score) + each


def interval(low: float | None, high: float | None, score: Score) -> str:
    """What stands behind a score, ` [45.0, 49.2]`; empty where it has no interval."""
    return "" if low is None or high is None else f" [{score.text(low)}, {score.text(high)}]"


def seeds(row: Row, score: Score) -> str:
    """The score of each seed."""
    return ", ".join(score.text(value, 2) for value in row.scores)


def against_best(row: Row, score: Score) -> str:
    """How much a row differs from the best one, with the 95 % interval and p-value of the paired bootstrap."""
    if row.against_best is None:
        return "-"
    found = row.against_best
    difference, low, high = (score.text(value, sign="+") for value in (found.difference, found.low, found.high))
    return f"{difference} [{low}, {high}], p {found.p_text}"


def comparison_cells(result: Comparison, score: Score) -> list[str]:
    """Difference, interval and p-value of a paired test."""
    difference, low, high = (score.text(value, 2, "+") for value in (result.difference, result.low, result.high))
    return [difference, f"[{low}, {high}]", result.p_text]


def beside(row: Row, score: Score) -> str:
    """Another score, a dash where the row has none."""
    return score.text(row.others.get(score.name))


def number(value: float | None, digits: int) -> str:
    """A number with so many decimals, a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def markdown(tables: Sequence[Table]) -> str:
    """A heading, a table and the unranked runs for each table, GitHub's dialect."""
    return "\n".join(part for table in tables for part in _markdown_parts(table))


def _markdown_parts(table: Table) -> list[str]:
    parts = [f"### {inert(table.title)}\n"]
    if table.rows:
        found = columns(table)
        parts.append(
            markdown_table([name for name, _ in found], [[cell(row) for _, cell in found] for row in table.rows])
        )
    if table.unranked:
        cells = [[_cell(getattr(run, name)) for name in UNRANKED] for run in table.unranked]
        parts += ["Not ranked:\n", markdown_table(UNRANKED, cells)]
    return parts


def per_class(table: Table, found: Iterable[Record]) -> str:
    """A Markdown table of the score that sums up a class or video (columns), by leaderboard row, mean over runs."""
    by_id = {(record.id, record.protocol.get("hash")): record for record in found}
    score, runs = table.declared.row_score, [[by_id[run, table.hash] for run in row.runs] for row in table.rows]
    scored = dict.fromkeys(str(line["class"]) for of_row in runs for record in of_row for line in record.per_class)
    names = sorted(scored, key=lambda name: table.classes.index(name) if name in table.classes else len(table.classes))
    few = any(row.shots is not None for row in table.rows)
    rows = []
    for row, of_row in zip(table.rows, runs, strict=True):
        means = class_means(of_row, score.name)
        cells = [score.text(means.get(name)) for name in names]
        rows.append([row.label, row.backbone, *([shots(row)] if few else []), *cells])
    return markdown_table(["method", "backbone", *(["shots"] if few else []), *names], rows)


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's dialect; columns of numbers are aligned to the right."""
    numeric = [
        all(row[i].lstrip("+-[< ")[:1].isdigit() or row[i] in ("-", "") for row in rows) for i in range(len(headings))
    ]
    numeric = [right and any(row[i].strip("-") for row in rows) for i, right in enumerate(numeric)]
    lines = [headings, ["---:" if right else "---" for right in numeric], *rows]
    return (
        "\n".join("| " + " | ".join(inert(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
    )


def inert(text: str) -> str:
    """A text as one line of Markdown that is neither HTML nor a link."""
    return without_tags(" ".join(text.split())).replace("](", "]\\(")


def without_tags(text: str) -> str:
    """Markdown in which nothing is HTML; `<` before anything but a tag stays."""
    return TAG.sub("&lt;", text)


def csv_text(tables: Sequence[Table]) -> str:
    """One row per row of every table and per unranked run, plain values; lists are separated by spaces."""
    own = [name for name in Row.__dataclass_fields__ if name != "standing"]
    names = ["protocol", "hash", "data", "fingerprint", "metric", "status", *own, "labels", "reason"]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()

    def write(row: dict[str, Any]) -> None:
        writer.writerow({name: no_formula(value) for name, value in row.items()})

    for table in tables:
        head = {name: getattr(table, name) for name in names[:5]}
        for row in table.rows:
            values = {name: _flat(getattr(row, name)) for name in own}
            write({**head, "status": "finished", **values, "labels": row.standing.labels})
        for run in table.unranked:
            seeds = "" if run.seed is None else run.seed
            known = {"method": run.method, "backbone": run.backbone, "status": run.status, "reason": run.reason}
            write({**head, **known, "seeds": seeds, "runs": run.run})
    return stream.getvalue()


def json_text(tables: Sequence[Table]) -> str:
    """All tables with every field, sorted keys."""
    whole = [{**asdict(table), "declared": table.declared.plain()} for table in tables]
    return json.dumps(plain(whole), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def show(tables: Sequence[Table], console: Console) -> None:
    """Print tables to a terminal."""
    for table in tables:
        found = columns(table)
        drawn = rich.table.Table(title=Text(table.title), title_justify="left", title_style="bold")
        for name, _ in found:
            right = name not in ("supervision", "method", "backbone", "pretraining", "selection", "note")
            drawn.add_column(Text(name), justify="right" if right else "left", overflow="fold")
        for i, row in enumerate(table.rows):
            ends = i + 1 == len(table.rows) or table.rows[i + 1].supervision != row.supervision
            drawn.add_row(*(Text(cell(row)) for _, cell in found), end_section=ends)
        if table.rows:
            console.print(drawn)
        else:
            console.print(Text(table.title, "bold"))
        for run in table.unranked:
            where = f"{run.method or 'unknown method'} {run.backbone}".strip()
            console.print(Text(f"  {run.status}: {where}, seed {run.seed}, {run.run}: {run.reason}", "yellow"))
        console.print()


def _cell(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)


def _flat(value: Any) -> Any:
    if isinstance(value, Comparison):
        value = asdict(value)
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join("" if item is None else str(item) for item in value)
    return "" if value is None else value


def no_formula(value: Any) -> Any:
    """A cell that no spreadsheet computes; numbers, and texts of numbers, are as they are."""
    starts = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if starts and not NUMBERS.fullmatch(value) else value
