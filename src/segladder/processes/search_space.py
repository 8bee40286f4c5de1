"""What a search may try: the node `space` of `conf/search.yaml` as Optuna's distributions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from segladder.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

REQUIRED, ALLOWED = {"low", "high"}, {"low", "high", "log", "step"}
EXPECTED = "expected [choices] or {low: A, high: B} with log: true or step: C"


def load_optuna() -> ModuleType:
    """Optuna, silenced but for warnings; raises ConfigError if it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("search needs Optuna: pip install 'segladder[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def distributions(space: Any) -> dict[str, BaseDistribution]:
    """The distribution of each key; choices are kept as the text of their override.

    Raises:
        ConfigError: an empty space, or an entry that is neither a list of choices nor a range.
    """
    if not isinstance(space, Mapping) or not space:
        raise ConfigError(f"space={space}: nothing to search; give space={{KEY: ...}}, {EXPECTED}")
    return {str(key): _distribution(str(key), given) for key, given in space.items()}


def overrides(parameters: Mapping[str, Any]) -> list[str]:
    """`KEY=VALUE` of each parameter of a trial."""
    return [f"{key}={override_value(value)}" for key, value in parameters.items()]


def override_value(value: Any) -> str:
    """A value as Hydra reads it back: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def first_of(space: Mapping[str, Any]) -> dict[str, Any]:
    """The first choice or the lower end of each key's distribution."""
    return {key: one.choices[0] if hasattr(one, "choices") else one.low for key, one in space.items()}


def _distribution(key: str, given: Any) -> BaseDistribution:
    known = load_optuna().distributions
    distribution: BaseDistribution
    if isinstance(given, list) and given:
        distribution = known.CategoricalDistribution([override_value(choice) for choice in given])
        return distribution
    if not isinstance(given, Mapping) or not REQUIRED <= given.keys() <= ALLOWED:
        raise ConfigError(f"space.{key}={given}: {EXPECTED}")
    whole = all(isinstance(number, int) for number in given.values())
    try:
        distribution = (known.IntDistribution if whole else known.FloatDistribution)(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"space.{key}: {error}; {EXPECTED}") from error
    return distribution
