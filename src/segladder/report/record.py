"""The record of a run: one JSON object that says what was run, on what, and what came out.

A run's folder holds its `record.json`; a study keeps small copies of its records as the lines of one `records.jsonl`.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from segladder.data.sources.palette import Colours
from segladder.errors import DataError
from segladder.files import written
from segladder.foreign import content, json_values
from segladder.report.checked import check_values

SCHEMA = 3  # since 2 the protocol says what its scores are (`segladder.report.declared`), since 3 what they follow from
WITH_COUNTS = 3  # the first whose intervals follow from counts that were kept
FILE_NAME = "record.json"
LINES_NAME = "records.jsonl"
KINDS = {"zero_shot": "names", "image_level": "tags"}  # of label in older versions, by supervision; else what was paid
RECORDS = re.compile(r"records\.jsonl|[^.].*\.json", re.DOTALL)  # names of files that may hold some


@dataclass(slots=True)
class Record:
    """What is known of one run. Every field has a default, so that a run that failed early can still be recorded.

    Attributes:
        time: start of the run, ISO 8601 in UTC.
        status: `running` (also what a killed run leaves), `finished`, `interrupted`, `diverged` (a loss or
            weights that are not finite) or `failed`.
        commit: of the package's checkout; None when installed from a wheel. `dirty` says whether code was changed.
        config: the resolved configuration in plain types; `config_hash` is `hash_of` it.
        backbone: `name`, `weights`, `pretraining`.
        label_access: `labels` used, how `selection` and `thresholds` were chosen (`fixed`, `held_out`, `oracle`); the
            chosen `epoch`, the `score` that chose it and on what (`chosen_by`), where one did; `early_stopping`
            (`patience`, whether it `ended` training); what the run has seen, with all it builds on (docs/labels.md).
        protocol: `name`, `hash`, the protocol's `fields`, and what it says of its scores, `Declaration.plain`.
        data: `name`, its `title` in tables where that is another, `classes`, `train_ids` (how many),
            `train_fingerprint`, `val_fingerprint`, both over labels; of a further evaluation `val_images`, over the
            files of the scored images; `background` is false where the first class is one like the others; `colours`
            (RGB by class) where classes have their own.
        metrics: name to `value`, `low`, `high`: the score and its 95 % interval over images (None where not computed).
        per_class: one row per class, see `segladder.metrics.overlap.per_class`.
        curve: scores along a threshold or a gamma, one row each, where the protocol sweeps one.
        annotation_cost: what the labels cost, in seconds of human work.
        threads: of torch on the CPU; another number of them, like another device or version, changes last bits.
        precision: of training, in Lightning's words; scoring is in float32, unless `protocol` has a `precision`.
        checkpoint: `path` (relative to the run's folder) and `sha256`.
        parents: ids of runs that this one started from.
        lineage: methods of the stages before this one, the first ancestor first.
        error: the last lines of the traceback of a failed run.
    """

    schema: int = SCHEMA
    id: str = ""
    time: str = ""
    status: str = "failed"
    commit: str | None = None
    dirty: bool | None = None
    command: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    config_hash: str = ""
    method: str = ""
    backbone: dict[str, Any] = field(default_factory=dict)
    supervision: str = ""
    label_access: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    fold: int | None = None
    shots: int | None = None
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    per_class: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    annotation_cost: dict[str, Any] | None = None
    parameters: int | None = None
    steps: int | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None
    images_per_second: float | None = None
    peak_memory_mb: float | None = None
    device: str | None = None
    threads: int | None = None
    precision: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    parents: list[str] = field(default_factory=list)
    lineage: list[str] = field(default_factory=list)
    tag: str | None = None
    error: str | None = None

    @property
    def colours(self) -> Colours:
        """How pictures show its classes. Raises DataError for colours that are none."""
        return Colours.stored(self.data, f"run {self.id}")

    @property
    def data_title(self) -> str:
        """What tables call its data set."""
        return str(self.data.get("title") or self.data.get("name") or "")

    @property
    def label_kind(self) -> str:
        """The kind of label that it has of the classes that it is asked about; older versions do not say it."""
        paid = (self.annotation_cost or {}).get("labels", "masks")
        return str(self.label_access.get("kind") or KINDS.get(self.supervision, paid))

    @property
    def has_intervals(self) -> bool:
        """Whether its intervals can be computed again; others are not shown: some drew episodes instead of images."""
        return self.schema >= WITH_COUNTS


def write(record: Record, path: str | Path) -> Path:
    """Write a record so that a reader sees the old file or the new one, never a part.

    Args:
        record: NaN and infinities become null, tuples lists, paths strings.
        path: the run's folder (created if missing), which gets `record.json`, or a file ending in `.json`.

    Returns:
        The file written.
    """
    path = Path(path)
    file = path if path.suffix == ".json" else path / FILE_NAME
    text = json.dumps(plain(asdict(record)), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return _replace(file, [text])


def write_lines(found: Iterable[Record], file: str | Path) -> Path:
    """Write records as the lines of one file, as atomically as `write`; equal records give equal bytes.

    Args:
        found: in any order; lines are ordered by time, id and protocol hash.
        file: `records.jsonl` of a study; its folder is created if missing.

    Returns:
        The file written.
    """
    ordered = sorted(found, key=lambda record: (record.time, *key(record)))
    return _replace(Path(file), (f"{_canonical(asdict(record))}\n" for record in ordered))


def _replace(file: Path, lines: Iterable[str]) -> Path:
    """Put lines in a file's place once all of them are on the disk."""
    with written(file, durable=True) as partial, partial.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(lines)
    return file


def key(record: Record) -> tuple[str, str]:
    """What tells the records of a study apart: the run's id and the protocol's hash, empty where none is known."""
    return record.id, str(record.protocol.get("hash") or "")


def read(path: str | Path) -> Record:
    """Read and check a record.

    Args:
        path: a run's folder or a record's file.

    Raises:
        DataError: no such file, half-written or damaged JSON, a newer schema, an unknown field or a wrong type.
    """
    path = Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    return _checked(_value(_bytes(file), str(file)), str(file))


def read_lines(file: str | Path) -> tuple[list[Record], list[str]]:
    """Read and check a `records.jsonl`; a line at fault does not cost the others.

    Returns:
        Records in the order of their lines, and one fault `FILE:LINE: ...` per line that is damaged, half-written, of a
        newer schema or no record. Empty lines are passed over.

    Raises:
        DataError: the file cannot be opened.
    """
    found: list[Record] = []
    faults: list[str] = []
    try:
        with Path(file).open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.isspace():
                    continue
                place = f"{file}:{number}"
                try:
                    found.append(_checked(_value(line, place), place))
                except DataError as error:
                    faults.append(str(error))
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}, expected records") from error
    return found, faults


