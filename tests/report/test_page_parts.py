"""Parts of the page: words for protocols and rows, what differs, files, confusion, one image of all rows."""

import base64
import io
import json
from dataclasses import replace

import pytest
from page_runs import CLASSES, METHODS, SAYS, scored, write_runs
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segladder.data.hashing import hashed_fields
from segladder.metrics.bootstrap import per_class
from segladder.metrics.counts import COUNTS
from segladder.metrics.formulas import class_iou
from segladder.metrics.scores import Score
from segladder.report.counted import Counted
from segladder.report.leaderboard import rank
from segladder.report.page import page
from segladder.report.page.drawn import swept_points
from segladder.report.page.ladder_figure import RADIUS, _labels
from segladder.report.page.naming import names
from segladder.report.page.pictures import Room, cut
from segladder.report.page.questions import asked, questions
from segladder.report.page.whole import _Sections
from segladder.report.record import Record, find_records, write


def section_of(folder):
    counted = Counted(find_records(folder)[0])
    (table,) = counted.tables()
    by_id = {(record.id, record.protocol["hash"]): (record, place) for record, place in counted.found}
    return _Sections(counted, by_id, set(by_id), Room(2**24), ()).section("", table, "")


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_runs(folder)
    return section_of(folder)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("strict", {"shots": 1, "support_annotation": "mask"}, "One mask of a class, asked on images that hold it"),
        ("strict", {"shots": 5, "support_annotation": "box"}, "5 boxes of a class, asked on images that hold it"),
        ("zero_shot", {"unseen": ["cow", "cat"]}, "Classes known by name alone: cow, cat"),
        ("zero_shot", {}, "Classes known by name alone"),
        ("my_own", {}, "my own"),
    ],
)
def test_a_protocol_is_told_in_words(name, fields, words):
    assert asked(name, fields) == words


def few_shot(identity, protocol_hash, method="panet", shots=1, **fields):
    protocol = {"name": "strict", "hash": protocol_hash, "fields": {"shots": shots, "folds": 1, **fields}}
    scores = {"mIoU": {"value": 0.5, "low": None, "high": None}}
    data = {"name": "shapes", "classes": ["background", "disc"], "val_fingerprint": "feed"}
    return Record(
        id=identity, status="finished", method=method, supervision="few_shot", protocol=protocol, data=data,
        config={"method": {"name": method}}, seed=0, fold=0, shots=shots, metrics=scores, backbone={"name": "tiny"},
    )  # fmt: skip


def test_equal_questions_are_told_apart_by_their_fields():
    found = [[few_shot("a", "aaaa")], [few_shot("b", "bbbb", fit="square")]]
    tables = [table for records in found for table in rank(records)]
    assert questions(tables, found) == [
        "One mask of a class, asked on images that hold it, fold 0 · shapes, 1 class (fit none)",
        "One mask of a class, asked on images that hold it, fold 0 · shapes, 1 class (fit square)",
    ]


def test_a_row_is_named_by_what_differs():
    def named(records):
        (table,) = rank(records)
        return {name.text for name in names(table)}

    one, other = few_shot("a", "aaaa"), few_shot("b", "aaaa", "sg_one")
    assert named([one]) == {"panet"}
    assert named([one, other]) == {"panet", "sg_one"}
    assert named([one, few_shot("c", "aaaa", shots=5)]) == {"one mask a class", "5 masks a class"}
    pools = [few_shot(str(pool), "aaaa") for pool in (1, 8)]
    for record, pool in zip(pools, (1, 8), strict=True):
        record.config = {"method": {"name": "panet"}, "pool": pool}
    assert named(pools) == {"panet, 1 image", "panet, 8 images"}
    other.tag = one.tag = "same"
    assert named([one, other]) == {"panet", "sg_one"}


def test_what_rows_share_stands_above_and_nothing_of_dashes_stays(section):
    assert "backbone tiny" in section.board.common and "seeds 1" in section.board.common
    headings = [heading for heading, _ in section.board.headings]
    assert headings[0] == "mIoU, %" and "backbone" not in headings and "folds" not in headings
    assert all(any(line.cells[i].text != "-" for line in section.board.lines) for i in range(len(headings)))


def test_a_constant_is_not_drawn(section):
    drawn = [chart.title for details in section.rows for run in details.runs for chart in run.charts]
    assert drawn == ["Training"] * 3  # not the learning rate, which never changes


def test_places_of_a_sweep_that_are_not_known_are_not_drawn():
    sweep = [{"gamma": None, "mIoU": 0.1}, {"mIoU": 0.2}, {"gamma": 0.5, "mIoU": 0.25}, {"gamma": 1.0, "mIoU": None}]
    assert swept_points([Record(curve=sweep)], "gamma", Score("mIoU")) == [(0.5, 25.0)]


def test_the_confusion_of_a_row_is_what_was_counted(section):
    row = next(details for details in section.rows if details.name.lead == "cam")
    total = scored(METHODS["cam"][2]).total()
    assert row.confusion.truths == row.confusion.answers == ["background", "disc", "square"]
    assert row.confusion.shares[1] == pytest.approx((total[1] / total[1].sum()).tolist())
    assert "8 images, 1 run." in row.confusion.over


