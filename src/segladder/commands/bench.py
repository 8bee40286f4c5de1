"""`segladder bench`: the benchmarks of a checkout, each in a process of its own, as one table of ratios."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table

from segladder.errors import ConfigError
from segladder.runs.composition import check_keys

COLUMNS = ("what", "against", "ratio", "detail")


class Keys(TypedDict):
    """The keys of the command."""

    name: str
    quick: bool
    out: str | None


def run(config: DictConfig) -> int:
    """Run the chosen benchmarks and print their rows; returns 1 if one of them failed."""
    check_keys(config, Keys)
    folder = Path("benchmarks")
    names = sorted(path.stem for path in folder.glob("*.py"))
    if not names:
        raise ConfigError("bench: no benchmarks/ here; run it from a checkout of SegLadder")
    if config.name != "all" and config.name not in names:
        raise ConfigError(f"name={config.name}: no such benchmark; choose from all, {', '.join(names)}")
    chosen = names if config.name == "all" else [config.name]
    rows: list[list[str]] = []
    failed = []
    for name in track(chosen, "benchmarks"):
        found = measure(folder / f"{name}.py", config.quick)
        rows += found or []
        failed += [name] if found is None else []
    show(rows)
    if config.out:
        Path(config.out).write_text(markdown(rows), encoding="utf-8")
    for name in failed:
        print(f"segladder: benchmark {name} failed", file=sys.stderr)
    return 1 if failed else 0


def measure(path: Path, quick: bool) -> list[list[str]] | None:
    """The rows `run(quick)` of a benchmark file returns, in text, as many as this machine has; None if it failed."""
    script = (
        "import importlib.util, json, sys; spec = importlib.util.spec_from_file_location('benchmark', sys.argv[1]); "
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); "
        "rows = module.run(sys.argv[2] == 'True'); print('ROWS ' + json.dumps(rows))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path), str(quick)], stdout=subprocess.PIPE, text=True)
    lines = [line[5:] for line in done.stdout.splitlines() if line.startswith("ROWS ")]
    if done.returncode or not lines:
        return None
    return [[what, against, f"{ratio:.2f}x", detail] for what, against, ratio, detail in json.loads(lines[-1])]


def show(rows: list[list[str]]) -> None:
    """Print the table."""
    table = Table(*COLUMNS, title="benchmarks: how many times as fast as the reference")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def markdown(rows: list[list[str]]) -> str:
    """The table as Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"
