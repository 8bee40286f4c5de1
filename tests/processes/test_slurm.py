"""The launcher `slurm`: its configuration, and the same plugin running jobs on this machine (`submitit_local`)."""

import json
import socket

import pytest
import torch

from segladder.runs.composition import explain

pytestmark = pytest.mark.long

SWEEP = [
    *("data.train_size=20", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=0"),
    *("logger=none", "trainer.progress=false", "trainer.panels=0", "loader.batch_size=4", "trainer.steps=1"),
]


def test_without_the_plugin_one_line_says_what_to_install():
    error = Exception("In 'hydra/launcher/slurm': Could not find 'hydra/launcher/submitit_slurm'\n\nAvailable options")
    assert "pip install 'segladder[slurm]'" in explain("train", ["hydra/launcher=slurm"], error)


def test_the_configuration_fits_the_plugin(segladder, capsys):
    plugin = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config", reason="needs segladder[slurm]")
    assert segladder("train", "hydra/launcher=slurm", "--cfg", "hydra", "-p", "hydra.launcher") == 0
    shown = capsys.readouterr().out
    assert plugin.SlurmQueueConf._target_ in shown
    assert "max_num_timeout: 3" in shown and "gpus_per_node: 1" in shown


TASK = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1"}
NODES = {"SLURM_NNODES": "2", "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1"}


def variables(task, port):
    """What srun gives to one of two tasks on two machines."""
    own = {"SLURM_PROCID": str(task), "SLURM_NODEID": str(task), "SLURM_LOCALID": "0", "MASTER_PORT": str(port)}
    return TASK | NODES | own


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_tasks_that_srun_starts_are_one_run(start_segladder, segladder, tmp_path, port):
    """Two machines, a task each, as SLURM's variables say it; the weights are those of two processes of one machine."""
    words = ["train", *SWEEP, "strategy=ddp_cpu"]
    one, two = ([*words, f"hydra.run.dir={tmp_path / name}"] for name in ("one", "two"))
    several = [*two, "strategy.devices=1", "strategy.nodes=2"]
    started = [start_segladder(*several, first=f"import os; os.environ |= {variables(n, port)}") for n in (0, 1)]
    ends = [(process.communicate(timeout=240)[1], process.returncode) for process in started]
    assert [code for _, code in ends] == [0, 0], ends
    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert record["status"] == "finished" and not (tmp_path / "two" / "owner.json").exists()
    assert start_segladder(*one).wait(timeout=240) == 0
    first, second = (torch.load(tmp_path / name / "weights.pt", weights_only=True) for name in ("one", "two"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_tasks_of_one_run_are_told_their_folder(segladder, tmp_path, capsys, monkeypatch):
    for name, value in variables(0, 1).items():
        monkeypatch.setenv(name, value)
    assert segladder("train", *SWEEP, f"runs={tmp_path}") == 2
    assert "hydra.run.dir: 2 tasks of a cluster train one run, name the folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_is_a_run_and_a_failed_one_is_heard_of(segladder, shapes_root, tmp_path, capfd):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs segladder[slurm]")
    words = ["train", "-m", "hydra/launcher=submitit_local", f"runs={tmp_path}", *SWEEP, "selection=fixed,best"]
    assert segladder(*words) == 2
    assert "selection=best: choose from fixed, held_out, oracle" in capfd.readouterr().err
    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert record["status"] == "finished" and record["label_access"]["selection"] == "fixed"
