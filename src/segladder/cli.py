"""The one door: `segladder COMMAND key=value ...`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import TYPE_CHECKING

from segladder import __version__
from segladder.configuration import choices, each_protocol
from segladder.foreign import printable
from segladder.machine import rank
from segladder.runs.interruption import INTERRUPTED

if TYPE_CHECKING:
    from omegaconf import DictConfig

COMMANDS = {
    "train": "train a method, score it, write its record (-m sweeps)",
    "search": "tune train's keys on held-out training images: space={KEY: [choices] or {low, high, log}} trials=N",
    "evaluate": "score a run's weights under a protocol: run=DIR protocol=NAME",
    "predict": "segment images or a video: run=DIR images=DIR out=DIR [support=DIR] or video=DIR mask=FILE",
    "export": "weights for use elsewhere: run=DIR out=FILE.onnx, or out=FILE.zip to hand a run on",
    "leaderboard": "rank the records of a folder: runs=DIR",
    "data": "convert your annotated images (action=convert from=DIR out=DIR); check, preview, audit: data=NAME",
    "bench": "measure speed against stated references: name=NAME",
}
GROUPS = ("method", "labels", "backbone", "loss", "data", "protocol", "prices", "strategy", "logger", "experiment")


def main() -> int:
    """Run the command named in `sys.argv`; returns 0 done, 1 failed, 2 asked wrongly, 130 or 143 interrupted."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        return show(help_text())
    if words[0] == "--version" or (words[0] in COMMANDS and "--version" in words):
        print(f"segladder {__version__}")
        return 0
    if words[0] in ("--completion", "--complete"):
        return completion(*words)
    if words[0] not in COMMANDS:
        close = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return complain(f"no command {words[0]}{hint}; choose from {', '.join(COMMANDS)}")
    if {"-h", "--help"} & {*words[1:]}:
        from segladder.guide import command_help

        return show(command_help(words[0]))
    code = 0
    for overrides in each_protocol(*words):
        code = max(code, run(words[0], overrides))
        if code in INTERRUPTED:
            break
    return code


def completion(option: str, *words: str) -> int:
    """Print a shell's script (`--completion bash`), or what may stand at the end of a line (`--complete LINE`)."""
    from segladder.guide import SCRIPTS, candidates

    if option == "--complete":
        return show("\n".join(candidates(words[0] if words else "")))
    if words[:1] and words[0] in SCRIPTS:
        return show(SCRIPTS[words[0]].rstrip("\n"))
    return complain(f"--completion: expected {', '.join(SCRIPTS)}, got {' '.join(words) or 'nothing'}")


def show(text: str) -> int:
    """Print text; a reader that has gone, such as `head`, has what it wants."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python's own last flush
    return 0


def run(command: str, overrides: list[str]) -> int:
    """Compose `conf/COMMAND.yaml` with the overrides and hand it to `segladder.commands.COMMAND.run`."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us whole; we print their one line
    from segladder.processes.waiting import wait_briefly

    wait_briefly()
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from segladder.command_line import for_hydra, know_every_alphabet
    from segladder.errors import ConfigError
    from segladder.processes.jobs import Jobs
    from segladder.processes.memory import keep_freed_memory
    from segladder.runs.composition import explain, not_a_choice, opened

    know_every_alphabet()
    try:
        overrides = for_hydra(overrides)
    except ConfigError as error:
        return complain_of(error)
    if complaint := not_a_choice(overrides) or not_a_folder(overrides):
        return complain(complaint)
    overrides = [opened(override) for override in overrides]
    jobs = Jobs(command)

    def task(config: DictConfig) -> None:
        code = 1
        try:
            code = run_job(command, overrides, config)
        finally:
            jobs.ended(code)
        if code in INTERRUPTED:
            if told := jobs.cut_off():
                complain(told)
            raise SystemExit(code)

    sys.argv = [sys.argv[0], *overrides]
    keep_freed_memory()
    try:
        hydra.main(version_base="1.3", config_path="pkg://segladder.conf", config_name=command)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        from segladder.runs.folder import FOLDER_VARIABLE

        started = FOLDER_VARIABLE in os.environ  # by the first process of a run, which composed
        return complain(explain(command, overrides, error), first_alone=not started)
    except KeyboardInterrupt as error:
        return complain("interrupted", 128 + (error.args or [INTERRUPTED[0] - 128])[0])
    except Exception as error:  # of a launcher, or of making the folder
        return complain_of(error)
    if failed := jobs.failed():
        complain(failed)
    return max(jobs.codes, default=0)


def not_a_folder(overrides: list[str]) -> str | None:
    """The complaint about a folder of runs without a name, for which Hydra would take the root."""
    empty = next((word for word in overrides if word.rstrip("'\"") in ("runs=", "hydra.run.dir=")), None)
    return empty and f"{empty} names no folder, expected one such as {empty}runs"


def run_job(command: str, overrides: list[str], config: DictConfig) -> int:
    """Run a command on one composed configuration, of a sweep each job; an error ends this job alone."""
    from omegaconf.errors import OmegaConfBaseException

    from segladder.processes.jobs import is_queued
    from segladder.runs.composition import explain

    try:
        code: int = importlib.import_module(f"segladder.commands.{command}").run(config)
    except OmegaConfBaseException as error:
        return complain(explain(command, overrides, error))
    except Exception as error:
        if is_queued():  # the sweep waits to hear of it
            raise
        return complain_of(error)
    return code


def complain_of(error: Exception) -> int:
    """Print the one line of an error that the user can mend, and return its code; any other goes on as it is."""
    from segladder.errors import ConfigError, SegLadderError, of_machine
    from segladder.runs.composition import one_line

    known = error if isinstance(error, SegLadderError) else of_machine(error)
    if known is None:
        raise error
    return complain(one_line(known), 2 if isinstance(known, ConfigError) else 1)


def complain(text: str, code: int = 2, first_alone: bool = True) -> int:
    """Print one line to standard error, of a distributed run from the first process alone, and return `code`."""
    if rank() == 0 or not first_alone:
        print(f"segladder: {printable(text)}", file=sys.stderr)
    return code


def help_text() -> str:
    """What `segladder --help` prints: the commands, and the choices of each configuration group."""
    lines = ["usage: segladder COMMAND key=value ...", "", "commands"]
    lines += [f"  {name:<12} {what}" for name, what in COMMANDS.items()]
    lines += ["", "choices (GROUP=NAME)"]
    for group in GROUPS:
        lines.append(f"  {group:<12} {' '.join(choices(group))}")
    lines += [
        "",
        "`segladder COMMAND --help` shows its keys and examples; --cfg job every key with its value.",
        'eval "$(segladder --completion bash)" completes words in bash; zsh and fish have their own.',
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
