"""What a study leaves in the repository: small copies of its records, and the counts behind its intervals."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from segladder.errors import DataError
from segladder.files import locked, written
from segladder.foreign import NO_ARCHIVE
from segladder.report import record as records
from segladder.report.counted import ARCHIVE, Archives, member
from segladder.report.means import differ
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
    last = error[-1] if error else None
    return replace(
        Record(**bare), error=last, checkpoint=checkpoint, protocol=record.protocol
    )  # its fields have a hash


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(item) for item in value]
    return PATH.sub("", value) if isinstance(value, str) else value


def collect(found: Iterable[tuple[Record, Path]], folder: str | Path) -> Path:
    """Put slim records into a folder's `records.jsonl` and their counts into its `counts.zip`; returns the first.

    A record that is there already (same `records.key`) is replaced, as is what its run left before its protocol was
    known; others stay. Counts lose the supports, which no score depends on.

    Args:
        found: records with the folder each lies in.
        folder: of the study; created if missing.

    Raises:
        DataError: a line that is there cannot be read, so that writing would lose it; or two records of one run differ.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with locked(Path(folder).resolve()):
        return _collected(list(found), Path(folder) / records.LINES_NAME)


def _collected(found: Sequence[tuple[Record, Path]], file: Path) -> Path:
    there, faults = records.read_lines(file) if file.exists() else ([], [])
    if faults:
        raise DataError(f"{faults[0]}; repair or remove the line, copying would lose it")
    require_one_of_each(found)
    kept = {records.key(record): record for record in [*there, *(slim(record) for record, _ in found)]}
    scored = {run for run, protocol_hash in kept if protocol_hash}
    left = [r for (run, protocol), r in kept.items() if protocol or run not in scored]
    _collect_counts(found, file.with_name(ARCHIVE), {member(record) for record in left})
    return records.write_lines(left, file)


def require_one_of_each(found: Iterable[tuple[Record, Path]]) -> None:
    """Raise DataError where copies of a run hold finished records that differ: one of them would be lost."""
    first: dict[tuple[str, str], tuple[Record, Path]] = {}
    for record, folder in (place for place in found if place[0].status == "finished"):
        other, place = first.setdefault(records.key(record), (record, folder))
        if differ(other, record):
            raise DataError(
                f"{folder}: run {record.id} has other scores or labels than in {place}; keep one of the two"
            )


def _collect_counts(found: Iterable[tuple[Record, Path]], archive: Path, wanted: set[str]) -> None:
    """Put the counts of runs into an archive, beside those that are there; of `wanted` members alone."""
    counts: dict[str, bytes] = {}
    if archive.exists():
        try:
            with zipfile.ZipFile(archive) as whole:
                counts = {name: whole.read(name) for name in whole.namelist()}
        except NO_ARCHIVE as error:
            raise DataError(f"{archive}: damaged ({error}); repair or remove it, copying would lose it") from error
    with Archives() as archives:
        for record, folder in found:
            with suppress(DataError):  # of an older version, or a run that never was scored
                stream = io.BytesIO()
                archives.counts(record, folder).bare().save(stream)
                counts[member(record)] = stream.getvalue()
    if counts := {name: data for name, data in counts.items() if name in wanted}:
        with written(archive) as partial, zipfile.ZipFile(partial, "w") as whole:
            for name, data in sorted(counts.items()):
                whole.writestr(zipfile.ZipInfo(name), data)
