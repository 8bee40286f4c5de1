"""What every choice resolves to stays as it was, so that hashes, records and tables of older runs still stand.

`resolved.json` holds the first hex digits of a sha256 per composition. Where a value is changed on purpose, or a
choice is new, write the list anew and name the change in CHANGELOG.md:

    python -c "import sys; sys.path.insert(0, 'tests/conf'); import test_resolved; test_resolved.freeze()"
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from segladder.configuration import choices

LIST = Path(__file__).with_name("resolved.json")
ADDED = ("labels", "loader.augment.extra")  # keys that came after the list was written
BESIDE = {"method": ["backbone=tiny"], "backbone": ["method=fcn8s", "method=cam"]}  # what a choice is composed with
DATA = {
    "camvid": "camvid",
    "davis2016": "davis",
    "davis2016_automatic": "davis",
    "voc2012": "voc",
}  # of protocols that score one data set
FROZEN = json.loads(LIST.read_text()) if LIST.exists() else {"nodes": {}, "protocols": {}}


def compositions() -> list[str]:
    """Overrides of `train`, joined by spaces: every choice, then what it stands beside."""
    found = []
    for group in ("method", "backbone", "loss", "data", "protocol", "strategy", "logger", "prices", "experiment"):
        for name in choices(group):
            beside = [f"data={DATA.get(name, 'shapes')}"] if group == "protocol" else BESIDE.get(group, [""])
            found += [f"{group}={name} {other}".strip() for other in beside]
    return found


def composed(overrides: str) -> DictConfig:
    """The configuration of `train`; the folder of data sets is the same on every machine."""
    with pytest.MonkeyPatch.context() as patch, initialize_config_module("segladder.conf", version_base="1.3"):
        patch.setenv("SEGLADDER_DATA", "data")
        config = compose("train", overrides=overrides.split())
        OmegaConf.resolve(config)  # while the variable is set
        return config


def digest(overrides: str) -> str:
    """Of the canonical JSON of what the first override chooses, without `_target_` and the keys of `ADDED`."""
    group = overrides.split("=")[0]
    whole: Any = OmegaConf.to_container(composed(overrides))
    for key in ADDED:
        *parents, last = key.split(".")
        node = whole
        for parent in parents:
            node = node.get(parent, {})
        node.pop(last, None)
    tops = {"data": ("data", "embeddings", "loader"), "experiment": tuple(whole)}.get(group, (group,))
    nodes = without_targets({top: whole.get(top) for top in tops})
    text = json.dumps(nodes, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_targets(value: Any) -> Any:
    """The same without `_target_`: a class may move to another module."""
    if isinstance(value, dict):
        return {key: without_targets(item) for key, item in value.items() if key != "_target_"}
    return [without_targets(item) for item in value] if isinstance(value, list) else value


def protocol_hash(overrides: str) -> str:
    """The hash that names the tables of a protocol."""
    return instantiate(composed(overrides).protocol).hash


def freeze() -> None:
    """Write `resolved.json` anew from the configuration as it is."""
    nodes = {overrides: digest(overrides) for overrides in compositions()}
    protocols = {overrides: protocol_hash(overrides) for overrides in nodes if overrides.startswith("protocol=")}
    LIST.write_text(json.dumps({"nodes": nodes, "protocols": protocols}, indent=1) + "\n")


@pytest.mark.parametrize("overrides", FROZEN["nodes"])
def test_a_choice_resolves_to_what_it_did(overrides):
    assert digest(overrides) == FROZEN["nodes"][overrides]


@pytest.mark.parametrize("overrides", FROZEN["protocols"])
def test_a_protocol_keeps_its_hash(overrides):
    assert protocol_hash(overrides) == FROZEN["protocols"][overrides]
