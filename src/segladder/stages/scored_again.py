"""What a run is scored on again: its own configuration with another protocol, other data, shots or presence."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from segladder.errors import ConfigError
from segladder.runs.folder import plain_config


def scored_again(config: DictConfig, run_config: DictConfig) -> DictConfig:
    """The run's configuration with the protocol asked for, on `data=NAME` or the run's own data at their new root.

    Raises:
        ConfigError: `shots` of a protocol that has none; other data, but no protocol for them.
    """
    data: Any = OmegaConf.to_container(config.data if "_target_" in config.data else run_config.data, resolve=True)
    if config.data.root is not None:
        data["root"] = config.data.root
    scored = OmegaConf.create({**plain_config(run_config), "data": data})
    if (protocol := config.get("protocol")) is not None:
        scored.protocol = OmegaConf.create(OmegaConf.to_container(protocol, resolve=False))
    elif data["name"] != scored.protocol.dataset:
        raise ConfigError(
            f"data={data['name']}: the run's protocol is for {scored.protocol.dataset}; give protocol=NAME"
        )
    if config.shots is not None:
        if "shots" not in scored.protocol:
            raise ConfigError(f"shots={config.shots}: protocol {scored.protocol.name} has no supports")
        scored.protocol.shots = config.shots
    if config.presence is not None:
        OmegaConf.update(scored, "protocol.presence", config.presence, force_add=True)
    return scored
