"""Maximum mean discrepancy against a slow float64 reference, and its gradient where both sets agree."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segladder.ops.mmd import maximum_mean_discrepancy

SIGMAS = (2, 5, 10, 20, 40, 60)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reference(x: torch.Tensor, y: torch.Tensor, sigmas=SIGMAS) -> float:
    def mean_kernel(first, second):
        pairs = [(a, b) for a in first.tolist() for b in second.tolist()]
        return sum(math.exp(-(math.dist(a, b) ** 2) / (2 * s)) for a, b in pairs for s in sigmas) / len(pairs)

    return math.sqrt(mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_sets_of_any_two_sizes(m, n, seed):
    x, y = draw(m, 3, seed=seed), 1 + 2 * draw(n, 3, seed=seed + 100)
    assert maximum_mean_discrepancy(x, y, SIGMAS).item() == pytest.approx(reference(x, y), abs=1e-7)
    torch.testing.assert_close(maximum_mean_discrepancy(x, y, SIGMAS), maximum_mean_discrepancy(y, x, SIGMAS))


def test_one_vector_each_has_a_closed_form():
    x, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    expected = math.sqrt(2 - 2 * math.exp(-25 / 10))
    assert maximum_mean_discrepancy(x, y, [5]).item() == pytest.approx(expected)


def test_repeating_a_set_changes_nothing():
    """Means over all pairs: two copies of the same vectors are the same distribution."""
    x, y = draw(4, 3), draw(5, 3, seed=1)
    assert maximum_mean_discrepancy(x, y.repeat(3, 1), SIGMAS).item() == pytest.approx(
        maximum_mean_discrepancy(x, y, SIGMAS).item()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_sets_are_at_distance_zero_with_a_finite_gradient(dtype):
    y = 30 + draw(7, 16).to(dtype)
    x = y[torch.randperm(7, generator=torch.Generator().manual_seed(0))].clone().requires_grad_()
    distance = maximum_mean_discrepancy(x, y, SIGMAS)
    distance.backward()
    assert distance == 0 and not x.grad.any()


def test_gradient_is_that_of_the_formula():
    y = draw(4, 3, seed=1) + 1
    assert torch.autograd.gradcheck(lambda x: maximum_mean_discrepancy(x, y, SIGMAS), draw(3, 3).requires_grad_())


def test_following_the_gradient_brings_sets_together():
    x, y = draw(6, 4).requires_grad_(), 2 + draw(9, 4, seed=1)
    before = maximum_mean_discrepancy(x, y, SIGMAS)
    (gradient,) = torch.autograd.grad(before, x)
    assert maximum_mean_discrepancy(x - gradient, y, SIGMAS) < before


def test_float16_vectors_far_from_the_origin_are_compared_in_float32():
    x, y = (100 + draw(5, 8)).half(), (101 + draw(5, 8, seed=1)).half()
    exact = maximum_mean_discrepancy(x.double(), y.double(), SIGMAS).item()
    assert maximum_mean_discrepancy(x, y, SIGMAS).item() == pytest.approx(exact, rel=1e-3)


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="0 and 3 vectors: expected at least one of each"):
        maximum_mean_discrepancy(draw(0, 2), draw(3, 2), SIGMAS)
