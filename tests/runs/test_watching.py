"""What a user sees while a network trains: held-out scores, rates, pictures, the log; and early stopping."""

import csv
import io
import json
import re
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from segladder.report.record import read
from segladder.runs import callbacks
from segladder.runs.callbacks import BEST, KeepWeights, ResumePoints
from segladder.runs.interruption import Interruption
from segladder.runs.scoring import scores_text, show_scores
from segladder.runs.watching.looks import Looks, Patience, undisturbed

BASE = [
    *("data.train_size=24", "data.val_size=10", "data.size=64", "backbone.width=8", "protocol.bootstrap=20"),
    *("loader.batch_size=4", "loader.workers=0", "loader.held_out=0.3", "method.fully_connected=16"),
    *("trainer.epochs=3", "trainer.progress=false", "trainer.panels=0", "trainer.checkpoint_every=1"),
]
EPISODES = ["protocol.min_object=none", "protocol.episodes=12", "protocol.seeds=[0]", "protocol.beside=4"]
WATCH = ["trainer.watch.every=1", "trainer.watch.pictures=2"]
STUCK = [  # no score is better by 1
    *("selection=held_out", "trainer.early_stopping.patience=1", "trainer.early_stopping.min_delta=1"),
]


ONE_OF_MANY = {"num_training_batches": 9, "accumulate_grad_batches": 1}


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


def rows_of(folder):
    files = sorted((folder / "logs" / "csv").glob("*/metrics.csv"))
    return [row for file in files for row in csv.DictReader(io.StringIO(file.read_text()))]


def column(folder, name):
    return [float(row[name]) for row in rows_of(folder) if row.get(name)]


def assert_same_weights(first, second):
    one, other = (torch.load(folder / "weights.pt", weights_only=True) for folder in (first, second))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def train(segladder):
    def train(folder, *words):
        assert segladder("train", *BASE, *words, f"hydra.run.dir={folder}") == 0
        return record_of(folder)

    return train


