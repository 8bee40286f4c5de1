"""The history of a search as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from segladder.files import written

HISTORY = "search.png"
EACH, BEST, FAILED = "#0072b2", "#d55e00", "#777777"


def best_so_far(scores: Sequence[float | None]) -> list[float | None]:
    """The highest score up to each trial; None before the first that has one."""

    def higher(best: float | None, score: float | None) -> float | None:
        return score if best is None or (score is not None and score > best) else best

    return list(accumulate(scores, higher))


def save_history(path: Path, scores: Sequence[float | None], title: str) -> Path:
    """Draw the score of each trial and the best so far as a PNG.

    Args:
        path: the file, written atomically.
        scores: shares, shown in percent, in the order of the trials; None for one that failed.
        title: a line above.
    """
    from matplotlib.figure import Figure  # half a second, only where something is drawn
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    shown = {n: 100 * score for n, score in enumerate(scores) if score is not None}
    best = {n: 100 * score for n, score in enumerate(best_so_far(scores)) if score is not None}
    axes.plot(list(best), list(best.values()), color=BEST, drawstyle="steps-post", label="best so far")
    axes.plot(list(shown), list(shown.values()), "o", color=EACH, label="trial")
    if failed := [n for n, score in enumerate(scores) if score is None]:
        bottom = axes.get_xaxis_transform()  # x in trials, y in the height of the axes
        axes.plot(failed, [0.03] * len(failed), "x", color=FAILED, transform=bottom, label="failed")
    axes.set(xlabel="trial", ylabel="score on held-out images, %", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    with written(path) as partial:
        figure.savefig(partial, dpi=120)
    return path
