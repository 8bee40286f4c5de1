"""Scores along a threshold or a gamma as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segladder.files import written

CURVE = "curve.png"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito, told apart by colour-blind readers
DRAWN = (
    "mIoU",
    "over_activation",
    "under_activation",
    "seen_mIoU",
    "unseen_mIoU",
    "harmonic_mIoU",
)


def save_curve(path: Path, rows: Sequence[Mapping[str, float]], title: str) -> Path:
    """Draw the scores of a record's `curve` (shares, shown in percent) against what it sweeps, as a PNG.

    Args:
        path: the file, written atomically.
        rows: one per value of `threshold` or `gamma`, each with some of the scores in `DRAWN`.
        title: a line above.
    """
    from matplotlib.figure import Figure  # half a second, only where something is drawn

    swept = "threshold" if "threshold" in rows[0] else "gamma"
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    names = [name for name in DRAWN if name in rows[0]]
    for name, colour in zip(names, COLOURS, strict=False):
        axes.plot(
            [row[swept] for row in rows],
            [100 * row[name] for row in rows],
            marker=".",
            color=colour,
            label=name.replace("_", " "),
        )
    axes.set(xlabel=swept, ylabel="%", title=title, ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False)
    with written(path) as partial:
        figure.savefig(partial, dpi=120)
    return path
