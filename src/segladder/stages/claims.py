"""May a run build on others? It must not claim fewer labels than these, and all that they build on, have seen."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from segladder.data.labels.kinds import kinds
from segladder.data.labels.kinds.base import Labels
from segladder.data.sources.base import Source
from segladder.errors import ConfigError, some
from segladder.protocols.base import Protocol
from segladder.report import record as records
from segladder.runs.folder import require_weights
from segladder.stages.access import ANY, MOST, Access, access_of, parents_of


@dataclass(frozen=True)
class Ancestor:
    """A run that another starts from.

    Attributes:
        key: of the configuration, which names it.
        record: its record.
        access: what it has seen with all that it builds on.
    """

    key: str
    record: records.Record
    access: Access

    @property
    def named(self) -> str:
        """How a message begins."""
        return f"{self.key}: run {self.record.id}"

    def learnt(self, name: str) -> bool:
        """Whether labels of a class are behind it."""
        return bool(self.access.kinds_of(name))


def ancestors(config: DictConfig) -> list[Ancestor]:
    """The runs that a run starts from. Raises DataError if one's labels or weights are not those that it wrote."""
    found = list(parents_of(config))
    for _, folder, record in found:
        require_weights(folder, record)
    return [Ancestor(key, record, access_of(folder, record)) for key, folder, record in found]


def check_claims(
    found: list[Ancestor], config: DictConfig, source: Source, protocol: Protocol, labels: Labels, supervision: str
) -> None:
    """Raise ConfigError if a run that another starts from has seen more than this one says that it has.

    Args:
        found: those runs.
        config: of the run.
        source: its data set.
        protocol: says which classes it is asked about.
        labels: the kind that it has of them.
        supervision: of the run as a whole.
    """
    for ancestor in found:
        check_known(ancestor, protocol, labels)
        check_leaks(ancestor, config.fold, protocol)
        check_images(ancestor, protocol)
        check_rung(ancestor, config.protocol, source, protocol, supervision)
        check_kinds(ancestor, protocol.novel or source.foreground, labels)
        check_scored(ancestor.named, ancestor.access, source, protocol)


def check_known(ancestor: Ancestor, protocol: Protocol, labels: Labels) -> None:
    """Raise ConfigError where nothing says what a run has seen, and this one must not have seen all."""
    hides = protocol.novel or labels.rank < kinds()[MOST].rank
    if ANY in ancestor.access.seen and hides:
        raise ConfigError(
            f"{ancestor.named} is of an older version and builds on runs that are gone, so that nothing says what they"
            " have seen; train it again"
        )


def check_leaks(ancestor: Ancestor, fold: int | None, protocol: Protocol) -> None:
    """Raise ConfigError if a run has seen the fold's novel classes."""
    novel = sorted(protocol.hidden())
    if leaked := [name for name in novel if ancestor.learnt(name)]:
        raise ConfigError(
            f"{ancestor.named} has learnt {leaked[0]}, a novel class of fold={fold}, itself or in a run that it builds"
            " on; train it with other data.classes"
        )


def check_images(ancestor: Ancestor, protocol: Protocol) -> None:
    """Raise ConfigError if a run has seen images with novel classes, where a protocol leaves these out of training."""
    novel = sorted(protocol.hidden())
    absent = ancestor.access.absent
    if protocol.drops_novel and absent is not None and (seen := [name for name in novel if name not in absent]):
        raise ConfigError(
            f"{ancestor.named} has seen images that hold {seen[0]}, itself or in a run that it builds on, which"
            f" protocol={protocol.name} drops; train it with loader.without=[{','.join(novel)}]"
        )


def check_scored(named: str, access: Access, source: Source, protocol: Protocol) -> None:
    """Raise ConfigError if the labels that score a run are among those that it has learnt from, by whatever way.

    Args:
        named: what to name in the message.
        access: what the run has seen with all that it builds on.
        source: the data set.
        protocol: scores a split of it.
    """
    scored, images = set(protocol.scored_classes(source)), set(source.split(protocol.split))
    for part in access.labelled:
        if part.data != source.name or not scored & {*part.classes}:
            continue
        if protocol.on_training_images and kinds()[part.kind].shows == "tags":  # seeds are made of what has tags
            continue
        if seen := sorted(images & part.held.keys()):
            raise ConfigError(
                f"{named}: protocol={protocol.name} scores {some(seen)} of {protocol.split}, whose {part.kind} training"
                " has seen; choose another data.train_split or protocol.split, or another run to start from"
            )


def check_rung(ancestor: Ancestor, asked: DictConfig, source: Source, protocol: Protocol, supervision: str) -> None:
    """Raise ConfigError if a run of the ladder builds on one, or is one, with labels of novel classes beyond its pool.

    Args:
        ancestor: the run that it builds on; where a run is scored once more, that run itself.
        asked: the settings of its protocol.
        source: its data set.
        protocol: made of these.
        supervision: its own.
    """
    if not protocol.ladder or supervision == "none" or not any(ancestor.learnt(name) for name in protocol.novel):
        return  # an oracle that names clusters has all labels
    theirs, pool = ancestor.record, protocol.labelled(source)
    if (theirs.supervision, theirs.config.get("pool")) != (supervision, asked.pool):
        raise ConfigError(
            f"{ancestor.named} has learnt novel classes of fold={asked.fold} as {theirs.supervision} with"
            f" pool={theirs.config.get('pool')}, but this run is {supervision} with pool={asked.pool}"
        )
    if asked.pool is None:  # all that there are, also of objects too small for a pool
        return
    allowed, novel = frozenset(pool.images if pool else ()), {*protocol.novel}
    for part in ancestor.access.labelled:
        for image_id, held in part.held.items():
            if (more := sorted({*held} & novel)) and image_id not in allowed:
                raise ConfigError(
                    f"{ancestor.named} has labels of {more[0]} in {part.data} {image_id}, itself or in a run that it"
                    f" builds on, which pool={asked.pool} of fold={asked.fold} does not hold; take a run of this pool"
                )


def check_kinds(ancestor: Ancestor, asked: tuple[str, ...], labels: Labels) -> None:
    """Raise ConfigError if a run has seen dearer labels of the classes asked about than this one says that it has."""
    known = kinds()
    for name in asked:
        if more := [kind for kind in ancestor.access.kinds_of(name) if known[kind].rank > labels.rank]:
            raise ConfigError(
                f"{ancestor.named} has learnt {name} from {more[-1]}, itself or in a run that it builds on, but this"
                f" run says labels={labels.name}; start from weights that have seen no {more[-1]} of its classes, or"
                f" train a method that learns from labels={more[-1]}"
            )
