"""Class scores of pixels and calibrated stacking against slow float64 references."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from segladder.ops.projection import calibrate, class_scores, contest

SEEN = torch.tensor([True, True, False, True, False])


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_score_is_the_inner_product_of_feature_and_class():
    features, embeddings = draw(2, 7, 3, 4), draw(5, 7, seed=1)
    scores = class_scores(features, embeddings)
    for b, k, i, j in torch.cartesian_prod(*map(torch.arange, (2, 5, 3, 4))).tolist():
        slow = sum(features[b, d, i, j] * embeddings[k, d] for d in range(7))
        assert abs(scores[b, k, i, j] - slow) < 1e-12
    channels_last = features.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(class_scores(channels_last, embeddings), scores)


def test_enlarged_scores_are_scores_of_enlarged_features():
    features, embeddings = draw(1, 6, 4, 5), draw(3, 6, seed=1)
    large = [interpolate(maps, (13, 17), mode="bilinear") for maps in (features, class_scores(features, embeddings))]
    torch.testing.assert_close(class_scores(large[0], embeddings), large[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    """A bfloat16 sum of ones would stop growing at 256, a float16 sum of 300s would be infinite."""
    features = torch.full((1, 600, 2, 2), 300, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        scores = class_scores(features, torch.ones(3, 600, dtype=dtype))
    assert scores.dtype == torch.float32 and (scores == 600 * features[0, 0, 0, 0].float()).all()


@settings(max_examples=30)
@given(st.floats(0, 2), st.sampled_from(["probabilities", "logits"]), st.integers(0, 99))
def test_calibration_lowers_seen_classes_alone(gamma, on, seed):
    scores = draw(2, 5, 3, 3, seed=seed)
    exponentials = scores.exp()
    expected = exponentials / exponentials.sum(1, keepdim=True) if on == "probabilities" else scores.clone()
    for k in range(5):
        expected[:, k] -= gamma if SEEN[k] else 0
    torch.testing.assert_close(calibrate(scores, SEEN, gamma, on), expected)


def test_gamma_moves_pixels_from_seen_to_unseen_classes():
    scores = 3 * draw(1, 5, 16, 16)
    shares = [SEEN.logical_not()[calibrate(scores, SEEN, g).argmax(1)].double().mean() for g in (0, 0.3, 0.6, 1.01)]
    assert shares == sorted(shares) and 0 < shares[0] < shares[1] and shares[-1] == 1
    assert torch.equal(calibrate(scores, SEEN, 0).argmax(1), scores.argmax(1))


def test_unknown_place_of_calibration_is_named():
    with pytest.raises(ValueError, match="on=odds: expected probabilities or logits"):
        calibrate(draw(1, 5, 1, 1), SEEN, 0.5, "odds")


@settings(max_examples=30)
@given(st.floats(0, 1.2), st.sampled_from(["probabilities", "logits"]), st.integers(0, 99))
def test_one_contest_answers_for_every_gamma(gamma, on, seed):
    scores = 2 * draw(2, 5, 4, 4, seed=seed)
    seen, unseen = SEEN.nonzero()[:, 0], (~SEEN).nonzero()[:, 0]
    best_seen, best_unseen, lead = contest(scores, seen, unseen, on)
    assert torch.equal(best_seen.where(lead >= gamma, best_unseen), calibrate(scores, SEEN, gamma, on).argmax(1))


def test_classes_outside_the_contest_change_nothing():
    scores = draw(1, 4, 3, 3)
    kept = contest(scores, torch.tensor([1, 2]), torch.tensor([3]))
    loud = scores.clone()
    loud[:, 0] = 100
    assert all(map(torch.equal, kept, contest(loud, torch.tensor([1, 2]), torch.tensor([3]))))


def test_unknown_lead_is_named():
    with pytest.raises(ValueError, match="on=odds: expected probabilities or logits"):
        contest(draw(1, 2, 1, 1), torch.tensor([0]), torch.tensor([1]), "odds")
