"""What the fields of protocols may hold, and the check that they do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal

from segladder.data.sources.base import Source
from segladder.errors import ConfigError
from segladder.methods.few_shot.base import Aggregate, FewShotMethod
from segladder.settings import check, check_value

Fit = Literal["native", "square", "padded", "floored"]
ScoreAt = Literal["native", "input"]
Presence = Literal["always", "calibrated", "competing"]
GammaRule = Literal["seen_budget", "fixed", "oracle"]
DenseFit = Literal["native", "square", "short"]
DenseScoreAt = Literal["native", "input", "features"]


def check_fields(protocol: Any) -> None:
    """Check every field of a protocol, a dataclass, against its annotation.

    Raises:
        ConfigError: naming the first field at fault, its value and what it may hold; or a size that `fit` needs.
    """
    found = {field.name: getattr(protocol, field.name) for field in fields(protocol)}  # `asdict` copies what it finds
    values = json.loads(json.dumps(found, default=list))
    check(type(protocol), values, "protocol")
    if values.get("fit", "native") != "native" and values.get("input_side") is None:
        raise ConfigError(f"protocol.fit={values['fit']}: needs a size, set protocol.input_side to pixels")


def check_classes(name: str, classes: Sequence[str] | None, source: Source, some: Sequence[str] = ()) -> None:
    """Raise ConfigError if a source does not hold a protocol's classes, or none of the names in `some`."""
    wanted = source.all_classes[int(source.background) :] if classes is None else classes
    if tuple(wanted) != source.foreground:
        raise ConfigError(
            f"protocol {name} scores the classes {', '.join(wanted)}, "
            f"but data.classes gives {', '.join(source.foreground)}"
        )
    if unknown := [each for each in some if each not in source.classes]:
        raise ConfigError(
            f"protocol {name}: no class {unknown[0]} in use, expected some of {', '.join(source.classes)}"
        )


def check_joins(method: FewShotMethod, aggregate: str, protocol: str = "") -> None:
    """Raise ConfigError if there is no such way of joining K supports, or the method does not know it."""
    check_value(Aggregate, aggregate, "protocol.aggregate")
    if aggregate not in method.joins:
        raise ConfigError(
            f"protocol.aggregate={aggregate}{f' of protocol={protocol}' if protocol else ''}: method={method.name}"
            f" does not join its supports so; choose from {', '.join(method.joins)}"
        )
