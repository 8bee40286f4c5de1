"""What a configuration node may ask for that its class does not know."""

import pytest
from omegaconf import open_dict

from segladder.errors import ConfigError
from segladder.runs import build
from segladder.runs.composition import composed


def test_a_key_of_another_version_is_named_with_what_to_do():
    config = composed(["protocol=ladder", "data=shapes"])
    with open_dict(config):
        config.protocol.negatives = 100  # images without the class, of 0.2
    with pytest.raises(
        ConfigError,
        match=r"^protocol\.negatives: no such key; .*; where it is of another version, give protocol=NAME anew$",
    ):
        build.protocol(config)
