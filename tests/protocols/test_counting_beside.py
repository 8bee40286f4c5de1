"""Where a device answers, images are counted in a thread beside it: the same counts, and errors reach the caller."""

import json
import threading

import pytest
import torch

from segladder.protocols import inference
from segladder.protocols.inference import Beside

DEVICE = torch.device("cuda")  # nothing is put there
TINY = [
    *("data.train_size=24", "data.val_size=10", "data.size=64", "backbone.width=8", "loader.workers=0"),
    *("trainer.steps=2", "trainer.progress=false", "trainer.panels=0", "logger=none", "protocol.bootstrap=20"),
]


def test_calls_keep_their_order_in_another_thread():
    seen = []
    with Beside(DEVICE) as beside:
        for number in range(100):
            beside.call(lambda number: seen.append((number, threading.get_ident())), number)
    assert [number for number, _ in seen] == list(range(100))
    assert {thread for _, thread in seen} != {threading.get_ident()}


def test_an_error_reaches_the_caller():
    def broken(number):
        if number == 50:
            raise KeyError(number)

    with pytest.raises(KeyError), Beside(DEVICE) as beside:
        for number in range(60):
            beside.call(broken, number)


def test_on_the_cpu_they_are_done_at_once():
    seen = []
    with Beside(torch.device("cpu")) as beside:
        beside.call(seen.append, 1)
        assert seen == [1]


@pytest.mark.parametrize(("method", "protocol"), [("fcn8s", "semantic"), ("cam", "cam_seeds"), ("spnet", "zero_shot")])
def test_counts_are_the_same(method, protocol, segladder, tmp_path, monkeypatch):
    run = tmp_path / "run"
    scales = [] if protocol == "zero_shot" else ["protocol.scales=[1]"]
    words = [f"method={method}", f"protocol={protocol}", *scales, *TINY]
    assert segladder("train", *words, f"hydra.run.dir={run}") == 0
    monkeypatch.setattr(inference, "Beside", lambda device: Beside(DEVICE))
    assert segladder("evaluate", f"run={run}", "device=cpu", "progress=false", "panels=0") == 0
    (again,) = run.glob("evaluations/*/record.json")
    first, second = (json.loads(path.read_text()) for path in (run / "record.json", again))
    for key in ("metrics", "per_class", "curve"):
        assert first[key] == second[key]
