"""From the command line: train, evaluate, predict, leaderboard; kill and resume; two processes; interruption."""

import errno
import json
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segladder.data.sources.shapes import Shapes
from segladder.errors import Diverged
from segladder.runs.callbacks import Finite, ResumePoints
from segladder.runs.folder import hash_of_learnt

IMAGES = {"train_size": 24, "val_size": 10, "size": 64}
TINY = [
    *(f"data.{key}={value}" for key, value in IMAGES.items()),
    "backbone.width=8",
    "loader.batch_size=4",
    "loader.workers=0",
    "trainer.epochs=2",
    "trainer.progress=false",
    "trainer.panels=0",
    "logger=none",
]
RESUMED = [  # with dropout, so that random numbers matter
    *(*TINY, "trainer.epochs=3", "trainer.checkpoint_every=1", "loader.workers=1", "method.fully_connected=16"),
]


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


@pytest.fixture(scope="module")
def train(segladder):
    """Trains into a folder, in this process, and returns the record."""

    def train(folder, *words):
        assert segladder("train", *words, f"hydra.run.dir={folder}") == 0
        return record_of(folder)

    return train


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(folder, *TINY, "trainer.panels=3")
    return folder


@pytest.fixture(scope="module")
def sweep(segladder, tmp_path_factory):
    """A folder of two runs of one sweep over seeds."""
    folder = tmp_path_factory.mktemp("sweep")
    assert segladder("train", "-m", *TINY, f"runs={folder}", "seed=0,1", "trainer.epochs=1") == 0
    return folder


def test_record_says_what_ran_and_what_came_out(run):
    record = record_of(run)
    assert record["status"] == "finished" and record["method"] == "fcn8s" and record["supervision"] == "full"
    assert record["steps"] == 12 and record["data"]["train_ids"] == 24
    access = record["label_access"]
    assert (access["labels"], access["kind"], access["selection"]) == ("masks", "masks", "fixed")
    assert access["hidden"] == access["absent"] == [] and access["images"] == {"masks": 24}
    assert 0 <= record["metrics"]["mIoU"]["low"] <= record["metrics"]["mIoU"]["high"] <= 1
    assert len(record["per_class"]) == 21
    assert record["command"].startswith("segladder train data.train_size=24")
    assert record["backbone"]["name"] == "tiny"
    assert record["annotation_cost"]["seconds"] > 0
    assert len(list((run / "panels").glob("*.png"))) == 12


def test_miou_of_the_record_is_that_of_the_counts_beside_it(run):
    from sklearn.metrics import jaccard_score

    from segladder.metrics.counts import Counts

    matrix = Counts.load(run / "counts.npz").total()
    truth, predicted = (np.repeat(index.ravel(), matrix.ravel()) for index in np.indices(matrix.shape))
    present = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    expected = jaccard_score(truth, predicted, labels=present, average="macro", zero_division=0)
    assert record_of(run)["metrics"]["mIoU"]["value"] == pytest.approx(expected, abs=1e-12)


def test_evaluate_under_the_same_protocol_repeats_the_score(segladder, run):
    words = [f"run={run}", "progress=false", "panels=0"]
    assert segladder("evaluate", *words, "protocol=[semantic,semantic_tta]") == 0
    first = record_of(run)
    again, other = (record_of(*run.glob(f"evaluations/{name}-*")) for name in ("semantic", "semantic_tta"))
    assert again["metrics"] == first["metrics"] and again["per_class"] == first["per_class"]
    assert again["parents"] == [first["id"]]
    assert other["protocol"]["hash"] != first["protocol"]["hash"]


