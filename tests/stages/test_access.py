"""What a run has seen and paid for with all that it builds on: recorded, added up, asked of whoever builds on it."""

import hashlib
import json
import shutil

import pytest
from dummy_data import write_list
from ladder_data import write_ladder

from segladder.data.labels.pool import drawn
from segladder.data.labels.prices import VOC_PRICES
from segladder.data.sources.folder import Folder
from segladder.errors import DataError
from segladder.report.record import Record
from segladder.stages.access import access_of

pytestmark = pytest.mark.long

SMALL = [
    *("data=folder", "data.folds=[[apple,brick],[cloud,drum]]", "backbone.width=8", "protocol.bootstrap=20"),
    *("loader.workers=0", "loader.augment.crop=64", "loader.augment.scale=[1,1]", "loader.batch_size=4"),
    *("trainer.steps=1", "trainer.progress=false", "trainer.panels=0", "logger=none"),
]
LADDER = ["protocol=ladder", "pool=8", "protocol.gamma_images=4"]
OUTLINE = VOC_PRICES.objects_of_class * VOC_PRICES.mask
RUNS = {  # each starts from those before it
    "hop1": ["method=fcn8s", "protocol=semantic"],  # masks of all classes
    "hop2": ["method=fcn8s", "protocol=semantic", "data.classes=[cloud,drum]", "backbone.weights={}/hop1"],
    "hop3": ["method=fcn8s", "protocol=semantic", "data.classes=[cloud,drum]", "backbone.weights={}/hop2"],
    "cam": ["method=cam", "protocol=cam_seeds"],
    "crf": ["method=dense_crf", "protocol=cam_seeds", "parent={}/cam"],
    "part": ["method=fcn8s", "protocol=semantic", "parent={}/crf", "data.train_split=half"],
    "small_cam": ["method=cam", "protocol=cam_seeds", "data.train_split=half"],
    "more": ["method=fcn8s", "protocol=semantic", "parent={}/small_cam"],
    "floor": [*LADDER, "method=fcn8s", "pool=0"],
    "seeds": [*LADDER, "method=cam", "backbone.weights={}/floor"],
    "tags": [*LADDER, "method=fcn8s", "parent={}/seeds", "pseudo_masks.classes=novel", "pseudo_masks.background=base"],
    "supports": [*LADDER, "method=prototype", "backbone.weights={}/floor"],
    "names": [*LADDER, "method=spnet", "backbone.weights={}/floor"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = write_ladder(tmp_path_factory.mktemp("data"))
    write_list(root / "splits" / "half.txt", [f"train{i:02d}" for i in range(20)])
    return root


@pytest.fixture(scope="module")
def train(segladder, root):
    """Trains a run with some words; returns the exit code."""

    def run(folder, *words):
        place = [f"data.root={root}", f"embeddings.sources=[{root}/vectors.csv]", f"hydra.run.dir={folder}"]
        return segladder("train", *SMALL, *words, *place)

    return run


@pytest.fixture(scope="module")
def runs(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, words in RUNS.items():
        assert train(folder / name, *(word.format(folder) for word in words)) == 0, name
    return folder


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


CLAIMS = {
    "names": ([*LADDER, "method=spnet"], "has learnt apple, a novel class of fold=0"),
    "supports": ([*LADDER, "method=prototype"], "has learnt apple, a novel class of fold=0"),
    "strict": (["protocol=strict", "method=prototype"], "has learnt apple, a novel class of fold=0"),
    "floor": ([*LADDER, "method=fcn8s", "pool=0"], "has learnt apple, a novel class of fold=0"),
    "few masks": ([*LADDER, "method=fcn8s"], "has learnt novel classes of fold=0 as full with pool=None"),
    "few masks, pool named": ([*LADDER, "method=fcn8s", "pool=null"], None),
    "seeds": (["protocol=cam_seeds", "method=cam"], "has learnt apple from masks"),
    "tags": (["protocol=semantic", "method=cam"], "has learnt apple from masks"),
    "base tags": (["protocol=semantic", "method=cam", "data.classes=[cloud,drum]"], "has learnt cloud from masks"),
    "masks": (["protocol=semantic", "method=fcn8s"], None),
}


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("claim", CLAIMS)
def test_laundering_through_any_number_of_hops_is_refused(train, runs, tmp_path, capsys, claim, hops):
    words, complaint = CLAIMS[claim]
    code = train(tmp_path / "run", *words, f"backbone.weights={runs}/hop{hops}")
    assert code == (0 if complaint is None else 2)
    said = capsys.readouterr().err
    assert complaint is None or f"run {record_of(runs / f'hop{hops}')['id']} {complaint}" in said, said


@pytest.mark.parametrize("without", [True, False])
def test_only_a_run_that_was_kept_from_images_of_novel_classes_may_start_one_that_drops_them(
    train, tmp_path, capsys, without
):
    left_out = ["loader.without=[apple,brick]"] if without else []
    start = ["method=fcn8s", "protocol=semantic", "data.classes=[cloud,drum]", *left_out]
    assert train(tmp_path / "start", *start) == 0
    assert record_of(tmp_path / "start")["label_access"]["absent"] == (["apple", "brick"] if without else [])
    strict = ["protocol=strict", "method=prototype", "protocol.min_object=none", "protocol.episodes=4"]
    code = train(tmp_path / "run", *strict, f"backbone.weights={tmp_path}/start")
    said = capsys.readouterr().err
    assert code == (0 if without else 2), said
    assert without or "has seen images that hold apple" in said, said


def test_eight_other_images_are_no_start_of_a_pool_of_eight(train, runs, tmp_path, capsys):
    assert train(tmp_path / "all", "method=fcn8s", "protocol=semantic", "pool=8") == 0
    assert train(tmp_path / "few", *LADDER, "method=fcn8s", f"backbone.weights={tmp_path}/all") == 2
    assert "which pool=8 of fold=0 does not hold; take a run of this pool" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [0, 3])
def test_without_novel_classes_the_pool_is_what_is_labelled_and_paid_for(train, runs, root, tmp_path, seed):
    """The smaller pool is part of the larger one; network and score do not depend on masks outside of it."""
    seen = {}
    for size in (8, 20):
        folder = tmp_path / str(size)
        assert train(folder, "method=fcn8s", "protocol=semantic", f"pool={size}", f"pool_seed={seed}") == 0
        found = record_of(folder)
        assert found["label_access"]["images"] == {"masks": size}
        assert found["protocol"]["hash"] == record_of(runs / "hop1")["protocol"]["hash"]
        seen[size] = set(json.loads((folder / "labelled.json").read_text())[0]["held"])
    assert seen[8] < seen[20] and len(seen[8]) == 8
    assert seen[8] == set(drawn(Folder(root).split("train"), seed)[:8])
    of_eight = record_of(tmp_path / "8")["annotation_cost"]["seconds"]
    assert 0 < of_eight < record_of(tmp_path / "20")["annotation_cost"]["seconds"]


@pytest.mark.parametrize("pool, complaint", [(41, "pool=41: folder has 40 training images"), (0, "pool")])
def test_a_pool_that_cannot_be_is_one_line(train, tmp_path, capsys, pool, complaint):
    assert train(tmp_path / "run", "method=fcn8s", "protocol=semantic", f"pool={pool}") == 2
    assert complaint in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_record_says_what_all_ancestors_have_seen(runs):
    found = {name: record_of(runs / name)["label_access"] for name in RUNS}
    every, base = ("apple", "brick", "cloud", "drum"), ("cloud", "drum")
    assert found["hop3"]["seen"] == {name: ["masks"] for name in every} and found["hop3"]["images"] == {"masks": 40}
    assert found["crf"]["seen"] == found["part"]["seen"] == {name: ["tags"] for name in every}
    assert found["part"]["images"] == found["more"]["images"] == {"tags": 40}
    for name in ("floor", "supports", "names"):
        assert found[name]["seen"] == {name: ["masks"] for name in base}
    both = {"apple": ["tags"], "brick": ["tags"], "cloud": ["tags", "masks"], "drum": ["tags", "masks"]}
    assert found["seeds"]["seen"] == found["tags"]["seen"] == both
    assert found["names"]["absent"] == found["floor"]["absent"] == ["apple", "brick"] and not found["seeds"]["absent"]


def test_a_stage_costs_what_all_labels_behind_it_cost_each_counted_once(root, runs):
    source = Folder(root)
    held = {i: source.tags(i).sum() for i in source.split("train")}
    cost = {name: record_of(runs / name)["annotation_cost"]["seconds"] for name in RUNS}
    assert cost["hop1"] == cost["hop3"] == pytest.approx(4 * 40 + sum(held.values()) * (OUTLINE - 1), abs=0.1)
    assert cost["cam"] == cost["crf"] == cost["part"] == cost["more"] == 4 * 40 and cost["small_cam"] == 4 * 20
    novel = {name: record_of(runs / name)["annotation_cost"]["novel_seconds"] for name in RUNS}
    assert novel["floor"] == novel["names"] == 0 and novel["seeds"] == novel["tags"] == 2 * 8
    assert novel["supports"] == pytest.approx(2 * OUTLINE, abs=0.1)
    base = [i for i in held if not source.tags(i)[:2].any()]
    floor = 2 * len(base) + sum(held[i] for i in base) * (OUTLINE - 1)
    assert cost["floor"] == cost["names"] == pytest.approx(floor, abs=0.1)
    assert cost["seeds"] == pytest.approx(floor + 2 * 8 + 2 * 8, abs=0.1)  # the pool: tags of base and of novel classes
    assert cost["supports"] == pytest.approx(floor + novel["supports"], abs=0.2)


def test_held_out_images_that_choose_are_paid_for(train, tmp_path):
    for name, words in {"fixed": [], "chosen": ["selection=held_out"]}.items():
        assert train(tmp_path / name, "method=cam", "protocol=semantic", "loader.held_out=0.3", *words) == 0
    fixed, chosen = (record_of(tmp_path / name)["annotation_cost"]["seconds"] for name in ("fixed", "chosen"))
    assert fixed < chosen == 4 * 40


def test_labels_that_are_not_those_that_a_run_wrote_are_named(train, runs, tmp_path, capsys):
    shutil.copytree(runs / "hop2", tmp_path / "hop2")
    file = tmp_path / "hop2" / "labelled.json"
    file.write_text(file.read_text().replace("masks", "tags"))
    words = ["method=fcn8s", "protocol=semantic", f"backbone.weights={tmp_path}/hop2"]
    assert train(tmp_path / "run", *words) == 1
    assert "labelled.json: not the file that the run wrote" in capsys.readouterr().err
    file.unlink()
    assert train(tmp_path / "run", *words) == 1
    assert "labelled.json: not there, expected the labels behind the run" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["3", "null", "{", "[1]", "[" * 9999, '[{"kind": "masks", "classes": 3, "held": {}}]'])
def test_labels_that_no_run_writes_are_named(tmp_path, text):
    (tmp_path / "labelled.json").write_text(text)
    said = {"seen": {}, "absent": None, "labelled": hashlib.sha256(text.encode()).hexdigest()}
    with pytest.raises(DataError, match=r"labelled\.json: .*, expected a list of labels as a run writes it"):
        access_of(tmp_path, Record(id="a", label_access=said))


@pytest.mark.parametrize(
    "wrong",
    [{"seen": ["masks"]}, {"seen": {"a": 3}}, {"absent": 3}, {"unknown": {}}, {"unknown": [1]}, {"labelled": 3}],
)
def test_an_account_that_no_run_writes_is_named(tmp_path, wrong):
    said = {"seen": {}, "absent": None, "labelled": "", **wrong}
    with pytest.raises(DataError, match=rf"record\.json: label_access\.{next(iter(wrong))} is not what a run writes"):
        access_of(tmp_path, Record(id="a", label_access=said))


def older(folder):
    """Make a run one of a version that kept no account."""
    record = record_of(folder)
    for key in ("seen", "images", "absent", "labelled"):
        del record["label_access"][key]
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "labelled.json").unlink()


