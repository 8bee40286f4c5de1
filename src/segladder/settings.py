"""What a setting may hold: types with their bounds, the check that a value fits, and the words for what is expected.

A schema is a TypedDict of keys, or a class whose constructor says what its keys are. `_target_` names such a class.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from segladder.errors import ConfigError

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
TwoOrMore = Annotated[int, Field(ge=2)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
ProperShare = Annotated[float, Field(gt=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[^/\\]+$", description="a name without slashes")]
Scales = Annotated[tuple[AboveZero, ...], Field(min_length=1)]  # test-time
Positives = Annotated[Sequence[Positive], Field(min_length=1)]  # channels of layers, dilations
RGB = tuple[float, float, float]
Byte = Annotated[int, Field(ge=0, le=255)]
OutputStride = Literal[8, 16, 32]  # input pixels per step of a last map
Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N")]
Node = Mapping[str, Any]  # a choice of a group; its `_target_` says what it may hold


@dataclass(frozen=True)
class KeysOf:
    """In `Annotated[Node, KeysOf(kind)]`: its keys are the parameters of `kind`, which is not named by a `_target_`."""

    schema: Any


class UnknownKey(ConfigError):
    """A key that what stands at a place does not take."""


TARGET, MISSING = "_target_", "???"
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    NoneType: "null",
}
BOUNDS: dict[type, tuple[str, str]] = {
    Ge: ("ge", "at least"),
    Gt: ("gt", "above"),
    Le: ("le", "at most"),
    Lt: ("lt", "below"),
}


def check(schema: Any, values: Mapping[str, Any], place: str) -> None:
    """Check nested settings in plain types.

    Args:
        schema: a TypedDict, or a class or function whose parameters are the keys.
        values: the settings.
        place: their key, for messages; empty for those of a command.

    Raises:
        ConfigError: naming the first key at fault, its value and what it may hold.
    """
    hints = hints_of(schema)
    within = f"{place}." if place else ""
    for key in values:
        if key not in hints and key != TARGET:
            raise UnknownKey(f"{within}{key}: no such key{suggestion(key, hints)}; allowed: {', '.join(hints)}")
    for key, annotation in hints.items():
        if key in values:
            check_value(annotation, values[key], f"{within}{key}")
        elif key in getattr(schema, "__required_keys__", ()):
            raise ConfigError(f"{within}{key}: is missing, expected {expected(annotation)}")


def check_value(annotation: Any, value: Any, place: str) -> None:
    """Check one setting, and what it holds; see `check`."""
    if annotation is Any:
        return
    if value == MISSING:
        raise ConfigError(f"{place}: needs a value, expected {expected(annotation)}")
    if isinstance(value, Mapping) and TARGET in value:
        if value[TARGET] == MISSING:
            raise ConfigError(f"{place}: needs a choice, give {place}=NAME")
        check(found_class(value[TARGET], place), value, place)
    elif isinstance(value, list) and any(isinstance(item, Mapping) and TARGET in item for item in value):
        for position, item in enumerate(value):
            check_value(Node, item, f"{place}[{position}]")
    elif isinstance(value, Mapping) and (schema := keys_in(annotation)) is not None:
        check(schema, value, place)
    elif isinstance(value, Mapping) and Mapping[str, Node] in (annotation, *get_args(annotation)):
        for key, item in value.items():
            check_value(Node, item, f"{place}.{key}")
    elif not fits(annotation, value):
        raise ConfigError(f"{place}={shown(value)}: expected {expected(annotation)}")


def found_class(name: str, place: str) -> Any:
    """What a name such as `package.module.Class` is of. Raises ConfigError where it cannot be imported."""
    try:
        return resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        yours = "a class of your own must be installed, or its folder stand in PYTHONPATH"
        raise ConfigError(f"{place}._target_={name}: {error}; {yours}") from error


def fits(annotation: Any, value: Any) -> bool:
    """Whether a value in plain types is one of a type: nothing is converted but whole numbers to others."""
    try:
        adapter(annotation).validate_json(json.dumps(value, default=list), strict=True)
    except ValidationError:
        return False
    except PydanticUserError:  # of a type that no plain value can have
        return value is None and NoneType in get_args(annotation)
    return True


@cache
def adapter(annotation: Any) -> TypeAdapter[Any]:
    """What checks values of a type; numbers have to be finite."""
    return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))


@cache
def hints_of(schema: Any) -> dict[str, Any]:
    """Each key of a schema with its type, that of the nearest constructor which takes it."""
    if is_typeddict(schema):
        return get_type_hints(schema, include_extras=True)
    if not inspect.isclass(schema):
        return parameters(schema)
    if is_dataclass(schema):
        hints = get_type_hints(schema, include_extras=True)
        return {field.name: hints[field.name] for field in fields(schema)}
    found: dict[str, Any] = {}
    for kind in schema.__mro__:
        if constructor := vars(kind).get("__init__"):
            found = parameters(constructor) | found
            if not passes_on(constructor):
                break
    return found


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The named parameters of a function with their types."""
    hints = get_type_hints(function, include_extras=True)
    kinds = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    named = [name for name, p in inspect.signature(function).parameters.items() if p.kind not in kinds]
    return {name: hints.get(name, Any) for name in named if name != "self"}


def passes_on(function: Callable[..., Any]) -> bool:
    """Whether a function takes keywords that it does not name."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def keys_in(annotation: Any) -> Any:
    """The schema of the keys that a type is or allows, or None."""
    if is_typeddict(annotation) or isinstance(annotation, KeysOf):
        return annotation.schema if isinstance(annotation, KeysOf) else annotation
    return next((found for option in get_args(annotation) if (found := keys_in(option))), None)


def expected(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in WORDS:
        return WORDS[annotation]
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 1 else str(inner[0])
    if origin is Annotated:
        return bounded(inner[0], inner[1:])
    if origin in (Union, UnionType):
        return " or ".join(expected(option) for option in inner)
    if keys_in(annotation) is annotation:
        return f"keys such as {', '.join(list(hints_of(annotation))[:3])}"
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)}, each {expected(inner[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return "a choice or keys with values" if annotation != Node else "a choice"
    if origin is not None and issubclass(origin, Iterable):
        return f"a list, each {expected(inner[0])}"
    return "a choice"


def bounded(kind: Any, notes: Iterable[Any]) -> str:
    """A type in words, with its bounds or by its description."""
    facts = [fact for note in notes for fact in (note.metadata if isinstance(note, FieldInfo) else [note])]
    for note in notes:
        if isinstance(note, FieldInfo) and note.description:
            return note.description
    limits = [f"{BOUNDS[type(f)][1]} {getattr(f, BOUNDS[type(f)][0])}" for f in facts if type(f) in BOUNDS]
    if any(isinstance(fact, MinLen) for fact in facts):
        limits.append("with one at least")
    return " ".join([expected(kind), " and ".join(limits)]).strip()


def shown(value: Any) -> str:
    """A value as one writes it in an override."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def suggestion(word: str, options: Iterable[str]) -> str:
    """` (did you mean X?)` for the closest option, or nothing."""
    close = difflib.get_close_matches(word, list(options), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
