"""Leaderboard tables as text: terminal, Markdown, CSV, JSON. Scores are shown in percent; CSV and JSON are exact."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import rich.table
from rich.console import Console
from rich.text import Text

from segladder.report.leaderboard import Row, Table
from segladder.report.record import plain

Column = tuple[str, Callable[[Row], str]]
NOT_SHARES = ("threshold_oracle", "gamma", "oracle_gamma")  # shown as they are
UNRANKED = ("method", "backbone", "seed", "status", "reason", "run")


def columns(table: Table) -> list[Column]:
    """Headings and cells of a table's rows; shots and folds only where the protocol has them."""
    found: list[Column] = [
        ("supervision", lambda row: row.supervision),
        ("method", lambda row: row.label),
        ("backbone", lambda row: row.backbone),
        ("pretraining", lambda row: row.pretraining),
        ("selection", lambda row: row.selection),
        (table.metric, score),
        ("seeds", lambda row: str(len(row.seeds))),
        ("parameters", lambda row: "-" if row.parameters is None else f"{row.parameters / 1e6:.2f} M"),
        ("train s", lambda row: number(row.train_seconds, 0)),
        ("images/s", lambda row: number(row.images_per_second, 1)),
        ("peak MB", lambda row: number(row.peak_memory_mb, 0)),
    ]
    if any(row.against_best for row in table.rows):
        found.insert(6, ("against the best", against_best))
    for name in dict.fromkeys(name for row in table.rows for name in row.others):
        found.insert(-5, (name.replace("_", " "), partial(beside, name=name)))
    if any(row.shots is not None for row in table.rows):
        found.insert(4, ("shots", lambda row: "-" if row.shots is None else str(row.shots)))
    if any(row.folds for row in table.rows):
        found.insert(-4, ("folds", lambda row: str(row.folds or "-")))
    if any(row.note for row in table.rows):
        found.append(("note", lambda row: row.note))
    return found


def score(row: Row) -> str:
    """Percent: mean ± standard deviation over seeds, or one run with its 95 % interval over images."""
    if row.value is None:
        return "-"
    if row.std is not None:
        return f"{100 * row.value:.2f} ± {100 * row.std:.2f}"
    interval = "" if row.low is None or row.high is None else f" [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    return f"{100 * row.value:.2f}{interval}"


def against_best(row: Row) -> str:
    """Percent points that a row differs from the best one, with the 95 % interval of the paired bootstrap."""
    if row.against_best is None:
        return "-"
    difference, low, high = (100 * row.against_best[key] for key in ("difference", "low", "high"))
    return f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]"


def beside(row: Row, name: str) -> str:
    """Another score, a dash where the row has none."""
    return shown(name, row.others.get(name))


def shown(name: str, value: float | None) -> str:
    """A score in percent, or as it is where it is no share; a dash for None and nan."""
    if value is None or value != value:
        return "-"
    return f"{value:.2f}" if name in NOT_SHARES else f"{100 * value:.1f}"


def number(value: float | None, digits: int) -> str:
    """A number with so many decimals, a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def markdown(tables: Sequence[Table]) -> str:
    """A heading, a table and the unranked runs for each table, GitHub's dialect."""
    return "\n".join(part for table in tables for part in _markdown_parts(table))


def _markdown_parts(table: Table) -> list[str]:
    parts = [f"### {table.title}\n"]
    if table.rows:
        found = columns(table)
        parts.append(
            markdown_table([name for name, _ in found], [[cell(row) for _, cell in found] for row in table.rows])
        )
    if table.unranked:
        cells = [[_cell(getattr(run, name)) for name in UNRANKED] for run in table.unranked]
        parts += ["Not ranked:\n", markdown_table(UNRANKED, cells)]
    return parts


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's dialect; columns of numbers are aligned to the right."""
    numeric = [
        all(row[i].lstrip("+-[")[:1].isdigit() or row[i] in ("-", "") for row in rows) for i in range(len(headings))
    ]
    numeric = [right and any(row[i].strip("-") for row in rows) for i, right in enumerate(numeric)]
    lines = [headings, ["---:" if right else "---" for right in numeric], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def csv_text(tables: Sequence[Table]) -> str:
    """One row per row of every table and per unranked run, plain values; lists are separated by spaces."""
    names = ["protocol", "hash", "data", "fingerprint", "metric", "status", *Row.__dataclass_fields__, "reason"]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        head = {name: getattr(table, name) for name in names[:5]}
        for row in table.rows:
            writer.writerow({**head, "status": "finished", **{k: _flat(v) for k, v in asdict(row).items()}})
        for run in table.unranked:
            seeds = "" if run.seed is None else run.seed
            known = {"method": run.method, "backbone": run.backbone, "status": run.status, "reason": run.reason}
            writer.writerow({**head, **known, "seeds": seeds, "runs": run.run})
    return stream.getvalue()


def json_text(tables: Sequence[Table]) -> str:
    """All tables with every field, sorted keys."""
    return json.dumps(plain([asdict(table) for table in tables]), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def show(tables: Sequence[Table], console: Console) -> None:
    """Print tables to a terminal."""
    for table in tables:
        found = columns(table)
        drawn = rich.table.Table(title=table.title, title_justify="left", title_style="bold")
        for name, _ in found:
            right = name not in ("supervision", "method", "backbone", "pretraining", "selection", "note")
            drawn.add_column(name, justify="right" if right else "left", overflow="fold")
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
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join("" if item is None else str(item) for item in value)
    return "" if value is None else value
