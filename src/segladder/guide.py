"""Help of a command and completion of its words, read from `conf/`: its files say what each key is for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from segladder.cli import COMMANDS
from segladder.configuration import choices, conf_folder
from segladder.errors import ConfigError

LINE = re.compile(r"( *)([\w.]+):(?: +([^#\n]*?))?(?: *# (.*))?$")
DEFAULT = re.compile(r"  - (\w+)(?:: (\S+))?(?: # (.*))?$")
LISTED = re.compile(r"(.*[,\[])?(.*)")  # of several values: those before the last, and its beginning
NOT_KEYS = ("defaults", "hydra", "_target_")
WIDTH = 34  # of `key=value` in a list of keys

SCRIPTS = {  # the words before the cursor go to `segladder --complete`, which prints one candidate a line
    "bash": """\
_segladder() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##* }" before=""
    COMPREPLY=($(segladder --complete "$line"))
    # bash takes what stands before = for a word of its own
    if [[ $word == *=* && ${COMP_WORDBREAKS-} == *=* ]]; then before="${word%"${word##*=}"}"; fi
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
    if [[ ${COMPREPLY[0]-} == *= ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o default -F _segladder segladder
""",
}
# zsh runs bash's script
SCRIPTS["zsh"] = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + SCRIPTS["bash"]
SCRIPTS["fish"] = "complete -c segladder -f -a '(segladder --complete (commandline -cp))'\n"


class Key(NamedTuple):
    """A line of a configuration: `note` is its comment."""

    name: str
    value: str
    note: str


def keys_of(file: Path, place: str = "") -> Iterator[Key]:
    """The keys of a yaml file in their order, nested ones with dots, as they stand there."""
    above: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if (found := LINE.match(line)) is None:
            continue
        depth, name, value, note = len(found[1]), found[2], found[3] or "", found[4] or ""
        above = [(at, key) for at, key in above if at < depth]
        path = [key for _, key in above] + [name]
        above.append((depth, name))
        if path[0] not in NOT_KEYS and name != "_target_" and (value or note):
            yield Key(".".join([place, *path] if place else path), value, note)


def groups_of(command: str) -> dict[str, Key]:
    """The choices that a command takes, by group, with their defaults; those of `train` where it builds on that."""
    found: dict[str, Key] = {}
    for line in (conf_folder() / f"{command}.yaml").read_text(encoding="utf-8").splitlines():
        if (default := DEFAULT.match(line)) is None:
            continue
        if default[1] in COMMANDS and default[2] is None:
            found |= groups_of(default[1])
        elif default[2] is not None:
            found[default[1]] = Key(default[1], default[2], default[3] or "")
    return found


def command_help(command: str) -> str:
    """What `segladder COMMAND --help` prints: what it does, examples, choices, keys."""
    file = conf_folder() / f"{command}.yaml"
    head = [line[1:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    about = [line.strip() for line in head if not line.startswith("   ")]
    lines = [f"usage: segladder {command} key=value ...", "", *about, "", "examples"]
    lines += [f"  {line.strip()}" for line in head if line.startswith("   ")]
    if groups := groups_of(command):
        lines += ["", "choices"]
        lines += [
            f"  {f'{group}={default.value}':<{WIDTH}} {told(group, default)}" for group, default in groups.items()
        ]
    lines += ["", "keys (??? needs a value)"]
    lines += [f"  {f'{key.name}={key.value}':<{WIDTH}} {key.note}".rstrip() for key in keys_of(file)]
    lines += ["", f"`segladder {command} --cfg job` shows every key that the choices bring along."]
    return "\n".join(lines)


def told(group: str, default: Key) -> str:
    """The names of a group, and what its default's comment says."""
    return " ".join(choices(group)) + (f" ({default.note})" if default.note else "")


def candidates(line: str) -> list[str]:
    """What may stand where a line of words ends: a command, `key=`, or `group=NAME`."""
    words = line.split(" ")[1:]
    if len(words) < 2:
        return [name for name in COMMANDS if name.startswith(words[0] if words else "")]
    command, word = words[0], words[-1]
    if command not in COMMANDS:
        return []
    own = own_folders(words[1:-1])
    groups = {group: default.value for group, default in groups_of(command).items()}
    group, equals, start = word.partition("=")
    if equals:
        before, last = LISTED.fullmatch(start).groups("")  # type: ignore[union-attr]
        known = choices(group, own) if group in groups else []
        return [f"{group}={before}{name}" for name in known if name.startswith(last)]
    chosen = groups | dict(w.split("=", 1) for w in words[1:-1] if "=" in w)
    names = [*groups, *(key.name for key in all_keys(command, {group: chosen[group] for group in groups}, own))]
    return sorted({f"{name}=" for name in names if name.startswith(word)})


def own_folders(words: Sequence[str]) -> list[Path]:
    """The folders of the user's own choices that words of a line name by `--config-dir` or `hydra.searchpath`."""
    from segladder.command_line import CONFIG_DIR, flags_and_overrides, searchpath_in

    try:
        flags, overrides = flags_and_overrides(shlex.split(" ".join(words)))
    except (ConfigError, ValueError):  # the line is wrong, or its quotes are open
        return []
    places = [flag[1] for flag in flags if flag[0] in CONFIG_DIR]
    places += [place for override in overrides for place in searchpath_in(override) or ()]
    return [Path(place.removeprefix("file://")) for place in places]


def all_keys(command: str, chosen: dict[str, str], own: Sequence[Path]) -> Iterator[Key]:
    """The keys of a command and of the choices that are made."""
    if command == "search":
        yield from keys_of(conf_folder() / "train.yaml")
    yield from keys_of(conf_folder() / f"{command}.yaml")
    for group, name in chosen.items():
        yield from keys_of_choice(group, name, (conf_folder(), *own))


def keys_of_choice(group: str, name: str, folders: Sequence[Path], above: tuple[str, ...] = ()) -> Iterator[Key]:
    """The keys of a choice and of the files that it builds on, but those of `above`, which build on it."""
    file = next((file for folder in folders if (file := folder / group / f"{name}.yaml").is_file()), None)
    if file is None or name in above:  # null, or a list
        return
    text = file.read_text(encoding="utf-8")
    if shared := re.search(r"^defaults: \[([^\]]*)\]", text, re.MULTILINE):
        for other in re.findall(r"(?<![\w/])\w+", shared[1]):
            yield from keys_of_choice(group, other, folders, (*above, name))
    yield from keys_of(file, "" if "# @package _global_" in text else group)
