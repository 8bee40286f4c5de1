"""A protocol is one file and one yaml: one from outside the package, from training to every report."""

from __future__ import annotations

import pytest

from segladder.report.comparisons import comparisons
from segladder.report.counted import Counted
from segladder.report.leaderboard import rank
from segladder.report.page import page
from segladder.report.record import find_records
from segladder.report.rendering import markdown
from segladder.report.wandb_board import boards
from segladder.runs.scoring import print_scores

FILE = '''
"""How much a dense method paints, whatever is there: a score of its own, a number, and lower is better."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from segladder.metrics.confusion import confusion_matrix
from segladder.metrics.counts import Counts
from segladder.metrics.scores import FromCounts, Score
from segladder.protocols.base import Picture, Protocol, Result, scored
from segladder.protocols.inference import answered, to_pixels


@dataclass(frozen=True)
class PaintProtocol(Protocol):
    supervisions: ClassVar[tuple[str, ...]] = ("full",)
    swept: ClassVar[str] = "margin"

    margins: tuple[float, ...]

    @property
    def scores(self):
        paint = {"unit": "number", "better": "lower", "statistic": FromCounts("painted_share")}
        return (
            Score("paint", "paint per pixel", shown=("summary", "curve"), **paint),
            Score("blank", shown=("table",)),
        )

    @property
    def columns(self):
        return (Score("here", unit="number", better=""),)

    @property
    def ranked_by(self):
        return "paint"

    def logits(self, method, images):
        return method.predict(to_pixels(images, None, method.device))

    def measure(self, scoring):
        counts, leads = Counts(len(scoring.source.classes)), []

        def count(image_id, logits, mask):
            prediction = logits.argmax(0).to("cpu")
            counts.add(image_id, confusion_matrix(prediction, prediction.new_tensor(mask.astype(int)), len(logits)))
            leads.append((logits[1:].amax(0) - logits[0]).cpu().numpy()[mask < 255])

        def answer(ids, images, masks):
            return self.logits(scoring.method, images)

        seconds = answered(scoring, scoring.among(self.split), answer, count, self.name)
        matrices = counts.dense()  # (N, K, K)
        painted = matrices[:, :, 1:].sum((1, 2)) / matrices.sum((1, 2))
        metrics = {"paint": scored(float(painted.mean())), "blank": scored(float((painted == 0).mean()))}
        rows = [
            {"class": name, "here": float(matrices[:, :, k].sum() / matrices.sum())}
            for k, name in enumerate(scoring.source.classes)
        ]
        curve = [{"margin": m, "paint": float(np.mean([(lead > m).mean() for lead in leads]))} for m in self.margins]
        return Result(metrics, rows, counts, predict_seconds=seconds, curve=curve)

    def shown(self, method, source, item, result):
        image, truth = source.pair(item.image)
        prediction = self.logits(method.eval(), [image])[0].argmax(0)
        return Picture(image, truth, prediction.to("cpu").numpy().astype("uint8"), {})
'''
YAML = """
_target_: outside_paint.PaintProtocol
name: paint
dataset: ${data.name}
split: ${data.val_split}
margins: [0.0, 1.0, 2.0]
"""
TINY = [
    *("data.train_size=12", "data.val_size=6", "data.size=64", "backbone.width=8", "loader.batch_size=4"),
    *("loader.workers=0", "trainer.epochs=1", "trainer.progress=false", "trainer.panels=1", "logger=csv"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, segladder):
    """Two runs under a protocol that the package does not know, and where they lie."""
    root = tmp_path_factory.mktemp("outside")
    (root / "conf" / "protocol").mkdir(parents=True)
    (root / "conf" / "protocol" / "paint.yaml").write_text(YAML)
    (root / "outside_paint.py").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        outside = [f"hydra.searchpath=[file://{root / 'conf'}]", "protocol=paint"]
        for method in ("fcn8s", "segnet"):
            folder = f"hydra.run.dir={root / 'runs' / method}"
            assert segladder("train", f"method={method}", *TINY, *outside, folder) == 0
    return root / "runs"


@pytest.fixture(scope="module")
def found(runs):
    return find_records(runs)[0]


@pytest.fixture(scope="module")
def table(found):
    (table,) = rank([record for record, _ in found])
    return table


def test_a_run_leaves_its_curve_and_panels_and_prints_what_is_declared(found, capsys):
    record, folder = found[0]
    assert (folder / "curve.png").exists() and list((folder / "panels").glob("best-1-*.png"))
    print_scores(record, folder)
    printed = capsys.readouterr().out
    assert f"  paint per pixel   {record.metrics['paint']['value']:.2f}\n" in printed
    assert "here" in printed and "IoU" not in printed
    assert "blank" not in printed


def test_the_leaderboard_ranks_the_lowest_first_under_the_label(table):
    values = [row.value for row in table.rows]
    assert len(values) == 2 and values == sorted(values) and values[0] < values[1]
    heading, _, first, _ = markdown([table]).splitlines()[2:6]
    assert "| paint per pixel |" in heading and "| blank |" in heading
    assert f"| {values[0]:.3f} |" in first  # a number, not a percentage


def test_rows_are_compared_by_the_statistic_that_the_score_names(table, found):
    first, second = (row.method for row in table.rows)
    counted = Counted(found)
    line = comparisons(table, [f"{first}:{second}"], counted).splitlines()[-1]
    difference = table.rows[0].value - table.rows[1].value
    assert line.startswith(f"| {first} | {second} | {difference:+.3f} | [")
    best, other = counted.with_significance(table).rows
    assert best.against_best is None and other.against_best.difference > 0


def test_the_page_draws_its_axis_its_sweep_and_its_classes(table, found):
    text = page([table], Counted(found))
    assert "paint per pixel along the margin" in text and "Scores along the margin" in text
    assert "<h3>here of each class" in text
    assert "paint per pixel, %" not in text and "Shares are in percent" in text


def test_the_board_has_its_sweep_and_its_classes(table, found):
    shown = boards([table], [record for record, _ in found])
    key = f"paint-{table.hash}-{table.fingerprint[:8]}"
    assert set(shown) == {f"{key}/leaderboard", f"{key}/per_class", f"{key}/margin"}
    assert shown[f"{key}/per_class"].columns[-1] == "here" and "paint" in shown[f"{key}/leaderboard"].columns
    assert len(shown[f"{key}/margin"].rows) == 6


def test_the_command_compares_and_writes_the_page(runs, segladder, capsys, tmp_path):
    words = [f"runs={runs}", "compare=[fcn8s:segnet]", "per_class=true", "report=html", f"out={tmp_path / 'page.html'}"]
    assert segladder("leaderboard", *words) == 0
    printed = capsys.readouterr().out
    assert (
        "Paired bootstrap over images, paint" in printed
        and "difference in paint per pixel" in printed
        and "here per class, paint" in printed
    )
