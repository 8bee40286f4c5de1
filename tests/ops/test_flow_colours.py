"""Flow as colour, against the wheel of Baker et al. written out hue by hue."""

import math

import pytest
import torch

from segladder.ops.flow import colour_wheel, flow_colours


def hues():
    """The 55 hues: one channel at a time goes up or comes down."""
    found = []
    for high, changing, rises, steps in (
        *((0, 1, True, 15), (1, 0, False, 6), (1, 2, True, 4), (2, 1, False, 11), (2, 0, True, 13), (0, 2, False, 6)),
    ):
        for step in range(steps):
            hue = [0.0, 0.0, 0.0]
            hue[high], hue[changing] = 1.0, step / steps if rises else 1 - step / steps
            found.append(hue)
    return found


def colour(right, down):
    """One vector, in float64 and plain words."""
    wheel, length = hues(), min(1.0, math.hypot(right, down))
    place = (math.atan2(-down, -right) / math.pi + 1) / 2 * 54
    low = int(place)
    share = place - low
    pairs = zip(wheel[low], wheel[(low + 1) % 55], strict=True)
    return [255 * (1 - length * (1 - ((1 - share) * one + share * two))) for one, two in pairs]


def test_the_wheel_is_that_of_the_benchmark():
    assert torch.allclose(colour_wheel(), torch.tensor(hues()))


def test_colours_are_those_of_the_slow_reference():
    flow = torch.rand(2, 2, 5, 7, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.7
    found = flow_colours(flow)
    for b, y, x in ((b, y, x) for b in range(2) for y in range(5) for x in range(7)):
        assert found[b, :, y, x].tolist() == pytest.approx(colour(*flow[b, :, y, x].tolist()), abs=1e-2)


@pytest.mark.parametrize(
    ("vector", "expected"),
    [((1, 0), (255, 0, 0)), ((0, 0), (255, 255, 255)), ((-1, 0), (0, 209, 255)), ((0.5, 0), (255, 127.5, 127.5))],
    ids=["right is red", "still is white", "left is cyan", "half as fast is half as red"],
)
def test_directions_have_their_hues(vector, expected):
    found = flow_colours(torch.tensor(vector, dtype=torch.float32).view(1, 2, 1, 1)).flatten().tolist()
    assert found == pytest.approx(expected, abs=0.5)
