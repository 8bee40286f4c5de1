"""What each act of labelling takes, in seconds of human work.

Prices were measured on PASCAL VOC: Bearman et al., "What's the Point", ECCV 2016, https://arxiv.org/abs/1506.02106;
boxes: Papadopoulos et al., "Extreme clicking", ICCV 2017, https://arxiv.org/abs/1708.02750.
"""

from __future__ import annotations

from dataclasses import dataclass

from segladder.settings import AboveZero, NotNegative


@dataclass(frozen=True)
class Prices:
    """Seconds of each act, and what an image holds where nobody has counted.

    Args:
        presence: to say whether an image holds a class.
        point: a click on a class (22.1 s for an image of VOC).
        scribble: a stroke along a class (34.9 s for an image, unverified).
        box: a box around an object by extreme clicks; drawn from corner to corner, 34.5.
        mask: an outline of an object.
        classes: classes in an image, mean of VOC.
        objects: objects in an image, mean of VOC; masks of classes do not tell how many objects they are.
        source: where the prices come from, for the record.
    """

    presence: NotNegative = 1.0
    point: NotNegative = 2.4
    scribble: NotNegative = 10.9
    box: NotNegative = 7.0
    mask: NotNegative = 79.0
    classes: AboveZero = 1.5
    objects: AboveZero = 2.8
    source: str = "VOC means, Bearman 2016 (boxes: Papadopoulos 2017); objects not counted"

    @property
    def objects_of_class(self) -> float:
        """Objects of a class in an image that holds it."""
        return self.objects / self.classes


VOC_PRICES = Prices()
