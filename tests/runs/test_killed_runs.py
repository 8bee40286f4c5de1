"""A run that is killed between its weights and its score, and resumed, knows what its training was like."""

import json
import signal

import pytest
import torch

pytestmark = pytest.mark.long

TINY = [
    *("data.train_size=24", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=0"),
    *("loader.batch_size=4", "trainer.epochs=2", "trainer.progress=false", "trainer.panels=0", "logger=none"),
    *("protocol.bootstrap=20", "selection=held_out", "loader.held_out=0.3"),
]
KILLED_WHERE_WEIGHTS_APPEAR = """
import os, signal
from pathlib import Path

replace = os.replace

def killing(source, target):
    if Path(target).name == "weights.pt" and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if Path(target).name == "weights.pt":
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = killing
"""


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


@pytest.fixture(scope="module")
def whole(segladder, tmp_path_factory):
    """The folder of a run that nothing disturbed, for each way of choosing weights."""
    runs = tmp_path_factory.mktemp("whole")

    def whole(selection):
        folder = runs / selection
        assert segladder("train", *TINY, f"selection={selection}", f"hydra.run.dir={folder}") == 0
        return folder

    return whole


@pytest.mark.parametrize(
    ("selection", "before"),
    [
        ("held_out", False),
        pytest.param("fixed", False, marks=pytest.mark.slow),
        pytest.param("held_out", True, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_where_its_weights_appear_still_knows_how_it_was_trained(
    start_segladder, segladder, whole, tmp_path, selection, before
):
    folder = tmp_path / "run"
    words = ["train", *TINY, f"selection={selection}", f"hydra.run.dir={folder}"]
    process = start_segladder(*words, first=KILLED_WHERE_WEIGHTS_APPEAR.format(before=before))
    _, error = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL, error
    assert (folder / "weights.pt").exists() is not before and record_of(folder)["status"] == "running"
    known = record_of(folder)
    assert segladder("train", f"resume={folder}") == 0
    first, second = record_of(whole(selection)), record_of(folder)
    for key in ("steps", "label_access", "metrics", "checkpoint", "device"):
        assert second[key] == first[key], key
    assert first["steps"] == 2 * (first["data"]["train_ids"] // 4) and second["train_seconds"] > 0
    if not before:
        assert second["train_seconds"] == known["train_seconds"]
    weights = [torch.load(place / "weights.pt", weights_only=True) for place in (whole(selection), folder)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
