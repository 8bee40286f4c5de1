"""Do the choices of a configuration fit together?"""

from __future__ import annotations

from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from segladder.configuration import choices
from segladder.data.labels.kinds import kinds
from segladder.data.labels.kinds.base import Labels
from segladder.errors import ConfigError
from segladder.runs import build
from segladder.runs.composition import as_written, check_keys
from segladder.runs.instantiation import instantiated
from segladder.runs.keys import TrainKeys
from segladder.runs.watching.judging import looks_at


def check_run(config: DictConfig) -> None:
    """Raise ConfigError where a key of a run holds what it may not, or its choices do not fit together."""
    check_data(config)  # what a protocol takes from its data is not in others
    check_keys(config, TrainKeys)
    check_choices(config)
    check_pool(config)


def check_choices(config: DictConfig) -> None:
    """Raise ConfigError when method, labels, loss, optimiser, data, protocol and selection do not fit together."""
    check_labels(config)
    check_loss(config)
    check_optimizer(config)
    check_data(config)
    check_scored(config)
    check_held_out(config)


def check_pool(config: DictConfig) -> None:
    """Raise ConfigError where few images are to be labelled for training, but the protocol reads labels of all."""
    if config.get("pool") is not None and "pool" not in config.protocol:
        known = [name for name in choices("protocol") if "pool" in as_written("protocol", name)]
        raise ConfigError(
            f"pool={config.pool}: protocol={config.protocol.name} reads the labels of all training images; choose"
            f" protocol= {', '.join(known)}, or leave pool=null"
        )


def check_held_out(config: DictConfig) -> None:
    """Raise ConfigError where something is to be judged by held-out images that are not there, or by nothing."""
    settings = config.trainer
    watched = "" if settings.watch.every is None else f"trainer.watch.every={settings.watch.every}"
    asked = "selection=held_out" if config.selection == "held_out" else watched
    if asked and looks_at(config) == "held_out" and not config.loader.held_out:
        raise ConfigError(f"{asked} needs held-out training images: set loader.held_out=0.05 (a share) or more")
    patience = settings.early_stopping.patience
    if patience is not None and config.selection == "fixed" and config.method.trains:
        raise ConfigError(
            f"trainer.early_stopping.patience={patience} ends training by the score that chooses the weights: set"
            " selection=held_out and loader.held_out=0.05 or more (selection=oracle chooses on the scored split)"
        )


def check_loss(config: DictConfig) -> None:
    """Raise ConfigError where a loss is chosen for a method that has its own."""
    if "criterion" in config.method or OmegaConf.to_container(config.loss) == as_written("loss", "cross_entropy"):
        return
    raise ConfigError(f"loss: method={config.method.name} has a loss of its own; leave loss out, or give it to others")


def check_optimizer(config: DictConfig) -> None:
    """Raise ConfigError where a method is to learn that does not by itself, without what an optimiser needs."""
    needed = ("optimizer.name", "optimizer.lr", "optimizer.weight_decay", "schedule.name")
    missing = [f"+method.{key}=VALUE" for key in needed if OmegaConf.select(config.method, key) is None]
    if config.method.trains and missing:
        raise ConfigError(
            f"method.trains=true: method={config.method.name} does not learn by itself; leave it false, or give"
            f" {', '.join(missing)}"
        )


def check_data(config: DictConfig) -> None:
    """Raise ConfigError when the protocol scores another data set."""
    scored, data = OmegaConf.select(config, "protocol.dataset"), OmegaConf.select(config, "data.name")
    if scored != data:
        raise ConfigError(
            f"protocol={config.protocol.name} scores {scored}, but data={data}: choose data={scored} or"
            " protocol=semantic"
        )


def check_scored(config: DictConfig) -> None:
    """Raise ConfigError, naming protocols that do, when the protocol does not score such a method."""
    method, protocol = config.method, build.protocol(config)
    try:
        protocol.check_method(method.name, method.supervision)
    except ConfigError as error:
        raise ConfigError(f"{error}; choose protocol= {', '.join(scoring(method.supervision))}") from error


def scoring(supervision: str) -> list[str]:
    """The protocols of any data set that score methods of some supervision."""
    written = {name: as_written("protocol", name) for name in choices("protocol")}
    of_any = {name: each for name, each in written.items() if each["dataset"] == "${data.name}"}
    asking: dict[str, Any] = {name: get_class(each["_target_"]) for name, each in of_any.items()}
    return [name for name, kind in asking.items() if supervision in kind.supervisions]


def check_labels(config: DictConfig) -> None:
    """Raise ConfigError when the method cannot learn from what the labels show."""
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
