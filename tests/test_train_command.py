"""From the command line: train, evaluate, predict, leaderboard; kill and resume; two processes; interruption."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

TINY = [
    "data.train_size=24",
    "data.val_size=10",
    "data.size=64",
    "backbone.width=8",
    "loader.batch_size=4",
    "loader.workers=0",
    "trainer.epochs=2",
    "trainer.progress=false",
    "logger=none",
]


def start(shapes_root, *words, threads="1"):
    """Start `segladder WORDS` in its own process group."""
    environment = {**os.environ, "SEGLADDER_DATA": str(shapes_root.parent), "OMP_NUM_THREADS": threads}
    return subprocess.Popen(
        [sys.executable, "-m", "segladder.cli", *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def segladder(shapes_root, *words):
    """Run `segladder WORDS` to a successful end and return what it printed."""
    process = start(shapes_root, *words)
    out, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    return out


def train(shapes_root, folder, *words):
    """Train into `folder` and return its record."""
    segladder(shapes_root, "train", *TINY, f"hydra.run.dir={folder}", *words)
    return json.loads((folder / "record.json").read_text())


@pytest.fixture(scope="module")
def run(shapes_root, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(shapes_root, folder)
    return folder


def test_record_says_what_ran_and_what_came_out(run):
    record = json.loads((run / "record.json").read_text())
    assert record["status"] == "finished" and record["method"] == "fcn8s" and record["supervision"] == "full"
    assert record["steps"] == 12 and record["data"]["train_ids"] == 24
    assert record["label_access"] == {"labels": "masks", "selection": "fixed", "hidden": []}
    assert 0 <= record["metrics"]["mIoU"]["low"] <= record["metrics"]["mIoU"]["value"] <= 1
    assert len(record["per_class"]) == 21
    assert record["command"].startswith("segladder train data.train_size=24")
    assert record["backbone"]["name"] == "tiny"
    assert record["annotation_cost"]["seconds"] > 0
    assert len(list((run / "panels").glob("*.png"))) == 9


def test_miou_of_the_record_is_that_of_the_counts_beside_it(run):
    from sklearn.metrics import jaccard_score

    from segladder.metrics.counts import ImageCounts

    matrix = ImageCounts.load(run / "counts.npz").total()
    truth, predicted = (np.repeat(index.ravel(), matrix.ravel()) for index in np.indices(matrix.shape))
    present = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    expected = jaccard_score(truth, predicted, labels=present, average="macro", zero_division=0)
    record = json.loads((run / "record.json").read_text())
    assert record["metrics"]["mIoU"]["value"] == pytest.approx(expected, abs=1e-12)


def test_evaluate_under_the_same_protocol_repeats_the_score(shapes_root, run):
    segladder(shapes_root, "evaluate", f"run={run}", "protocol=semantic", "progress=false")
    (again,) = run.glob("evaluations/semantic-*/record.json")
    first, second = (json.loads(path.read_text()) for path in (run / "record.json", again))
    assert second["metrics"] == first["metrics"] and second["per_class"] == first["per_class"]
    assert second["parents"] == [first["id"]]
    segladder(shapes_root, "evaluate", f"run={run}", "protocol=semantic_tta", "progress=false", "panels=0")
    (other,) = run.glob("evaluations/semantic_tta-*/record.json")
    assert json.loads(other.read_text())["protocol"]["hash"] != first["protocol"]["hash"]


def test_predict_writes_native_size_masks_and_skips_what_is_done(shapes_root, run, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name, size in (("wide.jpg", (97, 65)), ("small.png", (40, 33))):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)).save(images / name)
    words = ["predict", f"run={run}", f"images={images}", f"out={tmp_path / 'out'}", "progress=false"]
    assert "2 images segmented, 0 already there" in segladder(shapes_root, *words)
    with Image.open(tmp_path / "out" / "masks" / "wide.png") as mask:
        assert mask.mode == "P" and mask.size == (97, 65) and np.array(mask).max() <= 20
    (tmp_path / "out" / "overlays" / "small.jpg").unlink()
    (images / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    process = start(shapes_root, *words)
    out, error = process.communicate()
    assert process.returncode == 1 and "broken.jpg: damaged" in error
    assert "1 images segmented, 1 already there, 1 unreadable" in out


def test_leaderboard_averages_seeds(shapes_root, run, tmp_path):
    other = train(shapes_root, run.parent / "other", "seed=1")
    first = json.loads((run / "record.json").read_text())
    table = json.loads(segladder(shapes_root, "leaderboard", f"runs={run.parent}", "format=json"))
    text = json.dumps(table)
    mean = (first["metrics"]["mIoU"]["value"] + other["metrics"]["mIoU"]["value"]) / 2
    assert first["protocol"]["hash"] in text
    assert any(abs(value - mean) < 1e-9 for value in numbers(table)), (mean, text[:500])


def numbers(value):
    """All numbers in nested JSON."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, (int, float)) else []


