"""Lists of ids, one a line, each inside the folders that it names files of; and lists of class names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from segladder.errors import ConfigError, DataError
from segladder.foreign import printable, stays_inside, text

MOST_CLASSES = 255  # with the background; 255 itself is ignored


def read_ids(path: Path, id_of: Callable[[str], str] = str) -> list[str]:
    """Ids of a list file.

    Args:
        path: the file.
        id_of: a line without blanks around it to its id.

    Raises:
        DataError: the file is missing, an id would name a file outside its folder, or stands twice.
    """
    ids = listed(path, id_of)
    if len(set(ids)) != len(ids):
        repeated = Counter(ids).most_common(1)[0][0]
        raise DataError(f"{path}: id {repeated} is listed twice, expected each once")
    return ids


def listed(path: Path, id_of: Callable[[str], str] = str) -> list[str]:
    """The ids of a list as in `read_ids`, where an id may stand more than once."""
    try:
        lines = text(path).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        fault = error.strerror if isinstance(error, OSError) else "no text in UTF-8"
        raise DataError(f"{path}: {fault}, expected a list of image ids; check data.root") from error
    found = [(number, id_of(line.strip())) for number, line in enumerate(lines, start=1) if line.strip()]
    for number, image_id in found:
        if not stays_inside(image_id):
            raise DataError(f"{path}:{number}: id {printable(image_id)} leads out of its folder, expected a name below")
    return [image_id for _, image_id in found]


def stem_of(line: str) -> str:
    """The first word of a line or, if that is a path, its stem."""
    word = line.split()[0]
    return Path(word).stem if "/" in word else word


def check_names(data: str, classes: Sequence[str]) -> None:
    """Raise ConfigError where two classes of a data set have one name, or there are more than masks can tell apart."""
    if twice := [name for name, times in Counter(classes).items() if times > 1]:
        raise ConfigError(f"data={data}: two classes are called {printable(twice[0])}, expected names of their own")
    if len(classes) > MOST_CLASSES:
        raise ConfigError(f"data={data}: {len(classes)} classes, expected {MOST_CLASSES} at most: masks hold 0..254")


def checked_folds(folds: Sequence[Sequence[str]], classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Folds as tuples. Raises ConfigError for a class that does not exist or stands twice."""
    named = [name for fold in folds for name in fold]
    for name in named:
        if name not in classes or named.count(name) > 1:
            fault = "stands twice" if name in classes else "does not exist"
            raise ConfigError(f"data.folds: the class {name} {fault}; each of {', '.join(classes)} at most once")
    return tuple(tuple(fold) for fold in folds)
