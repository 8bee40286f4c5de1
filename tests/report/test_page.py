"""The report page: what records hold stands in it, safely, and nothing outside is needed."""

import base64
import io
import re
from html.parser import HTMLParser

from PIL import Image

from segladder.report.counted import Counted
from segladder.report.page import page
from segladder.report.page.charts import Series, chart
from segladder.report.page.details import dotted
from segladder.report.record import Record, write

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "img", "input", "path", "circle", "rect", "br"}


def a_record(method, value, supervision="full", seconds=3600.0, **changes):
    fields = {
        "id": f"id-{method}",
        "time": "2026-01-01T00:00:00+00:00",
        "status": "finished",
        "command": f"segladder train method={method}",
        "method": method,
        "supervision": supervision,
        "backbone": {"name": "tiny"},
        "protocol": {"name": "cam_seeds", "hash": "01234567"},
        "data": {"name": "shapes", "classes": ["background", "disc"], "val_fingerprint": "feed"},
        "config": {"method": {"name": method, "rates": [1, 2]}, "tag": None},
        "seed": 0,
        "metrics": {"mIoU": {"value": value, "low": value - 0.02, "high": value + 0.03}},
        "per_class": [{"class": "background", "iou": 0.9}, {"class": "disc", "iou": value}],
        "annotation_cost": {"seconds": seconds},
    }
    return Record(**{**fields, **changes})


