"""Errors as one line that says what is wrong and what is allowed; do the choices of a configuration fit together?"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from segladder.errors import ConfigError

VISIBLE = {  # which labels a run of each supervision may learn from
    "full": {"masks", "tags"},
    "image_level": {"tags"},
    "few_shot": {"masks"},
    "zero_shot": {"masks"},
}
SELECTIONS = ("fixed", "held_out", "oracle")


def check_choices(config: DictConfig) -> None:
    """Raise ConfigError when method, loss, data, protocol and selection do not fit together."""
    supervision, needs = config.method.supervision, config.loss.labels
    if "criterion" in config.method and needs not in VISIBLE[supervision]:
        allowed = " or ".join(sorted(VISIBLE[supervision]))
        raise ConfigError(
            f"the loss needs {needs}, but method={config.method.name} is {supervision} and learns from {allowed}: "
            f"choose another loss"
        )
    if config.protocol.dataset != config.data.name:
        raise ConfigError(
            f"protocol={config.protocol.name} scores {config.protocol.dataset}, but data={config.data.name}: "
            f"choose data={config.protocol.dataset} or protocol=semantic"
        )
    if config.selection not in SELECTIONS:
        raise ConfigError(f"selection={config.selection}: choose from {', '.join(SELECTIONS)}")
    if config.selection == "held_out" and not config.loader.held_out:
        raise ConfigError(
            "selection=held_out needs held-out training images: set loader.held_out=0.05 (a share) or more"
        )


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
