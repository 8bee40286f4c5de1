"""What a study leaves in the repository: small copies of its records."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from segladder.report import record as records
from segladder.report.record import Record

PATH = re.compile(r"(?<![^\s='\"\[(,:])(?:~|\.{1,2})?/(?:[^\s/'\",\]):]+/)*(?=[^\s/'\",\]):])")


def slim(record: Record) -> Record:
    """A copy fit for a repository.

    Of every path that starts with `/`, `~` or `.` only the last part is kept, of an error the last line, of a
    checkpoint its hash.
    """
    bare = _without_folders(asdict(record))
    error = (bare["error"] or "").strip().splitlines()
    checkpoint = {key: value for key, value in bare["checkpoint"].items() if key != "path"}
    return replace(Record(**bare), error=error[-1] if error else None, checkpoint=checkpoint)


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(item) for item in value]
    return PATH.sub("", value) if isinstance(value, str) else value


def collect(found: Iterable[Record], folder: str | Path) -> list[Path]:
    """Write slim records as `METHOD-BACKBONE-seedSEED-ID.json` into a folder; returns the files."""
    return [records.write(slim(record), Path(folder) / _file_name(record)) for record in found]


def _file_name(record: Record) -> str:
    parts = (record.method, record.backbone.get("name"), f"seed{record.seed}", record.id)
    return re.sub(r"[^\w.-]+", "_", "-".join(str(part) for part in parts if part)) + ".json"
