"""Pixel correlation and the mean of the hardest values against loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segladder.ops.correlation import hardest_mean, pixel_correlation


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def slow_correlation(features, cams):
    """One place after the other, as the formula says."""
    result = torch.zeros_like(cams)
    batch, _, height, width = features.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    for image in range(batch):
        unit = features[image] / (features[image].norm(dim=0) + 1e-5)
        for y, x in places:
            weights = [max(0.0, float(unit[:, y, x] @ unit[:, v, u])) for v, u in places]
            total = sum(w * cams[image, :, v, u] for w, (v, u) in zip(weights, places, strict=True))
            result[image, :, y, x] = total / (sum(weights) + 1e-5)
    return result


def test_correlation_is_its_formula():
    features, cams = draw(2, 3, 3, 4), draw(2, 2, 3, 4)
    torch.testing.assert_close(pixel_correlation(features, cams), slow_correlation(features, cams), atol=1e-9, rtol=0)


@given(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)), st.floats(0.1, 1e3))
def test_refined_maps_stay_within_their_range(shape, scale):
    cams = draw(shape[0], 2, *shape[2:])
    refined = pixel_correlation(draw(*shape) * scale, cams)
    assert refined.amax((2, 3)).le(cams.amax((2, 3)).clamp_min(0) + 1e-4).all()
    assert refined.amin((2, 3)).ge(cams.amin((2, 3)).clamp_max(0) - 1e-4).all()


def test_unlike_places_exchange_nothing():
    """Two orthogonal groups of places: each takes the mean of its own."""
    features = torch.eye(2).repeat_interleave(2, 1).view(1, 2, 1, 4) * 5
    refined = pixel_correlation(features, torch.tensor([1.0, 3.0, 10.0, 20.0]).view(1, 1, 1, 4))
    torch.testing.assert_close(refined.flatten(), torch.tensor([2.0, 2.0, 15.0, 15.0]), atol=1e-3, rtol=0)


def test_autocast_does_not_lower_the_precision():
    features, cams = draw(1, 8, 5, 5).float(), draw(1, 3, 5, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        refined = pixel_correlation(features, cams)
    assert torch.equal(refined, pixel_correlation(features, cams))


def test_gradients_are_those_of_the_formula():
    features, cams = draw(1, 3, 2, 3).requires_grad_(), draw(1, 2, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(pixel_correlation, (features, cams))


@given(st.integers(1, 3), st.integers(1, 30), st.floats(0.01, 1))
def test_hardest_mean_takes_the_top_of_each_sample(batch, count, share):
    x = draw(batch, count)
    kept = [sorted(row, reverse=True)[: max(1, int(share * count))] for row in x.tolist()]
    expected = sum(sum(row) / len(row) for row in kept) / batch
    assert float(hardest_mean(x, share)) == pytest.approx(expected)


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_a_share_is_a_share(share):
    with pytest.raises(ValueError, match=f"share={share}"):
        hardest_mean(torch.zeros(1, 4), share)
