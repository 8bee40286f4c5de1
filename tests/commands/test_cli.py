"""The door: help, wrong words, and every kind of impossible configuration ends in one line and exit code 2."""

import os
import re
import subprocess
import sys

import pytest

from segladder import cli
from segladder.command_line import for_hydra
from segladder.errors import ConfigError
from segladder.guide import candidates
from segladder.runs.choices import check_choices
from segladder.runs.composition import composed

SEED = ["seed=0", "fold=1"]


def segladder(*words, cwd=None):
    return subprocess.run([sys.executable, "-m", "segladder.cli", *words], capture_output=True, text=True, cwd=cwd)


def complaint(capsys, monkeypatch, tmp_path, *words):
    """What the command line says on standard error, checked to be one line with exit code 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["segladder", *words])
    assert cli.main() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error, error
    return error


def test_help_lists_commands_and_choices(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["segladder", "--help"])
    assert cli.main() == 0
    text = capsys.readouterr().out
    assert all(f"  {command} " in text for command in cli.COMMANDS)
    assert "fcn8s" in text and "ddp_cpu" in text


def test_an_interrupt_ends_the_protocols_that_would_follow(monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "run", lambda command, overrides: asked.append(overrides[-1]) or 130)
    monkeypatch.setattr(sys, "argv", ["segladder", "evaluate", "run=a", "protocol=[semantic,boundary]"])
    assert cli.main() == 130 and asked == ["protocol=semantic"]
    monkeypatch.setattr(cli, "run", lambda command, overrides: asked.append(overrides[-1]) or 1)
    assert cli.main() == 1 and asked[1:] == ["protocol=semantic", "protocol=boundary"]


def test_help_imports_nothing_heavy():
    script = "import sys; from segladder import cli; sys.argv[1:] = ['--help']; cli.main(); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not any(f"'{heavy}'" in modules for heavy in ("torch", "hydra", "omegaconf", "numpy", "pytorch_lightning"))


def test_config_is_shown_without_importing_torch(tmp_path):
    script = (
        "import sys; sys.argv = ['segladder', 'train', '--cfg', 'job']; from segladder import cli; cli.main();"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "name: fcn8s" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tran"], "did you mean train?"),
        (["train", "method=fcn8"], "method=fcn8: no such choice (did you mean fcn8s?); choose from"),
        (["train", "data=vok"], "data=vok: no such choice"),
        (["train", "strategy=gpus"], "choose from cpu, ddp, ddp_cpu, fsdp, gpu\n"),
        (["train", "strategy=_base"], "strategy=_base: no such choice; choose from cpu, ddp, ddp_cpu, fsdp, gpu\n"),
        (["train", "-m", "strategy=cpu,_base"], "strategy=_base: no such choice"),
        (["train", "trainer.epoch=3"], "trainer.epoch: no such key in trainer (did you mean epochs?); allowed: "),
        (["train", "backbone=resnet18", "backbone.width=3"], "backbone.width: no such key in backbone=resnet18;"),
        (["train", "sed=3"], "sed: no such key (did you mean seed?)"),
        (["train", "protocol=voc2012"], "scores voc, but data=shapes"),
        (["train", "selection=best"], "selection=best: expected one of fixed, held_out, oracle"),
        (["train", "selection=held_out"], "loader.held_out"),
        (["train", "resume=nowhere"], "resume=nowhere: no config.yaml there"),
        (["train", "resume=nowhere", "seed=3"], "leave out seed=3"),
        (["train", "data.classes=[cat]"], "no such class cat; shapes has"),
        (["train", "+method.foo=1"], "foo"),
        (
            ["train", "seed=0,1"],
            "seed=0,1: several values: add -m for a run of each; one value that is a list is [A",
        ),
        (["train", "seed=range(3)"], "seed=range(3): several values: add -m"),
        (["train", "~trainer.clip"], "~trainer.clip: is null, so there is nothing to remove"),
        (["train", "~trainer.nope"], "trainer.nope: no such key in trainer; allowed: epochs"),
        (["train", "~logger"], "~logger: a choice is not left out; choose logger=none, or another of csv, none"),
        (["train", "~loss=dice"], "~loss: a choice is not left out; choose loss= cross_entropy, "),
        (["train", "~seed"], "~seed: a command needs all of its keys; give seed=VALUE"),
        (["evaluate", "run=nowhere"], "run=nowhere: no config.yaml there"),
        (["predict", "run=nowhere", "images=x", "out=y"], "run=nowhere"),
        (["train", "method.skips=7"], "method.skips=7"),
        (["train", "seed=[1"], "seed=[1: not understood"),
        (["data", "data.root=photos (1)"], "has quotes of its own: 'KEY=\"VALUE\"'"),
        (["train", "runs="], "runs= names no folder, expected one such as runs=runs"),
        (
            ["train", "loader.augment.extra=[{name: Blurr}]"],
            "loader.augment.extra: no transform Blurr in albumentations",
        ),
        (
            ["train", "method=sg_one", "protocol=strict", "pool=20"],
            "pool=20: protocol=strict reads the labels of all training images; choose protocol= cam_seeds, camvid",
        ),
    ],
)
def test_wrong_words_get_one_clear_line(words, said, capsys, monkeypatch, tmp_path, shapes_root):
    monkeypatch.setenv("SEGLADDER_DATA", str(shapes_root.parent))
    assert said in complaint(capsys, monkeypatch, tmp_path, *words)


def test_names_of_any_alphabet_need_no_quotes():
    said = ["data=folder", "data.root=/home/Müller/猫 und Hunde", "data.classes=[Straße,dog house]"]
    config = composed([*said, "embeddings.words={Straße: street}"])
    assert config.data.root == "/home/Müller/猫 und Hunde" and config.data.classes == ["Straße", "dog house"]
    assert config.embeddings.words == {"Straße": "street"}
    named = composed(["classes={background: '#000000', Straße: '#ff0000'}"], "data")
    assert named.classes == {"background": "#000000", "Straße": "#ff0000"}


def test_impossible_choices_leave_no_folder(capsys, monkeypatch, tmp_path):
    complaint(capsys, monkeypatch, tmp_path, "train", "protocol=voc2012")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=cam", "labels=masks"], "labels=masks: method=cam does not learn from them; choose labels=tags, or"),
        (
            ["method=fcn8s", "labels=tags"],
            "labels=tags: method=fcn8s does not learn from them; choose labels=points, labels=scribbles, labels=boxes,",
        ),
        (["method=spnet", "labels=tags"], "choose labels=names, or another method"),
    ],
)
def test_labels_that_nothing_learns_from_are_refused_with_those_that_fit(words, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        check_choices(composed(words))


@pytest.mark.parametrize("words", [["--version"], ["train", "--version"], ["train", "seed=0", "--version"]])
def test_version(capsys, monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["segladder", *words])
    assert cli.main() == 0
    assert capsys.readouterr().out.startswith("segladder ")


def test_a_sweep_ends_with_the_jobs_that_failed(segladder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["-m", "selection=fixed,best", "seed=0,-1", "resume=nowhere"]
    assert segladder("train", *words) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == (
        "segladder: 4 of 4 jobs failed: job 0 (selection=fixed seed=0); job 1 (selection=fixed seed=-1);"
        " job 2 (selection=best seed=0); job 3 (selection=best seed=-1);"
        " with hydra/launcher=pool the same sweep runs what has not finished"
    )
    assert segladder("train", "selection=best") == 2 and "jobs failed" not in capsys.readouterr().err


@pytest.mark.parametrize(("words", "told"), [(["-m", "seed=0,1"], True), (["seed=0"], False)])
def test_an_interrupted_sweep_says_how_it_goes_on(words, told, segladder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segladder.commands.train.run", lambda config: 130)
    with pytest.raises(SystemExit) as end:
        segladder("train", *words)
    assert end.value.code == 130
    said = "segladder: the sweep ends with this run; with hydra/launcher=pool the same sweep runs what has not finished"
    assert (said in capsys.readouterr().err.splitlines()) == told


@pytest.mark.parametrize("launcher", ["basic", "pool"])
def test_a_sweep_without_a_job_is_refused(launcher, segladder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert segladder("train", "-m", f"hydra/launcher={launcher}", "method=glob(zz*)") == 2
    assert capsys.readouterr().err.endswith("method=glob(zz*): fits no choice, so there is nothing to run\n")
    assert not list(tmp_path.iterdir())


def test_a_command_without_runs_leaves_nothing_where_it_sweeps(segladder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert segladder("leaderboard", "-m", "runs=a,b") == 1
    assert capsys.readouterr().err.endswith("2 of 2 jobs failed: job 0 (runs=a); job 1 (runs=b)\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "seed=0,1", "--cfg", "job"], "--cfg job shows the configuration of one run: leave -m out"),
        (["seed=0", "--info", "config", "-m"], "--info config shows the configuration of one run: leave -m out"),
        (["seed=0", "--resolve"], "--resolve: goes with --cfg job"),
        (["seed=0", "--cfg"], "--cfg: needs a value"),
        (["--cfg", "seed=0"], "--cfg seed=0: expected one of job, hydra, all"),
        (["seed=0", "--multi"], "--multi: no such flag; there are -m, --cfg job"),
        (["-m", "hydra.run.dir=mine"], "hydra.run.dir=mine: is the folder of a single run; a sweep's is hydra.sweep"),
        (
            ["-m", "hydra.sweep.subdir=same", "seed=0,1", "hydra/launcher=pool"],
            "hydra.sweep.subdir: runs/shapes/same is the folder of several jobs (seed=0, seed=1)",
        ),
    ],
)
def test_flags_that_do_not_fit_get_one_clear_line(words, said, capsys, monkeypatch, tmp_path):
    assert said in complaint(capsys, monkeypatch, tmp_path, "train", *words)


def test_flags_may_follow_overrides():
    assert for_hydra(["seed=0", "-m", "fold=1"]) == ["-m", "seed=0", "fold=1"]
    assert for_hydra(["seed=0", "--cfg=job", "fold=1", "-p", "trainer"]) == ["--cfg", "job", "-p", "trainer", *SEED]
    assert for_hydra(["--info", "seed=0", "fold=1"]) == ["--info", "all", *SEED]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("segladder train logger=[c", ["logger=[csv"]),
        ("segladder train -m method=fcn8s,une", ["method=fcn8s,unet", "method=fcn8s,unet_original"]),
        ("segladder train method=fcn3", ["method=fcn32s"]),
        ("segladder train seed=0,", []),
    ],
)
def test_each_value_of_a_list_is_completed(line, offered):
    assert candidates(line) == offered


@pytest.mark.parametrize("words", [["--complete", "segladder train "], ["--help"], ["train", "--help"]])
def test_a_reader_that_goes_early_gets_no_traceback(words):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as gone:
        command = [sys.executable, "-m", "segladder.cli", *words]
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
