"""What scores a network while it trains: labels of held-out training images, or of scored ones for an oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omegaconf import DictConfig

from segladder.data.sources.base import Source
from segladder.data.training.held_out import HeldOut
from segladder.errors import ConfigError
from segladder.methods.base import Method
from segladder.metrics.scores import Score
from segladder.protocols.base import Protocol, Scoring
from segladder.protocols.classification import classification_score, tag_glimpses
from segladder.runs.watching.looks import Judge

TAG_PRECISION = Score("tag_AP", "tag AP")  # mean over classes of the average precision of their tags


def looks_at(config: DictConfig) -> str | None:
    """Whose labels score a network while it trains: those of images `held_out` or `scored`; None: nobody looks."""
    if config.selection != "fixed":
        return "scored" if config.selection == "oracle" else "held_out"
    return "held_out" if watched_every(config) is not None and config.method.trains else None


def watched_every(config: DictConfig) -> int | None:
    """Epochs or steps between looks that were asked for; runs of older versions were not asked."""
    every: int | None = config.trainer.get("watch", {}).get("every")
    return every


def judge_of(config: DictConfig, method: Method, source: Source, protocol: Protocol, held_out: HeldOut) -> Judge | None:
    """How a network is looked at, or None.

    On held-out images it follows from the labels that training is shown: where these are tags, it is how well tags are
    told, whatever the protocol.

    Args:
        config: of the run.
        method: that trains.
        source: the data set.
        protocol: that scores the run.
        held_out: images kept from training, as its labels show them.

    Raises:
        ConfigError: no image was kept, or too few for the protocol, or the method tells no tags.
    """
    on, batch = looks_at(config), config.trainer.score_batch
    pictures = 0 if watched_every(config) is None else config.trainer.watch.pictures
    if on is None:
        return None
    if on == "scored":
        by, seen = protocol.declaration[protocol.ranked_by], source
        ids: Sequence[str] = source.split(protocol.split)
        score: Callable[[Method], float] = lambda asked: protocol.selection_score(asked, source, None, batch)  # noqa: E731
    else:
        by, seen, ids = protocol.held_out_by, held_out.source, held_out.judges
        score = lambda asked: protocol.selection_score(asked, seen, ids, batch)  # noqa: E731
        if not ids:
            raise ConfigError(f"loader.held_out={config.loader.held_out} keeps no image that can judge: take more")
        if held_out.labels.shows != "tags":
            protocol.check_held_out(seen, ids)
    if on == "held_out" and held_out.labels.shows == "tags":
        if not method.tells_tags:
            raise ConfigError(
                f"held-out images have tags alone, which method={method.name} does not tell: leave selection=fixed and"
                " trainer.watch.every=null"
            )
        return Judge(
            on,
            TAG_PRECISION,
            lambda asked: classification_score(Scoring(asked, seen, ids, batch)),
            lambda asked: tag_glimpses(Scoring(asked, seen, ids), pictures),
            source.classes,
            source.colours,
        )
    return Judge(
        on,
        by,
        score,
        lambda asked: protocol.glimpses(Scoring(asked, seen, ids, batch), pictures),
        source.classes,
        source.colours,
    )
