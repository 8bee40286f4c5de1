"""A configuration node becomes the object it names."""

from __future__ import annotations

import re
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from segladder.errors import ConfigError, SegLadderError


def instantiated(node: DictConfig, name: str, **extra: Any) -> Any:
    """Instantiate a configuration node; what its class refuses becomes one line about `name`."""
    try:
        return instantiate(node, **extra)
    except InstantiationException as error:
        cause = error.__cause__
        while cause is not None and not isinstance(cause, SegLadderError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from error
        if isinstance(error.__cause__, TypeError):
            if unknown := re.search(r"unexpected keyword argument '(\w+)'", str(error.__cause__)):
                raise ConfigError(f"{name}.{unknown[1]}: no key of this version; give {name}=NAME anew") from error
            raise ConfigError(f"{name}: {error.__cause__}") from error
        raise
