"""What a run has seen and paid for with all that it builds on, and whether another run may build on it.

A run's folder holds `labelled.json`: its labels and those behind every run that it builds on. Its record says what that
comes to: `label_access.seen` (kinds of label by class), `label_access.images` (how many by kind), `label_access.absent`
(classes of which no training image held a pixel). A run that builds on it reads these, not what the parent was shown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from segladder.data.labels.kinds import kinds
from segladder.data.labels.labelled import Labelled, image_counts, joined, seen_kinds
from segladder.errors import DataError
from segladder.files import write_text
from segladder.foreign import content, json_values
from segladder.protocols.base import Protocol
from segladder.report import record as records
from segladder.runs.folder import BACKBONE, PARENT, START
from segladder.runs.recording import backbone_node
from segladder.settings import fits

LABELLED = "labelled.json"
ANY = "*"  # in place of a class: all, as far as anybody can tell
MOST = "masks"
SAID: dict[str, Any] = {
    "seen": dict[str, list[str]],
    "absent": list[str] | None,
    "labelled": str,
    "unknown": list[str],
    "oracles": list[str],
}
ORACLE = "oracle"  # a run's `selection`


@dataclass(frozen=True)
class Access:
    """What a run has seen with all that it builds on.

    Attributes:
        seen: kinds of label by class name, those of training alone; `*` stands for all classes, where a run is gone.
        absent: names of the classes of which no training image held a pixel; None: nothing was trained.
        labelled: the labels, image by image.
        unknown: ids of runs of older versions that do not say in which images they had labels.
        oracles: names of the data sets of which an oracle chose something by labels that training was not shown.
    """

    seen: dict[str, list[str]]
    absent: frozenset[str] | None
    labelled: tuple[Labelled, ...] = ()
    unknown: tuple[str, ...] = ()
    oracles: tuple[str, ...] = ()

    def and_of(self, others: Sequence[Access]) -> Access:
        """What this run and other runs have seen together."""
        every = (self, *others)
        names = sorted({name for access in every for name in access.seen})
        found = {name: {kind for access in every for kind in access.seen.get(name, ())} for name in names}
        absent = [access.absent for access in every if access.absent is not None]
        return Access(
            {name: [kind for kind in kinds() if kind in found[name]] for name in names},
            frozenset.intersection(*absent) if absent else None,
            joined(part for access in every for part in access.labelled),
            tuple(dict.fromkeys(run for access in every for run in access.unknown)),
            tuple(sorted({data for access in every for data in access.oracles})),
        )

    def kinds_of(self, name: str) -> list[str]:
        """The kinds of label that it has seen of a class."""
        return [*self.seen.get(name, ()), *self.seen.get(ANY, ())]

    def plain(self) -> dict[str, Any]:
        """What a record says of it."""
        said: dict[str, Any] = {"seen": self.seen, "images": image_counts(self.labelled)}
        said["absent"] = None if self.absent is None else sorted(self.absent)
        further = {"unknown": list(self.unknown), "oracles": list(self.oracles)}
        return said | {key: names for key, names in further.items() if names}


def own_access(labelled: Sequence[Labelled], absent: frozenset[str] | None, oracles: tuple[str, ...] = ()) -> Access:
    """What a run has seen by itself."""
    parts = joined(labelled)
    return Access(seen_kinds(parts), absent, parts, oracles=oracles)


def absent_from(config: DictConfig, protocol: Protocol) -> frozenset[str] | None:
    """Names of the classes of which no image of a run's own training holds a pixel; None: nothing is trained."""
    if not config.method.trains:
        return None
    hides = protocol.hidden() if protocol.drops_novel or protocol.ladder else ()
    return frozenset({*config.loader.without, *hides})


def parents_of(config: DictConfig | dict[str, Any]) -> Iterator[tuple[str, Path, records.Record]]:
    """The runs that a run builds on, each with the key that names it and its folder."""
    weights = config.get("backbone", {}).get("weights") if backbone_node(config) is not None else None
    for key, place in ((BACKBONE, weights), (START, config.get(START)), (PARENT, config.get(PARENT))):
        if place is not None and (Path(place) / records.FILE_NAME).exists():
            yield key, Path(place), records.read(Path(place))