class Outline(HTMLParser):
    """Elements of a page by tag, and whether each that opens also closes."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag, name):
        return [attributes[name] for found, attributes in self.elements if found == tag and name in attributes]


def rendered(records, folder, budgets=()):
    found = [(record, folder / record.id) for record in records]
    counted = Counted(found)
    return page(counted.tables(), counted, budgets)


def three(folder):
    """Records with a curve, a log of training and panels."""
    curve = [{"threshold": 0.1 * k, "mIoU": 0.05 * k, "over_activation": 0.5} for k in range(1, 6)]
    records = [
        a_record("cam", 0.4, "image_level", 600.0, curve=curve),
        a_record("fcn8s", 0.7),
        a_record("unet", 0.9, seconds=None),
        a_record("segnet", 0.1, status="failed", error="boom", metrics={}),
    ]
    logs = folder / "id-cam" / "logs" / "csv" / "version_0"
    logs.mkdir(parents=True)
    logs.joinpath("metrics.csv").write_text("step,train/loss,x/iou/disc\n1,2.5,\n2,1.5,0.1\n3,1.25,0.2\n4,")
    for name in ("best-1-a.png", "worst-2-b.png", "other.png"):
        panels = folder / "id-cam" / "panels"
        panels.mkdir(exist_ok=True)
        panels.joinpath(name).write_bytes(PIXEL)
    return records


def test_rows_scores_and_runs_stand_in_the_page(tmp_path):
    text = rendered(three(tmp_path), tmp_path)
    outline = Outline(text)
    assert outline.open == []
    rows = re.findall(r'<tr data-supervision="(\w+)" data-labels="(\w+)".*?>(.*?)</tr>', text, re.S)
    assert [(kind, labels) for kind, labels, _ in rows] == [
        ("image_level", "tags"),
        ("full", "masks"),
        ("full", "masks"),
    ]
    assert [re.search(r'scope="row"><a href="#(.*?)">(\w+)', row).groups() for *_, row in rows] == [
        ("row-01234567-id-cam", "cam"),
        ("row-01234567-id-unet", "unet"),
        ("row-01234567-id-fcn8s", "fcn8s"),
    ]
    assert 'data-order="40.0">40.0 [38.0, 43.0]' in rows[0][2]
    assert 'data-order="600.0">10 min' in rows[0][2]
    assert 'data-order="">-' in rows[1][2]
    assert {f"row-01234567-id-{name}" for name in ("cam", "unet", "fcn8s")} <= set(outline.all("details", "id"))
    assert "boom" in text and "method.rates=[1, 2]\n" in text
    assert "<code>segladder train method=cam</code>" in text


def test_everything_leads_to_something(tmp_path):
    outline = Outline(rendered(three(tmp_path), tmp_path))
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in outline.all("a", "href") if link.startswith("#")} <= set(ids)
    named = [name for _, a in outline.elements for name in (a.get("aria-labelledby"),) if name]
    assert set(named) <= set(ids)
    assert all(outline.all("img", "alt"))


def decoded(url):
    """The picture of a data URL."""
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/webp;base64,"))))


def test_panels_curves_and_training_are_drawn(tmp_path):
    text = rendered(three(tmp_path), tmp_path)
    pictures = Outline(text).all("img", "src")
    assert [decoded(url).size for url in pictures] == [(1, 1), (1, 1)]
    charts = re.findall(r'role="(?:img|group)" aria-label="(.*?)"', text)
    assert charts == [
        "What labels buy: mIoU against the work of annotators",
        "mIoU along the threshold",
        "Scores along the threshold",
        "Training",
    ]


def test_panels_keep_to_their_room(tmp_path, monkeypatch):
    records = three(tmp_path)
    monkeypatch.setattr("segladder.report.page.whole.MOST_BYTES", len(PIXEL) + 3)
    text = rendered(records, tmp_path)
    assert len(Outline(text).all("img", "src")) == 1
    assert "best 1: a" in text


def test_runs_beyond_the_limit_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("segladder.report.page.whole.MOST_RUNS", 2)
    records = [a_record("a", 0.5, seed=s, id=f"a{s}") for s in range(3)] + [a_record("b", 0.6)]
    text = rendered(records, tmp_path)
    shown = [i for i in Outline(text).all("section", "id") if i.startswith("run-")]
    assert shown == ["run-01234567-id-b", "run-01234567-a0"]
    assert "2 further runs" in text


def test_rows_that_a_chart_or_a_heat_map_leaves_out_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("segladder.report.page.whole.MOST_CLASS_ROWS", 1)
    monkeypatch.setattr("segladder.report.page.drawn.MOST_LINES", 1)
    sweep = [{"threshold": 0.25, "mIoU": 0.5}, {"threshold": 0.5, "mIoU": 0.25}]
    text = rendered([a_record("a", 0.5, curve=sweep), a_record("b", 0.6, curve=sweep)], tmp_path)
    assert "1 further row in the CSV." in text and "mIoU along the threshold, the best 1 of 2 rows" in text


def test_what_records_say_is_never_markup(tmp_path):
    evil = "<script>alert(1)</script>\"'&"
    record = a_record(evil, 0.5, tag=evil, command=evil, config={evil: evil}, device=evil)
    record.per_class[1]["class"] = evil
    failed = a_record(evil, 0.5, id="f", status="failed", error=evil)
    text = rendered([record, failed], tmp_path)
    assert "alert(1)</script>" not in text
    outline = Outline(text)
    assert outline.open == []
    assert sum(tag == "script" for tag, _ in outline.elements) == 1


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    text = rendered(three(tmp_path), tmp_path)
    outline = Outline(text)
    assert all(url.startswith("data:") for tag, a in outline.elements for url in [a.get("src")] if url)
    assert not any(tag in ("link", "iframe", "object", "base") for tag, _ in outline.elements)
    assert "url(" not in text and "@import" not in text and "fetch(" not in text
    (policy,) = (a["content"] for tag, a in outline.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and "http" not in policy


def test_published_numbers_stand_apart(tmp_path):
    text = rendered(three(tmp_path), tmp_path)
    board, other = text.split("Published under other conditions")
    assert "61.9" in other and "unverified" in other and "61.9" not in board


def test_no_records_that_rank_make_a_page_too(tmp_path):
    text = rendered([Record(id="early", status="failed", error="boom")], tmp_path)
    assert Outline(text).open == [] and "boom" in text


def test_config_is_text_by_dotted_key():
    assert list(dotted({"a": {"b": None, "c": {}}, "d": [1, "x"]})) == [
        ("a.b", "null"),
        ("a.c", "{}"),
        ("d", "[1, 'x']"),
    ]


def test_a_chart_puts_values_where_its_ticks_are():
    lines = [[(0.0, 20.0), (200.0, 60.0)], [(100.0, 0.0), (400.0, 40.0)]]
    drawn = chart("t", [Series(str(n), points) for n, points in enumerate(lines)], "x", "y")
    x = {text: at for at, text in drawn.x_ticks}
    y = {text: at for at, text in drawn.y_ticks}
    assert list(x) == ["0", "100", "200", "300", "400"] and list(y) == ["0", "20", "40", "60"]
    assert [one.path for one in drawn.drawn] == [
        f"M{x['0']} {y['20']}L{x['200']} {y['60']}",
        f"M{x['100']} {y['0']}L{x['400']} {y['40']}",
    ]
    assert (x["0"], x["400"], y["0"], y["60"]) == (drawn.left, drawn.right, drawn.bottom, drawn.top)


def test_folds_stand_alone_where_no_row_has_them_all(tmp_path):
    fields = {"name": "strict", "hash": "01234567", "fields": {"folds": [["a"], ["b"]]}}
    records = [a_record("sg_one", 0.4, "few_shot", fold=0, protocol=fields)]
    text = rendered(records, tmp_path)
    whole, alone = text.split("</section>")[:2]
    assert "folds missing: seed 0: 1" in whole and "40.0 [" not in whole
    assert "Fold 0 alone" in alone and "40.0 [38.0, 43.0]" in alone and "<details" in alone
    other = a_record("sg_one", 0.6, "few_shot", fold=1, protocol=fields, id="second")
    assert "alone: " not in rendered([*records, other], tmp_path)


def test_a_ladder_is_summed_up_in_words(tmp_path):
    fields = {"name": "ladder", "hash": "01234567"}
    cost = {"seconds": 3600.0, "novel_seconds": 0.0}
    floor = a_record("spnet", 0.2, "zero_shot", protocol=fields, annotation_cost=cost)
    full = a_record("fcn8s", 0.7, protocol=fields, annotation_cost={"seconds": 9000.0, "novel_seconds": 5400.0})
    text = rendered([floor, full], tmp_path)
    assert "The cheapest here, spnet, names, reaches 20.0 [18.0, 23.0] % without a label of the novel classes." in text
    assert 'aria-label="What labels of novel classes buy' in text and "Which label to buy" not in text
    text = rendered([floor, full], tmp_path, budgets=["1min", "2h"])
    lines = re.findall(
        r'<tr><th scope="row">(.*?)</th><td>(.*?)</td>', text.partition("<h3>Which label to buy</h3>")[2]
    )
    assert lines[:2] == [("1min", "spnet, names"), ("2h", "fcn8s, masks")]


def test_a_long_line_is_thinned_and_keeps_its_ends():
    drawn = chart("t", [Series("s", [(k, 1.0) for k in range(1001)])], "x", "y")
    places = drawn.drawn[0].path.removeprefix("M").split("L")
    assert len(places) <= 252
    assert places[0].startswith(f"{drawn.left}.0 ") and places[-1].startswith(f"{drawn.right}.0 ")


def test_the_command_writes_a_page_and_prints_the_tables(tmp_path, segladder, capsys):
    for record in three(tmp_path):
        write(record, tmp_path / "runs" / record.id)
    assert segladder("leaderboard", f"runs={tmp_path / 'runs'}", "report=html", f"out={tmp_path / 'p.html'}") == 0
    printed = capsys.readouterr()
    assert "fcn8s" in printed.out and f"wrote {tmp_path / 'p.html'}" in printed.out
    assert "row-01234567-id-cam" in (tmp_path / "p.html").read_text()
    assert segladder("leaderboard", f"runs={tmp_path / 'runs'}", "report=pdf") == 2
    assert "report=pdf: expected html or null" in capsys.readouterr().err
