"""Scores along a threshold or a gamma as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segladder.files import written
from segladder.metrics.declaration import Declaration
from segladder.metrics.scores import Score

CURVE = "curve.png"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito, told apart by colour-blind readers


def save_sweep(path: Path, rows: Sequence[Mapping[str, float]], declared: Declaration, title: str) -> Path:
    """Draw the scores of a record's `curve` against what it sweeps, as a PNG.

    Args:
        path: the file, written atomically.
        rows: one per value of what is swept.
        declared: what is swept, and the scores that are drawn.
        title: a line above.
    """
    from matplotlib.figure import Figure  # half a second, only where something is drawn

    scores = [score for score in declared.shown("curve") if score.name in rows[0]]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for score, colour in zip(scores, COLOURS, strict=False):
        axes.plot(
            [row[declared.swept] for row in rows],
            [score.scale * row[score.name] for row in rows],
            marker=".",
            color=colour,
            label=score.heading,
        )
    axes.set(xlabel=declared.swept, ylabel=units_of(scores), title=title, ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=max(1, len(scores)), frameon=False)
    with written(path) as partial:
        figure.savefig(partial, dpi=120)
    return path


def units_of(scores: Sequence[Score]) -> str:
    """Title of an axis that several scores share."""
    return "%" if all(score.unit == "share" for score in scores) else "value"
