"""Runs the notebooks of docs/notebooks cell by cell in this process: no kernel, no dependency."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def code_of(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells that hold code."""
    return [cell for cell in cells if cell["cell_type"] == "code"]


def printed(cell: dict[str, Any]) -> str:
    """What the notebook shows below a cell."""
    return "".join(line for output in cell["outputs"] for line in output["text"])


def execute(notebook: Path, **parameters: Any) -> Iterator[str]:
    """What each cell prints, from the folder of work; `parameters` replace those of the cell with that tag."""
    names: dict[str, Any] = {}
    for cell in code_of(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile("".join(cell["source"]), notebook.name, "exec"), names)
        yield out.getvalue()
        if "parameters" in cell["metadata"].get("tags", ()):
            assert parameters.keys() <= names.keys(), f"{notebook.name}: expected {', '.join(parameters)}"
            names.update(parameters)


def freeze(notebook: Path) -> None:
    """Run a notebook in its folder and keep what it prints."""
    os.chdir(notebook.parent)
    found = json.loads(notebook.read_text(encoding="utf-8"))
    for cell, text in zip(code_of(found["cells"]), execute(notebook), strict=True):
        stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
        cell["outputs"] = [stream] if text else []
    notebook.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
