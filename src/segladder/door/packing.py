"""A run as one file: the files of its folder that answers and scores need, unchanged, and how they are read again.

Members lie uncompressed under names of this list and no other. So unpacking takes no more room than the file's own
size, and nothing in it can lead out of a folder. Hashes are compared as in a run's folder.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from segladder.errors import ConfigError, DataError, SegLadderError
from segladder.files import written
from segladder.methods.image_level.base import LaterStage
from segladder.report.record import FILE_NAME
from segladder.runs.folder import CONFIG, EMBEDDINGS, WEIGHTS, require_own_folders
from segladder.runs.loading import load_run
from segladder.stages.access import LABELLED

PARTS = (CONFIG, FILE_NAME, WEIGHTS, EMBEDDINGS, LABELLED)
NEEDED = (CONFIG, FILE_NAME)
LARGEST = 4_000_000_000  # bytes of all members
SUFFIX = ".zip"


def pack(run: Path, out: Path) -> Path:
    """Write a finished run as one file, the same bytes for the same run; returns where.

    Raises:
        ConfigError: no finished run, or one that answers with what another run knows.
        DataError: it is not what it wrote.
    """
    _, record, method = load_run(run)
    if record.status != "finished":
        raise ConfigError(f"run={run}: is {record.status}, expected a finished run")
    if isinstance(method, LaterStage):
        raise ConfigError(
            f"run={run}: method={method.name} answers with what its parent knows; pack a network that was trained on"
            " its pseudo-masks"
        )
    if links := [run / name for name in PARTS if (run / name).is_symlink()]:
        raise ConfigError(f"{links[0]}: a link, expected the run's own file; nothing from elsewhere is packed")
    with written(out) as partial, zipfile.ZipFile(partial, "w") as whole:
        for name in (name for name in PARTS if (run / name).exists()):
            with (run / name).open("rb") as source, whole.open(zipfile.ZipInfo(name), "w", force_zip64=True) as copy:
                shutil.copyfileobj(source, copy)
    return out


@contextmanager
def opened(run: Path) -> Iterator[Path]:
    """The folder of a run, for as long as the block lasts: itself, or a temporary one with what a packed run holds.

    Faults of a packed run name its file. Raises DataError for a file that no run was packed into.
    """
    if not run.is_file():
        yield run
        return
    with TemporaryDirectory(prefix="segladder-") as place:
        try:
            unpack(run, Path(place))
            yield Path(place)
        except SegLadderError as error:
            raise type(error)(str(error).replace(place, str(run))) from error


def unpack(packed: Path, folder: Path) -> None:
    """Write the members of a packed run to a folder of one's own. Raises DataError for anything else."""
    try:
        with zipfile.ZipFile(packed) as whole:
            for member in checked(packed, whole.infolist()):
                with whole.open(member) as source, (folder / member.filename).open("xb") as copy:
                    shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise DataError(
            f"{packed}: damaged or no packed run ({error}), expected what segladder export wrote"
        ) from error


def checked(packed: Path, members: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The members of a packed run. Raises DataError unless they are as `pack` writes them."""
    names = [member.filename for member in members]
    expected = "expected what segladder export wrote"
    if other := [name for name in names if name not in PARTS]:
        raise DataError(f"{packed}: holds {other[0]!r}, which no packed run has; {expected}")
    if missing := [name for name in NEEDED if name not in names]:
        raise DataError(f"{packed}: no {missing[0]} in it, {expected}")
    if len(set(names)) < len(names):
        raise DataError(f"{packed}: holds a file twice, {expected}")
    for member in members:
        plain = member.compress_type == zipfile.ZIP_STORED and member.file_size == member.compress_size
        if not plain or member.flag_bits & 1:
            raise DataError(f"{packed}: {member.filename} is compressed or encrypted, {expected}")
    if (size := sum(member.file_size for member in members)) > LARGEST:
        raise DataError(f"{packed}: {size / 1e9:.1f} GB, expected {LARGEST / 1e9:.0f} at most")
    return members


def home(run: Path) -> Path:
    """The folder that what is made of a run goes to: its own, or beside a packed run one of its name.

    Raises ConfigError where that leads elsewhere.
    """
    if not run.is_file():
        return run
    beside = run.with_suffix("")
    if beside.is_symlink():
        raise ConfigError(f"{beside}: a link, expected a folder of its own for what is made of {run.name}")
    require_own_folders(beside)
    return beside
