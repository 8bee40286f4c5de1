"""How threads wait for each other is settled before torch starts them, unless the environment says."""

import os
import subprocess
import sys

import pytest

PROBE = """
import os, sys
import segladder.processes.waiting as waiting
from segladder.cli import main

settle = waiting.wait_briefly
def watched():
    assert "torch" not in sys.modules
    settle()
    print("spins", os.environ.get("GOMP_SPINCOUNT"))
waiting.wait_briefly = watched
sys.argv = ["segladder", "leaderboard", "--cfg", "job"]
main()
"""


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "2000"), ({"GOMP_SPINCOUNT": "9"}, "9"), ({"OMP_WAIT_POLICY": "passive"}, "None")]
)
def test_the_door_settles_how_long_threads_spin_before_torch_starts(given, spins):
    quiet = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    told = subprocess.run([sys.executable, "-c", PROBE], env={**quiet, **given}, capture_output=True, text=True)
    assert told.stdout.splitlines()[0] == f"spins {spins}", told.stderr
