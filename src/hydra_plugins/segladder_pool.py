"""What Hydra finds of ours: the launcher `pool` and the sweeper of `-m`; imported at every start, so kept thin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from segladder.errors import ConfigError


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


class Combinations(BasicSweeper):
    """A job for each combination of the values given; where it leaves no file beside the jobs' own."""

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch the jobs; raises ConfigError where an override stands for no value, so that there are none."""
        assert self.hydra_context is not None and self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        for override in overrides:
            require_values(override)
        returns: list[Sequence[JobReturn]] = []
        first = 0
        for batch in self.split_arguments(overrides, self.max_batch_size):
            self.validate_batch_is_legal(batch)
            returns.append(self.launcher.launch(batch, first))
            for job in returns[-1]:
                _ = job.return_value  # raises what the job has raised
            first += len(batch)
        return returns


def require_values(override: Override) -> None:
    """Raise ConfigError where an override that stands for several values, such as `method=glob(x*)`, has none."""
    if override.is_discrete_sweep() and next(override.sweep_string_iterator(), None) is None:
        raise ConfigError(f"{override.input_line}: fits no choice, so there is nothing to run")
