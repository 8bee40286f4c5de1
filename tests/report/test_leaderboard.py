"""The leaderboard: what may stand together, what is averaged, and that order changes nothing."""

import csv
import gc
import io
import json
import random
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from segladder.errors import ConfigError, DataError
from segladder.metrics.bootstrap import compare, estimate
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.scores import FromCounts, Score
from segladder.report.archive import collect, slim
from segladder.report.comparisons import comparisons, pairs_of, supports_compared, title_of
from segladder.report.counted import Archives, Counted
from segladder.report.declared import declared
from segladder.report.leaderboard import rank
from segladder.report.record import Record, find_records, write
from segladder.report.rendering import csv_text, json_text, markdown, per_class, ranking, seeds, show

CLASSES = ["background", "cat", "dog"]
MEAN_IOU = FromCounts("mean_iou")


def declaring(name="mIoU", statistic=MEAN_IOU, **more):
    """What a record says of a score that is tested."""
    return {"scores": [Score(name, statistic=statistic).plain()], "ranked_by": name, "resampled": "images", **more}


TESTED = declaring()


def a_record(method="fcn8s", seed=0, value=0.5, **changes):
    loss = changes.pop("loss", "cross_entropy")
    protocol_hash = changes.pop("hash", "01234567")
    fingerprint = changes.pop("fingerprint", "feedfeed")
    fields = {
        "id": f"{method}-{loss}-{seed}-{changes.get('fold')}",
        "time": f"2026-01-0{1 + seed}T00:00:00+00:00",
        "status": "finished",
        "method": method,
        "supervision": "full",
        "backbone": {"name": "resnet18", "weights": "timm", "pretraining": "ImageNet"},
        "label_access": {"labels": "masks", "selection": "fixed"},
        "protocol": {"name": "semantic", "hash": protocol_hash, "fields": {}, **TESTED},
        "data": {"name": "animals", "classes": CLASSES, "val_fingerprint": fingerprint},
        "config": {"seed": seed, "loss": {"name": loss, "gamma": len(loss)}, "method": {"criterion": {"name": loss}}},
        "seed": seed,
        "metrics": {"mIoU": {"value": value, "low": value - 0.02, "high": value + 0.03}},
        "per_class": [{"class": name, "iou": value + 0.1 * k} for k, name in enumerate(CLASSES)],
        "parameters": 2_500_000,
        "train_seconds": 100.0 + seed,
        "images_per_second": 10.0,
        "peak_memory_mb": 800.0 + seed,
    }
    return Record(**{**fields, **changes})


def a_mixture():
    """Records of every kind a leaderboard meets."""
    return [
        *(a_record(seed=seed, value=value) for seed, value in enumerate((0.6, 0.63, 0.69))),
        a_record(loss="dice", value=0.55),
        a_record("unet", value=0.7),
        a_record("unet", value=0.71, hash="89abcdef", id="unet-otherwise"),
        a_record("unet", value=0.72, fingerprint="other", id="unet-elsewhere"),
        a_record("sec", value=0.4, supervision="image_level"),
        *(
            a_record("hsnet", s, 0.3 + 0.1 * f + s / 100, supervision="few_shot", fold=f)
            for f in range(4)
            for s in (0, 1)
        ),
        *(a_record("panet", value=0.9, supervision="few_shot", fold=f) for f in range(3)),
        a_record("segnet", status="failed", error="Traceback\nDataError: x.png: value 37", metrics={}),
        a_record("segnet", seed=1, status="interrupted"),
        a_record("segnet", seed=2, metrics={}),
        Record(id="early", status="failed", error="boom"),
    ]


def rendered(tables):
    console = Console(file=io.StringIO(), width=300)
    show(tables, console)
    return markdown(tables), csv_text(tables), json_text(tables), console.file.getvalue()


def test_order_changes_nothing():
    records = a_mixture()
    expected = rendered(rank(records))
    for seed in range(5):
        random.Random(seed).shuffle(records)
        assert rendered(rank(records)) == expected


def test_hashes_and_data_never_mix():
    tables = rank(a_mixture())
    assert [(t.hash, t.fingerprint, len(t.rows)) for t in tables] == [
        ("01234567", "feedfeed", 6),
        ("01234567", "other", 1),
        ("89abcdef", "feedfeed", 1),
        ("", "", 0),
    ]
    runs = {record.id: record for record in a_mixture()}
    for table in tables[1:3]:
        assert [row.value for row in table.rows] == [0.72 if table.fingerprint == "other" else 0.71]
    assert all(runs[run].protocol["hash"] == "01234567" for row in tables[0].rows for run in row.runs)


def counts_of(images, size=2, fold=None, seed=0, **groups):
    """Counts of matrices by image."""
    counts = Counts(size, groups)
    counts.fold, counts.seed = fold, seed
    for asked, matrix in images.items():
        counts.add(asked, matrix)
    return counts


def right_of_ten(hits, images=8):
    """Images in each of which so many of ten object pixels are found."""
    return {f"{i}": [[9, 0], [10 - hits, hits]] for i in range(images)}


def kept(tmp_path, *runs):
    """Records with the folders in which their counts lie, and with the score that follows from them."""
    for record, counts in runs:
        score = declared(record)[record.protocol["ranked_by"]]
        if score.statistic is not None:
            with suppress(DataError, LookupError, ValueError):  # what does not follow stays
                record.metrics[score.name]["value"] = estimate(counts, score.statistic, draws=0).value
        counts.save(tmp_path / record.id / "counts.npz")
    return Counted([(record, tmp_path / record.id) for record, _ in runs])


def test_seeds_are_averaged_and_shown_one_by_one_where_no_interval_covers_them():
    row = next(row for row in rank(a_mixture())[0].rows if row.label == "fcn8s loss=cross_entropy")
    assert row.seeds == [0, 1, 2]
    assert row.value == pytest.approx(0.64)
    assert row.scores == [0.6, 0.63, 0.69]
    assert (row.low, row.high) == (None, None)
    text = markdown(rank(a_mixture()))
    assert "| 64.00 (60.00, 63.00, 69.00) | 3 |" in text and "±" not in text
    five = [a_record(seed=seed, value=0.6 + seed / 100) for seed in range(5)]
    assert "| 62.00 (60.00, 61.00, 62.00, 63.00, 64.00) | 5 |" in markdown(rank(five))  # no interval covers them
    assert (row.train_seconds, row.peak_memory_mb, row.parameters) == (101.0, 802.0, 2_500_000)


def test_one_run_has_the_interval_of_its_record():
    row = next(row for row in rank(a_mixture())[0].rows if row.method == "unet")
    assert (row.value, row.low, row.high) == (0.7, pytest.approx(0.68), pytest.approx(0.73))
    assert "70.00 [68.0, 73.0]" in markdown(rank(a_mixture()))
    old = a_record("unet", value=0.7, schema=2)  # whose intervals nobody can compute again
    assert "| 70.00 | 1 |" in markdown(rank([old])) and "[" not in markdown(rank([old]))


def test_several_runs_have_the_interval_of_their_mean(tmp_path):
    runs = [(a_record(seed=s), counts_of(uneven(s), seed=s)) for s in (0, 1)]
    counted = kept(tmp_path, *runs)
    (row,) = counted.tables()[0].rows
    expected = estimate([counts for _, counts in runs], MEAN_IOU)
    assert (row.low, row.high) == pytest.approx(expected[1:])
    assert f"[{100 * expected.low:.1f}, {100 * expected.high:.1f}] (" in markdown(counted.tables())
    (tmp_path / runs[0][0].id / "counts.npz").unlink()
    assert Counted(counted.found).tables()[0].rows[0].low is None


