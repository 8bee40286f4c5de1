"""A choice's yaml shows what is its own: siblings share the rest through files `_NAME.yaml`, which are no choices."""

import re
from collections import Counter

import pytest
import yaml

from segladder.cli import help_text
from segladder.configuration import choices, conf_folder

CONF = conf_folder()
GROUPS = sorted(folder.name for folder in CONF.iterdir() if any(folder.glob("*.yaml")) and folder.name != "experiment")
BASES = sorted(CONF.rglob("_*.yaml"))
MOST = 0.4  # of a group's lines may stand more than once


def lines(group):
    """All lines of a group's files, without comments and empty lines."""
    text = "\n".join(path.read_text() for path in sorted((CONF / group).glob("*.yaml")))
    bare = (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in text.splitlines())
    return [line for line in bare if line]


def built_on(path):
    """The files of its own folder that a yaml takes over."""
    defaults = (yaml.safe_load(path.read_text()) or {}).get("defaults", [])
    return [path.with_name(f"{name}.yaml") for name in defaults if isinstance(name, str)]


@pytest.mark.parametrize("group", GROUPS)
def test_few_lines_stand_more_than_once(group):
    counts = Counter(lines(group))
    repeated = {line: count for line, count in counts.items() if count > 1}
    share = sum(repeated.values()) / counts.total()
    assert share <= MOST, f"{share:.0%} of conf/{group} stands more than once: {repeated}"


def test_there_are_bases():
    assert {path.parent.name for path in BASES} >= {"method", "backbone", "loss", "data", "protocol", "strategy"}


@pytest.mark.parametrize("path", BASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_base_is_built_on_and_no_choice(path):
    assert path in [base for sibling in path.parent.glob("*.yaml") for base in built_on(sibling)]
    assert path.stem not in choices(path.parent.name)
    assert not re.search(rf"\b{path.stem}\b", help_text())
