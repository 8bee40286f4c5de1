"""Methods at an eighth of their channels, for tests."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf


def smaller(settings: Mapping[str, Any]) -> list[str]:
    """Overrides that divide a method's channel counts by eight, whichever it has."""
    overrides = []
    for key in (key for key in settings if key.endswith(("width", "channels"))):
        value = settings[key]
        shrunk = value // 8 if isinstance(value, int) else [max(2, c // 8) for c in value]
        overrides.append(f"method.{key}={shrunk}".replace(" ", ""))
    return overrides


@cache
def small_words(name: str) -> tuple[str, ...]:
    """The words of a command that choose a method and make it small."""
    with initialize_config_module("segladder.conf", version_base="1.3"):
        config = compose("train", overrides=[f"method={name}"])
    own = ["backbone.width=8"] if "width" in config.backbone else []  # a method's file may bring its own backbone
    return f"method={name}", *own, *smaller(OmegaConf.to_container(config.method, resolve=True))


@cache
def configuration(name: str) -> DictConfig:
    """The configuration of `segladder train` with a small method."""
    words = list(small_words(name))
    with initialize_config_module("segladder.conf", version_base="1.3"):
        return compose("train", overrides=words)
