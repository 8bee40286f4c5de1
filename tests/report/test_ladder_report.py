"""What annotation buys, in words, tables and a picture: from records whose scores and costs are known."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image, ImageColor

from segladder.data.labels.kinds import kinds
from segladder.metrics.bootstrap import Comparison, compare
from segladder.metrics.counts import Counts
from segladder.metrics.scores import FromCounts, Score
from segladder.report.budget import as_good, classes_asked, decisions, seconds_of
from segladder.report.counted import Counted
from segladder.report.ladder import by_fold, described, duration, frontier, rungs, summary
from segladder.report.leaderboard import rank
from segladder.report.pictures.cost_curve import save_cost_curve, ticks_between
from segladder.report.record import Record

HOUR = 3600
RUNGS = {  # method: supervision, seconds of work on novel classes, score
    "spnet": ("zero_shot", 0, 0.30),
    "sg_one": ("few_shot", 720, 0.45),
    "cam": ("image_level", 1800, 0.40),
    "unet": ("full", 10 * HOUR, 0.455),
    "fcn8s": ("full", 20 * HOUR, 0.75),
}


def a_record(method, fold=None, seed=0, score=None):
    supervision, seconds, usual = RUNGS[method]
    score = usual if score is None else score
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
    assert [rung.seconds - rung.work for rung in ladder] == [100] * 5


def test_rungs_of_a_curve_differ_in_shots_alone():
    """A setting that tells rows of one mask apart is told of the only row of five masks too."""
    records = [a_record("sg_one", seed=n) for n in range(3)]
    for record, shots, presence in zip(records, (1, 1, 5), ("always", "competing", "always"), strict=True):
        record.shots, record.seed = shots, 0
        record.protocol["presence"] = presence
    (table,) = rank(records)
    found = {(rung.row.shots, rung.curve) for rung in rungs(table, records)}
    always, competing = "sg_one presence=always", "sg_one presence=competing"
    assert found == {(1, always), (1, competing), (5, always)}


def in_words(records, counted=None):
    (table,) = rank(records)
    return summary(table, rungs(table, records), counted or Counted([(record, Path("nowhere")) for record in records]))


def test_the_summary_says_what_the_next_hour_buys(records):
    untested = " (no counts were kept, so not tested)"
    assert in_words(records) == [
        "The cheapest here, spnet, reaches 30.0 [28.0, 32.0] % without a label of the novel classes.",
        f"12 min more buy 15.0 points{untested}: sg_one, 5 masks a class reaches 45.0 [43.0, 47.0] %.",
        f"9.8 h more buy 0.5 points{untested}, 0.1 points an hour: unet reaches 45.5 [43.5, 47.5] %.",
        f"10.0 h more buy 29.5 points{untested}, 3.0 points an hour: fcn8s reaches 75.0 [73.0, 77.0] %.",
        "The first hour of annotation buys 15.0 points at most: sg_one, 5 masks a class, which takes 12 min of it.",
        "cam (30 min, 40.0 %) buys nothing here: sg_one, 5 masks a class costs 12 min and reaches 45.0 %,"
        f" better by 5.0{untested}.",
        "Beside another object fcn8s reaches 37.5 %; where the class is not there, it paints 10.0 % of the image.",
    ]


@pytest.mark.parametrize(("p_value", "sure"), [(0.049, True), (0.051, False), (0.09, False)])
def test_what_is_no_clearer_than_five_in_a_hundred_may_be_chance(records, p_value, sure):
    found = Comparison(0.1, 0.0, 0.2, p_value)
    said = in_words(records, SimpleNamespace(compared=lambda table, pairs: [found for _ in pairs]))
    assert all(line.endswith("; this may be chance.") is not sure for line in said[1:4])
    (about_cam,) = [line for line in said if line.startswith("cam (")]
    assert ("is not told apart from what costs no more" in about_cam) is not sure


@pytest.mark.parametrize(("seconds", "within"), [(HOUR, "unet"), (HOUR + 1, "sg_one"), (1.9 * HOUR, "sg_one")])
def test_the_first_hour_is_no_longer_than_that(records, seconds, within):
    (unet,) = (record for record in records if record.method == "unet")
    unet.annotation_cost["novel_seconds"] = float(seconds)
    (line,) = [line for line in in_words(records) if line.startswith("The first hour")]
    assert f" at most: {within}" in line


def test_more_work_for_an_equal_score_is_not_worth_it(records):
    (cam,) = (record for record in records if record.method == "cam")
    cam.metrics["mIoU"]["value"] = 0.45  # what sg_one reaches for less
    (table,) = rank(records)
    assert [rung.row.method for rung in frontier(rungs(table, records), table.score)] == [
        *("spnet", "sg_one", "unet", "fcn8s")
    ]
    assert any(line.startswith("cam (30 min, 45.0 %) buys nothing here: sg_one") for line in in_words(records))


def test_a_rung_without_a_label_is_said_to_cost_nothing_too(records):
    floor = a_record("unet", score=0.1)
    floor.annotation_cost["novel_seconds"] = 0.0
    records = [floor, *(record for record in records if record.method != "unet")]
    found = "unet (0, 10.0 %) costs nothing either: spnet reaches 30.0 %, better by 20.0"
    assert f"{found} (no counts were kept, so not tested)." in in_words(records)


def test_rungs_of_several_backbones_are_told_apart_and_of_one_cost_the_best_is_a_step():
    smaller, larger = a_record("fcn8s", score=0.3), a_record("fcn8s", score=0.5)
    smaller.backbone, larger.backbone = {"name": "resnet18"}, {"name": "resnet50"}
    larger.id = "larger"
    larger.annotation_cost["novel_seconds"] += 0.2
    (table,) = rank([smaller, larger])
    ladder = rungs(table, [smaller, larger])
    assert [rung.label for rung in ladder] == [f"fcn8s on {backbone}" for backbone in ("resnet50", "resnet18")]
    assert len({rung.curve for rung in ladder}) == 2 and frontier(ladder, table.score) == ladder[:1]


def test_differences_in_the_summary_are_paired_tests(tmp_path):
    """Rungs whose intervals overlap are told apart where every image says so; rungs that differ by chance are not."""
    random = np.random.default_rng(0)
    hard = random.integers(10, 90, 30)
    hits = {
        "spnet": hard,
        "sg_one": hard + 5,
        "cam": hard + 5 - random.permutation(np.repeat([-4, 0, 5], 10)),
        "fcn8s": hard + 9,
    }
    records = [a_record(method, score=float(np.mean(found) / 100)) for method, found in hits.items()]
    for record, found in zip(records, hits.values(), strict=True):
        record.protocol |= {
            "scores": [Score("mIoU", statistic=FromCounts("mean_iou", ("novel",))).plain()],
            "ladder": [],
        }
        counts = Counts(2, {"novel": (1,)})
        counts.seed = 0
        for i, n in enumerate(found):
            counts.add(f"{i}", [[0, 0], [100 - n, n]])
        counts.save(tmp_path / record.id / "counts.npz")
    counted = Counted([(record, tmp_path / record.id) for record in records])
    (table,) = counted.tables()
    ladder = rungs(table, records)
    assert ladder[0].high > ladder[1].low  # the intervals overlap
    said = summary(table, ladder, counted)
    assert said[1].startswith("12 min more buy 5.0 points [5.0, 5.0; p < 0.001]: sg_one, 5 masks a class reaches")
    assert not said[1].endswith("chance.")
    once, several = (decisions(table, ladder, counted, budgets)[1][-1] for budgets in (["90h"], ["80h", "90h"]))
    assert once == several  # one test, however many budgets it answers
    assert once[-1] == "-"  # nothing cheaper is as good as fcn8s, which each image shows
    by_method = {rung.row.method: rung for rung in ladder}
    cheaper, (difference, _) = as_good(by_method["cam"], ladder, table, counted)
    assert cheaper is by_method["sg_one"] and float(difference) > 0
    assert as_good(by_method["fcn8s"], ladder, table, counted) is None
    (about_cam,) = [line for line in said if line.startswith("cam (")]
    assert about_cam.startswith("cam (30 min, ") and "is not told apart from what costs no more: sg_one" in about_cam
    sure = compare(
        *(counted.of(table, next(r for r in table.rows if r.method == m)) for m in ("cam", "sg_one")),
        table.score.statistic,
    )
    assert f"better by {-100 * sure.difference:.1f} [{-100 * sure.high:.1f}, {-100 * sure.low:.1f}; p = " in about_cam


def of_images(folder, images, **shares):
    """Records of methods that find so large a share of the class in each image, and their counts."""
    records = [a_record(method, score=share) for method, share in shares.items()]
    for record in records:
        scores = [Score("mIoU", statistic=FromCounts("mean_iou", ("novel",))).plain()]
        record.protocol |= {"scores": scores, "ladder": []}
        hits = round(100 * record.metrics["mIoU"]["value"])
        record.metrics["mIoU"] = {"value": hits / 100}
        counts = Counts(2, {"novel": (1,)})
        counts.seed = 0
        for number in range(images):
            counts.add(f"{number}", [[0, 0], [100 - hits, hits]])
        counts.save(folder / record.id / "counts.npz")
    return records, Counted([(record, folder / record.id) for record in records])


def test_of_too_few_images_nothing_is_tested_and_nothing_told_apart(tmp_path):
    records, counted = of_images(tmp_path, 3, spnet=0.3, cam=0.2, fcn8s=0.6)
    (table,) = counted.tables()
    said = summary(table, rungs(table, records), counted)
    assert said[1] == (
        "20.0 h more buy 30.0 points (too few images to test), 1.5 points an hour:"
        " fcn8s reaches 60.0 %; this may be chance."
    )
    assert "cam (30 min, 20.0 %) is not told apart from what costs no more" in said[2] and "nan" not in "".join(said)
    _, (line,) = decisions(table, rungs(table, records), counted, ["30h"])
    assert line[-4:] == ["+30.00", "[-, -]", "-", "spnet, 0: -30.00 [-, -]"]


def test_rungs_that_cost_the_same_to_the_second_are_compared_with_each_other(records):
    """Means over other runs differ by fractions of a second."""
    for record in records:
        if record.method in ("cam", "sg_one"):
            record.annotation_cost["novel_seconds"] = 720.4 if record.method == "sg_one" else 720.0
    found = (
        "cam (12 min, 40.0 %) buys nothing here: sg_one, 5 masks a class costs no more and reaches 45.0 %, better by"
    )
    assert any(line.startswith(found) for line in in_words(records))


def test_the_first_hour_is_not_said_to_buy_what_comes_after_a_rung_that_took_some_of_it(records):
    paid = [record for record in records if record.method in ("sg_one", "cam")]
    paid[0].metrics["mIoU"]["value"] = 0.5  # cam, which costs more
    assert len(in_words(paid)) > 1 and not any(line.startswith("The first hour") for line in in_words(paid))


def test_rungs_of_other_prices_are_said_not_to_compare(records):
    said = "Not all rungs were priced by one list (prices), so their costs do not compare."
    for record in records:
        record.config["prices"] = {"mask": 79.0}
    assert said not in in_words(records)
    records[0].config["prices"] = {"mask": 10.0}
    assert in_words(records)[-1] == said


def test_what_a_record_is_called_is_one_line_of_the_summary(records):
    for record in records:
        record.tag = "x\n\n# heading\n[here](file:///etc/passwd)"
    (table,) = rank(records)
    text = described(table, rungs(table, records), Counted([(record, Path("nowhere")) for record in records]))
    assert "\n# heading" not in text and "](" not in text


def test_supports_are_called_what_they_are():
    records = [a_record("sg_one"), a_record("fcn8s")]
    records[0].protocol["fields"] = records[1].protocol["fields"] | {"support_annotation": "box"}
    for shots, label in ((1, "sg_one, 1 box a class"), (5, "sg_one, 5 boxes a class")):
        records[0].shots = shots
        (table,) = rank(records)
        assert rungs(table, records)[0].label == label


def test_an_axis_without_a_round_duration_names_its_ends():
    assert ticks_between(30, 4000, [40.0, 0.0]) == {60: "1 min", 600: "10 min", 3600: "1 h"}
    assert ticks_between(1000, 3500, [0.0, 1200.0, 3000.0]) == {1200.0: "20 min", 3000.0: "50 min"}
    assert ticks_between(1000, 3500, [0.0]) == {}


def test_without_all_folds_each_has_a_ladder_of_its_own():
    records = [a_record("spnet", 1), a_record("fcn8s", 1)]
    (table,) = rank(records)
    assert not rungs(table, records)
    (name, alone), *_ = by_fold(table, Counted([(record, Path("nowhere")) for record in records])).items()
    assert name.endswith("-fold1")
    assert [rung.row.method for rung in rungs(alone, records)] == ["spnet", "fcn8s"]


def test_rows_without_a_cost_are_left_out(records):
    records[0].annotation_cost = None
    (table,) = rank(records)
    assert [rung.row.method for rung in rungs(table, records)] == list(RUNGS)[:-1]


def test_text_and_picture(records, tmp_path):
    for record in records:
        record.data["title"] = r"a $\frac{b$ c"  # a name, no formula
    (table,) = rank(records)
    ladder = rungs(table, records)
    text = described(table, ladder, Counted([(record, Path("nowhere")) for record in records]))
    assert "| few_shot | sg_one, 5 masks a class | 12 min | 14 min | 45.0 [43.0, 47.0] | 22.5 | 10.0 |" in text
    curve = save_cost_curve(tmp_path / "curve.png", ladder, table)
    for file in (curve, tmp_path / "curve-dark.png"):
        pixels = np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3)
        for name in ("names", "tags", "masks"):
            colour = ImageColor.getrgb(kinds()[name].colour)
            assert (pixels == colour).all(1).sum() > 20
    assert pixels.mean() < 60  # the last one has a dark ground


def test_curves_of_one_tag_are_named_by_their_setting_and_inside_the_picture(records, tmp_path, monkeypatch):
    found = []

    def save(figure, *rest, **settings):
        axes = figure.axes[0]
        inside = axes.get_window_extent().padded(0.5)
        for text in axes.texts:
            box = text.get_window_extent()
            assert inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1), text.get_text()
        found.append({text.get_text() for text in axes.texts})

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)
    records += [a_record("sg_one", seed=1), a_record("sg_one", seed=2)]
    for record, presence in zip(
        [r for r in records if r.method == "sg_one"], ("always", "competing", "calibrated"), strict=True
    ):
        record.tag, record.seed = "supports", 0
        record.protocol["presence"] = presence
    next(record for record in records if record.method == "fcn8s").tag = "long" * 20
    (table,) = rank(records)
    with pytest.raises(FileNotFoundError):
        save_cost_curve(tmp_path / "curve.png", rungs(table, records), table)
    supports = {f"supports presence={presence}" for presence in ("always", "competing", "calibrated")}
    assert found == [{"spnet", "cam", "unet", f"{'long' * 9}lon…", *supports}]


def test_labels_cover_no_curve_where_there_is_room_beside_it(tmp_path, monkeypatch):
    """Right of where the first curve ends the second one climbs: the first one's name stands left of it."""
    names = []

    def save(figure, *rest, **settings):
        axes = figure.axes[0]
        curves = [line.get_path().transformed(axes.transData) for line in axes.lines if len(line.get_xdata()) == 2]
        curves = [curve for curve in curves if np.ptp(curve.vertices[:, 1]) > 50]  # no axis, no frontier
        assert len(curves) == 2
        for text in axes.texts:
            assert not any(curve.intersects_bbox(text.get_window_extent(), filled=False) for curve in curves)
            names.append(text.get_text())

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)
    ends = {"unet": (0.2, 0.6), "fcn8s": (0.2, 0.75)}
    records = [a_record(method, score=score) for method, scores in ends.items() for score in scores]
    for record, seconds, pool in zip(records, (60, 600, 500, 800), (10, 100) * 2, strict=True):
        record.config, record.annotation_cost = {"pool": pool}, {"seconds": seconds, "novel_seconds": float(seconds)}
        record.id += f"-{pool}"
    (table,) = rank(records)
    with pytest.raises(FileNotFoundError):
        save_cost_curve(tmp_path / "curve.png", rungs(table, records), table)
    assert set(names) == {"unet", "fcn8s"}


