"""Errors as one line that says what is wrong and what is allowed; do the choices of a configuration fit together?"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.initialize import initialize_config_module
from omegaconf import DictConfig, OmegaConf


def explain(command: str, overrides: list[str], error: Exception) -> str:
    """One line for an error of composing `conf/COMMAND.yaml` with `overrides`."""
    text = str(error)
    if "'hydra/launcher/submitit" in text:
        return "hydra/launcher=slurm needs a plugin: pip install 'segladder[slurm]'"
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        options = re.findall(r"^\t([^_\s]\S*)$", text, re.MULTILINE)  # without _NAME: what choices share
        return f"{found[1]}={found[2]}: no such choice{suggestion(found[2], options)}; choose from {', '.join(options)}"
    if found := re.search(r"Could not override '([^']+)'", text):
        parent, _, key = found[1].rpartition(".")
        allowed = keys_at(command, overrides, found[1], parent)
        place = f" in {parent}" if parent else ""
        return f"{found[1]}: no such key{place}{suggestion(key, allowed)}; allowed: {', '.join(allowed)}"
    if (override := getattr(error, "override", None)) is not None:
        return f"{override}: not understood, expected key=value with closed brackets and quotes"
    return " ".join(text.split())


def suggestion(word: str, options: Iterable[str]) -> str:
    """` (did you mean X?)` for the closest option, or nothing."""
    close = difflib.get_close_matches(word, list(options), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def keys_at(command: str, overrides: list[str], bad_key: str, parent: str) -> list[str]:
    """The keys of node `parent` when the configuration is composed without the override of `bad_key`."""
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.initialize import initialize_config_module

    good = [o for o in overrides if "=" in o and not o.startswith("-") and o.split("=")[0] != bad_key]
    GlobalHydra.instance().clear()
    with initialize_config_module("segladder.conf", version_base="1.3"):
        config = compose(command, [o for o in good if not o.startswith("hydra")])
    while parent:
        node = OmegaConf.select(config, parent)
        if isinstance(node, DictConfig):
            return [str(key) for key in node if key != "_target_"]
        parent = parent.rpartition(".")[0]
    return [str(key) for key in config]


def one_line(error: Exception) -> str:
    """An error's own line, without the traceback that a loading process wraps around it."""
    last = str(error).strip().splitlines()[-1]
    return last.removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")


def composed(overrides: list[str]) -> DictConfig:
    """The configuration of `segladder train` with these overrides."""
    GlobalHydra.instance().clear()
    with initialize_config_module("segladder.conf", version_base="1.3"):
        return compose("train", overrides)
