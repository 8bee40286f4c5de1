"""Data and the command line for every test: a small rendering of the shapes, made once a session, and `segladder`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings

from segladder import cli

settings.register_profile("any_machine", deadline=None)  # a slow machine is no failure
settings.load_profile("any_machine")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported: the same bits here and in processes we start


REAL_DATA = Path(os.environ.get("SEGLADDER_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _same_random_numbers():
    """Weights that a test draws depend neither on the tests before it nor on which process runs it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def real_data():
    """Where real photographs and videos lie; a test that asks for one that is not there is skipped."""

    def folder(name):
        if not (REAL_DATA / name).exists():
            pytest.skip(f"no real data: SEGLADDER_DATA has no {name}")
        return REAL_DATA / name

    return folder


def no_mode(*_, **__):
    """Instead of composing everything once more to see whether `hydra.mode` is set: it never is here."""
    return None


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory):
    """A folder that holds small renderings of the shapes; SEGLADDER_DATA is its parent."""
    return tmp_path_factory.mktemp("data") / "shapes"


@pytest.fixture(scope="session")
def segladder(shapes_root):
    """Runs `segladder WORDS` in this process and returns its exit code; a new process costs seconds."""

    def run(*words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SEGLADDER_DATA", str(shapes_root.parent))
            patch.setattr(sys, "argv", ["segladder", *map(str, words)])
            patch.setattr(Hydra, "get_mode", no_mode)
            around, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # a chain calls this from inside
            before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
            try:
                return cli.main()
            finally:
                GlobalHydra.instance().hydra = around
                for number, handler in before.items():  # an interrupted process keeps its own until it ends
                    signal.signal(number, handler)

    return run


@pytest.fixture
def start_segladder(shapes_root):
    """Starts `segladder WORDS`, after the code `first`, in a process group that does not outlive the test."""
    started = []

    def start(*words, first=""):
        door = ["-m", "segladder.cli"]
        if first:
            door = ["-c", f"{first}\nimport sys\nfrom segladder import cli\nsys.exit(cli.main())"]
        process = subprocess.Popen(
            [sys.executable, *door, *map(str, words)],
            env={**os.environ, "SEGLADDER_DATA": str(shapes_root.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
