"""Where `conf/` lies, in a checkout or an installed package, and the choices that its groups offer."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def conf_folder() -> Path:
    """The folder of the package's choices. Raises FileNotFoundError where it is not installed."""
    spec = importlib.util.find_spec("segladder.conf")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("segladder.conf: the configuration is not installed, expected it beside the package")
    return Path(spec.submodule_search_locations[0])


def choices(group: str) -> list[str]:
    """The names that `GROUP=NAME` takes; files `_NAME.yaml` hold what choices share and are none themselves."""
    return sorted(path.stem for path in (conf_folder() / group).glob("[!_]*.yaml"))
