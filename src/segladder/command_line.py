"""The words of a command line as Hydra takes them; the user's folders of choices are named once, absolute."""

from __future__ import annotations

import filecmp
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from segladder.configuration import conf_folder
from segladder.errors import ConfigError

SEARCHPATH = "hydra.searchpath"
CONFIG_DIR, MULTIRUN, CFG = ("--config-dir", "-cd"), ("--multirun", "-m"), ("--cfg", "-c")
INFO = ("--info", "-i")
ALONE = (*MULTIRUN, "--run", "-r", "--resolve", "--hydra-help", "--shell-completion", "-sc")
WITH_VALUE = (*CONFIG_DIR, *CFG, "--package", "-p", "--config-path", "-cp", "--config-name", "-cn")
INFOS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
CFGS = ("job", "hydra", "all")
PLAIN = re.compile(r"[\w/:.+@-]+", re.ASCII)  # what stands in an override without quotes


def for_hydra(words: Sequence[str]) -> list[str]:
    """The words of a command as Hydra takes them: flags, wherever they stand, then overrides.

    Raises:
        ConfigError: flags that are none or do not fit each other or the overrides; see also `with_own_choices`.
    """
    flags, overrides = flags_and_overrides(words)
    names = {flag for flag, *_ in flags}
    sweeps = names & {*MULTIRUN} or "hydra.mode=MULTIRUN" in overrides
    shows = next((flag for flag in flags if flag[0] in (*CFG, *INFO)), None)
    if shows and sweeps:
        raise ConfigError(f"{' '.join(shows)} shows the configuration of one run: leave -m out")
    if "--resolve" in names and not shows:
        raise ConfigError("--resolve: goes with --cfg job")
    single = next((o for o in overrides if o.startswith("hydra.run.dir=")), None)
    if single and sweeps:
        raise ConfigError(
            f"{single}: is the folder of a single run; a sweep's is hydra.sweep.dir, a job's in it hydra.sweep.subdir"
        )
    kept = [word for flag in flags if flag[0] not in CONFIG_DIR for word in flag]
    return [*kept, *with_own_choices(overrides, [flag[1] for flag in flags if flag[0] in CONFIG_DIR])]


def know_every_alphabet() -> None:
    """Names in letters of any alphabet need no quotes; of themselves the words that Hydra reads know a-z alone."""
    from hydra.grammar.gen.OverrideLexer import OverrideLexer

    for state in OverrideLexer.atn.states:
        for step in state.transitions:
            if step.label is not None and ord("Z") in step.label:  # its letters, [a-zA-Z]
                step.label.addRange(range(0x80, 0x110000))


def flags_and_overrides(words: Sequence[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Flags, each with its value if it takes one, and the words that are none. Raises ConfigError for unknown ones."""
    flags: list[tuple[str, ...]] = []
    overrides: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        if not word.startswith("-"):
            overrides.append(word)
        elif word in ALONE:
            flags.append((word,))
        elif flag in INFO:
            given = value or (left.pop(0) if left and left[0] in INFOS else "all")
            flags.append((flag, one_of(flag, given, INFOS)))
        elif flag in WITH_VALUE:
            given = value if equals else left.pop(0) if left else ""
            if not given:
                raise ConfigError(f"{flag}: needs a value")
            flags.append((flag, one_of(flag, given, CFGS) if flag in CFG else given))
        else:
            raise ConfigError(f"{word}: no such flag; there are -m, --cfg job, --resolve, --config-dir DIR, --info")
    return flags, overrides


def one_of(flag: str, value: str, options: Sequence[str]) -> str:
    """The value of a flag. Raises ConfigError where it is none of its options."""
    if value not in options:
        raise ConfigError(f"{flag} {value}: expected one of {', '.join(options)}")
    return value


def own_choices(overrides: Iterable[str]) -> list[str]:
    """Of overrides, the one that names the folders of the user's own choices: what child processes are told too."""
    return [override for override in overrides if override.startswith(f"{SEARCHPATH}=")]


def with_own_choices(overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> list[str]:
    """The overrides with all folders of the user's choices in one `hydra.searchpath=[file:///DIR]`, the last of them.

    Those of `--config-dir` come first. Hydra keeps that flag from the processes that a command starts.

    Raises:
        ConfigError: no such folder, or one of `--config-dir` with other choices by names that `conf/` has.
    """
    searched = [searchpath_in(override) for override in overrides]
    others = [override for override, places in zip(overrides, searched, strict=True) if places is None]
    folders = [f"file://{without_namesakes(folder)}" for folder in config_dirs]
    folders += [absolute(place) for places in searched for place in places or ()]
    if not folders:
        return others
    listed = ",".join(map(quoted, folders))
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
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {given}: no such folder, expected one of choices such as method/mine.yaml")
    for file in sorted(conf_folder().rglob("*.yaml")):
        own = folder / file.relative_to(conf_folder())
        if own.exists() and not filecmp.cmp(file, own, shallow=False):
            raise ConfigError(f"{own}: conf/ has another file of that name; give yours a name of its own")
    return folder


def quoted(text: str | Path) -> str:
    """A text or a path as Hydra reads it back, in quotes where it needs them."""
    return str(text) if PLAIN.fullmatch(str(text)) else in_quotes(str(text))


def in_quotes(text: str) -> str:
    """A text in quotes, as Hydra reads it back; there a backslash counts only where it stands before a quote."""
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text)
    return f'"{escaped}"'
