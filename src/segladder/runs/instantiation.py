"""A configuration node becomes the object it names; a run's folder may name what `conf/` names at the same place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from segladder.configuration import conf_folder
from segladder.errors import ConfigError, SegLadderError
from segladder.foreign import stays_inside
from segladder.settings import Node, UnknownKey, check_value

TARGET = "_target_"
PACKAGE = re.compile(r"^# @package (\S+)", re.MULTILINE)
_CHOICES: ContextVar[tuple[Path, ...]] = ContextVar("choices", default=())
LINK = re.compile(r"\$\{([\w.]+)\}")  # ${loss}: what stands there may stand here


def instantiated(node: DictConfig, name: str, **extra: Any) -> Any:
    """Instantiate a configuration node, once its keys are checked; what its class refuses becomes one line."""
    try:
        check_value(Node, OmegaConf.to_container(node, resolve=True), name)
    except UnknownKey as error:
        raise ConfigError(f"{error}; where it is of another version, give {name}=NAME anew") from error
    try:
        return instantiate(node, **extra)
    except InstantiationException as error:
        cause = error.__cause__
        while cause is not None and not isinstance(cause, SegLadderError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from error
        if isinstance(error.__cause__, TypeError):
            raise ConfigError(f"{name}: {error.__cause__}") from error
        raise


def trusted(stored: Any, file: Path) -> DictConfig:
    """The configuration of a run's folder, once nothing in it can run, be resolved or lead out of a folder by its name.

    Args:
        stored: what `file` holds, in plain types.
        file: for messages.

    Raises:
        ConfigError: a class that neither `conf/` nor a folder of `hydra.searchpath` names at that place, another key
            of Hydra's, an interpolation, a name that is a path out of its folder.
    """
    if not isinstance(stored, Mapping):
        raise ConfigError(f"{file}: holds no settings, expected the configuration of a run")
    allowed = named(conf_folders())
    for place, key, value in settings(stored):
        where = f"{file}: {f'{place}.{key}'.lstrip('.')}"
        if key == TARGET and (place, str(value)) not in allowed:
            raise ConfigError(
                f"{where}: {value} is no class that conf/ names there, so it is not built; for a class of your own give"
                " hydra.searchpath=[file://DIR] (segladder.load: choices=DIR), the folder whose yaml names it"
            )
        if key != TARGET and key.startswith("_"):
            raise ConfigError(f"{where}: conf/ has no such key, so nothing is built")
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"{where}: {value} is an interpolation, expected a plain value as every run writes it")
        if isinstance(value, str) and key == "name" and not stays_inside(value):
            raise ConfigError(f"{where}: {value!r} is no name, expected one that stays inside a folder")
    config = OmegaConf.create(dict(stored))
    assert isinstance(config, DictConfig)
    return config


def settings(value: Any, place: str = "", key: str | None = None) -> Iterator[tuple[str, str, Any]]:
    """Every value of nested settings, folders of others included, with its place and key; items of a list share one."""
    if key is not None:
        yield place, key, value
    inner = place if key is None else f"{place}.{key}" if place else key
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from settings(item, inner, re.sub(r"([.\[])", r"\\\1", str(name)))  # a key is one step of its place
    elif isinstance(value, list):
        for item in value:
            yield from settings(item, place, f"{key}[]")


@cache
def named(folders: tuple[Path, ...]) -> frozenset[tuple[str, str]]:
    """Each place of a configuration with a class that folders of choices name there, themselves or by a link."""
    found: set[tuple[str, str]] = set()
    links: set[tuple[str, str]] = set()
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            written = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            for place, key, value in settings(written, package(file, folder)):
                if key == TARGET:
                    found.add((place, str(value)))
                elif link := LINK.fullmatch(str(value)):
                    links.add((f"{place}.{key}".lstrip("."), link[1]))
    size = -1
    while size != len(found):
        size = len(found)
        for place, other in links:
            found |= {(place + at[len(other) :], name) for at, name in found if f"{at}.".startswith(f"{other}.")}
    return frozenset((place, name) for place, name in found if name != "???")


def package(file: Path, folder: Path) -> str:
    """The place that a yaml file of a folder of choices fills: what its head says, or the name of its group."""
    if head := PACKAGE.search(file.read_text(encoding="utf-8")):
        return "" if head[1] == "_global_" else head[1]
    return ".".join(file.relative_to(folder).parent.parts)


@contextmanager
def choices_of(folder: str | Path | None) -> Iterator[None]:
    """Within the block the user's folder of choices counts, as `hydra.searchpath` does on the command line.

    Raises ConfigError where there is no such folder.
    """
    if folder is not None and not Path(folder).is_dir():
        raise ConfigError(f"choices={folder}: no such folder, expected one of yaml files such as method/mine.yaml")
    before = _CHOICES.set(() if folder is None else (Path(folder),))
    try:
        yield
    finally:
        _CHOICES.reset(before)


def conf_folders() -> tuple[Path, ...]:
    """The package's choices, and the folders of choices that the user names for this command, `hydra.searchpath`."""
    own = conf_folder()
    if not HydraConfig.initialized():
        return (own, *_CHOICES.get())
    sources = HydraConfig.get().runtime.config_sources
    given = [source for source in sources if source.provider.startswith("hydra.searchpath")]
    return (own, *(Path(str(files(s.path))) if s.schema == "pkg" else Path(s.path) for s in given))
