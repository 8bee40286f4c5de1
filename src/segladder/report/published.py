"""Numbers that papers report, shown beside our tables of the same protocol and never ranked with them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

VERIFIED = {"yes": True, "no": False}


@dataclass(frozen=True)
class Published:
    """One number of the literature.

    Attributes:
        protocol: ours by whose name the paper's own goes; networks, data and details may still differ.
        method: our name where we have the method, else the paper's.
        network: what the number was reached with.
        data: what it was measured on.
        shots: supports per class; None where there are none.
        metric: our name of the score.
        percent: the score.
        source: where it stands.
        url: of the paper or repository.
        verified: whether somebody looked it up there; False for numbers from memory or second hand.
    """

    protocol: str
    method: str
    network: str
    data: str
    shots: int | None
    metric: str
    percent: float
    source: str
    url: str
    verified: bool


def published(protocol: str) -> list[Published]:
    """The numbers that go by a protocol's name, in the order of the list; empty where nobody reports any."""
    return [row for row in _all_published() if row.protocol == protocol]


@cache
def _all_published() -> tuple[Published, ...]:
    text = files("segladder.report").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_row(line) for line in csv.DictReader(text.splitlines()))


def _row(line: dict[str, str]) -> Published:
    values = {key: line[key] for key in ("protocol", "method", "network", "data", "metric", "source", "url")}
    shots = int(line["shots"]) if line["shots"] else None
    return Published(**values, shots=shots, percent=float(line["percent"]), verified=VERIFIED[line["verified"]])
