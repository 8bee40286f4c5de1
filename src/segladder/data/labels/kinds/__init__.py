"""The kinds of label, a file each; a new file is found by looking into this folder."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from inspect import isabstract

from segladder.data.labels.kinds.base import Labels
from segladder.errors import ConfigError


@cache
def kinds() -> dict[str, Labels]:
    """Every kind of label by name, with its default settings, from the least annotation to the most."""
    modules = [import_module(found.name) for found in pkgutil.iter_modules(__path__, f"{__name__}.")]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    found = [kind() for kind in classes if issubclass(kind, Labels) and not isabstract(kind)]
    return {kind.name: kind for kind in sorted(found, key=lambda kind: kind.rank)}


def of_supports(singular: str) -> Labels:
    """The kind whose single label has this name, as in `protocol.support_annotation`. Raises ConfigError for none."""
    known = {kind.singular: kind for kind in kinds().values() if kind.singular}
    if singular not in known:
        raise ConfigError(f"support_annotation={singular}: choose from {', '.join(known)}")
    return known[singular]
