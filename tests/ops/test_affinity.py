"""Pairs, their labels and losses, and the random walk against dense float64 definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segladder.ops import affinity

sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairs_inside(height, width, radius):
    """Index of the offset, and both places, of every pair inside a map."""
    for index, (dy, dx) in enumerate(affinity.pair_offsets(radius)):
        for y in range(height - dy):
            for x in range(max(0, -dx), min(width, width - dx)):
                yield index, (y, x), (y + dy, x + dx)


def dense_walk(scores, affinities, radius, beta, steps):
    """T as a matrix, squared as the official codes do."""
    height, width = scores.shape[-2:]
    matrix = torch.eye(height * width, dtype=torch.float64)
    for index, (y, x), (v, u) in pairs_inside(height, width, radius):
        first, second = y * width + x, v * width + u
        matrix[first, second] = matrix[second, first] = affinities[index, y, x]
    matrix = matrix**beta
    transitions = matrix / matrix.sum(0, keepdim=True)
    return (scores.double().flatten(1) @ torch.linalg.matrix_power(transitions, steps)).view_as(scores)


def strongest_edge(edge, first, second):
    """The largest edge among all places of the bounding box closer than 1 to the line."""
    (y, x), (v, u) = first, second
    length = ((v - y) ** 2 + (u - x) ** 2) ** 0.5
    return max(
        float(edge[row, column])
        for row in range(min(y, v), max(y, v) + 1)
        for column in range(min(x, u), max(x, u) + 1)
        if abs((v - y) * (column - x) - (u - x) * (row - y)) / length < 1
    )


def test_radius_five_has_34_offsets_each_direction_once():
    offsets = affinity.pair_offsets(5)
    assert len(offsets) == len(set(offsets)) == 34
    assert not {(-dy, -dx) for dy, dx in offsets} & set(offsets)
    assert all(dy * dy + dx * dx < 25 for dy, dx in offsets)


@given(st.integers(2, 12))
def test_offsets_are_half_of_the_disc(radius):
    reach = range(-radius, radius + 1)
    disc = {(y, x) for y in reach for x in reach if 0 < y * y + x * x < radius * radius}
    offsets = affinity.pair_offsets(radius)
    assert {*offsets, *((-y, -x) for y, x in offsets)} == disc and 2 * len(offsets) == len(disc)


def test_a_radius_without_neighbours_is_refused():
    with pytest.raises(ValueError, match="radius=1"):
        affinity.pair_offsets(1)


def test_paths_hold_both_ends_and_run_straight():
    assert affinity.path_offsets((0, 3)) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert affinity.path_offsets((2, -2)) == [(0, -1), (0, 0), (1, -2), (1, -1), (1, 0), (2, -2), (2, -1)]
    for dy, dx in affinity.pair_offsets(6):
        path = affinity.path_offsets((dy, dx))
        assert {(0, 0), (dy, dx)} <= set(path)
        assert {(dy - y, dx - x) for y, x in path} == set(path)  # the same way back


@settings(max_examples=20)
@given(sizes, st.integers(2, 5), st.integers(0, 99))
def test_pair_labels_follow_their_two_places(size, radius, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 1, 2, 255], dtype=torch.uint8)[torch.randint(4, (1, *size), generator=generator)]
    found = affinity.affinity_labels(labels, radius)
    expected = [torch.zeros(1, len(affinity.pair_offsets(radius)), *size, dtype=torch.bool) for _ in found]
    for index, first, second in pairs_inside(*size, radius):
        here, there = int(labels[0][first]), int(labels[0][second])
        kind = 2 if here != there else int(here > 0)
        if 255 not in (here, there):
            expected[kind][0, index, first[0], first[1]] = True
    for mask, truth in zip(found, expected, strict=True):
        assert torch.equal(mask, truth)


@settings(max_examples=15)
@given(sizes, st.integers(2, 4))
def test_affinities_of_features_and_edges_are_their_formulas(size, radius):
    features, edge = uniform(1, 3, *size), uniform(1, *size, seed=1)
    shape = (1, len(affinity.pair_offsets(radius)), *size)
    of_features, of_edges = torch.zeros(shape).double(), torch.zeros(shape).double()
    for index, first, second in pairs_inside(*size, radius):
        difference = features[0, :, first[0], first[1]] - features[0, :, second[0], second[1]]
        of_features[0, index, first[0], first[1]] = (-difference.abs().mean()).exp()
        of_edges[0, index, first[0], first[1]] = 1 - strongest_edge(edge[0], first, second)
    torch.testing.assert_close(affinity.affinity_from_features(features, radius), of_features, atol=1e-12, rtol=0)
    torch.testing.assert_close(affinity.affinity_from_edges(edge, radius), of_edges, atol=1e-12, rtol=0)


def test_affinity_loss_weighs_the_means_of_its_three_kinds():
    labels = torch.tensor([[[0, 0, 1, 1, 255], [0, 0, 2, 1, 1]]])
    pairs = affinity.affinity_labels(labels, 3)
    values = uniform(*pairs.negative.shape)

    def mean(of, mask):
        return float(of[mask].sum() / (mask.sum() + 1e-5))

    positive, negative = -(values + 1e-5).log(), -(1 + 1e-5 - values).log()
    expected = mean(positive, pairs.background) / 4 + mean(positive, pairs.foreground) / 4
    expected += mean(negative, pairs.negative) / 2
    assert float(affinity.affinity_loss(values, pairs)) == pytest.approx(expected)


def test_affinity_loss_is_finite_at_its_extremes_and_without_pairs():
    pairs = affinity.affinity_labels(torch.tensor([[[0, 1], [1, 1]]]), 2)
    for extreme in (0.0, 1.0):
        values = torch.full(pairs.negative.shape, extreme, dtype=torch.float16)
        assert affinity.affinity_loss(values, pairs).isfinite()
    unknown = affinity.affinity_labels(torch.full((1, 2, 2), 255), 2)
    assert affinity.affinity_loss(torch.full((1, 4, 2, 2), 0.3), unknown) == 0


def test_gradients_reach_features_and_edges():
    pairs = affinity.affinity_labels(torch.tensor([[[0, 0, 1], [2, 1, 1], [255, 0, 1]]]), 3)

    def of_features(features):
        return affinity.affinity_loss(affinity.affinity_from_features(features, 3), pairs)

    def of_edges(edge):
        return affinity.affinity_loss(affinity.affinity_from_edges(edge, 3), pairs)

    assert torch.autograd.gradcheck(of_features, uniform(1, 2, 3, 3).requires_grad_())
    assert torch.autograd.gradcheck(of_edges, uniform(1, 3, 3).mul(0.8).add(0.1).requires_grad_())


def test_displacements_to_the_centre_cost_nothing_on_an_object():
    labels = torch.ones(1, 6, 7, dtype=torch.long)
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    field = torch.stack([2.5 - rows, 3.0 - columns])[None]
    assert [float(loss) for loss in affinity.displacement_losses(field, labels, 4)] == [0, 0]


def test_displacement_losses_are_means_over_their_pairs():
    labels = torch.tensor([[[0, 0, 1, 1], [0, 255, 1, 2], [0, 0, 1, 2]]])
    field = uniform(1, 2, 3, 4)
    foreground, background = [], []
    for _, first, second in pairs_inside(3, 4, 3):
        here, there = int(labels[0][first]), int(labels[0][second])
        difference = field[0, :, first[0], first[1]] - field[0, :, second[0], second[1]]
        offset = torch.tensor([second[0] - first[0], second[1] - first[1]])
        if here == there == 0:
            background.append(float(difference.abs().mean()))
        elif here == there != 255:
            foreground.append(float((difference - offset).abs().mean()))
    expected = [sum(foreground) / len(foreground), sum(background) / len(background)]
    found = affinity.displacement_losses(field, labels, 3)
    assert [float(loss) for loss in found] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("sharpness", [1, 4, 100])  # edges everywhere, in places, hardly any
@pytest.mark.parametrize("size", [(13, 17), (1, 9), (3, 2)])
def test_random_walk_equals_the_dense_definition(size, sharpness):
    scores, edge = uniform(3, *size).float(), (uniform(*size, seed=1) ** sharpness).float()
    walked = affinity.random_walk(scores, edge)
    affinities = affinity.affinity_from_edges(edge[None].double(), 5)[0]
    expected = dense_walk(scores.double() * (1 - edge.double()), affinities, 5, 10, 256)
    assert walked.dtype == torch.float32
    torch.testing.assert_close(walked.double(), expected, atol=1e-6, rtol=0)


@settings(max_examples=20)
@given(sizes, st.integers(2, 5), st.floats(0.5, 10), st.integers(0, 300), st.integers(0, 99))
def test_propagation_equals_the_dense_definition_for_any_walk(size, radius, beta, steps, seed):
    """Few steps and many, any radius and map; values behind the border count nothing."""
    scores = uniform(2, *size, seed=seed)
    affinities = uniform(len(affinity.pair_offsets(radius)), *size, seed=seed + 1)
    walked = affinity.propagate(scores, affinities, radius, beta, steps)
    torch.testing.assert_close(walked, dense_walk(scores, affinities, radius, beta, steps), atol=1e-6, rtol=0)


@settings(max_examples=20)
@given(sizes, st.integers(0, 99))
def test_a_walk_averages(size, seed):
    """Equal scores stay, others stay in range: each step is a weighted mean."""
    scores, affinities = uniform(2, *size, seed=seed), uniform(34, *size, seed=seed + 1)
    scores[0] = 0.7
    walked = affinity.propagate(scores, affinities)
    torch.testing.assert_close(walked[0], scores[0], atol=1e-6, rtol=0)
    assert walked[1].min() >= scores[1].min() - 1e-6 and walked[1].max() <= scores[1].max() + 1e-6


def test_a_closed_edge_holds_the_walk_back():
    scores, edge = torch.zeros(1, 9, 15), torch.zeros(9, 15)
    scores[:, :, :7], edge[:, 7] = 1, 1
    walked = affinity.random_walk(scores, edge)[0]
    torch.testing.assert_close(walked[:, :7], torch.ones(9, 7), atol=1e-5, rtol=0)
    assert walked[:, 7:].abs().max() < 1e-5


def test_low_precision_inside_autocast_walks_like_float32():
    scores, edge = uniform(2, 6, 6).half(), uniform(6, 6, seed=1).half()
    with torch.autocast("cpu", torch.bfloat16):
        walked = affinity.random_walk(scores, edge)
    expected = affinity.random_walk(scores.float(), edge.float())
    assert walked.dtype == torch.float16
    torch.testing.assert_close(walked.float(), expected, atol=2e-3, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_walk_is_the_same_on_cuda():
    scores, edge = uniform(3, 20, 30).float(), uniform(20, 30, seed=1).float()
    walked = affinity.random_walk(scores.cuda(), edge.cuda())
    torch.testing.assert_close(walked.cpu(), affinity.random_walk(scores, edge), atol=1e-5, rtol=0)
