"""Each row of docs/claims.md is a row of a study's table of paired tests."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def rows(text):
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]


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