def test_classes_of_several_runs_have_the_interval_of_their_counts(tmp_path):
    (first,) = write_runs(tmp_path, methods={"unet": METHODS["unet"]})
    second = replace(first, id="again", seed=1)
    write(second, tmp_path / "again")
    counts = scored(METHODS["unet"][2])
    counts.seed = 1
    counts.save(tmp_path / "again" / COUNTS)
    (row,) = section_of(tmp_path).rows
    low, high = per_class([scored(METHODS["unet"][2]), counts])
    assert row.class_headings[:3] == ["class", "IoU, %", "95 % interval"]
    assert [line[2] for line in row.classes] == [
        f"{100 * a:.1f} to {100 * b:.1f}" for a, b in zip(low, high, strict=True)
    ]
    (tmp_path / "again" / COUNTS).unlink()
    assert section_of(tmp_path).rows[0].class_headings == ["class", "IoU, %"]


def test_classes_that_every_fold_scores_have_the_interval_of_their_mean(tmp_path):
    (first,) = write_runs(tmp_path / "one", methods={"unet": METHODS["unet"]})
    protocol = {**first.protocol, "fields": {**SAYS["fields"], "folds": 2}}
    protocol["hash"] = hashed_fields(protocol["fields"])
    both = [scored(1), scored(9)]
    for fold, counts in enumerate(both):
        counts.fold = fold
        iou = class_iou(counts.outcomes().sum(0)).tolist()
        rows = [{"class": name, "iou": value} for name, value in zip(CLASSES, iou, strict=True)]
        record = replace(first, id=f"fold{fold}", fold=fold, protocol=protocol, per_class=rows)
        record.metrics = {"mIoU": {"value": sum(iou) / 3, "low": None, "high": None}}
        write(record, tmp_path / "two" / record.id)
        counts.save(tmp_path / "two" / record.id / COUNTS)
    (row,) = section_of(tmp_path / "two").rows
    low, high = per_class(both)
    assert [line[2] for line in row.classes] == [
        f"{100 * a:.1f} to {100 * b:.1f}" for a, b in zip(low, high, strict=True)
    ]


def test_one_image_is_shown_over_all_rows(section):
    (shown, *_) = section.side_by_side
    captions = [picture.caption for picture in shown.pictures]
    assert captions[:2] == ["image", "truth"]
    assert {caption.split(",")[0] for caption in captions[2:]} == set(METHODS) and shown.missing == 0
    sizes = set()
    for picture in shown.pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture.url.partition(",")[2]))) as cell:
            sizes.add(cell.size)
    assert sizes == {(200, 150)}


@pytest.mark.parametrize(
    "places",
    [
        None,
        "no JSON",
        "[1, 2]",
        '{"prediction": [0, 0, 99, 10]}',
        '{"prediction": [5, 5, 5, 5]}',
        '{"prediction": [-1, 0, 5, 5]}',
        '{"prediction": ["a", 0, 5, 5]}',
        '{"image": [0, 0, 5, 5]}',
    ],
)
def test_a_panel_that_says_nothing_of_use_is_not_cut(tmp_path, places):
    about = PngInfo()
    if places is not None:
        about.add_itxt("segladder pictures", places)
    Image.new("RGB", (20, 10)).save(tmp_path / "best-1-a.png", pnginfo=about)
    assert cut(tmp_path / "best-1-a.png", "prediction") is None


def test_no_picture_is_not_cut(tmp_path):
    (tmp_path / "best-1-a.png").write_bytes(b"GIF89a, and then nothing")
    assert cut(tmp_path / "best-1-a.png", "prediction") is None


def test_files_of_a_run_hold_its_record(section):
    run = section.rows[0].runs[0]
    record = json.loads(base64.b64decode(run.record_url.partition(",")[2]))
    assert record["id"] == run.record.id and record["config"] == run.record.config


def test_labels_of_a_figure_cover_no_point_and_no_label():
    points = [(200.0, 100.0 + 6 * k) for k in range(12)]
    placed = [label for label in _labels(["a name"] * 12, points) if label.text]
    assert placed and len(placed) < 12
    boxes = [(label.x, label.y - 11, label.x + 40, label.y + 3) for label in placed if label.anchor == "start"]
    assert all(a[3] <= b[1] or b[3] <= a[1] for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert all(label.x >= 200 + RADIUS or label.x <= 200 - RADIUS for label in placed)


def test_a_run_without_its_folder_shows_what_the_record_has(tmp_path):
    records = write_runs(tmp_path / "gone")
    counted = Counted([(record, tmp_path / "nowhere") for record in records])
    text = page(counted.tables(), counted)
    assert "No training curves and no panels" in text and "record.json" in text and "<img" not in text


def test_what_a_foreign_record_says_is_no_markup_and_no_path(tmp_path):
    evil = '"><script>alert(1)</script>\ud800'
    (record,) = write_runs(tmp_path, methods={"unet": METHODS["unet"]})
    record.config = {evil: evil}
    record.id = "a b/'../../x"
    record.protocol = {**record.protocol, "name": evil, "fields": {"shots": evil, evil: [evil]}}
    record.per_class[0] |= {"low": evil, "high": evil}
    counted = Counted([(record, tmp_path / "shapes-unet")])
    text = page(counted.tables(), counted)
    assert "alert(1)</script>" not in text
    assert 'id="row-5afdba84-a-b-..-..-x"' in text and 'download="5afdba84-a-b-..-..-x-record.json"' in text
