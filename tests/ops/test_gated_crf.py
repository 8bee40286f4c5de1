"""The Gated CRF energy against the sum over all pairs of pixels, in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segladder.ops.gated_crf import Kernel, gated_crf_energy

KERNELS = [Kernel(0.9, 2.0, 0.5), Kernel(0.1, 1.5)]


def example(seed=0, size=(5, 6), images=2):
    """Probabilities (B, 3, H, W), colours (B, 2, H, W) and two gates (B, H, W)."""
    rng = np.random.default_rng(seed)
    probabilities = torch.tensor(rng.normal(0, 2, (images, 3, *size))).softmax(1)
    gates = [torch.tensor(rng.random((images, *size)) < 0.7) for _ in range(2)]
    return probabilities, torch.tensor(rng.random((images, 2, *size))), *gates


def by_definition(probabilities, colours, radius, sources, destinations):
    """sum_a sum_b G_a G_b K(a, b) (1 - p_a . p_b) over the destinations, each pair of pixels by itself."""
    p, c, from_b, to_a = (x.numpy() for x in (probabilities, colours, sources, destinations))
    total = 0.0
    height, width = p.shape[-2:]
    places = list(itertools.product(range(height), range(width)))
    for image, (y, x), (v, u) in itertools.product(range(len(p)), places, places):
        near = 0 < max(abs(y - v), abs(x - u)) <= radius
        if near and to_a[image, y, x] and from_b[image, v, u]:
            squared = (y - v) ** 2 + (x - u) ** 2
            colour = ((c[image, :, y, x] - c[image, :, v, u]) ** 2).sum()
            kernel = 0.9 * math.exp(-squared / 8 - colour / 0.5) + 0.1 * math.exp(-squared / 4.5)
            total += kernel * (1 - (p[image, :, y, x] * p[image, :, v, u]).sum())
    return total / max(1, to_a.sum())


@pytest.mark.parametrize("radius", [1, 2, 9])
def test_energy_is_the_sum_over_pairs(radius):
    probabilities, colours, sources, destinations = example()
    every = torch.ones_like(sources)
    for a, b in ((sources, destinations), (every, destinations), (sources, every)):
        found = gated_crf_energy(probabilities, colours, KERNELS, radius, a, b)
        assert found.item() == pytest.approx(by_definition(probabilities, colours, radius, a, b), rel=1e-9)
    told = by_definition(probabilities, colours, radius, sources, every) * every.sum().item() / sources.sum().item()
    found = gated_crf_energy(probabilities, colours, KERNELS, radius, sources)
    assert found.item() == pytest.approx(told, rel=1e-9)  # official code, over its sources
    found = gated_crf_energy(probabilities, colours, KERNELS, radius)
    assert found.item() == pytest.approx(by_definition(probabilities, colours, radius, every, every), rel=1e-9)


def test_gradients_are_those_of_the_energy():
    probabilities, colours, sources, _ = example(1, size=(3, 4), images=1)
    probabilities.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: gated_crf_energy(p, colours, KERNELS, 2, sources), probabilities)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 7), st.integers(1, 7))
def test_one_certain_class_costs_nothing_and_everything_else_something(seed, height, width):
    probabilities, colours, sources, destinations = example(seed, (height, width))
    certain = torch.nn.functional.one_hot(torch.ones(2, height, width, dtype=torch.long), 3).movedim(-1, 1).double()
    assert gated_crf_energy(certain, colours, KERNELS, 3).item() == 0
    assert gated_crf_energy(probabilities, colours, KERNELS, 3, sources, destinations).item() >= 0


def test_what_no_gate_lets_through_tells_nothing():
    probabilities, colours, sources, _ = example(2)
    other = torch.where(sources[:, None], probabilities, probabilities.flip(1))
    closed = [gated_crf_energy(p, colours, KERNELS, 3, sources, sources) for p in (probabilities, other)]
    assert closed[0].item() == pytest.approx(closed[1].item())
    assert gated_crf_energy(probabilities, colours, KERNELS, 3, sources, torch.zeros_like(sources)).item() == 0


def test_a_square_without_a_neighbour_is_refused():
    with pytest.raises(ValueError, match="radius=0"):
        gated_crf_energy(*example()[:2], KERNELS, 0)
