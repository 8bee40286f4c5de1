"""The list of published numbers: complete rows, and protocols that exist."""

import csv
from importlib.resources import files

import pytest

from segladder.configuration import choices
from segladder.report.published import Published, published

LINES = list(csv.DictReader(files("segladder.report").joinpath("published.csv").read_text().splitlines()))
PROTOCOLS = choices("protocol")


def test_a_protocol_gets_its_own_rows_in_the_order_of_the_list():
    assert published("panet")[0] == Published(
        protocol="panet",
        method="panet",
        network="VGG-16",
        data="PASCAL-5i, four folds",
        shots=1,
        metric="mIoU",
        percent=48.1,
        source="Wang et al. 2019, abstract",
        url="https://arxiv.org/abs/1908.06391",
        verified=True,
    )
    assert [row.shots for row in published("panet")] == [1, 5]
    assert published("strict") == []


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line['protocol']}-{line['method']}-{line['percent']}")
def test_rows_are_whole_and_name_a_protocol_of_ours(line):
    assert line["protocol"] in PROTOCOLS
    assert 0 < float(line["percent"]) < 100
    assert line["url"].startswith("https://") and line["source"] and line["verified"] in ("yes", "no")
    assert any(row.percent == float(line["percent"]) for row in published(line["protocol"]))
