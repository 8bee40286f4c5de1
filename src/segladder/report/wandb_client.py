"""Weights & Biases as runs and leaderboards use it: where they are sent, and quietly."""

from __future__ import annotations

import os
from typing import Annotated, Any

from pydantic import Field

from segladder.errors import ConfigError

Project = Annotated[
    str, Field(pattern=r"^[^/\\#?%:]{1,128}$", description="a name without / \\ # ? % : (WANDB_ENTITY names the team)")
]


def mode_of(asked: str | None = None) -> Any:
    """Where a run goes: as asked for, else as `WANDB_MODE` says, else online for those who are logged in.

    Raises:
        ConfigError: online, and nobody is logged in.
    """
    mode = asked or os.environ.get("WANDB_MODE")
    if mode is None or mode == "":
        return "online" if logged_in() else "offline"
    if mode == "online" and not logged_in():
        key = "logger.wandb.mode" if asked else "WANDB_MODE"
        raise ConfigError(f"{key}=online: nobody is logged in; use wandb login or WANDB_API_KEY, or choose offline")
    return mode


def logged_in() -> bool:
    """Whether Weights & Biases has a key for this user, without asking for one. Raises ConfigError where it is none."""
    import wandb

    wandb.setup(wandb.Settings(mode="online", silent=True))
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # wandb before 0.31
        return bool(wandb.api.api_key)
    except wandb.Error as error:
        raise ConfigError(f"Weights & Biases: {error}; log in anew, or set WANDB_MODE=offline") from error


def quiet() -> Any:
    """Settings of a run that prints nothing of its own and leaves the screen alone."""
    import wandb

    return wandb.Settings(console="off", silent=True)