def states(folder):
    """Final weights and the optimiser state of the last resume point."""
    weights = torch.load(folder / "weights.pt", weights_only=True)
    point = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    optimizer = point["optimizer_states"][0]["state"]
    return weights, {f"{k}/{name}": value for k, state in optimizer.items() for name, value in state.items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(torch.as_tensor(first[key]), torch.as_tensor(second[key])), key


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_resumed_training_equals_uninterrupted_training(shapes_root, tmp_path, stop):
    words = ["trainer.epochs=3", "trainer.checkpoint_every=1", "method=unet", "loader.workers=1"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(shapes_root, whole, *words)
    process = start(shapes_root, "train", *TINY, f"hydra.run.dir={broken}", *words)
    wait_for_epoch(broken, 1, process)
    process.send_signal(stop)
    process.communicate(timeout=60)
    assert not (broken / "weights.pt").exists()
    status = json.loads((broken / "record.json").read_text())["status"]
    assert status == ("running" if stop == signal.SIGKILL else "interrupted")
    assert process.returncode == (-9 if stop == signal.SIGKILL else 130)
    segladder(shapes_root, "train", f"resume={broken}", f"hydra.run.dir={tmp_path / 'stray'}")
    assert not (tmp_path / "stray").exists()
    (weights, optimizer), (resumed_weights, resumed_optimizer) = states(whole), states(broken)
    assert_equal(weights, resumed_weights)
    assert_equal(optimizer, resumed_optimizer)
    first, second = (json.loads((f / "record.json").read_text()) for f in (whole, broken))
    assert second["status"] == "finished" and second["steps"] == first["steps"]
    assert second["metrics"] == first["metrics"]


def wait_for_epoch(folder, epoch, process):
    """Wait until a resume point inside the given epoch exists."""
    point = folder / "checkpoints" / "last.ckpt"
    while process.poll() is None:
        if point.exists() and torch.load(point, weights_only=True)["epoch"] >= epoch:
            return
        time.sleep(0.05)
    raise AssertionError(process.communicate())


def test_resume_auto_finds_the_unfinished_run_of_this_configuration(shapes_root, tmp_path):
    words = [*TINY, f"runs={tmp_path}", "trainer.epochs=4", "trainer.checkpoint_every=1"]
    process = start(shapes_root, "train", *words)
    while not (points := list(tmp_path.glob("*/*/*/checkpoints/last.ckpt"))):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    segladder(shapes_root, "train", *words, "resume=auto")
    (record,) = tmp_path.glob("*/*/*/record.json")
    assert record.parent == points[0].parents[1]
    assert json.loads(record.read_text())["status"] == "finished"


def test_two_processes_train_and_score_like_one(shapes_root, run, tmp_path):
    record = train(shapes_root, tmp_path / "two", "strategy=ddp_cpu")
    assert record["status"] == "finished" and record["steps"] == 6  # twice the images a step
    segladder(shapes_root, "evaluate", f"run={tmp_path / 'two'}", "progress=false")
    (again,) = tmp_path.glob("two/evaluations/*/record.json")
    alone = json.loads(again.read_text())
    assert record["metrics"] == alone["metrics"] and record["per_class"] == alone["per_class"]


def test_a_failing_run_leaves_a_record_and_one_line(shapes_root, tmp_path):
    root = shapes_root.parent / "damaged"
    segladder(shapes_root, "train", *TINY, f"hydra.run.dir={tmp_path / 'first'}", f"data.root={root}", "data.seed=9")
    image = sorted(root.glob("**/JPEGImages/train*"))[3]
    image.write_bytes(image.read_bytes()[:100])
    words = ["train", *TINY, f"hydra.run.dir={tmp_path / 'second'}", f"data.root={root}", "data.seed=9"]
    process = start(shapes_root, *words, "loader.workers=1")
    _, error = process.communicate()
    assert process.returncode == 1
    assert image.name in error.splitlines()[-1] and "Traceback" not in error
    record = json.loads((tmp_path / "second" / "record.json").read_text())
    assert record["status"] == "failed" and image.name in record["error"]


def test_masks_of_the_scored_split_do_not_reach_the_weights(shapes_root, tmp_path):
    digests = []
    for name in ("true", "scrambled"):
        words = [f"data.root={tmp_path / name}", f"hydra.run.dir={tmp_path / 'runs' / name}", "trainer.panels=0"]
        segladder(shapes_root, "data", "action=prepare", *TINY[:3], words[0])
        if name == "scrambled":
            for path in tmp_path.glob("scrambled/*/VOC2012/SegmentationClass/val*.png"):
                with Image.open(path) as mask:
                    palette, labels = mask.getpalette(), np.array(mask)
                changed = Image.fromarray(np.where(labels == 255, 255, (labels + 7) % 21).astype(np.uint8), "P")
                changed.putpalette(palette)
                changed.save(path)
        segladder(shapes_root, "train", *TINY, *words)
        record = json.loads((tmp_path / "runs" / name / "record.json").read_text())
        digests.append((record["checkpoint"]["sha256"], record["data"]["val_fingerprint"]))
    assert digests[0][0] == digests[1][0] and digests[0][1] != digests[1][1]


def test_held_out_images_choose_the_weights(shapes_root, tmp_path):
    record = train(shapes_root, tmp_path / "held", "selection=held_out", "loader.held_out=0.3")
    assert record["label_access"]["selection"] == "held_out" and record["label_access"]["epoch"] in (0, 1)
    assert 10 < record["data"]["train_ids"] < 24


def test_sweep_gives_each_job_its_own_folder(shapes_root, tmp_path):
    segladder(shapes_root, "train", "-m", *TINY, f"runs={tmp_path}", "seed=0,1", "trainer.epochs=1")
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/*/record.json")]
    assert sorted(record["seed"] for record in records) == [0, 1]
    assert all(record["status"] == "finished" for record in records)
    assert records[0]["checkpoint"]["sha256"] != records[1]["checkpoint"]["sha256"]


def test_several_loggers_mirror_one_run(shapes_root, tmp_path):
    train(shapes_root, tmp_path / "run", "logger=[csv,tensorboard,wandb]", "logger.wandb.mode=offline")
    rows = (tmp_path / "run" / "logs" / "csv" / "version_0" / "metrics.csv").read_text()
    assert "train/loss" in rows and "semantic/mIoU" in rows
    assert list((tmp_path / "run" / "logs" / "tensorboard").glob("**/events.*"))
    assert list((tmp_path / "run" / "logs" / "wandb").glob("offline-run-*/*.wandb"))
