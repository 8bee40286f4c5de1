"""What a study leaves in the repository: small copies of its records."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from segladder.errors import DataError
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


def collect(found: Iterable[Record], folder: str | Path) -> Path:
    """Put slim records into a folder's `records.jsonl`; returns that file.

    A record that is there already (same `records.key`) is replaced, as is what its run left before its protocol was
    known; others stay.

    Raises:
        DataError: a line that is there cannot be read, so that writing would lose it.
    """
    file = Path(folder) / records.LINES_NAME
    there, faults = records.read_lines(file) if file.exists() else ([], [])
    if faults:
        raise DataError(f"{faults[0]}; repair or remove the line, copying would lose it")
    kept = {records.key(record): record for record in [*there, *map(slim, found)]}
    scored = {run for run, protocol_hash in kept if protocol_hash}
    return records.write_lines([r for (run, protocol), r in kept.items() if protocol or run not in scored], file)
