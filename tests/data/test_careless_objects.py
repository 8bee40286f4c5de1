"""Kinds of carelessness are independent, and leave what the data set tells of objects as it is."""

import numpy as np

from segladder.data.labels.noise import Noise
from segladder.data.sources.instances import Instances

MASK = np.zeros((20, 20), np.uint8)
MASK[4:12, 4:12] = 3


def test_whether_an_object_is_missed_says_nothing_of_whether_it_is_misnamed():
    found = set()
    for seed in range(40):
        missed, misnamed = (Noise(seed=seed, **{kind: 0.5}).of(MASK, "a", (3, 4)) for kind in ("dropped", "confused"))
        found.add((bool(missed.any()), int(misnamed.max())))
    assert found == {(False, 3), (False, 4), (True, 3), (True, 4)}


def test_an_object_that_is_misnamed_keeps_its_name_in_the_data_set():
    told = Instances((MASK > 0).astype(np.uint16), np.array([3], np.uint8))
    for _ in range(2):
        numbers, classes = Noise(confused=1.0).of_objects(told, MASK, "a", (3, 4))
        assert classes.tolist() == [4] and told.classes.tolist() == [3]
        assert np.array_equal(numbers > 0, MASK > 0)
        assert (Noise(confused=1.0).of(MASK, "a", (3, 4), told) == 4 * (MASK > 0)).all()