def test_a_panel_below_shows_what_is_left_of_base_classes(records, tmp_path):
    of_base = Score("base_mIoU", shown=("table",), statistic=FromCounts("mean_iou", ("base",)))
    plain = save_cost_curve(tmp_path / "plain.png", rungs(rank(records)[0], records), rank(records)[0])
    for record in records:
        record.protocol |= {"scores": [Score("mIoU").plain(), of_base.plain()], "ladder": ["base_mIoU"]}
        if record.supervision != "few_shot":  # such a rung answers for one class alone
            record.metrics["base_mIoU"] = {"value": 0.6}
    (table,) = rank(records)
    ladder = rungs(table, records)
    curve = save_cost_curve(tmp_path / "curve.png", ladder, table)
    top, whole = (np.asarray(Image.open(file).convert("RGB")) for file in (plain, curve))
    assert whole.shape[0] > top.shape[0] and whole.shape[1] == top.shape[1]

    part = whole[int(0.7 * len(whole)) : int(0.85 * len(whole))]
    for labels, rungs_there in (("tags", 1), ("masks", 2)):  # cam; unet and fcn8s, not sg_one
        marked = (part == ImageColor.getrgb(kinds()[labels].colour)).all(2).astype(np.uint8)
        assert cv2.connectedComponents(marked)[0] - 1 == rungs_there


