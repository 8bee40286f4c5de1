"""Every field of every protocol is checked: a value that it may not hold is named before anything is scored."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from segladder.configuration import choices
from segladder.errors import ConfigError
from segladder.runs import build
from segladder.runs.composition import composed

DATA = {"voc2012": "voc", "davis2016": "davis", "davis2016_automatic": "davis"}
WRONG = {  # by field: what it may not hold
    **{
        "fit": "sqaure",
        "void": "x",
        "score_at": "inner",
        "train_images": "most",
        "novel_pixels": "blur",
        "draw": "once",
    },
    **{"kind": "easy", "min_object": "big", "aggregate": "avg", "support_annotation": "polygon", "absent": "none"},
    **{"other_classes": "drop", "gamma_on": "pixels", "gamma_rule": "guess", "background": "x", "unseen_pixels": "x"},
    **{"split_name": "half", "supervision": "some", "shots": 0, "episodes": 0, "ways": 0, "beside": -1, "bootstrap": 0},
    **{"min_area": -1, "gamma_images": 0, "seen_kept": 1.5, "input_side": 0, "input_size": -3},
    **{"boundary_width": 2, "contour_bound": -0.1, "flip": "perhaps", "repeats": "perhaps", "transductive": 3},
    **{"label_conditioned": 2, "threshold": 0.123, "thresholds": ["a"], "scales": ["a"], "gammas": ["a"], "gamma": "x"},
    **{"seeds": ["x"], "split": 5, "name": 5, "dataset": 5, "resolution": 5, "pool": -1, "fold": -1, "folds": [[1]]},
    **{"classes": [1], "unseen": [1], "stuff": [1], "smallest": -1, "sure": 1.5, "areas": [0, 1]},
    **{"over_lists": "best", "class_draw": "item", "items": 5, "pool_seed": -1, "presence": "maybe"},
}


@pytest.mark.parametrize("name", choices("protocol"))
def test_each_field_of_a_protocol_refuses_what_it_may_not_hold(name):
    config = composed([f"protocol={name}", f"data={DATA.get(name, 'shapes')}"])
    own = [key for key in config.protocol if key != "_target_"]
    assert set(own) <= set(WRONG)
    for key in own:
        wrong = OmegaConf.merge(config, {"protocol": {key: WRONG[key]}})
        with pytest.raises(ConfigError, match=key):
            build.protocol(wrong)


def test_a_fit_that_needs_a_size_says_so():
    with pytest.raises(ConfigError, match=r"protocol\.fit=square: needs a size, set protocol\.input_side"):
        build.protocol(composed(["protocol=strict", "protocol.fit=square"]))
