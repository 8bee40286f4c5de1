"""Do the choices of a configuration fit together?"""

from __future__ import annotations

from omegaconf import DictConfig

from segladder.data.labels.kinds import kinds
from segladder.data.labels.kinds.base import Labels
from segladder.errors import ConfigError
from segladder.runs import build
from segladder.runs.instantiation import instantiated

SELECTIONS = ("fixed", "held_out", "oracle")


def check_choices(config: DictConfig) -> None:
    """Raise ConfigError when method, labels, loss, data, protocol and selection do not fit together."""
    check_labels(config)
    if config.protocol.dataset != config.data.name:
        raise ConfigError(
            f"protocol={config.protocol.name} scores {config.protocol.dataset}, but data={config.data.name}: "
            f"choose data={config.protocol.dataset} or protocol=semantic"
        )
    if config.selection not in SELECTIONS:
        raise ConfigError(f"selection={config.selection}: choose from {', '.join(SELECTIONS)}")
    if config.selection == "held_out" and not config.loader.held_out:
        raise ConfigError(
            "selection=held_out needs held-out training images: set loader.held_out=0.05 (a share) or more"
        )


def check_labels(config: DictConfig) -> None:
    """Raise ConfigError when the method or the loss cannot learn from what the labels show."""
    labels: Labels = instantiated(config.labels, "labels")
    method = build.method_class(config)
    wanted = method.learns_from
    whole = method.answers == "episodes"
    if labels.shows != wanted:
        fits = [name for name, kind in kinds().items() if kind.shows == wanted and not (whole and kind.partial)]
        fitting = ", ".join(f"labels={name}" for name in fits)
        raise ConfigError(
            f"labels={labels.name}: method={config.method.name} does not learn from them; choose {fitting}, or another"
            " method"
        )
    if whole and labels.partial:
        raise ConfigError(
            f"labels={labels.name}: method={config.method.name} is taught by episodes, which need whole masks; choose"
            " labels=masks (supports may have less: protocol.support_annotation), or a method that scores all classes"
        )
    if "criterion" in config.method and kinds()[config.loss.labels].shows != labels.shows:
        raise ConfigError(f"the loss needs {config.loss.labels}, but labels={labels.name}: choose another loss")