def test_rungs_that_differ_in_amount_are_one_curve_and_all_labels_count_where_nothing_is_novel():
    records = [a_record("fcn8s", score=0.5 + n / 1000) for n in (50, 200)] + [a_record("unet", score=0.4)]
    for n, record in zip((50, 200, 200), records, strict=True):
        record.config = {"pool": n, "method": {"name": record.method}}
        record.id += f"-{n}"
        record.protocol["name"] = "semantic"
    (table,) = rank(records)
    ladder = rungs(table, records)
    assert {rung.label for rung in ladder} == {"fcn8s pool=50", "fcn8s pool=200", "unet"}
    assert [rung.curve for rung in ladder] == ["unet", "fcn8s", "fcn8s"]
    assert all(rung.work == rung.seconds for rung in ladder)


def test_a_budget_buys_the_best_that_it_pays_for(records):
    """Of one class: `per_class` has one row, so that the work is that of a class."""
    (table,) = rank(records)
    ladder = rungs(table, records)
    counted = Counted([(r, Path("nowhere")) for r in records])
    headings, lines = decisions(table, ladder, counted, ["30s", "15min", "2h", "10.5h"])
    assert headings[4] == "over spnet" and [line[:3] for line in lines] == [
        ["30s", "spnet", "0"],
        ["15min", "sg_one, 5 masks a class", "12 min"],
        ["2h", "sg_one, 5 masks a class", "12 min"],
        ["10.5h", "unet", "10.0 h"],
    ]


