"""What a score says of itself: the name it is printed under, its unit, its direction, and where it is shown.

Protocols declare their scores, records carry the declaration, and reports read it. So a report knows no score by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

UNITS = ("share", "number")
DIRECTIONS = ("higher", "lower", "")
PLACES = ("summary", "table", "curve")


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
        statistic: how a paired test recomputes it from counts, of `segladder.metrics.statistics.STATISTICS`; empty for
            a score without such a test.
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
    statistic: str = ""
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
        if value is None or value != value:
            return "-"
        return self.rounded(self.scale * value, digits, sign)

    def rounded(self, scaled: float, digits: int = 1, sign: str = "") -> str:
        """What is `scale` times a value, or times a difference of values, as printed."""
        return f"{scaled:{sign}.{digits + (self.unit == 'number')}f}"

    def plain(self) -> dict[str, Any]:
        """All that differs from the defaults, in JSON's own types."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Score:
        """What `plain` gave. Raises ValueError for what is no score of this version."""
        try:
            score = cls(**{**plain, "shown": tuple(plain.get("shown", ()))})
        except TypeError as error:
            raise ValueError(f"score {plain.get('name')}: {error}") from error
        if wrong := [f.name for f in fields(cls) if f.name != "shown" and not isinstance(getattr(score, f.name), str)]:
            raise ValueError(f"score {score.name}: {wrong[0]} is no text")
        return score
