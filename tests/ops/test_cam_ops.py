"""Evidence maps against their formulas."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from segladder.ops.cam import background_power, normalize_cam, unit_range


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_each_class_is_divided_by_its_own_maximum():
    scores = draw(2, 3, 4, 5) * 7
    cams = normalize_cam(scores)
    for image in range(2):
        for index in range(3):
            x = scores[image, index].clamp_min(0)
            expected = (x - 1e-5).clamp_min(0) / (x.max() + 1e-5)
            torch.testing.assert_close(cams[image, index], expected, atol=1e-12, rtol=0)


def test_each_class_goes_from_its_own_minimum_to_its_maximum():
    scores = draw(2, 3, 4, 5).abs() * 7 + torch.tensor([0.5, -2.0, 0.0], dtype=torch.float64)[:, None, None]
    cams = unit_range(scores)
    for image in range(2):
        for index in range(3):
            x = scores[image, index].clamp_min(0)
            expected = (x - x.min() - 1e-5).clamp_min(0) / (x.max() - x.min() + 1e-5)
            torch.testing.assert_close(cams[image, index], expected, atol=1e-12, rtol=0)
    assert not unit_range(torch.full((1, 2, 3, 3), 4.0)).any()


@given(st.integers(0, 99), st.floats(1e-6, 1e6))
def test_cams_stay_in_range_at_any_scale(seed, scale):
    cams = normalize_cam(draw(1, 2, 3, 3, seed=seed) * scale)
    assert cams.min() >= 0 and cams.max() < 1


def test_a_class_without_positive_score_is_zero():
    assert not normalize_cam(-draw(1, 2, 3, 3).abs()).any()


def test_a_higher_power_sees_less_background():
    cams = torch.tensor([[[0.0, 0.5, 1.0]], [[0.2, 0.1, 0.0]]])  # (C, 1, 3)
    torch.testing.assert_close(background_power(cams, 4), torch.tensor([[0.8**4, 0.5**4, 0.0]]))
    torch.testing.assert_close(background_power(cams[None], 24), torch.tensor([[[0.8**24, 0.5**24, 0.0]]]))


def test_background_of_evidence_above_one_is_zero():
    assert background_power(torch.full((2, 1, 1), 1.5), 0.5) == 0
