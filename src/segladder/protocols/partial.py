"""Partly outlined objects: training shows masks of some classes and boxes of all (Hu et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.boxes import Boxes
from segladder.data.labels.labelled import Labelled
from segladder.data.sources.base import Source
from segladder.data.training.views import BoxesOfSome
from segladder.metrics.scores import FromCounts, Score
from segladder.protocols.base import Place
from segladder.protocols.instance import SCORES, InstanceProtocol
from segladder.settings import Count

OF_GROUPS = tuple(
    Score(f"{group}_{name}", shown=("summary", "table"), statistic=FromCounts(formula, (group,)))
    for group in ("novel", "base")
    for name, formula in (("AP", "average_precision"), ("AP50", "average_precision_50"))
)


@dataclass(frozen=True)
class PartialProtocol(InstanceProtocol):
    """Mask AP of novel classes, of which training shows a box around each object and no mask.

    Args:
        folds: class names of each fold; those of the run's fold are novel.
        fold: the run's fold; no part of the hash, since a score is a mean over folds.
    """

    folds: tuple[tuple[str, ...], ...]
    fold: Count

    def place(self) -> Place:
        """The fold."""
        return Place(self.fold, None)

    @property
    def scores(self) -> tuple[Score, ...]:
        """Of novel classes, of base classes, and of both together."""
        return (*OF_GROUPS, *SCORES)

    @property
    def ranked_by(self) -> str:
        """AP of the novel classes."""
        return "novel_AP"

    @property
    def novel(self) -> tuple[str, ...]:
        """Names of the classes that are shown by boxes. Raises ConfigError for a fold there is not."""
        return self.of_fold(self.folds, self.fold)

    def hidden(self) -> tuple[str, ...]:
        """None: boxes are labels too."""
        return ()

    def groups(self, source: Source) -> dict[str, list[int]]:
        """Things and stuff; and which things are novel, which base."""
        found = super().groups(source)
        novel = [k for k in found["things"] if source.classes[k] in self.novel]
        return {**found, "novel": novel, "base": [k for k in found["things"] if k not in novel]}

    def training(self, source: Source) -> BoxesOfSome:
        """Masks of base classes, boxes of all."""
        return BoxesOfSome(self.novel)

    def labelled_novel(self, source: Source, labels: Labels) -> list[Labelled]:
        """The boxes of the novel classes."""
        return [Labelled.of(source, Boxes(), source.split(source.train_split), self.novel)]
