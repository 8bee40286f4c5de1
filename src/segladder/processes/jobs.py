"""The jobs of a sweep that this process runs one after the other, and the line about those that failed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

AGAIN = "with hydra/launcher=pool the same sweep runs what has not finished"


@dataclass
class Jobs:
    """Exit codes and overrides of the jobs of a command that have ended, in their order; a single run is one job."""

    command: str
    codes: list[int] = field(default_factory=list)
    overrides: list[list[str]] = field(default_factory=list)
    sweep: bool = False

    def ended(self, code: int) -> None:
        """Take down how the job of this moment has ended."""
        self.codes.append(code)
        self.overrides.append(list(HydraConfig.get().overrides.task))
        self.sweep = HydraConfig.get().mode == RunMode.MULTIRUN and not is_queued()

    def failed(self) -> str:
        """Which jobs of a sweep have failed, by the overrides that are their own; empty where none has."""
        failed = [number for number, code in enumerate(self.codes) if code]
        if not failed or not self.sweep:
            return ""
        shared = set.intersection(*map(set, self.overrides))
        names = [" ".join(o for o in self.overrides[number] if o not in shared) for number in failed]
        listed = "; ".join(f"job {number} ({name})" for number, name in zip(failed, names, strict=True))
        return f"{len(failed)} of {len(self.codes)} jobs failed: {listed}{self.again}"

    def cut_off(self) -> str:
        """That a sweep ends with an interrupted run, and how it goes on; empty where the run is no job of one."""
        return f"the sweep ends with this run{self.again}" if self.sweep and self.again else ""

    @property
    def again(self) -> str:
        """How a sweep of runs goes on."""
        return f"; {AGAIN}" if self.command == "train" else ""


def is_queued() -> bool:
    """Whether this process is one job of a cluster's sweep, which goes on without it."""
    return "SUBMITIT_EXECUTOR" in os.environ
