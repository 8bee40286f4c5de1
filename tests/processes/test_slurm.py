"""The launcher `slurm`: its configuration, and the same plugin running jobs on this machine (`submitit_local`)."""

import json

import pytest

from segladder.runs.composition import explain

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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_is_a_run_and_a_failed_one_is_heard_of(segladder, shapes_root, tmp_path, capfd):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs segladder[slurm]")
    words = ["train", "-m", "hydra/launcher=submitit_local", f"runs={tmp_path}", *SWEEP, "selection=fixed,best"]
    assert segladder(*words) == 2
    assert "selection=best: choose from fixed, held_out, oracle" in capfd.readouterr().err
    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert record["status"] == "finished" and record["label_access"]["selection"] == "fixed"
