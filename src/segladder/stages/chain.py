"""A chain of runs, `stages` of an experiment: each a run of its own that builds on an earlier one, or scores it again.

A stage's folder is named by a hash of all that goes into it: its configuration, the content of its parent and the data.
So a chain that is started again skips what has not changed, goes on with what was interrupted, and never overwrites.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig

from segladder.command_line import own_choices, quoted
from segladder.configuration import each_protocol
from segladder.data.inspection.checks import check_scorable
from segladder.data.labels.kinds.masks import Masks
from segladder.data.sources.base import Source
from segladder.data.training.datamodule import training_ids
from segladder.errors import ConfigError, DataError
from segladder.machine import cores
from segladder.processes.parallel import how_ended, record_death
from segladder.processes.start import Waitable, run_child, start, waited_for
from segladder.report import record as records
from segladder.runs import build
from segladder.runs.choices import check_choices, check_run
from segladder.runs.composition import composed, composed_or_explained, given_words, plain
from segladder.runs.folder import BACKBONE, NOT_WHAT_IS_LEARNT, PARENT, START, content_of, is_finished, plain_config
from segladder.runs.keys import Chain
from segladder.settings import check, hints_of
from segladder.stages.access import parents_of
from segladder.stages.preparation import check_background, told_of_classes
from segladder.stages.scored_again import scored_again

NAMES_A_STAGE = (PARENT, START, BACKBONE)  # keys whose value may be the name of an earlier stage
SCORES_AGAIN = "evaluate="  # begins a stage that is no run: evaluate=STAGE, then overrides of segladder evaluate

NOT_OF_A_STAGE = ("stages", "~stages", "at_once", "resume=auto")  # overrides of the chain alone
NOT_OF_A_SCORE = ("run=", "hydra.searchpath=")  # words of an evaluation that say where it finds things
POLL = 0.1  # seconds between looks at the stages that run


@dataclass(frozen=True)
class Stage:
    """One run of a chain, or one more score of a run.

    Attributes:
        name: as in the configuration.
        place: what the screen says of it: which stage of how many.
        words: its own overrides.
        needs: the earlier stages that it builds on.
    """

    name: str
    place: str
    words: tuple[str, ...]
    needs: frozenset[str]

    @property
    def scores(self) -> str | None:
        """The stage whose run it scores again."""
        first = self.words[0] if self.words else ""
        return first.removeprefix(SCORES_AGAIN) if first.startswith(SCORES_AGAIN) else None


def run_stages(config: DictConfig) -> int:
    """Run the stages of a configuration in their order, `at_once` at a time; returns the first exit code that is not 0.

    A stage starts when those that it builds on have ended. One alone prints to the screen. What several print at once
    is held back until each has ended.

    Raises:
        ConfigError: a key that holds what it may not, or a stage that does not compose or names none that is before it.
    """
    check(Chain, {key: plain(config, key, True) for key in hints_of(Chain)}, "")
    given = [o for o in given_words() if not o.startswith(NOT_OF_A_STAGE)]
    stages = stages_of(config)
    require_possible(stages, given)
    for line in kept_by_stages(stages, given):
        print(line)
    folders: dict[str, Path] = {}

    def begun(stage: Stage) -> list[str] | None:
        """Says where a stage lies; its command, None where it is there already."""
        print(f"stage {stage.place}, {stage.name}: ", end="", flush=True)
        command, folder, is_there = told(stage, given, {name: folders[name] for name in stage.needs})
        folders[stage.name] = folder
        print(f"{folder}{' is there already' if is_there else ''}", flush=True)
        return None if is_there else command

    def ended(stage: Stage, code: int) -> int:
        """The stage's exit code as a shell gives it; if it was killed, say so on the screen and in its record."""
        if code >= 0:
            return code
        record_death(folders[stage.name], code)
        print(f"segladder: stages.{stage.name}: the process ended with {how_ended(code)}", file=sys.stderr, flush=True)
        return 128 - code

    code = one_by_one(stages, begun, ended) if config.at_once == 1 else together(stages, begun, ended, config.at_once)
    if not code:
        print(f"compare the stages: segladder leaderboard runs={config.runs}")
    return code