@pytest.fixture(scope="module")
def plain(train, tmp_path_factory):
    """A run that nobody looks at."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    train(folder, "logger=none")
    return folder


@pytest.fixture(scope="module")
def seen(train, tmp_path_factory):
    """The same, watched by every logger."""
    folder = tmp_path_factory.mktemp("seen") / "run"
    loggers = ["logger=[csv,tensorboard,wandb]", "logger.wandb.mode=offline", "logger.csv.every_steps=1"]
    train(folder, *WATCH, *loggers)
    return folder


def test_watching_changes_no_bit_of_what_is_learnt(plain, seen):
    assert_same_weights(plain, seen)
    assert record_of(plain)["metrics"] == record_of(seen)["metrics"]


def test_the_csv_holds_held_out_scores_learning_rate_and_speed(seen):
    scores = column(seen, "held_out/mIoU")
    assert len(scores) == 4 and all(0 <= score <= 1 for score in scores)  # before the first step, after each epoch
    steps = record_of(seen)["steps"]
    rates, speed = column(seen, "rate/lr"), column(seen, "rate/images_per_second")
    assert len(rates) == len(speed) == steps and min(speed) > 0
    highest = record_of(seen)["config"]["method"]["optimizer"]["lr"]
    assert 0 < rates[-1] < rates[2] <= highest  # it rises first, then falls


def test_tensorboard_and_wandb_hold_the_same(seen):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = seen / "logs" / "tensorboard" / "version_0"
    found = events.EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    scores = [event.value for event in found.Scalars("held_out/mIoU")]
    assert scores == pytest.approx(column(seen, "held_out/mIoU"), abs=1e-6)
    pictures = [tag for tag in found.Tags()["images"] if tag.startswith("watched/")]
    assert len(pictures) == 2 and all(len(found.Images(tag)) == 4 for tag in pictures)
    media = seen.glob("logs/wandb/offline-run-*/files/media/images/watched/*.png")
    assert len(list(media)) == 8


def test_the_same_images_are_drawn_each_time(seen):
    folders = sorted((seen / "watched").iterdir())
    assert len(folders) == 2
    names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    last = f"step-{record_of(seen)['steps']:06d}.png"
    assert names[0] == names[1] and names[0][0] == "step-000000.png" and names[0][-1] == last and len(names[0]) == 4


def test_labels_that_were_watched_are_paid_for(plain, seen):
    unseen, watched = (record_of(folder) for folder in (plain, seen))
    assert watched["label_access"]["images"]["masks"] == 24 > unseen["label_access"]["images"]["masks"]
    assert watched["annotation_cost"]["seconds"] > unseen["annotation_cost"]["seconds"]


def stopped_at(monkeypatch, step):
    """From here on training is interrupted once, at a step."""
    save, asked = ResumePoints.save, []

    def save_and_signal(points, trainer):
        save(points, trainer)
        if trainer.global_step == step and not asked:
            asked.append(step)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ResumePoints, "save", save_and_signal)


def interrupted_and_resumed(segladder, monkeypatch, folder, step, *words):
    stopped_at(monkeypatch, step)
    with pytest.raises(SystemExit):
        segladder("train", *BASE, *words, f"hydra.run.dir={folder}")
    assert record_of(folder)["status"] == "interrupted"
    assert segladder("train", f"resume={folder}") == 0
    return record_of(folder)


def test_an_interrupted_run_that_is_watched_ends_in_the_same_bits(segladder, plain, tmp_path, monkeypatch):
    words = ["trainer.watch.every=1", "trainer.watch.pictures=0", "logger=csv"]
    interrupted_and_resumed(segladder, monkeypatch, tmp_path / "run", 6, *words)
    assert_same_weights(plain, tmp_path / "run")
    log = (tmp_path / "run" / "log.txt").read_text()
    order = ["started: segladder train", "training starts at epoch 1/3, step 0/", "held-out mIoU", "interrupted; go on"]
    order += ["goes on: segladder train", "training goes on after epoch 2/3, step 7/", "finished", "mIoU"]
    places = [log.index(words, 0) for words in order]
    assert places[:-1] == sorted(places[:-1])


@pytest.mark.parametrize("accumulate", [2, 3, 4, 9])
def test_an_interrupted_run_that_accumulates_gradients_ends_in_the_same_bits(
    train, segladder, tmp_path, monkeypatch, accumulate
):
    words = [f"trainer.accumulate={accumulate}", "trainer.epochs=4", "logger=none"]
    train(tmp_path / "whole", *words)
    record = interrupted_and_resumed(segladder, monkeypatch, tmp_path / "run", 1, *words)
    assert record["steps"] == record_of(tmp_path / "whole")["steps"]
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def test_each_process_goes_on_with_its_own_random_numbers(tmp_path, monkeypatch):
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append({"torch": torch.get_rng_state()})
    points = ResumePoints(tmp_path, 1, Interruption())
    monkeypatch.setattr(callbacks, "gathered", lambda own: [*states, own])
    kept = points.state_dict()
    for rank, seed in ((0, 1), (1, 2), (3, 1)):  # a fourth process, where three wrote
        points.load_state_dict(kept)
        points.on_train_batch_start(SimpleNamespace(global_rank=rank, **ONE_OF_MANY), None, None, 5)
        drawn = torch.rand(3)
        torch.manual_seed(seed)
        assert torch.equal(drawn, torch.rand(3))


def test_a_resume_point_of_an_older_version_holds_one_random_state(tmp_path):
    torch.manual_seed(4)
    points = ResumePoints(tmp_path, 1, Interruption())
    points.load_state_dict({"torch": torch.get_rng_state(), "seconds": 2.0})
    expected = torch.rand(3)
    points.on_train_batch_start(SimpleNamespace(global_rank=1, **ONE_OF_MANY), None, None, 5)
    assert torch.equal(torch.rand(3), expected) and points.earlier_seconds == 2.0


def heard(keeps, epoch, value):
    """Tell it of a look in an epoch, whose number is the weight."""
    weights = {"weight": torch.tensor(epoch)}
    strategy = SimpleNamespace(lightning_module_state_dict=lambda: weights)
    keeps.hear(SimpleNamespace(current_epoch=epoch, is_global_zero=True, strategy=strategy), value)


def test_of_equal_looks_the_first_is_kept_and_a_resumed_run_still_knows_it(tmp_path):
    first, resumed = (KeepWeights(tmp_path, None, True, None) for _ in range(2))
    heard(first, 0, 0.5)
    heard(first, 1, 0.5)
    resumed.load_state_dict(first.state_dict())
    heard(resumed, 2, 0.4)
    assert (resumed.best, resumed.best_epoch) == (0.5, 0)
    assert torch.load(tmp_path / BEST)["weight"] == 0
    heard(resumed, 3, 0.6)
    assert resumed.best_epoch == torch.load(tmp_path / BEST)["weight"] == 3


@pytest.mark.long
def test_a_resumed_run_ends_with_the_weights_of_a_better_look_before_the_interruption(
    train, segladder, tmp_path, monkeypatch
):
    monkeypatch.setattr(Looks, "look", lambda self, trainer, method: -float(trainer.current_epoch))  # worse and worse
    words = ["selection=held_out", "logger=none"]
    assert train(tmp_path / "whole", *words)["label_access"]["epoch"] == 0
    record = interrupted_and_resumed(segladder, monkeypatch, tmp_path / "run", 6, *words)
    assert record["label_access"]["epoch"] == 0 and record["steps"] == 3 * 4
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def test_steps_between_looks_where_steps_are_counted(train, tmp_path):
    train(tmp_path / "run", "trainer.steps=5", "trainer.watch.every=2", "trainer.watch.pictures=0")
    looks = [int(row["step"]) for row in rows_of(tmp_path / "run") if row.get("held_out/mIoU")]
    assert looks == [0, 2, 4, 5]
    assert "step 4/5: held-out mIoU" in (tmp_path / "run" / "log.txt").read_text()


def test_training_ends_early_and_says_so(train, tmp_path):
    record = train(tmp_path / "run", *STUCK, "trainer.epochs=9", "logger=none")
    access = record["label_access"]
    assert access["early_stopping"] == {"patience": 1, "ended": True, "chosen_by": "pixels"}
    assert access["epoch"] in (0, 1) and record["steps"] == 2 * 4
    assert "epoch 2/9" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize(("looks", "ended"), [([0.5, 0.4], False), ([0.5, 0.4, 0.5], True), ([0.5, 0.4, 0.6], False)])
def test_a_run_killed_after_the_look_that_ended_it_does_not_train_on(looks, ended):
    before, resumed = Patience(2, 0.0), Patience(2, 0.0)
    for value in looks:
        before.hear(SimpleNamespace(), value)
    resumed.load_state_dict(before.state_dict())
    trainer = SimpleNamespace(should_stop=False)
    resumed.on_train_start(trainer, None)
    assert trainer.should_stop is resumed.ended is ended


def test_early_stopping_counts_on_after_an_interruption(segladder, tmp_path, monkeypatch):
    words = [*STUCK, "trainer.early_stopping.patience=2", "trainer.epochs=9", "logger=none"]
    record = interrupted_and_resumed(segladder, monkeypatch, tmp_path / "run", 10, *words)
    assert record["steps"] == 3 * 4 and record["label_access"]["early_stopping"]["ended"] is True


def test_the_record_says_when_scored_pixels_ended_training(train, tmp_path):
    record = train(tmp_path / "run", *STUCK, "selection=oracle", "trainer.epochs=9", "logger=none")
    assert record["label_access"]["selection"] == "oracle"
    assert record["label_access"]["early_stopping"]["chosen_by"] == "scored pixels"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.watch.every=1"], "trainer.watch.every=1 needs held-out training images: set loader.held_out=0.05"),
        (["trainer.early_stopping.patience=3"], "set selection=held_out and loader.held_out=0.05 or more"),
        (["trainer.early_stopping.patience=0"], "trainer.early_stopping.patience=0: expected"),
        (["trainer.watch.every=0"], "trainer.watch.every=0: expected"),
    ],
)
def test_what_nothing_can_judge_is_one_line(segladder, tmp_path, capsys, words, said):
    assert segladder("train", f"runs={tmp_path}", *words) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tag_AP", ["method=cam"]),
        ("base_mIoU", ["method=sg_one", "protocol=strict", "data.train_size=300", "data.val_size=60", *EPISODES]),
        ("seen_mIoU", ["method=spnet", "protocol=zero_shot"]),
        ("base_mIoU", ["method=cam", "protocol=ladder", "pool=4"]),
        ("base_mIoU", ["method=sg_one", "protocol=ladder", "data.train_size=300", "data.val_size=60"]),
    ],
)
def test_each_supervision_is_watched_by_its_own_score(segladder, tmp_path, name, words):
    own = [word for word in BASE if "fully_connected" not in word and "bootstrap" not in word]
    short = ["trainer.steps=2", "trainer.watch.every=2", "trainer.watch.pictures=1", f"hydra.run.dir={tmp_path}/run"]
    assert segladder("train", *own, *words, *short) == 0
    name = "tag_AP" if "method=cam" in words else name
    assert len(column(tmp_path / "run", f"held_out/{name}")) == 2
    assert len(list((tmp_path / "run" / "watched").glob("*/step-*.png"))) == 2


@pytest.mark.parametrize("width", [60, 80])
def test_the_final_table_fits_and_cuts_no_word(plain, width):
    console = Console(file=io.StringIO(), width=width)
    show_scores(console, read(plain), plain)
    *printed, last = console.file.getvalue().splitlines()
    assert last == f"  {plain}" and all(len(line) <= width for line in printed)
    whole = " ".join(printed)
    assert "…" not in whole and "precision" in whole and "triangle_checkered" in whole
    assert ("also in record.json: " in whole) is (width == 60)


def test_the_log_ends_with_the_final_table(plain):
    log = (plain / "log.txt").read_text()
    assert log.rstrip("\n").endswith(scores_text(read(plain), plain))
    assert re.search(r"epoch 3/3, step \d+/\d+: loss [\d.]+, lr [\d.e-]+, [\d.]+ images/s", log)


def test_a_log_that_leads_elsewhere_is_not_followed(segladder, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "elsewhere").write_text("mine")
    (folder / "log.txt").symlink_to(tmp_path / "elsewhere")
    assert segladder("train", *BASE, f"hydra.run.dir={folder}") == 1
    assert "log.txt: " in capsys.readouterr().err and (tmp_path / "elsewhere").read_text() == "mine"


def test_random_numbers_go_on_as_if_nothing_had_drawn_any():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    expected = torch.rand(2), np.random.rand()  # noqa: NPY002
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    with undisturbed():
        torch.rand(7)
        np.random.rand(7)  # noqa: NPY002
    assert torch.equal(torch.rand(2), expected[0]) and np.random.rand() == expected[1]  # noqa: NPY002
