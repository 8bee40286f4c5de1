"""Protocols declare what they measure: the declarations fit together, and results hold nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from ladder_data import FOLDS, write_ladder
from test_ladder import NearestColour, SupportColour
from test_ladder import protocol as ladder

from segladder.configuration import choices
from segladder.data.sources.folder import Folder
from segladder.metrics.bootstrap import estimate
from segladder.metrics.declaration import Declaration
from segladder.metrics.formulas import FORMULAS
from segladder.metrics.pooling import POOLED
from segladder.protocols.base import Scoring
from segladder.protocols.semantic import SemanticProtocol
from segladder.runs import build
from segladder.runs.composition import composed

NAMES = choices("protocol")
DATA = {"voc2012": "voc", "davis2016": "davis", "davis2016_automatic": "davis"}  # the others score any data


def configured(name):
    return build.protocol(composed([f"protocol={name}", f"data={DATA.get(name, 'shapes')}"]))


@pytest.mark.parametrize("name", NAMES)
def test_a_declaration_fits_together_and_survives_its_record(name):
    protocol = configured(name)
    names = [score.name for score in protocol.scores]
    assert len(set(names)) == len(names) and protocol.ranked_by in names
    assert set(protocol.ladder or ()) <= set(names)
    assert {score.statistic.formula for score in protocol.scores if score.statistic} <= set(FORMULAS)
    assert {score.over_folds for score in protocol.scores} <= {"mean", *POOLED}
    assert Declaration.read(protocol.described()) == protocol.declaration


@dataclass(frozen=True)
class Careless(SemanticProtocol):
    """Measures what it does not declare."""

    def measure(self, scoring: Scoring):
        result = super().measure(scoring)
        result.metrics["surprise"] = {"value": 1.0, "low": None, "high": None}
        return result


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Folder(write_ladder(tmp_path_factory.mktemp("data")), folds=FOLDS)


def semantic(kind=SemanticProtocol):
    fields = {"name": "toy", "dataset": "folder", "split": "val", "classes": None, "other_classes": "ignore"}
    rest = {"input_size": None, "scales": (1.0,), "flip": False, "absent": "skip", "boundary_width": 0.02}
    return kind(**fields, **rest, bootstrap=20)


def test_a_score_that_is_not_declared_is_refused(source):
    with pytest.raises(ValueError, match="protocol toy: surprise is not declared, expected it among its `scores`"):
        semantic(Careless).score(NearestColour(), source)


@pytest.mark.parametrize(
    ("protocol", "method"),
    [
        (semantic(), NearestColour()),
        (ladder(), NearestColour()),
        (ladder(supervision="few_shot"), SupportColour()),
        (ladder().dense, NearestColour("zero_shot")),
    ],
    ids=["semantic", "ladder", "ladder by episodes", "zero-shot"],
)
def test_the_counts_kept_give_the_tested_scores_again(protocol, method, source):
    result = protocol.score(method, source)
    tested = [score for score in protocol.scores if score.statistic]
    assert tested
    for score in (score for score in tested if score.name in result.metrics):
        again = estimate(result.counts, score.statistic, protocol.bootstrap)
        assert again == pytest.approx(tuple(result.metrics[score.name].values()), abs=1e-12, nan_ok=True)


def test_what_an_oracle_selects_by_is_higher_where_it_is_better(source):
    @dataclass(frozen=True)
    class Missed(SemanticProtocol):
        ranked_by = "under_activation"

    protocol, method = semantic(Missed), NearestColour()
    value = protocol.score(method, source).metrics["under_activation"]["value"]
    assert protocol.selection_score(method, source, None, 8) == -value < 0
