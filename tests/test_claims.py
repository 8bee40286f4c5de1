"""What pages say of studies stands in the tables of these: each row of docs/claims.md, and intervals in prose."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUDIES = sorted(ROOT.glob("experiments/*/README.md"))
OTHERS = [ROOT / name for name in ("README.md", "experiments/README.md", "docs/shapes.md")]
NUMBER = r"([-+]?\d*\.\d+)"
INTERVAL = re.compile(rf"\[{NUMBER}, {NUMBER}[];]")
ROUNDED = 0.0501  # prose has one decimal, tables have two


def rows(text):
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]


def parts(page):
    """The prose of a study's page without its commands, and the tables that its last command makes."""
    prose, heading, tables = re.split(r"^(### \w+ [0-9a-f]{8})", page.read_text(), maxsplit=1, flags=re.MULTILINE)
    return re.sub(r"```.*?```", "", prose, flags=re.DOTALL), heading + tables


def intervals(text):
    """The ends of intervals, without signs: a difference may be told from either side."""
    found = [[abs(float(end)) for end in ends] for ends in INTERVAL.findall(text)]
    return {tuple(sorted(ends)) for ends in found}


def test_every_claim_stands_in_the_table_of_its_study_and_its_verdict_follows():
    claims = rows((ROOT / "docs/claims.md").read_text())[2:]
    assert len(claims) > 10
    for claim, _, compared, study, effect, p, verdict in claims:
        first, second = re.fullmatch(r"`(.+)`, `(.+)`", compared).groups()
        page = ROOT / "docs" / re.search(r"\((.+)\)", study)[1]
        difference, low, high = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", effect).groups()
        assert [first, second, difference, f"[{low}, {high}]", p] in [row[:5] for row in rows(page.read_text())], claim
        side = "holds" if float(difference) > 0 else "contradicted"
        assert verdict == (side if float(p.removeprefix("< ")) < 0.05 else "does not show"), claim


@pytest.mark.parametrize("page", [*STUDIES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_interval_in_prose_stands_in_a_table(page):
    prose = parts(page)[0] if page in STUDIES else page.read_text()
    named = re.findall(r"\]\(\.\./(\w+)/README", prose)
    studies = [page, *(page.parents[1] / name / "README.md" for name in named)] if page in STUDIES else STUDIES
    known = {ends for study in studies for ends in intervals(parts(study)[1])}
    for said in intervals(prose):
        assert any(abs(said[0] - ends[0]) < ROUNDED and abs(said[1] - ends[1]) < ROUNDED for ends in known), said
