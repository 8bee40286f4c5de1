"""The leaderboard as tables and plots of a Weights & Biases run of its own, made from the records alone.

The run's id is a digest of what it shows: the same records give the same run, online or in a folder for `wandb sync`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segladder.errors import SegLadderError
from segladder.report.leaderboard import Row, Table
from segladder.report.means import class_means, mean_annotation
from segladder.report.record import Record, hash_of
from segladder.report.rendering import json_text
from segladder.report.wandb_client import mode_of, quiet

DONE = "leaderboard-{project}.json"  # in the run's folder once everything is in it
PLAIN = ("supervision", "backbone", "pretraining", "selection", "shots", "folds")
MEASURED = ("low", "high", "parameters", "train_seconds", "images_per_second", "peak_memory_mb")
PER_CLASS = ["method", "backbone", "class"]
SWEPT = ["method", "at", "score"]


@dataclass(frozen=True)
class Board:
    """One table of the run: scores as records hold them, unknown values None."""

    columns: list[str]
    rows: list[list[Any]]


def push(tables: Sequence[Table], records: Iterable[Record], project: str, folder: Path) -> str:
    """Log the leaderboard to a project, once for the same records and project, and say where it went.

    `WANDB_MODE` decides between online and offline; without it, online for those who are logged in.

    Args:
        tables: of `segladder.report.leaderboard.rank`.
        records: behind the tables.
        project: name of the project.
        folder: gets `wandb/`, as it does from other runs.

    Raises:
        SegLadderError: the run cannot be started, for want of a network or of a login.
    """
    shown = boards(tables, records)
    run_id = f"leaderboard-{hash_of({name: vars(board) for name, board in shown.items()})}"
    done = DONE.format(project=project)
    for place in folder.glob(f"wandb/*run-*-{run_id}"):
        if (place / done).exists():
            return f"{run_id} is in {place} already"
    import wandb  # a second, and only where it is asked for

    mode = mode_of()
    shown_runs = sum(len(row.runs) for table in tables for row in table.rows)
    try:
        run = wandb.init(
            project=project,
            id=run_id,
            name="leaderboard",
            job_type="leaderboard",
            dir=folder,
            mode=mode,
            resume=None if mode == "offline" else "allow",
            config={"tables": [table.title for table in tables], "runs": shown_runs},
            settings=quiet(),
            reinit="finish_previous",
        )
    except Exception as error:
        fault = " ".join(str(error).split())
        raise SegLadderError(f"wandb={project}: {fault}; WANDB_MODE=offline keeps it for wandb sync") from error
    place, exit_code = Path(run.dir).parent, 1
    try:
        run.log(_logged(shown), step=0)  # a resumed run is past step 0 and keeps what it has
        run.summary.update(_best(tables))
        exit_code = 0
    finally:
        run.finish(exit_code=exit_code)
        wandb.teardown()  # finish returns before the last lines of an offline log are on disk
    place.joinpath(done).write_text(json_text(tables), encoding="utf-8")
    return f"{run_id} is in {place}" + (f"; send it with: wandb sync {place}" if mode == "offline" else "")


def boards(tables: Sequence[Table], records: Iterable[Record]) -> dict[str, Board]:
    """What a run shows, by name: for each table the leaderboard, and where there is one the IoU of classes and a sweep.

    Args:
        tables: those without rows are left out.
        records: behind the tables, in any order.
    """
    by_id = {(record.id, record.protocol.get("hash")): record for record in records}
    found = {}
    for table in (table for table in tables if table.rows):
        runs = [(row, [by_id[run, table.hash] for run in row.runs]) for row in table.rows]
        found[f"{_key(table)}/leaderboard"] = _leaderboard(table, runs)
        found[f"{_key(table)}/per_class"] = _per_class(table.declared.row_score.name, runs)
        found[f"{_key(table)}/{table.declared.swept}"] = _sweep(table.metric, table.declared.swept, runs)
    return {name: board for name, board in found.items() if board.rows}


def _key(table: Table) -> str:
    return f"{table.protocol}-{table.hash}-{table.fingerprint[:8]}"


def _leaderboard(table: Table, runs: Sequence[tuple[Row, list[Record]]]) -> Board:
    others = list(dict.fromkeys(name for row, _ in runs for name in row.others))
    paid = "seconds" if table.declared.ladder is None else "novel_seconds"
    cost = ["annotation_hours", "log10_annotation_hours"]
    columns = ["method", *PLAIN, table.metric, *MEASURED, *cost, *others, "seeds", "note", "runs"]
    rows = []
    for row, records in runs:
        seconds = mean_annotation(records, paid)
        hours = [None if seconds is None else seconds / 3600, math.log10(seconds / 3600) if seconds else None]
        values = [row.label, *(getattr(row, name) for name in PLAIN), row.value]
        values += [*(getattr(row, name) for name in MEASURED), *hours, *(row.others.get(name) for name in others)]
        rows.append([*values, " ".join(map(str, row.seeds)), row.note, " ".join(row.runs)])
    return Board(columns, rows)


def _per_class(score: str, runs: Sequence[tuple[Row, list[Record]]]) -> Board:
    means = [(row, class_means(records, score)) for row, records in runs]
    rows = [[row.label, row.backbone, name, value] for row, classes in means for name, value in classes.items()]
    return Board([*PER_CLASS, score], rows)


def _sweep(metric: str, swept: str, runs: Sequence[tuple[Row, list[Record]]]) -> Board:
    """The score that ranks along a threshold or gamma, of the first run of each row that has it."""
    rows = []
    for row, records in runs:
        curve = next((record.curve for record in records if record.curve and swept in record.curve[0]), [])
        rows += [
            [row.label, line[swept], line[metric]] for line in curve if None not in (line.get(swept), line.get(metric))
        ]
    return Board(SWEPT, rows)


def _logged(shown: Mapping[str, Board]) -> dict[str, Any]:
    """Tables and their plots, by name."""
    import wandb

    logged: dict[str, Any] = {}
    for name, board in shown.items():
        table = logged[name] = wandb.Table(columns=[*board.columns], data=board.rows, allow_mixed_types=True)
        if name.endswith("/leaderboard"):
            metric = board.columns[1 + len(PLAIN)]
            cost = wandb.plot.scatter(table, "log10_annotation_hours", metric, "What annotation buys")
            logged[f"{name}_cost"] = cost
            logged[f"{name}_scores"] = wandb.plot.bar(table, "method", metric, metric)
        elif board.columns == SWEPT:
            logged[f"{name}_curve"] = wandb.plot.line(table, "at", "score", stroke="method", title=name)
    return logged


def _best(tables: Sequence[Table]) -> dict[str, Any]:
    """The best score of each supervision, for the project's overview."""
    best: dict[str, float] = {}
    for table in tables:
        sign = table.score.sign
        for supervision, value in ((row.supervision, row.value) for row in table.rows if row.value is not None):
            name = f"{_key(table)}/best_{supervision}"
            best[name] = sign * max(sign * best.get(name, value), sign * value)
    return best
