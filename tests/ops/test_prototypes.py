"""Pooling under a mask and cosine maps against slow float64 references."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segladder.ops.prototypes import cosine_similarity_map, masked_average_pooling

sides = st.integers(1, 9)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def pooled_after_upsampling(features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The formula as the paper writes it: enlarge every channel, then average under the mask."""
    large = F.interpolate(features, masks.shape[-2:], mode="bilinear", align_corners=False)
    return (large * masks[:, None]).sum((2, 3)) / masks.sum((1, 2))[:, None]


@settings(deadline=None, max_examples=50)
@given(st.tuples(sides, sides), st.tuples(st.integers(1, 31), st.integers(1, 31)), st.integers(0, 99))
def test_pooling_is_upsampling_then_averaging(feature_size, mask_size, seed):
    """Any two sizes: enlarging, reducing, odd, one pixel."""
    features = draw(2, 3, *feature_size)
    masks = torch.randint(0, 2, (2, *mask_size), generator=torch.Generator().manual_seed(seed)).double()
    masks[:, 0, 0] = 1  # never empty
    expected = pooled_after_upsampling(features, masks)
    torch.testing.assert_close(masked_average_pooling(features, masks), expected, atol=1e-9, rtol=0)


def test_a_mask_of_one_pixel_reads_the_interpolated_value_there():
    features, mask = draw(1, 4, 5, 7), torch.zeros(1, 33, 41, dtype=torch.float64)
    mask[0, 20, 3] = 1
    large = F.interpolate(features, (33, 41), mode="bilinear", align_corners=False)
    torch.testing.assert_close(masked_average_pooling(features, mask), large[:, :, 20, 3], atol=1e-9, rtol=0)


def test_an_empty_mask_gives_zeros_and_no_gradient():
    features = draw(2, 3, 4, 5).requires_grad_()
    masks = torch.zeros(2, 16, 20, dtype=torch.float64)
    masks[1] = 1
    pooled = masked_average_pooling(features, masks)
    pooled.sum().backward()
    assert not pooled[0].any() and not features.grad[0].any()
    torch.testing.assert_close(pooled[1], features[1].mean((1, 2)))


@pytest.mark.parametrize("mask_type", [torch.bool, torch.uint8, torch.float32, torch.float64])
def test_masks_of_any_type_pool_alike(mask_type):
    features, masks = draw(2, 3, 4, 5).float(), draw(2, 9, 9) > 0
    pooled = masked_average_pooling(features, masks.to(mask_type))
    assert torch.equal(pooled, masked_average_pooling(features, masks.float()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    """300 x 300 ones: a float16 sum would be infinite, a bfloat16 sum would stop growing at 256."""
    features, masks = torch.ones(1, 2, 40, 40, dtype=dtype), torch.ones(1, 300, 300, dtype=dtype)
    pooled = masked_average_pooling(features, masks)
    assert pooled.dtype == dtype and (pooled == 1).all()
    assert (cosine_similarity_map(features * 100, pooled * 100) - 1).abs().max() < 0.01


def test_autocast_does_not_lower_the_precision():
    features, masks = draw(1, 8, 6, 6).float(), (draw(1, 50, 50) > 0).float()
    with torch.autocast("cpu", torch.bfloat16):
        pooled = masked_average_pooling(features, masks)
        similarity = cosine_similarity_map(features, pooled)
    assert torch.equal(pooled, masked_average_pooling(features, masks))
    assert torch.equal(similarity, cosine_similarity_map(features, pooled))


def test_gradients_are_those_of_the_formula():
    features, masks = draw(2, 3, 3, 4), (draw(2, 7, 9) > 0).double()

    def similarity(maps: torch.Tensor) -> torch.Tensor:
        return cosine_similarity_map(maps, masked_average_pooling(maps, masks))

    assert torch.autograd.gradcheck(similarity, features.requires_grad_())


@settings(deadline=None, max_examples=25)
@given(st.tuples(st.integers(1, 3), st.integers(1, 6), sides, sides), st.floats(1e-3, 1e3))
def test_cosine_is_torchs_at_every_place_and_blind_to_scale(shape, scale):
    features, prototypes = draw(*shape), draw(*shape[:2])
    expected = F.cosine_similarity(features, prototypes[:, :, None, None], dim=1)
    torch.testing.assert_close(cosine_similarity_map(features, prototypes), expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(cosine_similarity_map(features * scale, prototypes), expected, atol=1e-9, rtol=0)


def test_cosine_stays_in_range_and_is_zero_for_zero_vectors():
    prototypes = torch.randn(64, 7, generator=torch.Generator().manual_seed(0))
    same = cosine_similarity_map(prototypes[:, :, None, None].expand(-1, -1, 2, 2), prototypes)
    assert same.max() <= 1 and same.min() > 0.999
    features = torch.zeros(64, 7, 1, 2).requires_grad_()
    nothing = cosine_similarity_map(features, prototypes)
    nothing.sum().backward()
    assert not nothing.any() and not features.grad.any()
    assert not cosine_similarity_map(prototypes[:, :, None, None], torch.zeros(64, 7)).any()
