"""Who builds a class in Python gets what its yaml documents: the defaults of constructors are those of `conf/`.

Where a file overrides what it builds on (protocol=bam, backbone=tiny_vit), the file that names the class documents it.
"""

import inspect
from pkgutil import resolve_name

import pytest
import yaml

from segladder.configuration import conf_folder
from segladder.data.words.embeddings import EmbeddingSettings
from segladder.runs.composition import as_written
from segladder.settings import MISSING, passes_on

GROUPS = ("method", "backbone", "loss", "labels", "prices", "protocol")


def defaults(kind):
    """The scalar defaults of a class' parameters, each of the nearest constructor that takes it."""
    found = {}
    for base in kind.__mro__:
        if constructor := vars(base).get("__init__"):
            parameters = {name: p.default for name, p in inspect.signature(constructor).parameters.items()}
            found = parameters | found
            if not passes_on(constructor):
                break
    return {
        name: value for name, value in found.items() if value is None or isinstance(value, bool | int | float | str)
    }


def named(merged, written, always):
    """Each class below a node with its settings, where `written`, the file itself, names it, or always."""
    if isinstance(merged, dict):
        target = merged.get("_target_", MISSING)
        if target != MISSING and (always or "_target_" in written):
            yield resolve_name(target), merged
        for key, value in merged.items():
            yield from named(value, written.get(key) or {}, always)
    elif isinstance(merged, list):
        for value in merged:
            yield from named(value, value, always)


def documented():
    """A file, a class that it names and the settings it documents."""
    for group in GROUPS:
        for path in sorted((conf_folder() / group).glob("*.yaml")):
            merged, written = as_written(group, path.stem), yaml.safe_load(path.read_text())
            for kind, settings in named(merged, written, always=group == "method"):
                yield pytest.param(kind, settings, id=f"{group}/{path.stem}: {kind.__name__}")
    yield pytest.param(EmbeddingSettings, as_written("data", "_embeddings")["embeddings"], id="embeddings")


@pytest.mark.parametrize("kind, settings", documented())
def test_defaults_are_the_documented_ones(kind, settings):
    said = {key: value for key, value in settings.items() if not (value == MISSING or str(value).startswith("${"))}
    compared = defaults(kind).keys() & {key for key, value in said.items() if not isinstance(value, dict | list)}
    assert {key: defaults(kind)[key] for key in compared} == {key: said[key] for key in compared}