def stages_of(config: DictConfig) -> list[Stage]:
    """The stages of a configuration, each with those before it that it needs."""
    found: dict[str, Stage] = {}
    for number, (key, own) in enumerate(config.stages.items(), start=1):
        name, words = str(key), tuple(str(word) for word in own)
        stage = Stage(name, f"{number} of {len(config.stages)}", words, frozenset(needs(name, words, found)))
        found[name] = stage
    return list(found.values())


def needs(stage: str, words: Sequence[str], before: Collection[str]) -> Iterator[str]:
    """The stages that a stage names. Raises ConfigError where it names one that is not before it."""
    listed = ", ".join(before) or "none"
    for number, word in enumerate(words):
        key, _, value = word.partition("=")
        if not number and word.startswith(SCORES_AGAIN):
            if value not in before:
                raise ConfigError(f"stages.{stage}: {word} names no stage before it ({listed})")
            yield value
        elif key in NAMES_A_STAGE and value in before:  # before a folder that happens to be called so
            yield value
        elif key in (PARENT, START) and not Path(value).exists():
            raise ConfigError(f"stages.{stage}: {word} names no stage before it ({listed}) and no folder")


def require_possible(stages: Sequence[Stage], given: Sequence[str]) -> None:
    """Raise ConfigError or DataError for a stage that cannot be: those before it may train for hours."""
    runs: dict[str, DictConfig] = {}
    sources: dict[str, Source] = {}  # by the hash of their settings: masks are read once
    for stage in stages:
        try:
            for config in configurations(stage, given, runs):
                data = records.hash_of(plain(config, "data", True))
                source = sources.setdefault(data, build.source(config))
                require_data(config, source)
                if stage.scores is None and config.method.trains and config.parent is None:
                    require_training(config, source)
        except (ConfigError, DataError) as error:
            raise type(error)(f"stages.{stage.name}: {error}") from error


def configurations(stage: Stage, given: Sequence[str], runs: dict[str, DictConfig]) -> Iterator[DictConfig]:
    """What a stage trains, or what it scores a run of `runs` on; the run is added there under the stage's name.

    Raises:
        ConfigError: it does not compose, or its settings do not fit each other.
    """
    if stage.scores is None:
        runs[stage.name] = config = composed_or_explained([*given, *stage.words, "stages=null"])
        check_run(config)
        yield config
        return
    runs[stage.name] = runs[stage.scores]
    for overrides in each_protocol("evaluate", *own_choices(given), "run=RUN", *stage.words[1:]):
        config = scored_again(composed_or_explained(overrides, "evaluate"), runs[stage.name])
        check_choices(config)
        yield config


def require_data(config: DictConfig, source: Source) -> None:
    """Raise ConfigError or DataError where a run's data lack what its method or protocol asks for, or are damaged."""
    protocol = build.protocol(config)
    check_background(config, source, protocol)
    if build.method_class(config).reads_class_vectors:
        told_of_classes(config, source, protocol)
    check_scorable(source, protocol.split)
    protocol.check_items(source)


def require_training(config: DictConfig, source: Source) -> None:
    """Raise ConfigError or DataError where the training images hold too little for a run, of a class or at all."""
    view = build.protocol(config).training(source)
    ids, _ = training_ids(source, view.ids(source), config.loader.held_out, config.loader.without)
    if build.method_class(config).answers == "episodes":
        view.dataset(source, ids, Masks(), build.recipe(config))


def kept_by_stages(stages: Sequence[Stage], given: Sequence[str]) -> Iterator[str]:
    """A line for each key of the command that stages set to another value, which counts: their words come later."""
    asked = dict(word.lstrip("+").partition("=")[::2] for word in given)
    kept: dict[str, list[str]] = {}
    for stage in stages:
        for key, _, value in (word.lstrip("+").partition("=") for word in stage.words if stage.scores is None):
            if key not in NAMES_A_STAGE and asked.get(key, value) != value:
                kept.setdefault(key, []).append(f"{stage.name} {value}")
    for key, values in kept.items():
        yield f"{key}={asked[key]}: stages that set it themselves keep theirs: {', '.join(values)}"


