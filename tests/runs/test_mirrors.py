"""Loggers mirror a run, whatever becomes of them: nothing that they do changes how the run ends."""

import csv
import json

import pytest
import wandb
from pytorch_lightning.loggers import CSVLogger
from wandb_logs import of_kind

from segladder.report import loggers
from segladder.report.wandb_client import mode_of
from segladder.runs import fitting
from segladder.runs.watching import mirrors

DATA = ["data.train_size=24", "data.val_size=6", "data.size=64", "loader.workers=0"]
TRAINED = [
    *(*DATA, "backbone.width=8", "method.fully_connected=16", "loader.batch_size=4", "trainer.progress=false"),
    *("trainer.epochs=1", "trainer.panels=0", "protocol.bootstrap=10"),
]
UNTRAINED = [
    *(*DATA, "method=kmeans", "method.clusters=4", "method.matching=majority", "method.study_images=8"),
    *("method.naming_images=8", "trainer.panels=1", "trainer.progress=false", "protocol.bootstrap=10"),
]
KEY = "0123456789" * 4


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A user of Weights & Biases who has a home of their own and nothing in the environment."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()
    yield monkeypatch
    wandb.teardown()


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


def remarks(folder):
    return [line for line in (folder / "log.txt").read_text().splitlines() if "remark: logger" in line]


def log_of(folder):
    wandb.teardown()  # the last lines are on disk
    (log,) = folder.glob("logs/wandb/offline-run-*/*.wandb")
    return log


@pytest.mark.parametrize(
    ("key", "environment", "asked", "mode"),
    [
        (None, None, None, "offline"),
        (KEY, None, None, "online"),
        (KEY, "offline", None, "offline"),
        (KEY, "offline", "online", "online"),
        (None, "disabled", None, "disabled"),
        (KEY, "online", "offline", "offline"),
    ],
)
def test_the_setting_goes_before_the_environment_and_that_before_a_login(user, key, environment, asked, mode):
    for name, value in (("WANDB_API_KEY", key), ("WANDB_MODE", environment)):
        if value:
            user.setenv(name, value)
    assert mode_of(asked) == mode


def test_a_key_in_a_file_is_a_login(user, tmp_path):
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert mode_of() == "online"