def find_records(root: str | Path) -> tuple[list[tuple[Record, Path]], list[str]]:
    """Every record beneath a folder, and the faults of those that cannot be read.

    A record is a `record.json`, a line of a `records.jsonl`, or any `*.json` with the fields of one (older versions
    copied each record to a file of its own). Beside a `record.json` no other file is looked at. A `*.json` that repeats
    a line of the `records.jsonl` beside it is left out. Links to folders are not followed.

    Returns:
        Records with the folder each lies in, ordered by path, and one line per unreadable record.

    Raises:
        DataError: `root` is not a folder.
    """
    if not Path(root).is_dir():
        raise DataError(f"{root}: no such folder, expected one that holds runs")
    found: list[tuple[Record, Path]] = []
    faults: list[str] = []
    in_lines: dict[Path, set[tuple[str, str]]] = {}
    known: dict[bytes, Any] = {}
    for file in map(Path, _candidates(str(root))):
        records, damaged = _records_of(file)
        if file.name == LINES_NAME:
            in_lines[file.parent] = {key(record) for record in records}
        elif file.name != FILE_NAME:
            records = [record for record in records if key(record) not in in_lines.get(file.parent, ())]
        found += [(with_shared(record, known), file.parent) for record in records]
        faults += damaged
    return found, faults


