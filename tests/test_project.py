"""What strangers read first agrees with the tree: version, links, hooks, the table of rooms."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from test_house import MAY_IMPORT

from segladder import __version__
from segladder.runs.composition import opened

ROOT = Path(__file__).parents[1]
FIRST = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md", "experiments/README.md")
DOCS = sorted(ROOT.glob("docs/**/*.md"))
PAGES = [*(ROOT / name for name in FIRST), *DOCS, *sorted(ROOT.glob("experiments/*/README.md"))]
FORMS = sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"))


def prose(page: Path) -> str:
    """A page's text without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not re.match(r"[a-z]+:", link) and (not target.exists() or (anchor and anchor not in anchors(target))):
            broken.append(link)
    return broken


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[(\d.*)\] - (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert (citation["version"], citation["date-released"]) == newest.groups()
    assert citation["version"] == __version__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert not broken_links(page)


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `b`: c\n[1](#a-b-c) [2](#d) [3](other.md) [4](page.md#a-b-c) [5](https://example.org/x.md)\n")
    assert broken_links(page) == ["#d", "other.md"]


def commands_of(page: Path) -> list[str]:
    """The lines of a page's blocks that call `segladder`, without comments; not those of blocks in a language."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fences if not language]
    lines = [line.split("  #")[0].split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("segladder ")]


def test_commands_behind_a_block_of_python_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```\nsegladder train seed=1  # one\n```\n\n```python\nimport segladder\n```\n\n```\nsegladder bench\n```\n"
    )
    assert commands_of(page) == ["segladder train seed=1", "segladder bench"]


def first_of_sweep(word: str) -> str:
    """One job of a sweep: the first of several values."""
    key, _, values = word.partition("=")
    return word if values.startswith(("[", "{")) or "," not in values else f"{key}={values.split(',')[0]}"


OF_THE_READER = re.compile(r"hydra\.searchpath=|--config-dir")  # choices that are in a folder of the reader's
COPIED = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
SHOWN = [(page, line) for page in COPIED for line in commands_of(page) if not OF_THE_READER.search(line)]


@pytest.mark.parametrize("page, line", SHOWN, ids=[line for _, line in SHOWN])
def test_a_command_that_strangers_copy_has_choices_and_keys_that_there_are(page, line):
    _, command, *words = shlex.split(line)
    left = [word for word in words if word not in ("-m", "...") and not word.startswith(("hydra/", "hydra.launcher."))]
    overrides = [first_of_sweep(word) for word in left]
    GlobalHydra.instance().clear()
    with initialize_config_module("segladder.conf", version_base="1.3"):
        assert compose(command, [opened(word) for word in overrides])


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 120 and max(map(len, lines)) <= 140


STUDIES = sorted(file.parent for file in ROOT.glob("experiments/*/records.jsonl"))
MANY_TESTS = (  # take long
    "demo",
    "partial_shapes",
    "labels_shapes",
    "labels_voc_animals",
    "ladder_voc_animals",
    "ladder_amounts_voc_animals",
)


@pytest.mark.parametrize(
    "study",
    [
        pytest.param(study, id=study.name, marks=[pytest.mark.long] if study.name in MANY_TESTS else [])
        for study in STUDIES
    ],
)
def test_tables_and_tests_of_a_study_follow_from_what_is_committed(study, segladder, tmp_path, monkeypatch):
    """The README's own command gives what stands beneath it, to the letter: values, intervals, p-values, words."""
    monkeypatch.chdir(ROOT)
    page = (study / "README.md").read_text()
    (words,) = re.findall(rf"^segladder leaderboard (runs=experiments/{study.name} .*)$", page, re.MULTILINE)
    assert segladder("leaderboard", *shlex.split(words), f"out={tmp_path / 'made.md'}") == 0
    assert page.endswith((tmp_path / "made.md").read_text())


def test_hooks_run_what_make_lint_runs():
    lint = re.search(r"^lint:.*\n((?:\t.*\n?)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lint is not None
    commands = [line.strip().removeprefix("$(BIN)/") for line in lint[1].splitlines()]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == commands
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in repository["hooks"])


def test_rooms_are_told_as_they_are_held():
    rows = re.findall(r"^\| `(\w+)` \| (nothing|`\w+`(?:, `\w+`)*) \|$", prose(ROOT / "CONTRIBUTING.md"), re.MULTILINE)
    assert {room: set(re.findall(r"`(\w+)`", others)) for room, others in rows} == MAY_IMPORT


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_forms_are_whole(form):
    """GitHub drops a form without a name, a description, or with two fields of one id."""
    found = yaml.safe_load(form.read_text())
    if form.stem != "config":
        ids = [field["id"] for field in found["body"]]
        assert found["name"] and found["description"] and len(set(ids)) == len(ids)