def uneven(seed, images=12):
    random = np.random.default_rng(seed)
    return {f"{i:02}": [[9, 0], [hits, 10 - hits]] for i, hits in enumerate(random.integers(0, 8, images))}


def test_rows_that_train_nothing_have_no_seeds():
    def untrained(seed, **changes):
        record = a_record("prototype", seed, value=0.5, **changes)
        record.config["method"]["trains"] = False
        return record

    loaded = {"name": "resnet18", "weights": "w.safetensors"}
    (row,) = rank([untrained(0, backbone=loaded), untrained(1, backbone=loaded)])[0].rows
    assert (row.seeds, row.scores, row.note, len(row.runs)) == ([], [0.5], "", 1)
    assert "| 50.00 [48.0, 53.0] | - |" in markdown(rank([untrained(0, backbone=loaded)]))
    random = {"name": "resnet18", "weights": None, "pretraining": None}
    (row,) = rank([untrained(0, backbone=random), untrained(1, backbone=random)])[0].rows
    assert row.seeds == [0, 1]  # weights are drawn
    parents = [a_record("cam", seed=s, id=f"cam{s}", value=0.3) for s in (0, 1)]
    on = [untrained(s, backbone=loaded, parents=[f"cam{s}"]) for s in (0, 1)]
    assert next(r for r in rank([*parents, *on])[0].rows if r.method == "prototype").seeds == [0, 1]
    again = untrained(0, backbone=loaded, parents=["gone"])  # scored again, and the run itself is elsewhere
    assert [row.seeds for row in rank([again])[0].rows] == [[]]
    assert [row.seeds for row in rank([replace(again, lineage=["cam"])])[0].rows] == [[0]]
    other = untrained(1, backbone=loaded)
    other.metrics["mIoU"]["value"] = 0.6  # its seed drew other supports
    (row,) = rank([untrained(0, backbone=loaded), other])[0].rows
    assert (row.seeds, row.scores, row.value) == ([0, 1], [0.5, 0.6], pytest.approx(0.55))


def test_runs_trained_under_other_fields_of_a_protocol_are_rows_of_their_own():
    def trained(shots, number, **changes):
        record = a_record("panet", value=0.1 * shots, shots=1, id=f"{number}", **changes)
        record.config["protocol"] = {"shots": shots, "bootstrap": number}
        return record

    found = [trained(1, 1), trained(5, 2)]
    (table,) = rank(found)
    assert {row.label: row.value for row in table.rows} == {
        "panet protocol.shots=1": 0.1,
        "panet protocol.shots=5": 0.5,
    }
    assert [row.label for row in rank([trained(1, 1), trained(1, 2, seed=1)])[0].rows] == ["panet"]
    found[0].config["protocol"], found[1].config["protocol"] = {"input_size": 48}, {"input_size": None}
    for record, fixed in ((found[0], "fixed"), (found[1], "fixed"), (found[0], "oracle"), (found[1], "oracle")):
        record.label_access = {**record.label_access, "selection": fixed}
        kinds = {each.label_access["selection"] for each in found}
        assert len(kinds) == 2 or len(rank(found)[0].rows) == (1 if kinds == {"fixed"} else 2)
    for record in found:
        record.config["method"]["trains"] = False
    assert [row.label for row in rank(found)[0].rows] == ["panet"]


def test_runs_that_build_on_others_are_told_apart_in_each_fold_too():
    """Also where the parents stand in another table."""
    found = []
    for epochs in (3, 99):
        parent = a_record("cam", id=f"cam{epochs}", hash="89abcdef", value=0.1)
        parent.config["trainer"] = {"epochs": epochs}
        child = a_record("fcn8s", id=f"child{epochs}", fold=0, parents=[parent.id], lineage=["cam"])
        found += [(parent, Path("nowhere")), (child, Path("nowhere"))]
    counted = Counted(found)
    (table,) = (table for table in counted.tables() if table.hash == "01234567")
    (alone,) = counted.of_each_fold(table).values()
    labels = {f"fcn8s from cam parent.trainer.epochs={epochs}" for epochs in (3, 99)}
    assert {row.label for row in table.rows} == {row.label for row in alone.rows} == labels


def test_a_fold_of_a_table_holds_no_run_of_other_data():
    found = [a_record(value=value, fold=0, fingerprint=data) for value, data in ((0.4, "feedfeed"), (0.6, "other"))]
    counted = Counted([(record, Path("nowhere")) for record in found])
    alone = {table.fingerprint: counted.of_each_fold(table) for table in counted.tables()}
    assert {data: [row.value for row in folds[0].rows] for data, folds in alone.items()} == {
        "feedfeed": [0.4],
        "other": [0.6],
    }


def test_scores_beside_the_ranking_one_are_of_the_same_runs():
    def of(seed, fold, value):
        metrics = {"mIoU": {"value": value}, "told": {"value": value}}
        fields = {"name": "strict", "hash": "01234567", "fields": {"folds": [["a"], ["b"]]}}
        scores = [Score("mIoU").plain(), Score("told", shown=("table",)).plain()]
        protocol = {**fields, "scores": scores, "ranked_by": "mIoU"}
        return a_record(seed=seed, fold=fold, metrics=metrics, protocol=protocol, id=f"{seed}{fold}")

    whole, part = [of(0, 0, 0.4), of(0, 1, 0.6)], of(1, 0, 0.9)
    (row,) = rank([*whole, part])[0].rows
    assert (row.value, row.others["told"]) == (0.5, 0.5)
    (row,) = rank([part])[0].rows
    assert (row.value, row.others) == (None, {})


def test_a_row_says_where_its_runs_were_asked_other_items():
    found = [a_record(seed=seed) for seed in (0, 1)]
    for record in found:
        record.protocol = {**record.protocol, "items": f"digest{record.seed}"}
    (row,) = rank(found)[0].rows
    assert row.note == "runs were asked other items"
    (row,) = rank([found[0], found[0]])[0].rows  # read twice, from a copy
    assert row.note == ""


def test_a_row_says_where_its_runs_had_more_or_fewer_training_images():
    found = [a_record(seed=seed, fold=fold) for seed in (0, 1) for fold in (0, 1)]
    for record in found:
        record.protocol = {**record.protocol, "fields": {"folds": 2}}
        record.data = {**record.data, "train_ids": (90, 1000)[record.fold]}
    (row,) = rank(found)[0].rows
    assert row.note == ""  # folds may have other images
    found[3].data["train_ids"] = 1010
    (row,) = rank(found)[0].rows
    assert row.note == "runs were trained on 1000 or 1010 images"


def test_a_row_without_seeds_may_take_its_folds_from_several(tmp_path):
    """Jobs end in any order, and the newest of each fold counts."""
    runs = []
    for seed, fold, day in ((0, 0, 2), (0, 1, 1), (1, 0, 1), (1, 1, 2), (0, 2, 1), (1, 2, 2)):
        fields = {"name": "strict", "hash": "01234567", "fields": {"folds": [["a"], ["b"], ["c"]]}, **TESTED}
        record = a_record("prototype", seed, fold=fold, protocol=fields, id=f"{seed}{fold}")
        record.time, record.config["method"]["trains"] = f"2026-01-0{day}T00:00:00+00:00", False
        record.backbone = {"name": "resnet18", "weights": "w.safetensors"}
        runs.append((record, counts_of(right_of_ten(2 + 3 * fold), fold=fold, seed=seed)))
    counted = kept(tmp_path, *runs)
    (row,) = counted.tables()[0].rows
    assert row.seeds == [] and row.low is not None and counted.faults == []