def one_by_one(
    stages: Sequence[Stage], begun: Callable[[Stage], list[str] | None], ended: Callable[[Stage, int], int]
) -> int:
    """Run stages one after the other."""
    for stage in stages:
        command = begun(stage)
        if command is not None and (code := ended(stage, run_child(command))):
            return code
    return 0


def together(
    stages: Sequence[Stage],
    begun: Callable[[Stage], list[str] | None],
    ended: Callable[[Stage, int], int],
    at_once: int,
) -> int:
    """Run several stages at a time, the cores shared out among them; after a failure those that run are waited for."""
    waiting, over, threads = list(stages), set[str](), max(1, cores() // at_once)
    running: dict[str, Waitable] = {}
    children: list[Waitable] = []
    code = 0
    with TemporaryDirectory() as place, ended_by_printing(running, Path(place)), waited_for(children):
        while running or (waiting and not code):
            ready = [s for s in waiting if s.needs <= over] if len(running) < at_once and not code else []
            if ready:
                waiting.remove(ready[0])
                if (command := begun(ready[0])) is None:
                    over.add(ready[0].name)
                    continue
                running[ready[0].name] = start(command, threads, Path(place) / ready[0].name)
                children.append(running[ready[0].name])
            else:
                time.sleep(POLL)
            for stage in [stage for stage in stages if stage.name in running]:
                if running[stage.name].poll() is not None:
                    show(Path(place) / stage.name)
                    failed = ended(stage, running.pop(stage.name).wait())
                    code = code or failed
                    over.add(stage.name)
    return code


@contextmanager
def ended_by_printing(running: Mapping[str, Waitable], place: Path) -> Iterator[None]:
    """Whatever ends the block, what those that still ran have printed is shown."""
    try:
        yield
    finally:
        for name in running:
            show(place / name)


def show(log: Path) -> None:
    """Print what a stage has printed."""
    print(log.read_text(errors="replace") if log.exists() else "", end="", flush=True)


def told(stage: Stage, given: Sequence[str], folders: Mapping[str, Path]) -> tuple[list[str], Path, bool]:
    """The command of a stage, its folder, and whether it is there already; those that it needs are."""
    if stage.scores is not None:
        folder, words = folders[stage.scores], list(stage.words[1:])
        return ["evaluate", *own_choices(given), f"run={quoted(folder)}", *words], folder, is_scored(folder, words)
    overrides = [*given, *(with_folder(word, folders) for word in stage.words), "stages=null"]
    folder = stage_folder(stage.name, overrides)
    return ["train", *overrides, f"hydra.run.dir={quoted(folder)}"], folder, is_finished(folder)


def is_scored(folder: Path, words: list[str]) -> bool:
    """Whether a run has been evaluated with these overrides, under each of their protocols, wherever it lay then."""
    places = [path.parent for path in folder.glob(f"evaluations/*/{records.FILE_NAME}")]
    commands = [shlex.split(records.read(place).command)[2:] for place in places if is_finished(place)]
    done = [sorted(word for word in words if not word.startswith(NOT_OF_A_SCORE)) for words in commands]
    return all(sorted(asked) in done for asked in each_protocol("evaluate", *words))


def with_folder(override: str, folders: Mapping[str, Path]) -> str:
    """An override of a stage with the folder of the earlier stage that it names."""
    key, _, value = override.partition("=")
    return f"{key}={quoted(folders[value])}" if key in NAMES_A_STAGE and value in folders else override


def stage_folder(name: str, overrides: list[str]) -> Path:
    """Where a stage's run lies: RUNS/NAME-seedSEED-HASH, the hash over all that goes into the stage."""
    config = composed(overrides)
    source = build.source(config)
    learnt = {key: value for key, value in plain_config(config).items() if key not in NOT_WHAT_IS_LEARNT}
    given = {key: config[key] for key in (PARENT, START) if config[key] is not None}
    given |= {key: folder for key, folder, _ in parents_of(config)}  # weights of a backbone too, where a run has them
    inputs = {
        **learnt,
        **{key: content_of(Path(folder), named=key) for key, folder in given.items()},
        "data": [
            learnt["data"],
            *(source.fingerprint(source.split(s)) for s in (source.train_split, source.val_split)),
        ],
    }
    return Path(config.runs) / f"{name}-seed{config.seed}-{records.hash_of(inputs)}"
