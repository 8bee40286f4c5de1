"""The device that a command works on."""

from __future__ import annotations

import torch

from segladder.errors import ConfigError


def chosen_device(asked: str | None) -> torch.device:
    """The device asked for (`cpu`, `cuda`, `cuda:N`), or the first CUDA device, or the CPU where there is none.

    Raises:
        ConfigError: no such device is visible.
    """
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = torch.device(asked or ("cuda" if visible else "cpu"))
    if device.type == "cuda" and (device.index or 0) >= visible:
        raise ConfigError(f"device={asked}: {visible or 'no'} CUDA devices are visible; leave it out, or choose cpu")
    return device