def test_an_evaluation_is_finished_though_the_run_was_cut_off_while_it_was_scored(segladder, run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluations"))
    cut_off = record_of(copy) | {"status": "failed", "error": "cut off", "metrics": {}, "per_class": []}
    (copy / "record.json").write_text(json.dumps(cut_off))
    assert segladder("evaluate", f"run={copy}", "progress=false", "panels=0") == 0
    (scored,) = map(record_of, copy.glob("evaluations/*"))
    assert (scored["status"], scored["error"], scored["metrics"]) == ("finished", None, record_of(run)["metrics"])


def test_a_run_whose_finished_record_found_no_room_has_failed(segladder, tmp_path, monkeypatch, capsys):
    def carry_out(run):
        run.record.status = "finished"
        raise OSError(errno.ENOSPC, "No space left on device", str(run.folder / "record.json"))

    monkeypatch.setattr("segladder.commands.train.carry_out", carry_out)
    assert segladder("train", *TINY, f"hydra.run.dir={tmp_path / 'run'}") == 1
    assert "record.json: No space left on device; make room on that disk" in capsys.readouterr().err
    assert record_of(tmp_path / "run")["status"] == "failed"


def test_an_evaluation_on_other_images_stands_beside_the_first(segladder, run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluations"))
    data = Shapes(tmp_path / "other", **IMAGES)
    first, second, *_ = data.split("val")
    mask = data.mask_path(first).read_bytes()
    data.mask_path(first).write_bytes(data.mask_path(second).read_bytes())
    words = ["evaluate", f"run={copy}", "progress=false", "panels=0"]
    for further in ([], [f"data.root={tmp_path / 'other'}"], []):
        assert segladder(*words, *further) == 0
    Image.new("RGB", (64, 64)).save(data.image_path(second))
    data.mask_path(first).write_bytes(mask)
    assert segladder(*words, f"data.root={tmp_path / 'other'}") == 0
    first, *others = sorted((record_of(place) for place in copy.glob("evaluations/*")), key=lambda r: len(r["id"]))
    assert len(others) == 2 and {r["data"]["val_fingerprint"] for r in others} > {first["data"]["val_fingerprint"]}
    (other,) = (r for r in others if r["data"]["val_fingerprint"] != first["data"]["val_fingerprint"])
    assert first["data"]["val_fingerprint"] == record_of(run)["data"]["val_fingerprint"]
    assert other["id"] == f"{first['id']}-{other['data']['val_fingerprint'][:8]}"


def test_a_run_of_an_older_version_is_scored_though_its_classes_have_moved(segladder, run, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(run, old)
    config = yaml.safe_load((old / "config.yaml").read_text())
    config["data"]["_target_"] = "segladder.data.shapes.Shapes"
    del config["labels"]
    (old / "config.yaml").write_text(yaml.safe_dump(config))
    record = record_of(old)
    record["config_hash"] = hash_of_learnt(config, with_targets=True)  # as 0.1 did
    (old / "record.json").write_text(json.dumps(record))
    assert segladder("evaluate", f"run={old}", "progress=false", "panels=0") == 0


def test_predict_writes_native_size_masks_and_skips_what_is_done(segladder, run, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for name, size in (("wide.jpg", (97, 65)), ("small.png", (40, 33))):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)).save(images / name)
    words = ["predict", f"run={run}", f"images={images}", f"out={tmp_path / 'out'}", "progress=false"]
    assert segladder(*words) == 0
    assert "2 images segmented, 0 already there" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "masks" / "wide.png") as mask:
        assert mask.mode == "P" and mask.size == (97, 65) and np.array(mask).max() <= 20
    (tmp_path / "out" / "overlays" / "small.jpg").unlink()
    (images / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    assert segladder(*words) == 1
    said = capsys.readouterr()
    assert "broken.jpg: damaged" in said.err
    assert "1 images segmented, 1 already there, 1 unreadable" in said.out
    (images / "broken.jpg").unlink()
    Image.new("RGB", (50, 40)).save(images / "wide.jpg")
    assert segladder(*words) == 0
    with Image.open(tmp_path / "out" / "masks" / "wide.png") as mask:
        assert mask.size == (50, 40)
    capsys.readouterr()
    assert segladder(*words, "flip=true") == 2
    assert "holds results of flip=False, now it is True; choose another folder" in capsys.readouterr().err
    (tmp_path / "out" / "made_by.json").write_text("[1]")
    assert segladder(*words) == 2
    assert "made_by.json: damaged" in capsys.readouterr().err
    (tmp_path / "out" / "made_by.json").unlink()
    assert segladder(*words) == 2
    assert "holds results without made_by.json" in capsys.readouterr().err


def test_sweep_gives_each_job_its_own_folder(sweep):
    records = [record_of(path.parent) for path in sweep.glob("*/*/*/record.json")]
    assert sorted(record["seed"] for record in records) == [0, 1]
    assert all(record["status"] == "finished" for record in records)
    assert records[0]["checkpoint"]["sha256"] != records[1]["checkpoint"]["sha256"]


def test_the_pool_passes_over_what_a_plain_sweep_has_finished(segladder, sweep, capsys):
    words = ["-m", "hydra/launcher=pool", *TINY, f"runs={sweep}", "seed=0,1", "trainer.epochs=1"]
    assert segladder("train", *words) == 0
    assert "2 jobs, 2 finished before" in capsys.readouterr().out


def test_leaderboard_averages_seeds(segladder, sweep, capsys):
    records = [record_of(path.parent) for path in sweep.glob("*/*/*/record.json")]
    assert segladder("leaderboard", f"runs={sweep}", "format=json") == 0
    mean = sum(record["metrics"]["mIoU"]["value"] for record in records) / 2
    (table,) = json.loads(capsys.readouterr().out)
    (row,) = table["rows"]
    assert table["hash"] == records[0]["protocol"]["hash"] and row["seeds"] == [0, 1]
    assert row["value"] == pytest.approx(mean, abs=1e-9)


@pytest.fixture(scope="module")
def uninterrupted(train, tmp_path_factory):
    """A finished run of what the tests of resuming interrupt."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "whole"
    train(folder, *RESUMED)
    return folder


def states(folder):
    """Final weights and the optimiser state of the last resume point."""
    weights = torch.load(folder / "weights.pt", weights_only=True)
    point = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    optimizer = point["optimizer_states"][0]["state"]
    return weights, {f"{k}/{name}": value for k, state in optimizer.items() for name, value in state.items()}


def assert_same_run(first, second):
    """Two folders hold the same bits, and records of the same result."""
    for one, other in zip(states(first), states(second), strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])), key
    first, second = record_of(first), record_of(second)
    assert second["status"] == "finished" and second["steps"] == first["steps"]
    assert second["metrics"] == first["metrics"]


STOPS_ITSELF = """
import signal
from types import SimpleNamespace
from segladder.errors import Diverged
from segladder.runs.callbacks import Finite, ResumePoints
from segladder.runs.folder import hash_of_learnt
save = ResumePoints.save

def save_and_signal(points, trainer):
    save(points, trainer)
    if trainer.global_step == 9:  # of 6 an epoch
        signal.raise_signal(signal.{stop})

ResumePoints.save = save_and_signal
"""


def test_epochs_that_are_shorter_than_the_distance_of_resume_points_have_some_too(train, tmp_path, monkeypatch):
    saved, save = [], ResumePoints.save

    def noted(points, trainer):
        saved.append(trainer.global_step)
        save(points, trainer)

    monkeypatch.setattr(ResumePoints, "save", noted)
    train(tmp_path / "run", *RESUMED, "trainer.checkpoint_every=8", "trainer.epochs=4")  # of 6 steps
    assert saved == [8, 16]
    saved.clear()
    train(tmp_path / "short", *RESUMED, "trainer.checkpoint_every=6", "trainer.epochs=2")
    assert saved == [7]  # not where an epoch ends


@pytest.mark.parametrize(
    ("stop", "code", "status"),
    [
        ("SIGKILL", -9, "running"),
        pytest.param("SIGTERM", 143, "interrupted", marks=pytest.mark.slow),
        pytest.param("SIGINT", 130, "interrupted", marks=pytest.mark.slow),
    ],
)
def test_auto_resumes_a_killed_process_to_the_same_bits(
    start_segladder, segladder, uninterrupted, tmp_path, capsys, stop, code, status
):
    words = ["train", *RESUMED, f"runs={tmp_path}"]
    process = start_segladder(*words, first=STOPS_ITSELF.format(stop=stop))
    process.communicate(timeout=240)
    assert process.returncode == code
    (broken,) = [path.parent for path in tmp_path.rglob("record.json")]
    assert not (broken / "weights.pt").exists() and record_of(broken)["status"] == status
    assert (broken / "owner.json").exists() is (status == "running")
    assert segladder(*words, "resume=auto") == 0
    said = capsys.readouterr().out
    assert f"going on with {broken}" in said and (f"taken over from process {process.pid} on" in said) is (code == -9)
    assert not (broken / "owner.json").exists() and " resume=" not in record_of(broken)["command"]
    assert [path.parent for path in tmp_path.rglob("record.json")] == [broken]
    assert_same_run(uninterrupted, broken)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_training_resumes_to_the_same_bits(segladder, uninterrupted, tmp_path, capsys, monkeypatch, stop):
    broken, save = tmp_path / "broken", ResumePoints.save

    def save_and_signal(points, trainer):
        save(points, trainer)
        if trainer.global_step == 9:  # of 6 an epoch
            signal.raise_signal(stop)

    monkeypatch.setattr(ResumePoints, "save", save_and_signal)
    with pytest.raises(SystemExit) as end:
        segladder("train", *RESUMED, f"hydra.run.dir={broken}")
    assert not (broken / "owner.json").exists()
    assert end.value.code == 128 + stop and f"go on with: segladder train resume={broken}" in capsys.readouterr().err
    assert not (broken / "weights.pt").exists() and record_of(broken)["status"] == "interrupted"
    assert segladder("train", f"resume={broken}", f"hydra.run.dir={tmp_path / 'stray'}") == 0
    assert not (tmp_path / "stray").exists()
    assert_same_run(uninterrupted, broken)


@pytest.mark.long
def test_two_processes_train_and_score_like_one(start_segladder, segladder, tmp_path):
    two = tmp_path / "two"
    process = start_segladder("train", *TINY, "trainer.epochs=1", "strategy=ddp_cpu", f"hydra.run.dir={two}")
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    record = record_of(two)
    assert record["status"] == "finished" and record["steps"] == 3  # twice the images a step
    assert segladder("evaluate", f"run={two}", "progress=false", "panels=0") == 0
    alone = record_of(*two.glob("evaluations/*"))
    assert record["metrics"] == alone["metrics"] and record["per_class"] == alone["per_class"]


def test_a_failing_run_leaves_a_record_and_one_line(segladder, tmp_path, capsys):
    data = Shapes(tmp_path / "shapes", **IMAGES)
    image = data.image_path("train_0003")
    image.write_bytes(image.read_bytes()[:100])
    words = [*TINY, "loader.workers=1", f"data.root={tmp_path / 'shapes'}", f"hydra.run.dir={tmp_path / 'run'}"]
    assert segladder("train", *words) == 1
    error = capsys.readouterr().err
    assert image.name in error.splitlines()[-1] and "Traceback" not in error
    record = record_of(tmp_path / "run")
    assert record["status"] == "failed" and image.name in record["error"]
    assert not (tmp_path / "run" / "owner.json").exists()


def test_a_folder_of_a_run_that_failed_at_once_is_free_again(segladder, tmp_path, capsys):
    words = ["train", *TINY, f"runs={tmp_path}", f"hydra.run.dir={tmp_path / 'run'}"]
    folder = [word for word in words if not word.startswith("data.")]
    assert segladder(*folder, "data=folder", f"data.root={tmp_path / 'mistyped'}") == 1
    assert record_of(tmp_path / "run")["status"] == "failed"
    assert segladder("train", "resume=auto", f"runs={tmp_path}") == 2
    assert "of 0 unfinished runs" in capsys.readouterr().err
    (tmp_path / "run" / "embeddings.npz").write_bytes(b"what the other run was told")
    assert segladder(*words, "trainer.steps=1") == 0
    assert not (tmp_path / "run" / "embeddings.npz").exists()
    assert record_of(tmp_path / "run")["config"]["trainer"]["steps"] == 1


def test_a_run_does_not_go_on_with_other_training_masks(segladder, tmp_path, capsys, monkeypatch):
    data = Shapes(tmp_path / "shapes", **IMAGES)
    words = [*RESUMED, f"data.root={tmp_path / 'shapes'}", f"hydra.run.dir={tmp_path / 'run'}"]
    step = ResumePoints.on_train_batch_end

    def interrupted(self, trainer, *arguments):
        step(self, trainer, *arguments)
        if trainer.global_step == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ResumePoints, "on_train_batch_end", interrupted)
        with pytest.raises(SystemExit):
            segladder("train", *words)
    before = record_of(tmp_path / "run")["data"]["train_fingerprint"]
    mask, other = (data.mask_path(f"train_000{n}") for n in (1, 2))
    mask.write_bytes(other.read_bytes())
    assert segladder("train", f"resume={tmp_path / 'run'}") == 1
    assert f"other training labels of shapes ({before}, now " in capsys.readouterr().err


def test_masks_of_the_scored_split_do_not_reach_the_weights(train, run, tmp_path):
    data = Shapes(tmp_path / "shapes", **IMAGES)
    for image_id in data.split("val"):
        with Image.open(data.mask_path(image_id)) as mask:
            palette, labels = mask.getpalette(), np.array(mask)
        changed = Image.fromarray(np.where(labels == 255, 255, (labels + 7) % 21).astype(np.uint8), "P")
        changed.putpalette(palette)
        changed.save(data.mask_path(image_id))
    first, second = record_of(run), train(tmp_path / "run", *TINY, f"data.root={tmp_path / 'shapes'}")
    assert second["data"]["val_fingerprint"] != first["data"]["val_fingerprint"]
    assert second["checkpoint"]["sha256"] == first["checkpoint"]["sha256"]


def test_held_out_images_choose_the_weights(train, tmp_path):
    record = train(tmp_path / "held", *TINY, "selection=held_out", "loader.held_out=0.3")
    assert record["label_access"]["selection"] == "held_out" and record["label_access"]["epoch"] in (0, 1)
    assert 10 < record["data"]["train_ids"] < 24


def test_several_loggers_mirror_one_run(train, tmp_path):
    mirrors = ["logger=[csv,tensorboard,wandb]", "logger.wandb.mode=offline"]
    train(tmp_path / "run", *TINY[:-1], *mirrors)
    rows = (tmp_path / "run" / "logs" / "csv" / "version_0" / "metrics.csv").read_text()
    assert "train/loss" in rows and "semantic/mIoU" in rows
    assert list((tmp_path / "run" / "logs" / "tensorboard").glob("**/events.*"))
    assert list((tmp_path / "run" / "logs" / "wandb").glob("offline-run-*/*.wandb"))


def test_training_that_leaves_the_finite_numbers_is_diverged_and_not_ranked(segladder, tmp_path, capsys):
    wild = ["method.optimizer.name=sgd", "method.optimizer.lr=1e6"]
    assert segladder("train", f"runs={tmp_path}", *TINY, *wild) == 1
    said = capsys.readouterr().err
    assert "training diverged at step" in said and "try a lower method.optimizer.lr (now 1e+06)" in said
    (folder,) = [path.parent for path in tmp_path.rglob("record.json")]
    assert record_of(folder)["status"] == "diverged"
    assert not (folder / "weights.pt").exists()
    assert segladder("leaderboard", f"runs={tmp_path}") == 0
    assert "diverged" in capsys.readouterr().out
    assert segladder("train", f"runs={tmp_path}", "resume=auto") == 2


def test_weights_that_are_not_finite_are_not_kept():
    method = torch.nn.Linear(2, 2)
    method.optimizer_settings = {"lr": 0.1}
    with torch.no_grad():
        method.weight[0, 0] = float("inf")
    with pytest.raises(Diverged, match="training diverged at step 7: the weights are not finite"):
        Finite(None).on_train_end(SimpleNamespace(global_step=7), method)
