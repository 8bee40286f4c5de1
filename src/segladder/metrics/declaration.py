"""What a protocol says of its scores: a record carries it, reports read it."""

from __future__ import annotations

import marshal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from segladder.metrics.scores import Score

KEYS = ("scores", "columns", "ranked_by", "resampled", "swept", "ladder")  # of a record's `protocol`


@dataclass(frozen=True)
class Declaration:
    """The scores that a protocol gives, and how a report treats them.

    Args:
        scores: in the order that reports show them in.
        columns: scores of a class or video in the rows of `per_class`; the first one sums a row up.
        ranked_by: name of the score that ranks.
        resampled: what the bootstrap draws, such as `images`; empty where nobody knows.
        swept: what the protocol's curve runs along, such as `threshold`; empty for none.
        ladder: of a ladder, whose rungs stand in one table: names of the scores beside each rung's cost; None for no
            ladder.
    """

    scores: tuple[Score, ...] = ()
    columns: tuple[Score, ...] = ()
    ranked_by: str = "mIoU"
    resampled: str = "images"
    swept: str = ""
    ladder: tuple[str, ...] | None = None

    def __getitem__(self, name: str) -> Score:
        """The score of a name; one that is not declared is a share that should be high."""
        return next((score for score in self.scores if score.name == name), Score(name))

    def shown(self, place: str) -> list[Score]:
        """The scores that are shown in a place, in order."""
        return [score for score in self.scores if place in score.shown]

    @property
    def over(self) -> str:
        """What intervals are over, as the end of a phrase."""
        return f" over {self.resampled}" if self.resampled else ""

    @property
    def row_score(self) -> Score:
        """What sums up a row of `per_class`."""
        return self.columns[0] if self.columns else Score("iou", "IoU")

    def plain(self) -> dict[str, Any]:
        """In JSON's own types, by the keys of a record's `protocol`."""
        lists = {"scores": [s.plain() for s in self.scores], "columns": [c.plain() for c in self.columns]}
        ladder = None if self.ladder is None else list(self.ladder)
        return {**lists, **{key: getattr(self, key) for key in ("ranked_by", "resampled", "swept")}, "ladder": ladder}

    @classmethod
    def read(cls, protocol: Mapping[str, Any]) -> Declaration:
        """The declaration in a record's `protocol`. Raises ValueError for what this version cannot read."""
        said = {key: protocol[key] for key in KEYS if key in protocol}
        return _read(marshal.dumps(said, 2))  # version 2 does not tell shared objects apart

    @classmethod
    def merged(cls, declared: Sequence[Declaration]) -> Declaration:
        """The first of several declarations, at least one, with the scores of the others behind their neighbours."""
        first = declared[0]
        scores, columns = (list(getattr(first, key)) for key in ("scores", "columns"))
        for other in dict.fromkeys(declared[1:]):
            _insert(scores, other.scores)
            _insert(columns, other.columns)
        swept = next((one.swept for one in declared if one.swept), "")
        return replace(first, scores=tuple(scores), columns=tuple(columns), swept=swept)


def _insert(whole: list[Score], part: Sequence[Score]) -> None:
    """Put the scores that `whole` lacks behind those that they follow in `part`."""
    place = 0
    for score in part:
        names = [known.name for known in whole]
        if score.name not in names:
            whole.insert(place, score)
        place = [known.name for known in whole].index(score.name) + 1


@lru_cache(maxsize=256)
def _read(said: bytes) -> Declaration:
    values = marshal.loads(said)
    try:
        for key in ("scores", "columns"):
            values[key] = tuple(map(Score.read, values.get(key, ())))
        if values.get("ladder") is not None:
            values["ladder"] = tuple(map(str, values["ladder"]))
        declared = Declaration(**values)
    except (AttributeError, TypeError) as error:
        raise ValueError(f"no declaration of scores ({error})") from error
    if not all(isinstance(getattr(declared, key), str) for key in ("ranked_by", "resampled", "swept")):
        raise ValueError("ranked_by, resampled and swept are text")
    return declared
