"""Composing `conf/` from the words of a command, its errors as one line, the check of every key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import yaml
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.initialize import initialize_config_module
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segladder.command_line import know_every_alphabet, own_choices
from segladder.configuration import choices, conf_folder
from segladder.errors import ConfigError
from segladder.settings import MISSING, check, hints_of, suggestion

OPEN = ("backbone.options", "embeddings.words")  # dictionaries whose keys are the user's
NO_NAME = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)|true|false|null", re.IGNORECASE)


def not_a_choice(overrides: list[str]) -> str | None:
    """The complaint about a choice that is left out, by no name, or a file which choices build on (`_trained`)."""
    for override in overrides:
        if override.startswith("~") and (complaint := not_removable(override[1:].partition("=")[0])):
            return complaint
        group, _, value = override.lstrip("+").partition("=")
        for name in value.strip("[]").split(",") if group and is_group(group) else ():
            if name.startswith("_") or NO_NAME.fullmatch(name):
                return f"{group}={name}: no such choice; choose from {', '.join(choices(group))}"
    return None


def not_removable(key: str) -> str | None:
    """The complaint about `~KEY` of a choice or a key that others refer to; None for one inside a node."""
    if "." in key or key == "experiment":
        return None
    if not is_group(key):
        return f"~{key}: a command needs all of its keys; give {key}=VALUE"
    options = choices(key)
    none = f"{key}=none, or another of" if "none" in options else f"{key}="
    return f"~{key}: a choice is not left out; choose {none} {', '.join(options)}"


def opened(override: str) -> str:
    """An override as Hydra takes it where a dictionary's keys are free."""
    return f"++{override}" if override.startswith(tuple(f"{key}{end}" for key in OPEN for end in ".=")) else override


@contextmanager
def composing() -> Iterator[None]:
    """Hydra's `compose` knows `conf/` within the block; afterwards Hydra is as the caller's own program left it."""
    know_every_alphabet()
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("segladder.conf", version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = before


def explain(command: str, overrides: list[str], error: Exception) -> str:
    """One line for an error of composing `conf/COMMAND.yaml` with `overrides`."""
    text = str(error)
    if "'hydra/launcher/submitit" in text:
        return "hydra/launcher=slurm needs a plugin: pip install 'segladder[slurm]'"
    if found := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text):
        options = re.findall(r"^\t([^_\s]\S*)$", text, re.MULTILINE) or choices(found[1])
        return f"{found[1]}={found[2]}: no such choice{suggestion(found[2], options)}; choose from {', '.join(options)}"
    if found := re.search(r"'([^']+)'(?:\s+1\. To use it as a list| requires --multirun)", text):
        return f"{found[1]}: several values: add -m for a run of each; one value that is a list is [A,B]"
    if found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text):
        parent, _, key = found[1].rpartition(".")
        chosen, allowed = keys_at(command, overrides, parent)
        if "delete" in found[0] and key in allowed:  # Hydra takes null for nothing
            return f"~{found[1]}: is null, so there is nothing to remove"
        group = f"{parent.replace('.', '/')}={chosen}" if chosen else parent
        place = f" in {group}" if group else ""
        offer = suggestion(key, allowed) or elsewhere(command, key, found[1])
        return f"{found[1]}: no such key{place}{offer}; allowed: {', '.join(allowed) or 'none'}"
    if (override := getattr(error, "override", None)) is not None:
        if "=~" in override:
            return f"{override}: ~ is the shell's word for your folder, which it does not replace there; write $HOME"
        return (
            f"{override}: not understood, expected key=value with closed brackets and quotes; "
            "a value with signs such as & ( or = has quotes of its own: 'KEY=\"VALUE\"'"
        )
    return " ".join(text.split())


def elsewhere(command: str, key: str, asked: str) -> str:
    """` (did you mean trainer.epochs?)`: where a command has a key of that name by default, but for the place asked."""
    with composing():
        found = places_of(key, OmegaConf.to_container(compose(command), resolve=False))
        places = [place for place in found if place != asked]
    return f" (did you mean {' or '.join(places[:2])}?)" if places else ""


def places_of(key: str, value: Any, place: str = "") -> Iterator[str]:
    """Where nested settings have a key."""
    if isinstance(value, dict):
        if key in value:
            yield f"{place}{key}"
        for name, item in value.items():
            yield from places_of(key, item, f"{place}{name}.")


def as_written(group: str, name: str) -> dict[str, Any]:
    """What the file of a choice says, over the files of its group that it builds on; nothing is resolved.

    What such files choose of other groups is left out.
    """
    said = yaml.safe_load((conf_folder() / group / f"{name}.yaml").read_text(encoding="utf-8"))
    below = [each for each in said.pop("defaults", []) if isinstance(each, str) and each != "_self_"]
    merged = OmegaConf.merge(*(as_written(group, each) for each in below), said)
    return cast(dict[str, Any], OmegaConf.to_container(merged, resolve=False))


def is_group(key: str) -> bool:
    """Whether a key is chosen by the name of a file."""
    return (conf_folder() / key).is_dir()


def keys_at(command: str, overrides: list[str], parent: str) -> tuple[str, list[str]]:
    """What is chosen for node `parent` ("" if it is no choice) and its keys; settings may be at fault themselves."""
    named = [o for o in overrides if is_group(o.split("=")[0]) and "{" not in o]
    named = [*own_choices(overrides), *(o for o in named if not o.startswith("hydra."))]
    with composing():
        config = compose(command, named, return_hydra_config=True)
    chosen = config.hydra.runtime.choices.get(parent.replace(".", "/")) or ""
    while parent:
        node = OmegaConf.select(config, parent)
        if isinstance(node, DictConfig):
            return chosen, [str(key) for key in node if key != "_target_"]
        parent = parent.rpartition(".")[0]
    return "", [str(key) for key in config if key != "hydra"]


def one_line(error: Exception) -> str:
    """An error's own line, without the traceback that a loading process wraps around it."""
    last = str(error).strip().splitlines()[-1]
    return last.removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")


def given_words() -> list[str]:
    """The overrides that this command was given, and the folders of the user's own choices, which they may name."""
    given = HydraConfig.get().overrides
    return [*own_choices(given.hydra), *given.task]


def composed(overrides: list[str], command: str = "train") -> DictConfig:
    """The configuration of a command with these overrides."""
    with composing():
        return compose(command, [opened(override) for override in overrides])


def composed_or_explained(overrides: list[str], command: str = "train") -> DictConfig:
    """`composed`, but raises ConfigError with the line that the command line prints where the words do not compose."""
    if complaint := not_a_choice(overrides):
        raise ConfigError(complaint)
    try:
        return composed(overrides, command)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(command, overrides, error)) from error


def check_keys(config: DictConfig, schema: Any) -> None:
    """Check every key of a command's configuration against a TypedDict of them.

    Raises:
        ConfigError: naming the first key at fault, its value and what it may hold.
    """
    hints = hints_of(schema)
    check(schema, {str(key): plain(config, str(key), hints.get(str(key)) is not Any) for key in config}, "")


def plain(config: DictConfig, key: str, resolve: bool) -> Any:
    """A setting in plain types; what may be `Any` is not checked, and keeps its interpolations."""
    value = MISSING if OmegaConf.is_missing(config, key) else config[key]
    return OmegaConf.to_container(value, resolve=resolve) if OmegaConf.is_config(value) else value