def access_of(folder: Path, record: records.Record) -> Access:
    """What a finished run has seen with all that it builds on.

    Raises:
        DataError: its record says what no run says, or its `labelled.json` is gone or not the one that it wrote.
    """
    said = {"unknown": [], "oracles": list(oracles_of(record)), **record.label_access}
    if "seen" not in said:
        return older_access(record)
    for key, annotation in SAID.items():
        if key not in said or not fits(annotation, said[key]):
            raise DataError(f"{folder / records.FILE_NAME}: label_access.{key} is not what a run writes there")
    absent = None if said["absent"] is None else frozenset(said["absent"])
    further = tuple(said["unknown"]), tuple(said["oracles"])
    return Access(dict(said["seen"]), absent, read_labelled(folder, said["labelled"]), *further)


def oracles_of(record: records.Record) -> tuple[str, ...]:
    """`Access.oracles` of a run by itself, from its record."""
    return (str(record.data["name"]),) if record.label_access.get("selection") == ORACLE else ()


def older_access(record: records.Record) -> Access:
    """`Access` of a run whose version kept no account: from its record, and the records that its folders still name."""
    trained = bool(record.checkpoint)
    paid = (record.annotation_cost or {}).get("labels", "masks")
    learnt = set(record.data["classes"][1:]) - hidden_classes(record) if trained else set()
    seen = {name: [record.label_kind if name in novel_classes(record) else paid] for name in sorted(learnt)}
    own = Access(seen, absent_classes(record) if trained else None, (), (record.id,), oracles_of(record))
    found = list(parents_of(record.config))
    above = [access_of(folder, parent) for _, folder, parent in found]
    if gone := tuple(run for run in record.parents if run not in {parent.id for _, _, parent in found}):
        above.append(Access({ANY: [MOST]}, frozenset(), (), gone))
    return own.and_of(above)


def absent_classes(record: records.Record) -> frozenset[str]:
    """Names of the classes that no training image of a run held, from the record of an older version."""
    fields = record.protocol.get("fields", {})
    drops = "drop" in (fields.get("novel_pixels"), fields.get("unseen_pixels"))
    without = record.config.get("loader", {}).get("without", ())
    return frozenset({*without, *(hidden_classes(record) if drops else ())})


def hidden_classes(record: records.Record) -> set[str]:
    """Names of the classes of which a run had no label, from the record of an older version."""
    return set(record.label_access.get("hidden", novel_classes(record)))


def novel_classes(record: records.Record) -> Sequence[str]:
    """Names of the classes of a run's fold, where it has one."""
    folds = record.protocol.get("fields", {}).get("folds", [])
    return folds[record.fold] if record.fold is not None and folds else ()


def write_labelled(folder: Path, labelled: Sequence[Labelled]) -> str:
    """Write `labelled.json` of a run, atomically; returns the sha256 of its content."""
    ordered = sorted((part.plain() for part in labelled), key=lambda part: json.dumps({**part, "held": None}))
    text = json.dumps(ordered, separators=(",", ":")) + "\n"
    write_text(folder / LABELLED, text)
    return hashlib.sha256(text.encode()).hexdigest()


def read_labelled(folder: Path, sha256: str) -> tuple[Labelled, ...]:
    """The labels behind a run. Raises DataError unless the file is there as a run wrote it."""
    path = folder / LABELLED
    if not path.is_file():
        raise DataError(f"{path}: not there, expected the labels behind the run; copy the whole folder of a run")
    data = content(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"{path}: not the file that the run wrote (sha256 in its record), nothing can build on it")
    try:
        if not isinstance(parts := json_values(data), list):
            raise ValueError("no list")
        return tuple(map(Labelled.from_plain, parts))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: {error}, expected a list of labels as a run writes it") from error