def test_a_score_that_is_not_that_of_its_counts_is_not_tested(tmp_path):
    records = [a_record("best", value=0.9), a_record("worse", value=0.8)]
    counted = kept(tmp_path, *((record, counts_of(uneven(n))) for n, record in enumerate(records)))
    records[0].metrics["mIoU"]["value"] = 0.99
    (table,) = counted.tables()
    best, worse = table.rows
    assert (best.value, best.low, best.high) == (0.99, None, None) and worse.low is not None
    assert (best.note, worse.note) == ("counts give another score", "")
    assert counted.with_significance(table).rows[1].against_best is None
    assert f"{records[0].id}: mIoU is 0.9900 by its record, " in counted.faults[0]


@pytest.mark.parametrize(("changed", "faults"), [(1e-3, 1), (-1e-3, 1), (1e-9, 0)])
def test_an_edit_of_a_tenth_of_a_point_is_a_fault_and_rounding_is_not(tmp_path, changed, faults):
    record = a_record()
    counted = kept(tmp_path, (record, counts_of(uneven(0))))
    record.metrics["mIoU"]["value"] += changed
    (row,) = counted.tables()[0].rows
    assert len(counted.faults) == faults and (row.low is None) == bool(faults)


def test_counts_that_give_no_score_are_not_those_of_a_record_that_has_one(tmp_path):
    record = a_record(value=0.9)
    nothing = counts_of({f"{i}": [[0, 0], [0, 0]] for i in range(8)})
    nothing.save(tmp_path / record.id / "counts.npz")
    counted = Counted([(record, tmp_path / record.id)])
    (row,) = counted.tables()[0].rows
    assert (row.low, row.high, row.note) == (None, None, "counts give another score")
    assert counted.faults == [f"{record.id}: mIoU is 0.9000 by its record, nan by its counts"]


@pytest.mark.parametrize(("place", "value"), [(6, 1), (8, 99)], ids=["encrypted", "compressed otherwise"])
def test_an_archive_that_cannot_be_read_stops_no_leaderboard_and_is_not_replaced(tmp_path, place, value):
    record, archive = a_record(), tmp_path / "counts.zip"
    with zipfile.ZipFile(archive, "w") as whole:
        whole.writestr(f"{record.id}-01234567.npz", b"counts")
    content = bytearray(archive.read_bytes())
    content[place] = content[content.find(b"PK\x01\x02") + place + 2] = value
    archive.write_bytes(content)
    counted = Counted([(record, tmp_path)])
    assert counted.tables()[0].rows[0].low is None
    assert counted.faults[0].startswith(f"{archive}: damaged counts of {record.id}-01234567.npz (")
    for damaged in (bytes(content), b"PK"):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match=r"counts\.zip: damaged .*; repair or remove it, copying would lose it"):
            collect(in_study(record), tmp_path)
        assert archive.read_bytes() == damaged


EDITED = {"metrics": {"mIoU": {"value": 0.9}}}
ELSEWHERE = {"data": {"name": "animals", "classes": CLASSES, "val_fingerprint": "beef"}}


@pytest.mark.parametrize("changes", [EDITED, ELSEWHERE], ids=["edited", "scored on other labels"])
def test_copies_of_a_run_that_differ_are_not_made_one(tmp_path, changes):
    first, second = a_record(), a_record(**changes)
    notes = [row.note for table in rank([first, second]) for row in table.rows]
    assert notes == (["records of one run differ"] if changes is EDITED else ["", ""])
    places = [(first, tmp_path / "one"), (second, tmp_path / "two")]
    with pytest.raises(DataError, match=rf"two: run {first.id} has other scores or labels than in .*one; keep one"):
        collect(places, tmp_path / "study")
    assert not (tmp_path / "study" / "records.jsonl").exists()
    assert collect([places[0], (a_record(), tmp_path / "two")], tmp_path / "study").exists()


def test_damaged_counts_are_named_and_missing_ones_are_not(tmp_path):
    runs = [(a_record(name), counts_of(uneven(n))) for n, name in enumerate("abc")]
    for record, _ in runs:
        record.metrics["mIoU"] |= {"low": 0.1, "high": 0.9}
    counted = kept(tmp_path, *runs)
    (tmp_path / runs[0][0].id / "counts.npz").unlink()
    damaged = tmp_path / runs[1][0].id / "counts.npz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    ends = {row.method: (row.low, row.high) for row in counted.tables()[0].rows}
    assert ends["a"] == (0.1, 0.9) and ends["b"] == (None, None)
    (fault,) = counted.faults
    assert fault.startswith(f"{damaged}: no counts of images")


def test_supervision_then_score_order_the_rows():
    rows = rank(a_mixture())[0].rows
    assert [(row.supervision, row.label) for row in rows] == [
        ("image_level", "sec"),
        ("few_shot", "hsnet"),
        ("few_shot", "panet"),
        ("full", "unet"),
        ("full", "fcn8s loss=cross_entropy"),
        ("full", "fcn8s loss=dice"),
    ]


def test_folds_are_averaged_only_when_all_are_there():
    rows = {row.method: row for row in rank(a_mixture())[0].rows}
    assert rows["hsnet"].value == pytest.approx(np.mean([0.45, 0.46]))
    assert rows["hsnet"].scores == pytest.approx([0.45, 0.46])
    assert (rows["hsnet"].folds, rows["hsnet"].note) == (4, "")
    assert (rows["panet"].value, rows["panet"].note) == (None, "folds missing: seed 0: 3")
    fields = {"name": "episodic", "hash": "01234567", "fields": {"folds": 3}}
    three = [a_record("panet", value=0.1 * f, fold=f, protocol=fields) for f in range(3)]
    assert rank(three)[0].rows[0].value == pytest.approx(0.1)


def test_unfinished_runs_are_listed_and_never_ranked():
    tables = rank(a_mixture())
    assert [(run.method, run.seed, run.reason) for run in tables[0].unranked] == [
        ("segnet", 0, "DataError: x.png: value 37"),
        ("segnet", 1, "interrupted"),
        ("segnet", 2, "no mIoU"),
    ]
    assert [run.run for run in tables[-1].unranked] == ["early"]
    assert all(row.method != "segnet" for table in tables for row in table.rows)


def test_a_repeated_seed_counts_once_by_its_latest_run():
    old = a_record(value=0.1, id="old")
    new = replace(a_record(value=0.2, id="new"), time="2026-02-01T00:00:00+00:00")
    row = rank([new, old])[0].rows[0]
    assert (row.value, row.runs, row.scores) == (0.2, ["new"], [0.2])
    assert row.note == "1 older repeat not counted"
    old.config["pool_seed"], new.config["pool_seed"] = 0, 1
    note = "1 older repeat not counted, of other labels: give each draw a seed of its own"
    assert rank([new, old])[0].rows[0].note == note


def test_runs_on_parents_of_other_settings_are_rows_of_their_own():
    found = []
    for alpha in (0.3, 1.2):
        for seed in (0, 1):
            cam = a_record("puzzle_cam", seed=seed, hash="seeds", id=f"cam-{alpha}-{seed}")
            cam.config["method"]["alpha"] = alpha
            net = a_record(
                seed=seed, value=alpha / 4, parents=[cam.id], lineage=["puzzle_cam"], id=f"net-{alpha}-{seed}"
            )
            found += [cam, net]
    nets = rank(found)[0]
    assert [(row.label, row.seeds, row.note) for row in nets.rows] == [
        ("fcn8s from puzzle_cam parent.method.alpha=1.2", [0, 1], ""),
        ("fcn8s from puzzle_cam parent.method.alpha=0.3", [0, 1], ""),
    ]
    again = replace(found[-1], parents=[found[-1].id], id="again")
    assert [row.note for row in rank([*found, again])[0].rows] == ["1 older repeat not counted", ""]