@pytest.mark.parametrize(("background", "asked"), [(True, 2), (False, 3)])
def test_a_class_of_work_counts_a_first_class_that_is_no_background(records, background, asked):
    for record in records:
        record.data["background"] = background
        record.per_class = [{"class": name, "iou": 0.5} for name in record.data["classes"]]
    (table,) = rank(records)
    assert {classes_asked(rung, table, records) for rung in rungs(table, records)} == {asked}


def test_no_budget_buys_what_an_oracle_chose_and_one_may_buy_nothing(records):
    for record in records:
        record.label_access = {"selection": "oracle" if record.method == "spnet" else "fixed"}
    (table,) = rank(records)
    counted = Counted([(r, Path("nowhere")) for r in records])
    headings, (minute, hour) = decisions(table, rungs(table, records), counted, ["1min", "1h"])
    assert minute == ["1min", *["-"] * 7] and hour[:2] == ["1h", "sg_one, 5 masks a class"]
    assert headings[4] == "over the best without a label"


@pytest.mark.parametrize("text, seconds", [("30s", 30), ("1.5min", 90), ("10h", 36_000)])
def test_budgets_are_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "seconds, said", [(0, "0"), (45, "45 s"), (720, "12 min"), (5400, "1.5 h"), (36_000, "10.0 h")]
)
def test_durations(seconds, said):
    assert duration(seconds) == said
