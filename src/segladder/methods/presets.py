"""Presets of methods: `default`, or `official`, what the authors' code does besides their paper, all of it together.

A quirk is a switch with a name, off by default. Sizes are numbers that the official code has and a method's yaml does
not. `preset: official` turns all quirks on and takes all sizes, and overrides other settings of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from segladder.errors import ConfigError

Preset = Literal["default", "official"]


@dataclass(frozen=True)
class Quirks:
    """Switches of a method; a subclass has a field, false by default, for each."""

    @classmethod
    def chosen(cls, preset: Preset, switches: Mapping[str, bool] | None = None) -> Self:
        """All switches on under `official`, else those that are given.

        Raises:
            ConfigError: an unknown switch.
        """
        known = [field.name for field in fields(cls)]
        switches = switches or {}
        if unknown := [name for name in switches if name not in known]:
            raise ConfigError(f"method.quirks: no such switch {', '.join(unknown)}; expected {', '.join(known)}")
        return cls(**dict.fromkeys(known, True)) if preset == "official" else cls(**switches)


def sizes(preset: Preset, official: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as given, those of the official code in their place under `official`."""
    return {**given, **official} if preset == "official" else dict(given)