def test_runs_whose_parents_are_not_at_hand_stand_with_those_whose_parents_are():
    cams = [a_record("cam", seed=seed, hash="seeds", id=f"cam-{seed}") for seed in (0, 1)]
    nets = [
        a_record(seed=seed, value=0.2, parents=[cam.id], lineage=["cam"], id=f"net-{seed}")
        for seed, cam in enumerate(cams)
    ]
    for record, pool in zip([*cams, *nets], (30, 100, 30, 100), strict=True):
        record.config["pool"] = pool
    both = [
        replace(nets[0], seed=1, id="net-0-1", parents=["gone"]),
        replace(nets[1], id="net-1-0", parents=["gone"], seed=0),
    ]
    note = "what 1 of 2 runs build on is not at hand"
    assert [(row.label, row.seeds, row.note) for row in rank([*nets, *both, *cams])[0].rows] == [
        ("fcn8s from cam pool=100", [0, 1], note),
        ("fcn8s from cam pool=30", [0, 1], note),
    ]
    again = [replace(net, parents=[net.id], id=f"again-{net.id}", shots=1) for net in [*nets, *both]]
    assert [(row.label, row.note) for row in rank([*nets, *both, *again, *cams])[0].rows if row.shots] == [
        ("fcn8s from cam pool=100", note),
        ("fcn8s from cam pool=30", note),
    ]
    other = a_record("cam", hash="seeds", id="other")
    other.config |= {"method": {"alpha": 1}, "pool": 30}
    on = replace(nets[0], id="on", seed=2, parents=["other"])
    assert [(row.label, row.seeds) for row in rank([*nets[:1], *both[:1], on, *cams, other])[0].rows] == [
        ("fcn8s from cam parent.method.alpha=1", [2]),
        ("fcn8s from cam parent.method.alpha=null", [0]),
        ("fcn8s from cam parent.method.alpha=unknown", [1]),
    ]


def test_five_seeds_are_covered_by_an_interval_or_told_one_by_one(tmp_path):
    def runs(method, count, right):
        return [(a_record(method, seed), counts_of(right_of_ten(right + seed), seed=seed)) for seed in range(count)]

    with kept(tmp_path / "few", *runs("fcn8s", 4, 5), *runs("segnet", 3, 2)) as few:
        assert title_of(few.tables()[0]).startswith("Paired bootstrap over images, semantic")
    with kept(tmp_path / "many", *runs("fcn8s", 5, 5), *runs("segnet", 3, 2)) as many:
        (table,) = many.tables()
        five, three = table.rows
        title = "Paired bootstrap over images, and over seeds of rows with 5 or more, semantic"
        assert title_of(table).startswith(title)
        assert five.low < five.value and ", " not in ranking(five, table.score).partition("]")[2]
        assert ranking(three, table.score).count(",") == 3  # of the interval, and of its seeds
        bare = replace(five, low=None, high=None)
        assert ranking(bare, table.score) == f"{100 * five.value:.2f} ({seeds(five, table.score)})"


def test_a_row_may_be_named_by_some_of_its_settings(tmp_path):
    found = []
    for loss, size, right in (("dice", 256, 2), ("dice", 512, 4), ("focal", 256, 6), ("focal", 512, 9)):
        record = a_record(id=f"{loss}-{size}", loss=loss, value=right / 10)
        record.config["size"] = size
        found.append((record, counts_of({"image": [[9, 0], [9 - right, right]]})))
    found = kept(tmp_path, *found)
    (table,) = rank(found.records)
    (narrow,) = rank([record for record in found.records if record.config["size"] == 256])
    assert "fcn8s loss=dice size=512" in [row.label for row in table.rows]
    difference = 50 * (9 / 9 + 9 / 9) - 50 * (9 / 14 + 4 / 9)
    line = comparisons(table, ["fcn8s size=512 loss=focal:fcn8s loss=dice size=512"], found).splitlines()[-1]
    assert line.split(" | ")[2] == f"+{difference:.2f}"
    for pair in ("fcn8s loss=focal size=512:fcn8s loss=dice", "fcn8s size=1024:fcn8s loss=dice size=512"):
        with pytest.raises(ConfigError, match=f"compare={pair}: expected FIRST:SECOND"):
            comparisons(table, [pair], found)  # two rows fit, and none
    assert pairs_of([narrow, table], ["fcn8s size=512 loss=focal:fcn8s size=512 loss=dice"])[0] == []


def test_runs_of_other_folds_scored_without_folds_are_rows_of_their_own():
    trained = [a_record(seed=seed, value=0.5 + fold / 10) for fold in (0, 1) for seed in (0, 1)]
    for number, record in enumerate(trained):
        record.id, record.config["fold"] = str(number), number // 2
    (table,) = rank(trained)
    assert [(row.label, row.seeds, row.note) for row in table.rows] == [
        ("fcn8s fold=1", [0, 1], ""),
        ("fcn8s fold=0", [0, 1], ""),
    ]


def test_settings_tell_rows_apart_but_places_and_workers_do_not():
    def configured(seed, **config):
        return a_record(seed=seed, config={"seed": seed, **config})

    same = [configured(s, data={"root": f"/disk{s}"}, loader={"workers": s}, runs=f"r{s}") for s in range(2)]
    assert [row.label for row in rank(same)[0].rows] == ["fcn8s"]
    longer = configured(0, trainer={"epochs": 20}, data={"root": "/disk0"})
    labels = [row.label for row in rank([*same, longer])[0].rows]
    assert sorted(labels) == ["fcn8s trainer.epochs=20", "fcn8s trainer.epochs=null"]
    tagged = [a_record(tag="a"), a_record(seed=1, tag="b")]
    assert [row.label for row in rank(tagged)[0].rows] == ["fcn8s [a]", "fcn8s [b]"]


@pytest.mark.parametrize(
    ("column", "changes"),
    [
        ("selection", {"label_access": {"labels": "masks", "selection": "oracle"}}),
        ("supervision", {"supervision": "few_shot"}),
    ],
)
def test_runs_of_other_selection_or_supervision_are_rows_of_their_own(column, changes):
    plain, other = a_record(), a_record(seed=1, value=0.7, **changes)
    (table,) = rank([plain, other])
    found = {(getattr(row, column), row.value, len(row.runs)) for row in table.rows}
    said = {"selection": ("fixed", "oracle"), "supervision": ("full", "few_shot")}[column]
    assert found == {(said[0], 0.5, 1), (said[1], 0.7, 1)}


def test_a_key_that_came_later_does_not_split_a_row():
    old, new, other = (a_record(seed=seed) for seed in range(3))
    new.config["loader"] = {"augment": {"extra": []}}
    other.config["loader"] = {"augment": {"extra": [{"name": "GaussianBlur"}]}}
    (table,) = rank([old, new])
    (row,) = table.rows
    assert len(row.runs) == 2
    (table,) = rank([old, new, other])
    assert sorted(len(row.runs) for row in table.rows) == [1, 2]


def test_rows_of_one_name_say_which_labels_they_had():
    def learnt(labels, **more):
        return a_record(label_access={"kind": labels}, **more)

    (table,) = rank([learnt("masks"), learnt("boxes"), learnt("points", tag="clicks")])
    assert sorted(row.label for row in table.rows) == ["fcn8s [clicks]", "fcn8s labels=boxes", "fcn8s labels=masks"]


def test_parts_of_the_videos_are_folds_and_no_settings():
    def part(fold):
        fields = {"name": "p", "hash": "h", "fields": {"folds": 2}}
        return a_record(fold=fold, config={"fold": fold, "data": {"part": fold}}, protocol=fields)

    (table,) = rank([part(0), part(1)])
    (row,) = table.rows
    assert row.folds == 2 and row.label == "fcn8s"


