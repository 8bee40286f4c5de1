"""Data every test may use: a small rendering of the shapes, made once a session."""

import os

import pytest
from hypothesis import settings

settings.register_profile("any_machine", deadline=None)  # a slow machine is no failure
settings.load_profile("any_machine")
os.environ.setdefault("WANDB_MODE", "offline")


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory):
    """A folder that holds small renderings of the shapes; SEGLADDER_DATA is its parent."""
    return tmp_path_factory.mktemp("data") / "shapes"
