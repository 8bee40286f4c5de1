"""Upsampling functions against obvious loops, and the layer that chooses between them."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segladder.nets.upsampling import Upsampling, UpsamplingKind
from segladder.ops import upsampling

small_maps = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


def random_map(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@settings(deadline=None, max_examples=25)
@given(small_maps, st.integers(1, 4))
def test_nearest_repeats_and_bed_of_nails_keeps_top_left(shape, factor):
    x = random_map(*shape)
    repeated, nails = upsampling.nearest(x, factor), upsampling.bed_of_nails(x, factor)
    for i in range(shape[2] * factor):
        for j in range(shape[3] * factor):
            value = x[..., i // factor, j // factor]
            assert torch.equal(repeated[..., i, j], value)
            assert torch.equal(nails[..., i, j], value if i % factor == j % factor == 0 else torch.zeros_like(value))


@settings(deadline=None, max_examples=25)
@given(small_maps)
def test_max_unpool_puts_values_where_the_maxima_were(shape):
    x = random_map(shape[0], shape[1], shape[2] + 1, shape[3] + 1)
    size = x.shape[-2:]
    values, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    unpooled = upsampling.max_unpool(values, indices, size)
    blocks = np.zeros(x.shape)
    for b, c in np.ndindex(x.shape[:2]):
        for i in range(0, size[0], 2):
            for j in range(0, size[1], 2):
                window = x[b, c, i : i + 2, j : j + 2].numpy()
                row, column = np.unravel_index(window.argmax(), window.shape)
                blocks[b, c, i + row, j + column] = window.max()
    np.testing.assert_array_equal(unpooled.numpy(), blocks)


def bilinear_by_hand(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Linear interpolation between pixel centres, one axis after the other, in float64."""
    for axis, length in zip((-2, -1), size, strict=True):
        old = x.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, old - 1)
        share = (place - low).reshape((-1, 1) if axis == -2 else (-1,))
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


@settings(deadline=None, max_examples=25)
@given(small_maps, st.integers(5, 12), st.integers(5, 12))
def test_bilinear_interpolates_between_pixel_centres(shape, height, width):
    x = random_map(*shape)
    expected = bilinear_by_hand(x.numpy(), (height, width))
    np.testing.assert_allclose(upsampling.bilinear(x, (height, width)).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bilinear_computes_in_the_type_of_the_map_under_autocast_too(dtype):
    x = torch.rand(1, 3, 4, 5).to(dtype)
    expected = upsampling.bilinear(x, (7, 9))
    with torch.autocast("cpu", torch.bfloat16):
        found = upsampling.bilinear(x, (7, 9))
    assert found.dtype == dtype and torch.equal(found, expected)


def test_bilinear_kernel_of_factor_two():
    triangle = torch.tensor([0.25, 0.75, 0.75, 0.25])
    assert torch.equal(upsampling.bilinear_kernel(2), triangle[:, None] * triangle)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_transposed_convolution_with_the_bilinear_kernel_is_bilinear_up_to_the_edge(factor):
    x = random_map(2, 3, 4, 5)
    weight = torch.eye(3, dtype=torch.float64)[..., None, None] * upsampling.bilinear_kernel(factor).double()
    size = (4 * factor, 5 * factor)
    grown = upsampling.transposed_convolution(x, weight, factor, size)
    torch.testing.assert_close(grown, upsampling.bilinear(x, size), atol=1e-6, rtol=0)


def strided_convolution_matrix(kernel: torch.Tensor, length: int, stride: int) -> torch.Tensor:
    """The matrix C with C @ x = convolution of x (length,) with the kernel, without padding."""
    rows = (length - len(kernel)) // stride + 1
    matrix = torch.zeros(rows, length, dtype=kernel.dtype)
    for row in range(rows):
        matrix[row, row * stride : row * stride + len(kernel)] = kernel
    return matrix


def test_transposed_convolution_is_the_transpose_of_the_convolution_matrix():
    kernel = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    matrix = strided_convolution_matrix(kernel, 7, 2)  # (3, 7)
    expected = torch.tensor([[1, 2, 3, 0, 0, 0, 0], [0, 0, 1, 2, 3, 0, 0], [0, 0, 0, 0, 1, 2, 3]], dtype=torch.float64)
    assert torch.equal(matrix, expected)
    x, y = random_map(7), random_map(3)
    torch.testing.assert_close(F.conv1d(x[None, None], kernel[None, None], stride=2)[0, 0], matrix @ x)
    grown = F.conv_transpose1d(y[None, None], kernel[None, None], stride=2)[0, 0]
    torch.testing.assert_close(grown, matrix.T @ y)


def test_our_transposed_convolution_row_equals_its_matrix_form():
    horizontal = random_map(4)
    vertical = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=torch.float64)  # leaves a one-row map constant downwards
    row = random_map(3)
    bordered = torch.cat([row[:1], row, row[-1:], row[-1:]])
    matrix = strided_convolution_matrix(horizontal, 2 * (len(bordered) - 1) + 4, 2)  # (6, 14)
    expected = (matrix.T @ bordered)[3:9]
    weight = (vertical[:, None] * horizontal)[None, None]
    grown = upsampling.transposed_convolution(row[None, None, None], weight, 2, (2, 6))
    torch.testing.assert_close(grown[0, 0], expected.expand(2, 6))


@pytest.mark.parametrize("kind", get_args(UpsamplingKind))
@pytest.mark.parametrize("size", [(8, 12), (7, 11), (9, 13)])
def test_layer_gives_the_size_asked_for_and_keeps_places(kind, size):
    ramp = torch.arange(6.0).expand(1, 2, 4, 6)
    grown = Upsampling(kind, 2, 2)(ramp, size)
    assert grown.shape == (1, 2, *size)
    if kind != "bed_of_nails":
        torch.testing.assert_close(grown[0, 0, 3, 4], torch.tensor(2.0), atol=0.5, rtol=0)  # column 4 of twice as many
        assert (grown.diff(dim=-1) >= -1e-6).all()
    else:
        assert grown[0, 0, 2, 4] == 2 and grown[0, 0, 2, 5] == 0


def test_layer_without_a_factor_only_fits_the_size():
    x = torch.randn(1, 2, 4, 6)
    layer = Upsampling("transposed", 2, 1)
    assert layer(x, (4, 6)) is x and not list(layer.parameters())
