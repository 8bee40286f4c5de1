"""What annotation buys, in words, tables and a picture: from records whose scores and costs are known."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from segladder.data.labels.kinds import kinds
from segladder.report.ladder import by_fold, described, duration, frontier, rungs, summary
from segladder.report.leaderboard import rank
from segladder.report.pictures.cost_curve import save_cost_curve
from segladder.report.record import Record

HOUR = 3600
RUNGS = {  # method: supervision, seconds of work on novel classes, score
    "spnet": ("zero_shot", 0, 0.30),
    "sg_one": ("few_shot", 720, 0.45),
    "cam": ("image_level", 1800, 0.40),
    "unet": ("full", 10 * HOUR, 0.455),
    "fcn8s": ("full", 20 * HOUR, 0.75),
}


def a_record(method, fold=None, seed=0, shift=0.0):
    supervision, seconds, score = RUNGS[method]
    score += shift
    extra = {"hard_mIoU": {"value": score / 2}, "negative_area": {"value": 0.1}}
    return Record(
        id=f"{method}-{fold}-{seed}",
        time=f"2026-01-0{1 + seed}T00:00:00+00:00",
        status="finished",
        method=method,
        supervision=supervision,
        protocol={"name": "ladder", "hash": "01234567", "ranked_by": "mIoU", "fields": {"folds": [["cat"], ["dog"]]}},
        data={"name": "animals", "classes": ["background", "cat", "dog"], "val_fingerprint": "feed"},
        seed=seed,
        fold=fold,
        shots=5 if supervision == "few_shot" else None,
        metrics={"mIoU": {"value": score, "low": score - 0.02, "high": score + 0.02}, **extra},
        per_class=[{"class": "cat", "iou": score}],
        annotation_cost={"seconds": seconds + 100.0, "novel_seconds": float(seconds)},
    )


@pytest.fixture
def records():
    return [a_record(method) for method in reversed(RUNGS)]


def test_rungs_climb_in_cost_and_the_frontier_in_score(records):
    (table,) = rank(records)
    ladder = rungs(table, records)
    assert [rung.row.method for rung in ladder] == list(RUNGS)
    assert [rung.row.method for rung in frontier(ladder, table.score)] == ["spnet", "sg_one", "unet", "fcn8s"]
    assert [rung.seconds - rung.novel_seconds for rung in ladder] == [100] * 5


def test_the_summary_says_what_the_next_hour_buys(records):
    (table,) = rank(records)
    assert summary(table, rungs(table, records)) == [
        "The cheapest here, spnet, reaches 30.0 [28.0, 32.0] % without a label of the novel classes.",
        "12 min more buy 15.0 points: sg_one, 5 masks a class, 45.0 [43.0, 47.0] %.",
        "9.8 h more buy 0.5 points: unet, 45.5 [43.5, 47.5] %, 0.1 points an hour; the intervals overlap, so it may be"
        " chance.",
        "10.0 h more buy 29.5 points: fcn8s, 75.0 [73.0, 77.0] %, 3.0 points an hour.",
        "The first hour of annotation buys 15.0 points at most: sg_one, 5 masks a class, which takes 12 min of it.",
        "cam (30 min, 40.0 %) buys nothing here: sg_one, 5 masks a class costs 12 min and reaches 45.0 %.",
        "Beside another object fcn8s reaches 37.5 %; where the class is not there, it paints 10.0 % of the image.",
    ]


def test_seeds_and_folds_are_averaged_and_their_intervals_too():
    records = [a_record("spnet", fold, seed, 0.1 * fold + 0.02 * seed) for fold in (0, 1) for seed in (0, 1)]
    (table,) = rank(records)
    (rung,) = rungs(table, records)
    assert (rung.value, rung.low, rung.high) == pytest.approx((0.36, 0.34, 0.38))
    assert by_fold(table, records) == {"ladder-01234567-animals": table}


def test_without_all_folds_each_has_a_ladder_of_its_own():
    records = [a_record("spnet", 1), a_record("fcn8s", 1)]
    (table,) = rank(records)
    assert not rungs(table, records)
    (name, alone), *_ = by_fold(table, records).items()
    assert name.endswith("-fold1")
    assert [rung.row.method for rung in rungs(alone, records)] == ["spnet", "fcn8s"]


def test_rows_without_a_cost_are_left_out(records):
    records[0].annotation_cost = None
    (table,) = rank(records)
    assert [rung.row.method for rung in rungs(table, records)] == list(RUNGS)[:-1]


def test_text_and_picture(records, tmp_path):
    (table,) = rank(records)
    ladder = rungs(table, records)
    text = described(table, ladder, records)
    assert "| few_shot | sg_one, 5 masks a class | 12 min | 14 min | 45.0 [43.0, 47.0] | 22.5 | 10.0 |" in text
    curve = save_cost_curve(tmp_path / "curve.png", ladder, table)
    pixels = np.asarray(Image.open(curve).convert("RGB")).reshape(-1, 3)
    for name in ("names", "tags", "masks"):
        colour = ImageColor.getrgb(kinds()[name].colour)
        assert (pixels == colour).all(1).sum() > 20


@pytest.mark.parametrize(
    "seconds, said", [(0, "0"), (45, "45 s"), (720, "12 min"), (5400, "1.5 h"), (36_000, "10.0 h")]
)
def test_durations(seconds, said):
    assert duration(seconds) == said