def with_shared(record: Record, known: dict[bytes, Any]) -> Record:
    """A record just read that shares equal parts with those before it (`known`, which grows); nobody writes to them."""

    def shared(value: Any) -> Any:
        return known.setdefault(marshal.dumps(value, 2), value)  # version 2 does not tell shared objects apart

    record.config = {sys.intern(key): shared(value) for key, value in record.config.items()}
    record.protocol, record.data, record.versions = map(shared, (record.protocol, record.data, record.versions))
    record.metrics = {sys.intern(name): score for name, score in record.metrics.items()}
    for row in (row for row in record.per_class if type(row.get("class")) is str):
        row["class"] = sys.intern(row["class"])
    return record


def _candidates(folder: str) -> Iterator[str]:
    """Files that may hold records, folder after folder in the order of their paths, `records.jsonl` first."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: (entry.name != LINES_NAME, entry.name))
    except OSError:
        return
    names = [entry.path for entry in listed if RECORDS.fullmatch(entry.name) and entry.is_file()]
    own = os.path.join(folder, FILE_NAME)
    yield from [own] if own in names else names
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            yield from _candidates(entry.path)


def _records_of(file: Path) -> tuple[list[Record], list[str]]:
    """The checked records of a file and its faults; neither for JSON of another name that is no record."""
    try:
        if file.name == LINES_NAME:
            return read_lines(file)
        value = _value(_bytes(file), str(file))
        known = file.name == FILE_NAME or (isinstance(value, dict) and {"schema", "protocol", "status"} <= value.keys())
        return [_checked(value, str(file))] if known else [], []
    except DataError as error:
        return [], [str(error)]


def _bytes(file: Path) -> bytes:
    try:
        return content(file)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}, expected a record") from error


def _value(text: bytes, place: str) -> Any:
    try:
        return json_values(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: damaged or half-written record ({error})") from error


def _checked(value: Any, place: str) -> Record:
    """The record a JSON value is; `place`, a file or its line, stands before what is wrong."""
    if not isinstance(value, dict) or not isinstance(value.get("schema"), int):
        raise DataError(f"{place}: no record, expected a JSON object with a schema number")
    if not 1 <= value["schema"] <= SCHEMA:
        raise DataError(f"{place}: schema {value['schema']}, expected at most {SCHEMA}; update segladder to read it")
    if unknown := value.keys() - _TYPES.keys():
        raise DataError(f"{place}: unknown field {min(unknown)}, expected the fields of schema {SCHEMA}")
    for name, item in value.items():
        if not isinstance(item, _TYPES[name]):
            wanted = " or ".join("null" if t is type(None) else t.__name__ for t in _TYPES[name])
            raise DataError(f"{place}: {name} is {type(item).__name__}, expected {wanted}")
    check_values(value, place)
    return Record(**value)


def _json_types(annotation: str) -> tuple[type, ...]:
    """The types a field may have when read: `float | None` to (int, float, NoneType)."""
    kinds = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "dict": (dict,), "list": (list,)}
    parts = [part.split("[")[0].strip() for part in annotation.split(" | ")] if "[" not in annotation else None
    names = parts or [annotation.split("[")[0], *(["None"] if annotation.endswith("| None") else [])]
    return tuple(t for name in names for t in kinds.get(name, (type(None),)))


_TYPES = {f.name: _json_types(str(f.type)) for f in fields(Record)}


def plain(value: Any) -> Any:
    """A value in JSON's own types: no NaN (null), tuples (lists), array scalars (numbers) or paths (strings)."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "tolist"):  # a NumPy or torch scalar or array
        return plain(value.tolist())
    return str(value)


def hash_of(value: Any) -> str:
    """First 8 hex digits of the sha256 of a value's canonical JSON: sorted keys, no spaces, plain types."""
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:8]


def _canonical(value: Any) -> str:
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
