"""Labels of one image that two runs share are counted once, as the dearer of both."""

import pytest

from segladder.data.labels.labelled import Labelled, joined, seconds_of
from segladder.data.labels.prices import VOC_PRICES


def test_of_an_image_that_was_labelled_twice_the_most_acts_of_each_class_are_paid_for():
    first, second = (
        Labelled("voc", "points", ("a", "b"), {"one": ("a", "b")}, acts={"one": acts}) for acts in ((5, 1), (2, 4))
    )
    for parts in ([first, second], [second, first]):
        (whole,) = joined(parts)
        assert whole.acts == {"one": (5, 4)}
        assert seconds_of([whole], VOC_PRICES) == seconds_of(parts, VOC_PRICES) == pytest.approx(9 * VOC_PRICES.point)
