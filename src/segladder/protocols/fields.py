"""What the fields of protocols may hold, and the check that they do."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import asdict, fields
from functools import cache
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from segladder.data.sources.base import Source
from segladder.errors import ConfigError

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
OtherClasses = Literal["ignore", "background"]
Fit = Literal["native", "square", "padded", "floored"]
ScoreAt = Literal["native", "input"]
Absent = Literal["skip", "zero"]
MinObject = Literal["grid", "area", "none"]
Aggregate = Literal["mean", "area_mean", "vote", "relative_vote", "or", "max", "logit_mean"]
GammaOn = Literal["probabilities", "logits"]
GammaRule = Literal["seen_budget", "fixed", "oracle"]
DenseFit = Literal["native", "square", "short"]
DenseScoreAt = Literal["native", "input", "features"]


def check_fields(protocol: Any) -> None:
    """Check every field of a protocol, a dataclass, against its annotation.

    Raises:
        ConfigError: naming the first field at fault, its value and what it may hold; or a size that `fit` needs.
    """
    values = json.loads(json.dumps(asdict(protocol), default=list))
    for name, (annotation, adapter) in _adapters(cast(Hashable, type(protocol))).items():
        try:
            adapter.validate_json(json.dumps(values[name]), strict=True)
        except ValidationError as error:
            raise ConfigError(f"protocol.{name}={_shown(values[name])}: {_expected(annotation, error)}") from error
    if values.get("fit", "native") != "native" and values.get("input_side") is None:
        raise ConfigError(f"protocol.fit={values['fit']}: needs a size, set protocol.input_side to pixels")


def check_classes(name: str, classes: Sequence[str] | None, source: Source, some: Sequence[str] = ()) -> None:
    """Raise ConfigError if a source does not hold a protocol's classes, or none of the names in `some`."""
    wanted = source.all_classes[1:] if classes is None else classes
    if tuple(wanted) != tuple(source.classes[1:]):
        raise ConfigError(
            f"protocol {name} scores the classes {', '.join(wanted)}, "
            f"but data.classes gives {', '.join(source.classes[1:])}"
        )
    if unknown := [each for each in some if each not in source.classes]:
        raise ConfigError(
            f"protocol {name}: no class {unknown[0]} in use, expected some of {', '.join(source.classes)}"
        )


@cache
def _adapters(kind: Hashable) -> dict[str, tuple[Any, TypeAdapter[Any]]]:
    hints = get_type_hints(cast(type, kind), include_extras=True)
    names = [field.name for field in fields(cast(Any, kind))]
    return {name: (hints[name], TypeAdapter(hints[name])) for name in names}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _expected(annotation: Any, error: ValidationError) -> str:
    """What a field may hold: its choices, or pydantic's word on the first fault."""
    if get_origin(annotation) is Literal:
        return f"expected one of {', '.join(map(str, get_args(annotation)))}"
    fault = error.errors()[0]
    place = "".join(f"[{step}]" for step in fault["loc"])
    return f"{place}{': ' if place else ''}{fault['msg'][0].lower()}{fault['msg'][1:]}"