def test_runs_of_older_versions_are_asked_through_their_folders(train, runs, tmp_path, capsys):
    old = tmp_path / "old"
    for name in ("hop1", "hop2"):
        shutil.copytree(runs / name, old / name)
        older(old / name)
        record = (old / name / "record.json").read_text()
        (old / name / "record.json").write_text(record.replace(str(runs), str(old)))
    names = [*LADDER, "method=spnet", f"backbone.weights={old}/hop2"]
    assert train(tmp_path / "names", *names) == 2
    assert "has learnt apple, a novel class of fold=0" in capsys.readouterr().err
    assert train(tmp_path / "masks", "method=fcn8s", "protocol=semantic", f"backbone.weights={old}/hop2") == 0
    cost = record_of(tmp_path / "masks")["annotation_cost"]
    assert cost["seconds"] is None and cost["at_least"] > 0
    shutil.rmtree(old / "hop1")
    assert train(tmp_path / "names", *names) == 2
    assert "builds on runs that are gone, so that nothing says what they have seen" in capsys.readouterr().err


def test_tags_of_an_older_version_are_tags(train, runs, tmp_path):
    """Of the ladder too, where the labels paid for are masks of base classes."""
    for name in ("cam", "tags"):
        shutil.copytree(runs / name, tmp_path / name)
        older(tmp_path / name)
    assert train(tmp_path / "crf", "method=dense_crf", "protocol=cam_seeds", f"parent={tmp_path}/cam") == 0
    access = record_of(tmp_path / "crf")["label_access"]
    assert access["seen"] == {name: ["tags"] for name in ("apple", "brick", "cloud", "drum")}
    assert access["unknown"] == record_of(tmp_path / "crf")["parents"]
    again = [*LADDER, "method=fcn8s", f"parent={runs}/seeds", "pseudo_masks.classes=novel"]
    assert train(tmp_path / "again", *again, f"backbone.weights={tmp_path}/tags") == 0
    assert record_of(tmp_path / "again")["label_access"]["seen"]["apple"] == ["tags"]