def test_weights_count_by_file_name_wherever_they_lie():
    def loaded(seed, weights):
        return a_record(
            seed=seed, backbone={"name": "r", "weights": weights}, config={"backbone": {"weights": weights}}
        )

    rows = rank([loaded(0, "/here/w.safetensors"), loaded(1, "w.safetensors"), loaded(2, "/here/v.safetensors")])[
        0
    ].rows
    assert sorted((row.pretraining, row.label, row.seeds) for row in rows) == [
        ("v.safetensors", "fcn8s", [2]),
        ("w.safetensors", "fcn8s", [0, 1]),
    ]


def test_settings_that_follow_from_a_name_are_not_repeated():
    rows = rank([a_record(), a_record(loss="dice")])[0].rows
    assert [row.setting for row in rows] == [{"loss.name": "cross_entropy"}, {"loss.name": "dice"}]
    sharper = a_record(loss="dice", seed=1)
    sharper.config["loss"]["gamma"] = 9
    labels = {row.label for row in rank([a_record(), a_record(loss="dice"), sharper])[0].rows}
    assert labels == {
        "fcn8s loss.gamma=13 loss=cross_entropy",
        "fcn8s loss.gamma=4 loss=dice",
        "fcn8s loss.gamma=9 loss=dice",
    }


def test_another_metric_ranks():
    records = [a_record("a", value=0.9), a_record("b", value=0.8)]
    for record, boundary in zip(records, (0.1, 0.2), strict=True):
        record.metrics["boundary_iou"] = {"value": boundary, "low": None, "high": None}
    assert [row.method for row in rank(records, "boundary_iou")[0].rows] == ["b", "a"]
    assert "10.00 |" in markdown(rank(records, "boundary_iou"))


def test_markdown_is_a_table_with_pipes_escaped():
    text = markdown(rank([a_record(tag="x|y"), a_record(seed=1, tag="x|y", value=0.6)]))
    assert text.splitlines()[0] == "### semantic 01234567 on animals feedfeed: 3 classes"
    assert text.splitlines()[2:] == [
        "| supervision | method | backbone | pretraining | selection | mIoU | seeds | parameters | train s | images/s "
        "| peak MB |",
        "| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| full | fcn8s [x\\|y] | resnet18 | ImageNet | fixed | 55.00 (50.00, 60.00) | 2 | 2.50 M | 100 | 10.0 | 801 |",
    ]


def test_csv_and_json_hold_exact_values():
    tables = rank(a_mixture())
    rows = list(csv.DictReader(io.StringIO(csv_text(tables))))
    fcn = next(row for row in rows if row["setting"] == "loss.name=cross_entropy")
    assert (float(fcn["value"]), fcn["seeds"], fcn["status"]) == (tables[0].rows[4].value, "0 1 2", "finished")
    assert [row["reason"] for row in rows if row["status"] != "finished"].count("boom") == 1
    assert not any("(" in str(cell) for row in rows for cell in row.values())  # no object of ours as Python spells it
    assert json.loads(json_text(tables))[0]["rows"][4]["scores"] == tables[0].rows[4].scores


def test_csv_and_json_say_what_labels_cost():
    """Also where the page folds the column away: its CSV has all columns."""
    known, unknown = ([a_record(name, seed=0), a_record(name, seed=1)] for name in ("known", "unknown"))
    for record, seconds in zip(known, (100.0, 200.0), strict=True):
        record.annotation_cost = {"seconds": seconds, "novel_seconds": seconds / 10}
    unknown[0].annotation_cost = {"seconds": 100.0, "novel_seconds": 10.0}
    tables = rank([*known, *unknown])
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(csv_text(tables)))}
    assert [rows["known"][f"{of}annotation_seconds"] for of in ("", "novel_")] == ["150.0", "15.0"]
    assert [rows["unknown"][f"{of}annotation_seconds"] for of in ("", "novel_")] == ["", ""]
    assert {row["annotation_seconds"] for row in json.loads(json_text(tables))[0]["rows"]} == {150.0, None}


def test_lists_are_cells_of_values_with_spaces_between():
    cam = a_record("cam", hash="seeds", id="cam")
    net = a_record(parents=["cam"], lineage=["irn", "cam"], id="net")
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(csv_text(rank([cam, net]))))}
    assert (rows["cam"]["lineage"], rows["fcn8s"]["lineage"]) == ("", "irn cam")


def test_per_class_means_over_seeds():
    records = [a_record(value=0.5), a_record(seed=1, value=0.7)]
    assert per_class(rank(records)[0], records).splitlines()[-1] == "| fcn8s | resnet18 | 60.0 | 70.0 | 80.0 |"


def test_comparisons_read_the_counts_of_runs(tmp_path):
    better, worse = a_record("better", value=0.9), a_record("worse", value=0.8)
    counted = kept(tmp_path, (better, counts_of(right_of_ten(9))), (worse, counts_of(right_of_ten(5))))
    (table,) = counted.tables()
    difference = 50 * (9 / 10 + 9 / 10) - 50 * (9 / 14 + 5 / 10)
    expected = f"| better | worse | +{difference:.2f} | [+{difference:.2f}, +{difference:.2f}] | < 0.001 |"
    assert comparisons(table, ["better:worse"], counted).splitlines()[-1] == expected
    for pair in ("better:other", "better"):
        with pytest.raises(
            ConfigError, match=f"compare={pair}: expected FIRST:SECOND.*better@resnet18, worse@resnet18"
        ):
            comparisons(table, [pair], counted)


def test_a_row_that_is_called_so_in_full_goes_before_those_that_say_more(tmp_path):
    plain, tagged = a_record("plain"), a_record("tagged", tag="longer")
    plain.method = tagged.method = "fcn8s"
    counted = kept(tmp_path, (plain, counts_of(right_of_ten(9))), (tagged, counts_of(right_of_ten(5))))
    (table,) = counted.tables()
    line = comparisons(table, ["fcn8s:fcn8s [longer]"], counted).splitlines()[-1]
    assert line.startswith("| fcn8s | fcn8s [longer] |")


def test_rows_are_told_apart_by_any_of_their_columns_and_names_may_hold_colons(tmp_path):
    runs = []
    for number, (pretraining, selection) in enumerate((("ImageNet", "fixed"), ("none", "fixed"), ("none", "held_out"))):
        record = a_record("net", id=f"net{number}", tag="at 1:1")
        record.backbone = {"name": "hub:resnet18", "pretraining": pretraining}
        record.label_access = {"labels": "masks", "selection": selection}
        runs.append((record, counts_of(right_of_ten(5 + number))))
    counted = kept(tmp_path, *runs)
    (table,) = counted.tables()
    names = [f"net [at 1:1]@hub:resnet18@{rest}" for rest in ("ImageNet", "none@fixed", "none@held_out")]
    first, second = (next(row for row in table.rows if row.runs == [run]) for run in ("net0", "net1"))
    difference = f"| {100 * counted.compare(table, first, second).difference:+.2f} |"
    for pair in (":".join(names[:2]), "net@ImageNet:net@none@fixed", "net [at 1:1]@ImageNet:net@fixed@none"):
        assert difference in comparisons(table, [pair], counted)
    with pytest.raises(ConfigError) as error:
        comparisons(table, ["net:net@ImageNet"], counted)
    assert {*str(error.value).partition("one of the rows ")[2].split(", ")} == {*names}


def test_several_comparisons_of_a_table_are_adjusted_for_their_number(tmp_path):
    runs = [(a_record(name), counts_of(uneven(n))) for n, name in enumerate("abc")]
    counted = kept(tmp_path, *runs)
    (table,) = counted.tables()
    alone = compare(runs[0][1], runs[1][1], MEAN_IOU).p_value
    both = comparisons(table, ["a:b", "a:a@resnet18"], counted).splitlines()
    assert both[2].endswith(f"| {min(1, 2 * alone):.3f} |") and both[3].endswith("| 1.000 |")


