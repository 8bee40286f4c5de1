"""`segladder leaderboard`: rank the records of a folder."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from rich.console import Console

from segladder.errors import DataError, some
from segladder.files import write_text
from segladder.foreign import printable
from segladder.report import ladder
from segladder.report.archive import collect
from segladder.report.budget import Duration, decisions
from segladder.report.comparisons import comparisons, pairs_of, supports_compared, title_of
from segladder.report.costs import flagged, with_costs_of_today
from segladder.report.counted import Counted
from segladder.report.leaderboard import Table
from segladder.report.pictures.cost_curve import save_cost_curve
from segladder.report.record import Record, find_records
from segladder.report.rendering import (
    csv_text,
    inert,
    json_text,
    markdown,
    markdown_table,
    per_class,
    show,
    without_tags,
)
from segladder.report.wandb_client import Project
from segladder.runs.composition import check_keys

PAGE = "leaderboard.html"
SUPPORTS = "shots"  # in `compare`: every few-shot row with more supports against itself with fewest
FLAGS = {"recomputed": "now count labels behind parents", "unknown": "are not known and left out of charts"}
TEXTS = {"markdown": markdown, "csv": csv_text, "json": json_text}


class Keys(TypedDict):
    """The keys of the command."""

    runs: str
    metric: str | None
    format: Literal["terminal", "markdown", "csv", "json"]
    out: str | None
    report: Literal["html"] | None
    wandb: Project | None
    per_class: bool
    costs: bool
    budget: Duration | list[Duration] | None
    significance: bool
    compare: list[str]
    copy_to: str | None


def run(config: Any) -> int:
    """Print or write the tables; unreadable records are named on standard error and skipped."""
    check_keys(config, Keys)
    found, faults = read(config.runs)
    for fault in faults:
        print(f"segladder: skipped {printable(fault)}", file=sys.stderr)
    if not found:
        raise DataError(f"runs={config.runs}: no record there, expected folders that segladder train wrote")
    if config.copy_to is not None:
        collect(found, config.copy_to)
    with Counted(with_costs(found)) as counted:
        tables = counted.tables(config.metric)
        if config.significance:
            tables = [counted.with_significance(table) for table in tables]
        write(tables, counted, config)
        if config.report is not None:
            written_page = write_page(tables, counted, Path(config.out or PAGE), budgets_of(config))
            print(f"segladder: {written_page}", file=sys.stdout if config.format == "terminal" else sys.stderr)
        if config.wandb is not None:
            push_board(tables, counted.records, config.wandb)
    for fault in dict.fromkeys(counted.faults):
        print(f"segladder: no interval or test by {printable(fault)}", file=sys.stderr)
    return 0


def read(runs: str) -> tuple[list[tuple[Record, Path]], list[str]]:
    """`find_records` without searches for garbage, which would walk over all records again and again."""
    gc.disable()
    try:
        return find_records(runs)
    finally:
        gc.freeze()
        gc.enable()


def with_costs(found: list[tuple[Record, Path]]) -> list[tuple[Record, Path]]:
    """The records with costs as today's version counts them; standard error says of how many older ones."""
    records = with_costs_of_today(record for record, _ in found)
    for what, runs in flagged(records).items():
        print(f"segladder: annotation costs of older versions {FLAGS[what]}: {some(runs)}", file=sys.stderr)
    return [(record, folder) for record, (_, folder) in zip(records, found, strict=True)]


def write(tables: list[Table], counted: Counted, config: Any) -> None:
    """Hand the tables to the terminal or the file `out`, which is the page's where one is asked for."""
    more = details(tables, counted, config)
    out = config.out if config.report is None else None
    if config.format == "terminal" and out is None:
        console = Console() if sys.stdout.isatty() else Console(width=200)
        show(tables, console)
        print(more, end="")
        return
    text = TEXTS["markdown" if config.format == "terminal" else config.format](tables)
    text += f"\n{more}" if more and config.format in ("terminal", "markdown") else ""
    if out is None:
        print(text, end="")
    else:
        write_text(Path(out), text)


def budgets_of(config: Any) -> list[str]:
    """The budgets that a command asks about: none, one or several."""
    return [config.budget] if isinstance(config.budget, str) else list(config.budget or ())


def write_page(tables: list[Table], counted: Counted, out: Path, budgets: Sequence[str]) -> str:
    """Write the tables as an HTML page; returns what was done."""
    from segladder.report.page import page

    text = page(tables, counted, budgets)
    write_text(out, text)
    return f"wrote {out}, {len(text.encode()) / 1e6:.1f} MB"


def push_board(tables: list[Table], records: list[Record], project: str) -> None:
    """Hand the tables to a Weights & Biases project and say on standard error where they went."""
    from segladder.report.wandb_board import push

    print(f"segladder: {push(tables, records, project, Path())}", file=sys.stderr)


def details(tables: list[Table], counted: Counted, config: Any) -> str:
    """What a ladder says, and the tables per class and the comparisons that were asked for, as Markdown."""
    parts = []
    ranked = [table for table in tables if table.rows]
    asked = pairs_of(ranked, [pair for pair in config.compare if pair != SUPPORTS]) if ranked else []
    for table, pairs in zip(ranked, asked, strict=True):
        if config.costs or table.declared.ladder is not None:
            parts.append(climbed(table, counted, config))
        if budgets := budgets_of(config):
            parts.append(bought(table, counted, budgets))
        if config.per_class:
            heading = f"{table.declared.row_score.heading} per class, {table.title}"
            parts.append(f"{inert(heading)}\n\n{per_class(table, counted.records)}")
        if pairs:
            parts.append(f"{inert(title_of(table))}\n\n{comparisons(table, pairs, counted)}")
    if SUPPORTS in config.compare:
        parts.append(f"Paired bootstrap, more supports for the same queries\n\n{supports_compared(tables, counted)}")
    return without_tags("\n".join(parts))


def bought(table: Table, counted: Counted, budgets: Sequence[str]) -> str:
    """Which label to buy for each budget, of a table's whole ladder or of each fold."""
    parts = []
    for name, whole in ladder.by_fold(table, counted).items():
        if steps := ladder.rungs(whole, counted.records):
            parts.append(f"Which label to buy, {name}\n\n{markdown_table(*decisions(whole, steps, counted, budgets))}")
    return "\n".join(parts)


def climbed(table: Table, counted: Counted, config: Any) -> str:
    """What annotation buys in a table, and its curve as PNGs (light and dark) beside `out` or the runs."""
    folder = Path(config.runs if config.out is None else config.out).resolve()
    folder = folder if folder.is_dir() else folder.parent
    parts = []
    for name, whole in ladder.by_fold(table, counted).items():
        if steps := ladder.rungs(whole, counted.records):
            curve = save_cost_curve(folder / f"{name}.png", steps, whole)
            shown = curve if config.format == "terminal" else curve.name
            parts.append(f"What annotation buys, {name} ({shown})\n\n{ladder.described(whole, steps, counted)}")
    return "\n".join(parts)
