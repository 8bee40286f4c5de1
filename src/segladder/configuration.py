"""Where `conf/` lies, in a checkout or an installed package, and which choices its groups offer."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path


def conf_folder() -> Path:
    """The folder of the package's choices. Raises FileNotFoundError where it is not installed."""
    spec = importlib.util.find_spec("segladder.conf")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("segladder.conf: the configuration is not installed, expected it beside the package")
    return Path(spec.submodule_search_locations[0])


def choices(group: str, own: Iterable[Path] = ()) -> list[str]:
    """The names that `GROUP=NAME` takes; files `_NAME.yaml` hold what choices share and are none themselves.

    Args:
        group: of the choices.
        own: further folders of them.
    """
    return sorted({path.stem for folder in (conf_folder(), *own) for path in (folder / group).glob("[!_]*.yaml")})


def each_protocol(command: str, *overrides: str) -> list[list[str]]:
    """The overrides once for each protocol of `evaluate protocol=[a,b]`, otherwise as they are."""
    given = [o for o in overrides if command == "evaluate" and o.startswith("protocol=[") and o.endswith("]")]
    if not given:
        return [list(overrides)]
    names = [name.strip() for name in given[-1].removeprefix("protocol=[").removesuffix("]").split(",")]
    return [[*(o for o in overrides if o not in given), f"protocol={name}"] for name in names]
