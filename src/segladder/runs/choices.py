"""Do the choices of a configuration fit together?"""

from __future__ import annotations

from omegaconf import DictConfig

from segladder.errors import ConfigError

VISIBLE = {  # which labels a run of each supervision may learn from
    "full": {"masks", "tags"},
    "image_level": {"tags"},
    "few_shot": {"masks"},
    "zero_shot": {"masks"},
}
SELECTIONS = ("fixed", "held_out", "oracle")


def check_choices(config: DictConfig) -> None:
    """Raise ConfigError when method, loss, data, protocol and selection do not fit together."""
    supervision, needs = config.method.supervision, config.loss.labels
    if "criterion" in config.method and needs not in VISIBLE[supervision]:
        allowed = " or ".join(sorted(VISIBLE[supervision]))
        raise ConfigError(
            f"the loss needs {needs}, but method={config.method.name} is {supervision} and learns from {allowed}: "
            f"choose another loss"
        )
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