def test_pairs_go_to_the_tables_that_hold_both_rows():
    other = {"name": "strict", "hash": "89abcdef", "fields": {}}
    tables = rank([a_record("a"), a_record("b"), a_record("c", protocol=other), a_record("a", protocol=other)])
    given = pairs_of(tables, ["a:b", "c:a@resnet18", "a:x"])
    holds = {tuple(sorted(row.method for row in table.rows)): pairs for table, pairs in zip(tables, given, strict=True)}
    assert "a:x" in given[0]  # which fails there, with the rows there are
    assert [pair for pair in holds["a", "b"] if pair != "a:x"] == ["a:b"]
    assert [pair for pair in holds["a", "c"] if pair != "a:x"] == ["c:a@resnet18"]


def test_rows_are_compared_with_the_best_where_there_are_counts(tmp_path):
    records = [a_record("best", value=0.9), a_record("worse", value=0.8), a_record("uncounted", value=0.4)]
    counted = kept(tmp_path, (records[0], counts_of(right_of_ten(9))), (records[1], counts_of(right_of_ten(5))))
    counted = Counted([*counted.found, (records[2], tmp_path / "nowhere")])
    table = counted.with_significance(counted.tables()[0])
    best, worse, uncounted = table.rows
    difference = 50 * (9 / 14 + 5 / 10) - 90
    assert best.against_best is None and uncounted.against_best is None
    assert 100 * worse.against_best.difference == pytest.approx(difference)
    lines = markdown([table]).splitlines()
    assert "| against the best |" in lines[2]
    assert f"| {difference:.1f} [{difference:.1f}, {difference:.1f}], p < 0.001 |" in lines[5]
    assert "against the best" not in markdown(rank(records))


def of_episodes(metric, statistic, fold=0, **changes):
    """A record of one list of one fold."""
    fields = {"name": metric, "hash": "01234567", "fields": {"folds": [["a"]]}, **declaring(metric, statistic)}
    return a_record(fold=fold, protocol=fields, metrics={metric: {"value": 0.5}}, **changes)


def test_swaps_are_compared_by_answers_that_follow_the_support(tmp_path):
    on_class, on_other = {1: [0, 5, 0], 2: [0, 0, 5]}, {1: [0, 0, 5], 2: [0, 5, 0]}  # painted pixels by true class
    images = {"follows": {}, "half": {}}
    for query in range(6):
        for asked in (1, 2):
            for method, painted in zip(images, (on_class, on_class if asked == 1 else on_other), strict=True):
                matrix = np.diag([9, 5, 5])
                matrix[:, 0] += matrix.diagonal() * [0, 1, 1]
                matrix[[1, 2], [1, 2]] = 0
                matrix[:, asked] = painted[asked]
                images[method][Asked(f"cat, front|{query}", (asked,), "swap")] = matrix
    rule = FromCounts("follows_support", kinds=("swap",))
    runs = [(of_episodes("swap_follows", rule, method=m), counts_of(i, 3, 0)) for m, i in images.items()]
    counted = kept(tmp_path, *runs)
    line = comparisons(counted.tables()[0], ["follows:half"], counted).splitlines()[-1]
    assert line == "| follows | half | +50.00 | [+50.00, +50.00] | < 0.001 |"


def test_more_supports_are_compared_on_the_same_queries(tmp_path):
    runs = []
    for shots, hits, supports in ((1, 5, "s"), (5, 8, "stuvw")):
        fields = {"name": "strict", "hash": f"0123456{shots}", "fields": {"folds": [["a"]]}, **TESTED}
        record = a_record("panet", value=hits / 10, fold=0, shots=shots, protocol=fields, id=f"run{shots}")
        images = {Asked(f"{i}", (1,), supports=tuple(supports)): [[90, 0], [10 - hits, hits]] for i in range(8)}
        runs.append((record, counts_of(images, fold=0)))
    counted = kept(tmp_path, *runs)
    text = supports_compared(counted.tables(), counted)
    difference = 50 * (90 / 92 + 0.8) - 50 * (90 / 95 + 0.5)
    assert f"| strict | panet | 5 | 1 | mIoU | +{difference:.2f} | [+{difference:.2f}, +{difference:.2f}] | <" in text
    assert supports_compared(rank([runs[0][0]]), counted) == ""
    for record in counted.records:  # protocols that differ in more than their supports
        record.protocol["fields"] = {"support_annotation": "mask" if record.shots == 1 else "point"}
    assert supports_compared(counted.tables(), counted) == ""


@pytest.mark.parametrize(
    "changes",
    [{"backbone": {"name": "resnet18", "pretraining": "none"}}, {"config": {"optimizer": {"lr": 0.1}}}],
    ids=["pretraining", "a setting"],
)
def test_more_supports_of_another_network_or_setting_are_not_compared(tmp_path, changes):
    runs = []
    for shots, hits in ((1, 5), (5, 8)):
        fields = {"name": "strict", "hash": f"0123456{shots}", "fields": {}, **TESTED}
        record = a_record("panet", shots=shots, protocol=fields, id=f"run{shots}", **(changes if shots == 5 else {}))
        runs.append((record, counts_of(right_of_ten(hits))))
    counted = kept(tmp_path, *runs)
    assert supports_compared(counted.tables(), counted) == ""


def test_rows_that_differ_in_supports_are_named_by_them(tmp_path):
    runs = []
    for shots, hits in ((1, 5), (5, 8)):
        fields = {"name": "ladder", "hash": "01234567", "fields": {"folds": [["a"]]}, **TESTED}
        record = a_record("panet", value=hits / 10, fold=0, shots=shots, protocol=fields, id=f"run{shots}")
        runs.append((record, counts_of(right_of_ten(hits), fold=0)))
    counted = kept(tmp_path, *runs)
    (table,) = counted.tables()
    assert "| panet@5shot | panet@1shot | +" in comparisons(table, ["panet@5shot:panet@1shot"], counted)
    with pytest.raises(ConfigError, match=r"compare=panet:panet@1shot: expected .*panet@5shot, panet@1shot"):
        comparisons(table, ["panet:panet@1shot"], counted)


@pytest.mark.parametrize(
    ("formula", "difference"), [("empty_answers", "+50.00"), ("painted_share", "-10.00"), ("painted_background", "-10")]
)
def test_negatives_are_compared_by_what_is_painted(tmp_path, formula, difference):
    careful = {f"{i}": [[100 - 20 * (i % 2), 20 * (i % 2)], [0, 0]] for i in range(400)}
    careless = {f"{i}": [[80, 20], [0, 0]] for i in range(400)}
    runs = [
        (of_episodes("negative", FromCounts(formula), method=method), counts_of(images, fold=0))
        for method, images in (("careful", careful), ("careless", careless))
    ]
    counted = kept(tmp_path, *runs)
    line = comparisons(counted.tables()[0], ["careful:careless"], counted).splitlines()[-1]
    assert line.startswith(f"| careful | careless | {difference}") and line.endswith("| < 0.001 |")


def test_a_metric_without_a_paired_test_is_refused(tmp_path):
    runs = [(of_episodes("fb_iou", None, method=m), counts_of({"0": [[1, 0], [0, 1]]}, fold=0)) for m in "ab"]
    counted = kept(tmp_path, *runs)
    with pytest.raises(ConfigError, match=r"compare: no paired test of fb_iou, nor of another score of fb_iou"):
        comparisons(counted.tables()[0], ["a:b"], counted)
    for record, _ in runs:
        record.protocol["scores"].append(Score("area", statistic=FromCounts("painted_share")).plain())
    with pytest.raises(ConfigError, match=r"compare: no paired test of fb_iou, expected metric= area"):
        comparisons(counted.tables("fb_iou")[0], ["a:b"], counted)


