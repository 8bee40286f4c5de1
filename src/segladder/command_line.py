"""The words of a command line as Hydra takes them; the user's folders of choices are named once, absolute."""

from __future__ import annotations

import filecmp
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from segladder.configuration import conf_folder
from segladder.errors import ConfigError

SEARCHPATH = "hydra.searchpath"
CONFIG_DIR = ("--config-dir", "-cd")
PLAIN = re.compile(r"[\w/:.+@-]+")  # what stands in an override without quotes


def own_choices(overrides: Iterable[str]) -> list[str]:
    """Of overrides, the one that names the folders of the user's own choices: what child processes are told too."""
    return [override for override in overrides if override.startswith(f"{SEARCHPATH}=")]


def with_own_choices(words: Sequence[str]) -> list[str]:
    """The words with all folders of the user's choices in one `hydra.searchpath=[file:///DIR]`, the last word.

    Those of `--config-dir` come first. Hydra keeps that flag from the processes that a command starts.

    Raises:
        ConfigError: no such folder, or one of `--config-dir` with other choices by names that `conf/` has.
    """
    folders: list[str] = []
    searched: list[str] = []
    others: list[str] = []
    left = iter(words)
    for word in left:
        flag, equals, value = word.partition("=")
        if flag in CONFIG_DIR:
            folders.append(f"file://{without_namesakes(value if equals else next(left, ''))}")
        elif (found := searchpath_in(word)) is not None:
            searched += found
        else:
            others.append(word)
    folders += [absolute(place) for place in searched]
    if not folders:
        return others
    listed = ",".join(place if PLAIN.fullmatch(place) else quoted(place) for place in folders)
    return [*others, f"{SEARCHPATH}=[{listed}]"]


def searchpath_in(word: str) -> list[str] | None:
    """The places that an override of `hydra.searchpath` lists; None for any other word, and for what Hydra refuses."""
    if not word.lstrip("+").startswith(f"{SEARCHPATH}="):
        return None
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        places = OverridesParser.create().parse_override(word).value()
    except HydraException:
        return None
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        return None
    return [str(place) for place in places]


def absolute(place: str) -> str:
    """A place of `hydra.searchpath` that means the same in every folder. Raises ConfigError where it is no folder."""
    scheme, found, path = place.rpartition("://")
    if found and scheme != "file":
        return place
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise ConfigError(f"{SEARCHPATH}: {path} is no folder, expected one of choices such as method/mine.yaml")
    return f"file://{folder}"


def without_namesakes(given: str) -> Path:
    """The folder of `--config-dir`, absolute. Raises ConfigError where `conf/` hides a file of it."""
    folder = Path(given).absolute()
    if not given or not folder.is_dir():
        raise ConfigError(f"--config-dir {given}: no such folder, expected one of choices such as method/mine.yaml")
    for file in sorted(conf_folder().rglob("*.yaml")):
        own = folder / file.relative_to(conf_folder())
        if own.exists() and not filecmp.cmp(file, own, shallow=False):
            raise ConfigError(f"{own}: conf/ has another file of that name; give yours a name of its own")
    return folder


def quoted(text: str) -> str:
    """A text as Hydra reads it back."""
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'
