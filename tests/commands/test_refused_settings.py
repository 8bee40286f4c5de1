"""Every setting is checked before anything starts: one line that says what is allowed, exit code 2, no folder."""

import sys

import pytest

from segladder import cli

REFUSED = [
    ("train method.schedule.name=typo", "method.schedule.name=typo: expected one of poly, one_cycle, constant"),
    ("train method.optimizer.name=adamm", "method.optimizer.name=adamm: expected one of adamw, sgd, adam"),
    ("train method.optimizer.lr=-1", "method.optimizer.lr=-1: expected a number above 0 and at most 1000000.0"),
    ("train method.schedule.warmup=5", "method.schedule.warmup=5: expected a number at least 0 and at most 1"),
    ("train strategy.deterministic=typo", "strategy.deterministic=typo: expected true or false or warn"),
    ("train strategy.precision=typo", "strategy.precision=typo: expected one of auto, 32-true, 16-mixed, bf16-mixed"),
    ("train strategy.devices=0", "strategy.devices=0: expected -1 or a whole number at least 1"),
    ("train protocol.flip=typo", "protocol.flip=typo: expected true or false"),
    ("train protocol.scales=[]", "protocol.scales=[]: expected a list, each a number above 0 with one at least"),
    ("train protocol.boundary_width=nan", "protocol.boundary_width=NaN: expected a number at least 0 and at most 1"),
    ("train method=prototype protocol=strict protocol.seeds=[a]", 'protocol.seeds=["a"]: expected a list, each a'),
    ("train method=prototype protocol=strict protocol.fit=padded", "protocol.fit=padded: needs a size"),
    ("train method=cam protocol=cam_seeds protocol.thresholds=[2]", "protocol.thresholds=[2]: expected a list, each"),
    (
        "train method=cam protocol=cam_seeds protocol.thresholds=[0.6,0.3]",
        "protocol.thresholds=[0.6, 0.3]: expected ascending numbers",
    ),
    ("train trainer.score_batch=0", "trainer.score_batch=0: expected a whole number at least 1"),
    ("train trainer.steps=1.5", "trainer.steps=1.5: expected a whole number at least 1 or null"),
    ("train trainer.steps=0", "trainer.steps=0: expected a whole number at least 1 or null"),
    ("train trainer.epochs=two", "trainer.epochs=two: expected a whole number at least 1"),
    ("train ~trainer.epochs", "trainer.epochs: is missing, expected a whole number at least 1"),
    ("train trainer=x", "trainer=x: "),
    ("train loader=inf", "loader=Infinity: expected keys such as batch_size, workers, held_out"),
    ("train loader.augment.flip=7", "loader.augment.flip=7: expected a number at least 0 and at most 1"),
    ("train +loader.augment.crop=0", "loader.augment.crop=0: expected a whole number at least 1 or null"),
    ("train loader.held_out=nan", "loader.held_out=NaN: expected a number at least 0 and below 1"),
    (
        "train loader.episodes.class_draw=x",
        "loader.episodes.class_draw=x: expected one of image, image_any_size, class",
    ),
    ("train loss=1.5", "loss=1.5: no such choice; choose from cross_entropy"),
    ("train loss.label_smoothing=2", "loss.label_smoothing=2: expected a number at least 0 and at most 1"),
    ("train method=cam protocol=cam_seeds loss=dice", "loss: method=cam has a loss of its own; leave loss out"),
    ("train loss=dice loss.smooth=-1", "loss.smooth=-1: expected a number at least 0"),
    ("train seed=abc", "seed=abc: expected a whole number at least 0 and below 4294967296"),
    ("train seed=-1", "seed=-1: expected a whole number at least 0 and below 4294967296"),
    ("train pool=-1", "pool=-1: expected a whole number at least 0 or null"),
    ("train prices.mask=-3", "prices.mask=-3: expected a number at least 0"),
    ("train +data.cache=disk", "data.cache=disk: expected one of none, memmap"),
    ("train backbone.width=0", "backbone.width=0: expected a whole number at least 1"),
    ("train method=sg_one protocol=strict method.guidance=x", "method.guidance=x: expected one of multiply, none"),
    ("train pseudo_masks.background=x", "pseudo_masks.background=x: expected one of constant, power, base"),
    ("train selection=best", "selection=best: expected one of fixed, held_out, oracle"),
    ("train logger.csv.every_steps=0", "logger.csv.every_steps=0: expected a whole number at least 1"),
    ("train method=null", "method=null: no such choice; choose from advcam, affinity_net"),
    ("train logger=[csv,foo]", "logger=foo: no such choice; choose from csv, none, tensorboard, wandb"),
    (
        "train method=zs3net",
        "protocol=semantic scores full, image_level, none methods, but method=zs3net is zero_shot; choose",
    ),
    ("train logger=none logger={a:1}", "logger"),
    ("train +foo=1", "foo: no such key; allowed: "),
    ("train +method.optimizer.lrr=1", "method.optimizer.lrr: no such key (did you mean lr?); allowed: name, lr"),
    ("train trainer.epoch=3 sed=1", "trainer.epoch: no such key in trainer (did you mean epochs?); allowed: "),
    ("train backbone=resnet18 backbone.options.pretrained=true", "backbone.options.pretrained: no option of a network"),
    (
        "train backbone=resnet18 backbone.options={pretrained:true}",
        "backbone.options.pretrained: no option of a network",
    ),
    ("train epochs=5", "epochs: no such key (did you mean trainer.epochs?); allowed: "),
    ("train batch_size=5", "batch_size: no such key (did you mean loader.batch_size?); allowed: "),
    ("train method.lr=5", "method.lr: no such key in method=fcn8s (did you mean method.optimizer.lr?); allowed: "),
    ("data action=check data=folder data.root=~/mine", "data.root=~/mine: ~ is the shell's word for your folder"),
    ("train backbone._target_=nowhere.Net", "backbone._target_=nowhere.Net: "),
    ("train protocol=davis2016", "protocol=davis2016 scores davis, but data=shapes"),
    ("search trials=0 space={seed:[1]}", "trials=0: expected a whole number at least 1"),
    ("search sampler=grid space={seed:[1]}", "sampler=grid: expected one of tpe, random"),
    ("evaluate run=nowhere device=2", "device=2: expected cpu, cuda or cuda:N or null"),
    ("evaluate run=nowhere device=cuda:99", "device=cuda:99: no CUDA devices are visible"),
    ("evaluate run=nowhere batch_size=0", "batch_size=0: expected a whole number at least 1"),
    ("evaluate", "run: needs a value, expected text"),
    ("predict run=nowhere images=x out=y scales=false", "scales=false: expected a list, each a number above 0"),
    ("predict run=nowhere images=x out=y support_class=cat", "support_class=cat: expected a whole number at least 1"),
    ("predict run=nowhere images=x", "out: needs a value, expected text"),
    ("leaderboard compare=true", "compare=true: expected a list, each text"),
    ("leaderboard format=xml", "format=xml: expected one of terminal, markdown, csv, json"),
    ("data action=look", "action=look: expected one of check, prepare, preview, audit"),
    ("data action=preview count=0", "count=0: expected a whole number at least 1"),
    ("bench quick=maybe", "quick=maybe: expected true or false"),
]


def test_a_refused_run_removes_nothing_that_was_there_before(segladder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "photos").mkdir()
    refused = ["train", "data.classes=[cat]", f"hydra.run.dir={tmp_path}"]
    assert segladder(*refused) == 2
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "photos").is_dir()


@pytest.mark.parametrize(("line", "said"), REFUSED)
def test_what_a_setting_may_not_hold_is_refused_in_one_line(line, said, capsys, monkeypatch, tmp_path, shapes_root):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGLADDER_DATA", str(shapes_root.parent))
    monkeypatch.setattr(sys, "argv", ["segladder", *line.split()])
    code, error = cli.main(), capsys.readouterr().err
    assert error.startswith(f"segladder: {said}") and error.count("\n") == 1, error
    assert code == 2
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.name != "runs"], "a folder is left"