def test_what_should_be_small_is_ranked_upwards():
    old = {"protocol": {"name": "negative", "hash": "01234567"}}  # which says nothing of its scores
    values = (("a", 0.4), ("b", 0.1))
    records = [a_record(name, metrics={"negative_area": {"value": value}}, **old) for name, value in values]
    table = rank(records, "negative_area")[0]
    assert [row.method for row in table.rows] == ["b", "a"]
    assert not any(row.others for row in table.rows)  # the score that ranks has its column already


@pytest.mark.parametrize(("formula", "value"), [("mean_iou", np.mean), ("harmonic_mean_iou", lambda x: 2 / sum(1 / x))])
def test_the_test_compares_what_the_table_says(tmp_path, formula, value):
    """Folds are averaged in both, though each has its own groups of classes and one class is missing in a fold."""
    rule = FromCounts(formula, ("seen", "unseen"))
    protocol = {
        "name": "zero_shot",
        "hash": "01234567",
        "fields": {"folds": [["a"], ["b"]]},
        **declaring(statistic=rule),
    }
    runs, means = [], {}
    for method, folds in {"better": [(8, 4), (5, 9)], "worse": [(6, 2), (1, 9)]}.items():
        for fold, hits in enumerate(folds):
            score = float(value(np.array(hits) / 10))  # misses go to the background, so that the IoU is the recall
            means.setdefault(method, []).append(score)
            matrix = [[0, 0, 0], [10 - hits[0], hits[0], 0], [10 - hits[1], 0, hits[1]]]
            groups = {"seen": (1 + fold,), "unseen": (2 - fold,)}
            record = a_record(method, value=score, fold=fold, protocol=protocol)
            runs.append((record, counts_of({f"{i}": matrix for i in range(6)}, 3, fold, **groups)))
    counted = kept(tmp_path, *runs)
    (table,) = counted.tables()
    difference = 100 * (np.mean(means["better"]) - np.mean(means["worse"]))
    assert 100 * (table.rows[0].value - table.rows[1].value) == pytest.approx(difference)
    last = comparisons(table, ["better:worse"], counted).splitlines()[-1]
    assert last.startswith(f"| better | worse | {difference:+.2f} | [{difference:+.2f}, {difference:+.2f}]")
    half = rank([record for record, _ in runs if (record.method, record.fold) != ("worse", 1)])[0]
    with pytest.raises(ConfigError, match="metric=mloU: no run has it, expected one of mIoU"):
        counted.tables("mloU")
    with pytest.raises(ConfigError, match="a row without a seed that has every fold"):
        comparisons(half, ["worse:better"], counted)


@pytest.mark.parametrize("first", ["background", "ground"])
def test_scores_beside_the_ranking_one_have_columns_and_fb_iou_is_pooled_over_folds(first):
    fields = {"name": "strict", "hash": "01234567", "fields": {"folds": [["a"], ["b"]]}}
    runs = []
    for fold, (tp, fp, fn) in enumerate([(10, 0, 10), (30, 20, 0)]):
        record = a_record("sg_one", value=0.5, fold=fold, protocol=fields)
        record.metrics["hard_mIoU"] = {"value": 0.2 + 0.1 * fold, "low": None, "high": None}
        background = {"class": first, "tp": 100, "fp": fn, "fn": fp}
        record.per_class = [background, {"class": "ab"[fold], "tp": tp, "fp": fp, "fn": fn}]
        runs.append(record)
    row = rank(runs)[0].rows[0]
    assert row.others["hard_mIoU"] == pytest.approx(0.25)
    assert row.others["fb_iou_pooled"] == pytest.approx((40 / 70 + 200 / 230) / 2)
    assert "| hard mIoU | fb iou pooled |" in markdown(rank(runs))
    runs[1].per_class[0]["fp"] += 1  # a pixel of another class that was asked for, which has no row
    assert "fb_iou_pooled" not in rank(runs)[0].rows[0].others


def test_slim_records_hold_no_folder_of_the_machine():
    record = a_record(
        status="failed",
        error="Traceback\n  File /home/me/code.py\nDataError: /home/me/data/x.png: value 37, expected 0..6 or 255",
        command="segladder train backbone.weights=/home/me/w.safetensors data.root='../data/voc' -m method=a,b",
        checkpoint={"path": "/home/me/runs/1/weights.pt", "sha256": "ab"},
    )
    record.config |= {
        "runs": "runs/study",
        "weights": "~/w.safetensors",
        "url": "https://example.org/a/b",
        "rate": "a/b",
    }
    small = slim(record)
    assert small.error == "DataError: x.png: value 37, expected 0..6 or 255"
    assert small.command == "segladder train backbone.weights=w.safetensors data.root='voc' -m method=a,b"
    assert small.checkpoint == {"sha256": "ab"}
    assert small.config["weights"] == "w.safetensors"
    assert [small.config[k] for k in ("runs", "url", "rate")] == ["runs/study", "https://example.org/a/b", "a/b"]
    assert "/home" in record.error


def in_folder(folder):
    found, faults = find_records(folder)
    assert faults == []
    return [record for record, _ in found]


def in_study(*records):
    """What `collect` takes: records whose counts are nowhere."""
    return [(record, Path("nowhere")) for record in records]


def test_studies_that_are_copied_at_once_lose_nothing(tmp_path):
    parts = [kept(tmp_path / name, (a_record(name), counts_of(uneven(n)))).found for n, name in enumerate("abcd")]
    with ThreadPoolExecutor() as several:
        list(several.map(lambda part: collect(part, tmp_path / "study"), parts))
    study, _ = find_records(tmp_path / "study")
    assert sorted(record.method for record, _ in study) == list("abcd")
    assert all(Archives().counts(record, folder).images for record, folder in study)


def test_a_study_keeps_the_counts_that_give_every_interval_again(tmp_path):
    runs = [
        (a_record(name), counts_of({Asked(f"{i}", (1,), supports=("s",)): [[9, 1], [i, 9]] for i in range(5)}))
        for name in "ab"
    ]
    runs[1][1].add("5", [[1, 0], [3, 1]])
    runs[0][1].add("5", [[1, 0], [0, 1]])
    counted = kept(tmp_path / "runs", *runs)
    for part in (runs[:1], runs[1:], runs[1:]):
        collect([(record, tmp_path / "runs" / record.id) for record, _ in part], tmp_path / "study")
    study = Counted(find_records(tmp_path / "study")[0])
    assert markdown(study.tables()) == markdown(counted.tables())
    pair = ["a:b"]
    assert comparisons(study.tables()[0], pair, study) == comparisons(counted.tables()[0], pair, counted)
    kept_counts = Archives().counts(runs[0][0], tmp_path / "study")
    assert kept_counts.images == runs[0][1].images and not any(asked.supports for asked in kept_counts.asked)
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == ["counts.zip", "records.jsonl"]
    content = (tmp_path / "study" / "counts.zip").read_bytes()
    collect(study.found, tmp_path / "study")
    assert (tmp_path / "study" / "counts.zip").read_bytes() == content
    with pytest.raises(DataError, match=r"counts\.zip: no counts of c-.*-01234567\.npz"):
        Archives().counts(a_record("c"), tmp_path / "study")


def test_copies_accumulate_and_replace_what_is_there(tmp_path):
    first, second = a_record(error="/home/me/x.py"), a_record(seed=1)
    file = collect(in_study(second, first), tmp_path / "study")
    assert file == tmp_path / "study" / "records.jsonl"
    assert in_folder(tmp_path) == [slim(first), second]
    again, rescored = a_record(seed=1, value=0.6), a_record(seed=1, hash="89abcdef")
    collect(in_study(again, rescored), tmp_path / "study")
    assert in_folder(tmp_path) == [slim(first), again, rescored]
    content = file.read_bytes()
    collect(in_study(*in_folder(tmp_path)), tmp_path / "study")
    assert file.read_bytes() == content


