"""What a score says of itself: the name it is printed under, its unit, its direction, and where it is shown.

Protocols declare their scores, records carry the declaration, and reports read it. So a report knows no score by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

UNITS = ("share", "number")
DIRECTIONS = ("higher", "lower", "")
PLACES = ("summary", "table", "curve")


@dataclass(frozen=True)
class FromCounts:
    """How a score follows from counts: a formula over some of their rows and classes.

    Args:
        formula: a name of `segladder.metrics.formulas.FORMULAS`.
        classes: names of the groups of classes that count, see `Counts.groups`; all classes if empty.
        kinds: of the rows that count, see `Asked.kind`; all rows if empty.
        absent: a class that is neither true nor predicted is left out (`skip`) or counts 0 (`zero`).
        lists: several frozen lists of episodes are `pooled`, or each is scored and the scores averaged (`mean`).
    """

    formula: str
    classes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    absent: str = "skip"
    lists: str = "pooled"

    def plain(self) -> dict[str, Any]:
        """All that differs from the defaults, in JSON's own types."""
        return _plain(self)

    @classmethod
    def read(cls, plain: Any) -> FromCounts | None:
        """What `plain` gave; None for the name alone that records of older versions, which kept other counts, hold.

        Raises:
            ValueError: not what `plain` gives.
        """
        if plain is None or isinstance(plain, str):
            return None
        try:
            lists = {key: tuple(plain[key]) for key in ("classes", "kinds") if key in plain}
            rule = cls(**{**plain, **lists})
        except TypeError as error:
            raise ValueError(f"statistic of a score: {error}") from error
        words = [rule.formula, *rule.classes, *rule.kinds, rule.absent, rule.lists]
        if wrong := [word for word in words if not isinstance(word, str)]:
            raise ValueError(f"statistic of a score: {wrong[0]!r} is no text")
        return rule


@dataclass(frozen=True)
class Score:
    """What is known of a score before anything is measured; the numbers lie in a record's `metrics`.

    Args:
        name: key in `metrics`, in rows per class, or in the curve.
        label: what it is printed under; empty for the name with spaces.
        unit: `share`, 0..1 and printed in percent, or `number`, printed as it is.
        better: `higher`, `lower`, or empty for a score that says neither.
        shown: where: in the `summary` printed after a run, in a `table` beside the score that ranks, in the `curve`
            along what the protocol sweeps.
        statistic: how it follows from counts, which gives its interval and paired tests; None for a score that has
            neither.
        over_folds: how folds become one value: `mean`, or a name of `segladder.metrics.pooling.POOLED`.
        remark: half a sentence on the best rung of a ladder, with `{rung}` and `{score}`.

    Raises:
        ValueError: an unknown unit, direction or place.
    """

    name: str
    label: str = ""
    unit: str = "share"
    better: str = "higher"
    shown: tuple[str, ...] = ()
    statistic: FromCounts | None = None
    over_folds: str = "mean"
    remark: str = ""

    def __post_init__(self) -> None:
        for value, allowed in ((self.unit, UNITS), (self.better, DIRECTIONS), *((p, PLACES) for p in self.shown)):
            if value not in allowed:
                raise ValueError(f"score {self.name}: {value!r}, expected one of {', '.join(map(repr, allowed))}")

    @property
    def heading(self) -> str:
        """The label, or the name with spaces."""
        return self.label or self.name.replace("_", " ")

    @property
    def title(self) -> str:
        """The label, or the name as one would write it in `metric=`: of the score that ranks."""
        return self.label or self.name

    @property
    def sign(self) -> int:
        """-1 where lower is better, else 1: times this, higher is better."""
        return -1 if self.better == "lower" else 1

    @property
    def scale(self) -> int:
        """What a value is printed times."""
        return 100 if self.unit == "share" else 1

    @property
    def percent(self) -> str:
        """The sign behind a printed value, with a space."""
        return " %" if self.unit == "share" else ""

    @property
    def axis(self) -> str:
        """Title of an axis."""
        return f"{self.title}, %" if self.unit == "share" else self.title

    def text(self, value: float | None, digits: int = 1, sign: str = "") -> str:
        """A value as printed, without its unit; numbers get one digit more, None and nan are a dash."""
        if value is None or math.isnan(value):
            return "-"
        return self.rounded(self.scale * value, digits, sign)

    def rounded(self, scaled: float, digits: int = 1, sign: str = "") -> str:
        """What is `scale` times a value, or times a difference of values, as printed."""
        return f"{scaled:{sign}z.{digits + (self.unit == 'number')}f}"

    def under(self, absent: str) -> Score:
        """The score with another rule for absent classes, `skip` or `zero`."""
        return self if self.statistic is None else replace(self, statistic=replace(self.statistic, absent=absent))

    def plain(self) -> dict[str, Any]:
        """All that differs from the defaults, in JSON's own types."""
        return _plain(self)

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Score:
        """What `plain` gave. Raises ValueError for what is no score of this version."""
        try:
            statistic = FromCounts.read(plain.get("statistic"))
            score = cls(**{**plain, "shown": tuple(plain.get("shown", ())), "statistic": statistic})
        except TypeError as error:
            raise ValueError(f"score {plain.get('name')}: {error}") from error
        text = [f.name for f in fields(cls) if f.name not in ("shown", "statistic")]
        if wrong := [name for name in text if not isinstance(getattr(score, name), str)]:
            raise ValueError(f"score {score.name}: {wrong[0]} is no text")
        return score


def _plain(value: FromCounts | Score) -> dict[str, Any]:
    """All fields that differ from their defaults, in JSON's own types."""
    values = {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}
    return {key: _plain_field(each) for key, each in values.items()}


def _plain_field(value: Any) -> Any:
    if isinstance(value, FromCounts):
        return value.plain()
    return list(value) if isinstance(value, tuple) else value
