"""Hydra's launcher `pool` (`segladder train -m hydra/launcher=pool`); imported at every start, so kept thin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PoolLauncher(Launcher):
    """Every job of a sweep in a process of its own; settings: those of `segladder.processes.sweep.Sweep`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`; raises ConfigError where a setting holds what it may not."""
        from segladder.processes.sweep import Sweep

        self.sweep = Sweep(hydra_context, config, **self.settings)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; raises SegLadderError if any failed."""
        return self.sweep.launch(job_overrides, initial_job_idx)