def test_a_resumed_run_replaces_the_copy_from_before_its_protocol_was_known(tmp_path):
    early = a_record(status="failed", protocol={}, metrics={})
    collect(in_study(early, a_record(seed=1)), tmp_path)
    assert in_folder(tmp_path) == [early, a_record(seed=1)]
    collect(in_study(a_record()), tmp_path)
    assert in_folder(tmp_path) == [a_record(), a_record(seed=1)]


def test_copying_refuses_to_lose_a_line_that_it_cannot_read(tmp_path):
    file = collect(in_study(a_record()), tmp_path)
    content = file.read_bytes() + b'{"schema": 4}\n'
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"records\.jsonl:2: schema 4.*copying would lose it"):
        collect(in_study(a_record(seed=1)), tmp_path)
    assert file.read_bytes() == content


def test_lines_and_files_of_older_versions_give_equal_leaderboards(tmp_path):
    records = [*a_mixture()[:5], *a_mixture()[7:]]  # one record of each id
    for number, record in enumerate(records):
        write(record, tmp_path / "loose" / f"{number}.json")
    collect(in_study(*records), tmp_path / "lines")
    assert [path.name for path in (tmp_path / "lines").iterdir()] == ["records.jsonl"]
    expected = rendered(rank(in_folder(tmp_path / "loose")))
    assert rendered(rank(in_folder(tmp_path / "lines"))) == expected
    collect(in_study(*records), tmp_path / "loose")
    assert rendered(rank(in_folder(tmp_path / "loose"))) == expected


def command(*words, folder):
    return subprocess.run(
        [sys.executable, "-m", "segladder.cli", "leaderboard", *words], cwd=folder, capture_output=True, text=True
    )


def test_command_prints_names_faults_and_leaves_no_trace(tmp_path):
    for record in a_mixture():
        write(
            record,
            tmp_path / "runs" / f"{record.id}-{record.protocol.get('hash')}-{record.data.get('val_fingerprint')}",
        )
    (tmp_path / "runs" / "torn").mkdir()
    (tmp_path / "runs" / "torn" / "record.json").write_text("{")
    done = command("format=markdown", "per_class=true", folder=tmp_path)
    assert done.returncode == 0
    assert "skipped runs/torn/record.json: damaged or half-written" in done.stderr
    assert markdown(rank(a_mixture())) in done.stdout
    assert "IoU per class, semantic 01234567 on animals feedfeed" in done.stdout
    assert command("format=json", "out=made/table.json", "copy_to=study", folder=tmp_path).returncode == 0
    assert (tmp_path / "made" / "table.json").read_text() == json_text(rank(a_mixture()))
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["records.jsonl"]
    with (tmp_path / "study" / "records.jsonl").open("a") as lines:
        lines.write('{"schema": 1, "id"')
    copied = command("runs=study", folder=tmp_path)
    assert "unet" in copied.stdout
    count = len({(record.id, record.protocol.get("hash")) for record in a_mixture()})
    assert f"skipped study/records.jsonl:{count + 1}: damaged or half-written" in copied.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "runs", "study"]


def test_command_says_what_is_wrong(tmp_path):
    for words, code, text in [
        (["runs=nowhere"], 1, "nowhere: no such folder"),
        ([f"runs={tmp_path}"], 1, "no record there"),
        (["format=pdf"], 2, "format=pdf: expected one of terminal, markdown, csv, json"),
    ]:
        done = command(*words, folder=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1)
        assert text in done.stderr


def test_report_starts_without_torch():
    script = "import sys; from segladder.commands import leaderboard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (FromCounts("no_such_formula"), "formula no_such_formula: unknown, expected one of"),
        (FromCounts("mean_iou", ("no_such_group",)), "group of classes no_such_group: not in these counts"),
        (FromCounts("harmonic_mean_iou"), "mIoU does not follow from its counts"),
        (FromCounts("F_mean"), "mIoU does not follow from its counts"),
    ],
)
def test_a_score_that_does_not_follow_from_the_counts_stops_no_leaderboard(tmp_path, rule, said):
    """Records and counts may come from strangers, or from a version with other formulas."""
    record = a_record(protocol={"name": "semantic", "hash": "01234567", "fields": {}, **declaring(statistic=rule)})
    other = replace(record, id="other", method="unet")
    counted = kept(tmp_path, (record, counts_of(uneven(0))), (other, counts_of(uneven(1))))
    (table,) = counted.tables()
    assert [row.value for row in counted.with_significance(table).rows] == [0.5, 0.5]
    with pytest.raises(DataError, match=said):
        comparisons(table, ["fcn8s:unet"], counted)


def test_protocols_of_one_name_say_in_their_titles_what_sets_them_apart():
    def asking(protocol_hash, **fields):
        record = a_record(hash=protocol_hash)
        record.protocol["fields"] = {"split": "val", **fields}
        return record

    records = [asking("aaaa", unseen=["cow", "cat"], background=True), asking("bbbb", unseen=["dog"], background=True)]
    first, second = rank(records)
    assert first.title == "semantic aaaa (unseen cow, cat) on animals feedfeed: 3 classes"
    assert f"### {second.title}\n" in markdown([first, second]) and "(unseen dog)" in second.title
    assert "(" not in rank(records[:1])[0].title
    records += [asking("cccc", unseen=["dog"], background=None)]
    assert [table.apart for table in rank(records)] == [
        "background yes; unseen cow, cat",
        "background yes; unseen dog",
        "background none; unseen dog",
    ]
    records[1].data["name"] = "plants"  # where data are others, nothing is to be set apart
    assert [table.apart for table in rank(records[:2])] == ["", ""]


def test_the_archive_of_a_study_is_opened_once_and_closed(tmp_path, monkeypatch):
    runs = [(a_record(name), counts_of(uneven(n))) for n, name in enumerate("abcd")]
    collect(kept(tmp_path / "runs", *runs).found, tmp_path / "study")
    opened = []

    class Watched(zipfile.ZipFile):
        def __init__(self, file, *args, **options):
            super().__init__(file, *args, **options)
            if Path(self.filename or "").name == "counts.zip":
                opened.append(self)

    monkeypatch.setattr(zipfile, "ZipFile", Watched)
    with Counted(find_records(tmp_path / "study")[0]) as study:
        assert all(row.low is not None for row in study.tables()[0].rows)
    assert len(opened) == 1 and opened[0].fp is None
    collect(study.found, tmp_path / "study")
    assert len(opened) == 3  # for what is kept, and for what is added


def test_a_leaderboard_holds_the_counts_of_a_few_runs(tmp_path, monkeypatch):
    runs = [(a_record(f"{n}"), counts_of(uneven(n % 4))) for n in range(12)]
    counted = kept(tmp_path, *runs)
    del runs
    expected = markdown(counted.tables())
    monkeypatch.setattr("segladder.report.counted.HELD", 3)
    with Counted(counted.found) as few:
        del counted
        gc.collect()
        before = sum(isinstance(each, Counts) for each in gc.get_objects())
        assert markdown(few.tables()) == expected
        assert sum(isinstance(each, Counts) for each in gc.get_objects()) <= before + 3


def test_a_user_s_folder_is_called_by_its_name_where_records_say_it():
    old, new = a_record(), a_record(seed=1)
    new.data["title"] = "my cats"
    assert rank([old])[0].title == "semantic 01234567 on animals feedfeed: 3 classes"
    (table,) = rank([old, new])
    assert (table.title, table.data) == ("semantic 01234567 on my cats feedfeed: 3 classes", "animals")
    other = replace(new, data={**new.data, "title": "her cats"})
    assert " on animals " in rank([new, other])[0].title
