"""Partly outlined objects: novel classes are scored apart, and a run pays for boxes of them and masks of the others."""

import json

import pytest
from small_methods import small_words
from test_objects import FIELDS, Knowing, root, source  # noqa: F401 (fixtures)

from segladder.errors import ConfigError
from segladder.protocols.partial import PartialProtocol

pytest.importorskip("pycocotools", reason="mask AP needs the extra `coco`")


def partial(fold=0):
    return PartialProtocol(name="partial", areas=(150, 220), folds=(("dog",), ("cat",)), fold=fold, **FIELDS)


def test_novel_classes_are_scored_apart(source):  # noqa: F811
    """Four ghosts before four dogs: AP of dogs is one half, whichever group they are in."""
    method = Knowing(source, tells=True, spoilt=True)
    for fold, (novel, base) in enumerate([(0.5, 1), (1, 0.5)]):
        found = partial(fold).score(method, source).metrics
        assert [found[name]["value"] for name in ("novel_AP", "base_AP", "AP")] == pytest.approx([novel, base, 0.75])
    assert partial(0).hash == partial(1).hash and partial(1).place().fold == 1
    with pytest.raises(ConfigError, match=r"fold=2: voc has folds 0\.\.1"):
        partial(2).score(method, source)


def test_a_run_pays_for_boxes_and_is_scored_again(segladder, tmp_path):
    run = tmp_path / "run"
    small = [*small_words("mask_x_rcnn"), "data.train_size=20", "data.val_size=8", "data.size=64", "loader.workers=0"]
    quick = ["loader.batch_size=4", "trainer.steps=2", "trainer.progress=false", "trainer.panels=1", "logger=none"]
    words = [*small, *quick, "protocol=partial", "protocol.bootstrap=20", "fold=1"]
    assert segladder("train", *words, f"hydra.run.dir={run}") == 0
    record = json.loads((run / "record.json").read_text())
    seen = record["label_access"]["seen"]
    assert seen["disc_striped"] == ["boxes"] and seen["disc_solid"] == ["masks"]
    assert record["label_access"]["labels"] == "masks of base classes and boxes of novel ones"
    assert record["annotation_cost"]["novel_labels"] == ["boxes"]
    assert segladder("evaluate", f"run={run}", "progress=false", "panels=0") == 0
    (again,) = run.glob("evaluations/*/record.json")
    assert json.loads(again.read_text())["metrics"] == record["metrics"]


def test_a_method_of_classes_alone_is_refused(segladder, tmp_path, capsys):
    small = [*small_words("fcn8s"), "data.train_size=20", "data.val_size=8", "data.size=64", "loader.workers=0"]
    assert segladder("train", *small, "logger=none", "protocol=partial", f"runs={tmp_path}") == 2
    assert "choose a method that reads objects" in capsys.readouterr().err