@pytest.mark.parametrize(
    ("words", "environment", "fault"),
    [
        (["logger.wandb.mode=online"], {}, "logger.wandb.mode=online: nobody is logged in"),
        ([], {"WANDB_MODE": "online"}, "WANDB_MODE=online: nobody is logged in"),
        (["logger.wandb.project=a/b"], {}, "logger.wandb.project=a/b: expected a name without /"),
        ([], {"WANDB_API_KEY": "short"}, "API key must have 40+ characters"),
    ],
)
def test_wrong_settings_are_one_line_before_anything_is_made(
    segladder, user, tmp_path, capsys, words, environment, fault
):
    for name, value in environment.items():
        user.setenv(name, value)
    assert segladder("train", *TRAINED, "logger=wandb", *words, f"hydra.run.dir={tmp_path / 'run'}") == 2
    said = capsys.readouterr().err
    assert fault in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_be_sent_is_kept_in_its_folder(segladder, user, tmp_path):
    init = wandb.init

    def unreachable(**settings):
        if settings["mode"] == "online":
            raise wandb.errors.CommError("no such host")
        return init(**settings)

    user.setattr(wandb, "init", unreachable)
    user.setenv("WANDB_API_KEY", KEY)
    assert segladder("train", *UNTRAINED, "logger=wandb", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert record_of(tmp_path / "run")["status"] == "finished"
    (remark,) = remarks(tmp_path / "run")
    assert "no such host" in remark and "kept there for wandb sync" in remark
    (end,) = of_kind(log_of(tmp_path / "run"), "exit")
    assert end.exit_code == 0


def test_a_logger_that_fails_while_the_network_trains_is_left_out(segladder, tmp_path, monkeypatch):
    monkeypatch.setattr(CSVLogger, "log_metrics", lambda *args, **kwargs: 1 / 0)
    words = ["logger=[csv,tensorboard]", "logger.csv.every_steps=1"]
    assert segladder("train", *TRAINED, *words, f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert record_of(tmp_path / "run")["status"] == "finished"
    (remark,) = remarks(tmp_path / "run")
    assert "logger=csv failed, the run goes on without it: division by zero" in remark
    assert list((tmp_path / "run" / "logs" / "tensorboard").glob("**/events.*"))


def test_a_logger_that_is_not_installed_is_one_line(segladder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    assert segladder("train", *TRAINED, "logger=tensorboard", f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert "logger=tensorboard: TensorBoard is not installed; pip install" in capsys.readouterr().err
    assert not (tmp_path / "run" / "weights.pt").exists()


def test_a_run_is_finished_before_its_loggers_hear_of_it(segladder, tmp_path, monkeypatch):
    heard = []

    def listening(record, *rest):
        heard.append(record_of(tmp_path / "run")["status"])
        raise KeyboardInterrupt(2)

    monkeypatch.setattr(fitting, "log_scores", listening)
    assert segladder("train", *UNTRAINED, "logger=csv", f"hydra.run.dir={tmp_path / 'run'}") == 130
    assert heard == ["finished"] and record_of(tmp_path / "run")["status"] == "finished"


def test_a_logger_that_cannot_be_closed_changes_nothing(segladder, tmp_path, monkeypatch):
    monkeypatch.setattr(mirrors.loggers, "close", lambda *args: 1 / 0)
    assert segladder("train", *UNTRAINED, "logger=csv", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert record_of(tmp_path / "run")["status"] == "finished" and len(remarks(tmp_path / "run")) == 1


def test_a_logger_that_cannot_start_is_asked_once(segladder, tmp_path, monkeypatch):
    asked = []

    def unable(**settings):
        asked.append(settings["mode"])
        raise wandb.errors.CommError("no service")

    monkeypatch.setattr(wandb, "init", unable)
    assert segladder("train", *UNTRAINED, "logger=wandb", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert asked == ["offline"] and record_of(tmp_path / "run")["status"] == "finished"
    (remark,) = remarks(tmp_path / "run")
    assert "logger=wandb failed, the run goes on without it: no service" in remark


def test_methods_that_do_not_train_are_mirrored_with_their_settings(segladder, tmp_path, capsys):
    folder = tmp_path / "run"
    assert segladder("train", *UNTRAINED, "logger=[csv,tensorboard,wandb]", f"hydra.run.dir={folder}") == 0
    assert capsys.readouterr().err == ""
    record = record_of(folder)
    name = f"{record['protocol']['name']}/mIoU"
    log = log_of(folder)
    logged = {item.nested_key[0] or item.key: item.value_json for h in of_kind(log, "history") for item in h.item}
    assert json.loads(logged[name]) == pytest.approx(record["metrics"]["mIoU"]["value"])
    assert any(key.startswith("panels/") for key in logged)
    (run, *later) = of_kind(log, "run")
    updates = [u for known in (run, *later) for u in known.config.update]
    updates += [u for known in of_kind(log, "config") for u in known.update]
    config = {u.key or u.nested_key[0]: json.loads(u.value_json) for u in updates}
    assert config["record_id"] == record["id"] and config["protocol_hash"] == record["protocol"]["hash"]
    assert config["method"] == record["config"]["method"]
    (rows,) = folder.glob("logs/csv/version_0/metrics.csv")
    (row,) = csv.DictReader(rows.open())
    assert float(row[name]) == pytest.approx(record["metrics"]["mIoU"]["value"])
    assert len(list(folder.glob("logs/*/version_0/hparams.yaml"))) == 2


def test_a_resumed_run_goes_on_with_its_run(segladder, tmp_path, monkeypatch):
    folder, fill = tmp_path / "run", fitting.fill

    def stopped(*rest):
        monkeypatch.setattr(fitting, "fill", fill)
        raise KeyboardInterrupt(2)

    monkeypatch.setattr(fitting, "fill", stopped)
    with pytest.raises(SystemExit):
        segladder("train", *UNTRAINED, "logger=[csv,wandb]", f"hydra.run.dir={folder}")
    assert (folder / "weights.pt").exists() and record_of(folder)["status"] == "interrupted"
    first = log_of(folder)
    assert len(of_kind(first, "preempting")) == 1
    assert segladder("train", f"resume={folder}") == 0
    wandb.teardown()
    logs = sorted(folder.glob("logs/wandb/offline-run-*/*.wandb"))
    assert len(logs) == 2 and len({of_kind(log, "run")[0].run_id for log in logs}) == 1
    assert [end.exit_code for log in logs for end in of_kind(log, "exit")] == [1, 0]
    assert "semantic/mIoU" in (folder / "logs" / "csv" / "version_1" / "metrics.csv").read_text()
