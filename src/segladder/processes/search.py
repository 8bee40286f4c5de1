"""A search: a study of Optuna and the runs of its trials."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segladder.errors import ConfigError, DataError, SegLadderError
from segladder.processes.parallel import Job, Slots
from segladder.processes.search_space import load_optuna, overrides
from segladder.report import record as records
from segladder.report.pictures.search_history import HISTORY, save_history
from segladder.runs.composition import composed_or_explained
from segladder.runs.folder import config_hash_of, is_finished

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study

STORAGE, LOG = "study.db", "output.txt"


class Search:
    """A study and the runs of its trials.

    Args:
        folder: of the study; created runs lie in it.
        space: the distribution of each key.
        given: overrides that all trials share.
        sampler: one of `SAMPLERS`.
        seed: with a trial's number, all that chance in its parameters depends on.
        known: folders of runs that are there already, by the hash of their configuration.
    """

    def __init__(
        self,
        folder: Path,
        space: dict[str, BaseDistribution],
        given: list[str],
        sampler: str,
        seed: int,
        known: dict[str, Path],
    ) -> None:
        self.folder, self.space, self.given = folder, space, given
        self.sampler, self.seed, self.known = sampler, seed, known
        self.optuna = load_optuna()
        self.states = self.optuna.trial.TrialState
        self.study: Study = self.opened(folder / STORAGE)
        self.waiting: dict[Path, list[int]] = {}  # trials that will be told of the run in a folder

    def opened(self, path: Path) -> Study:
        """The study in a file, a new one where there is none. Raises DataError for a file that holds no study."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            study: Study = self.optuna.create_study(
                storage=f"sqlite:///{path.resolve()}", study_name="search", direction="maximize", load_if_exists=True
            )
            return study
        except (SQLAlchemyError, self.optuna.exceptions.OptunaError, RuntimeError) as error:
            fault = str(error).strip().partition("\n")[0]
            raise DataError(f"{path}: no study ({fault}); remove it: finished trials are found again") from error

    def run(self, trials: int, slots: Slots) -> None:
        """Go on to a number of trials and show what came out; raises SegLadderError if all of them failed."""
        done = sum(trial.state.is_finished() for trial in self.study.trials)
        print(f"{self.folder}: {trials} trials, {done} of them done before, {slots.slots} at once", flush=True)
        slots.run(self.jobs(trials), lambda job: self.tell(job.folder))
        self.show()

    def jobs(self, trials: int) -> Iterator[Job]:
        """A job for each trial that needs one; its parameters are drawn as it is taken, knowing all scores so far."""
        for number, parameters in self.asked(trials):
            own = overrides(parameters)
            print(f"trial {number}: {' '.join(own)}", flush=True)
            try:
                folder = self.folder_of(own, self.folder / f"trial-{number:03d}")
            except ConfigError as error:
                self.fail(number, str(error))
                continue
            alike = self.waiting.setdefault(folder, [])
            alike.append(number)
            if len(alike) > 1:  # it is running already
                continue
            if is_finished(folder):
                self.tell(folder)
            else:
                yield Job(number, [*self.given, *own], " ".join(own), folder, folder / LOG)

    def asked(self, trials: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and parameters of trials: those that were cut off, then new ones."""
        for left in self.study.get_trials(states=[self.states.RUNNING]):
            if left.params.keys() == self.space.keys():
                yield left.number, left.params
            else:
                self.fail(left.number, "cut off while it was drawn")
        while (number := len(self.study.trials)) < trials:
            self.study.sampler = self.sampler_of(number)
            trial = self.study.ask(self.space)
            yield trial.number, trial.params

    def sampler_of(self, number: int) -> BaseSampler:
        """A sampler for one trial: a search that was cut off draws as if it had not been."""
        seed = int(records.hash_of([self.seed, number]), 16)
        known = self.optuna.samplers
        sampler: BaseSampler
        if self.sampler == "random":
            sampler = known.RandomSampler(seed)
        else:
            sampler = known.TPESampler(seed=seed, constant_liar=True)  # away from trials that are running
        return sampler

    def folder_of(self, own: list[str], fresh: Path) -> Path:
        """The folder of the run with these overrides, `fresh` if there is none yet."""
        return self.known.setdefault(config_hash_of(composed_or_explained([*self.given, *own])), fresh)

    def tell(self, folder: Path) -> None:
        """Tell the study how the run in a folder ended."""
        score = held_out_score(folder)
        for number in self.waiting.pop(folder):
            if score is None:
                self.fail(number, f"see {folder / LOG}")
            else:
                self.study.tell(number, score)
                print(f"trial {number} scores {100 * score:.2f} %", flush=True)

    def fail(self, number: int, why: str) -> None:
        """Tell the study of a trial without a score."""
        self.study.tell(number, state=self.states.FAIL)
        print(f"trial {number} failed: {why}", flush=True)

    def show(self) -> None:
        """Draw the history and print the best trial; raises SegLadderError if there is none."""
        trials = self.study.get_trials(states=[self.states.COMPLETE, self.states.FAIL])
        scores = [trial.value for trial in trials]
        failed = scores.count(None)
        if failed == len(scores):
            raise SegLadderError(f"all {failed} trials failed, see the {LOG} of each in {self.folder}")
        own = overrides(self.study.best_params)
        title = f"best of {len(scores)}: trial {self.study.best_trial.number}, {100 * self.study.best_value:.2f} %"
        picture = save_history(self.folder / HISTORY, scores, title)
        print(f"{title} on held-out images; {failed} failed ({picture})")
        print(f"  {self.folder_of(own, self.folder)}")
        print(f"repeat it: {shlex.join(['segladder', 'train', *self.given, *own])}")


def held_out_score(folder: Path) -> float | None:
    """The score that chose the weights of a finished run; None for any other."""
    with suppress(SegLadderError):
        record = records.read(folder)
        if record.status == "finished":
            return record.label_access.get("score")
    return None
