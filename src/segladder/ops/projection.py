"""Pixels compared with the semantic vectors of classes, and calibrated stacking between seen and unseen classes."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

GammaOn = Literal["probabilities", "logits"]


def class_scores(features: Tensor, embeddings: Tensor) -> Tensor:
    """Inner product of the feature at every place with each class's vector, the logits of SPNet (Xian et al. 2019).

    Scores are linear in the features: enlarging scores bilinearly gives what enlarging features would, without a
    feature map at image size.

    Args:
        features: maps (B, D, h, w); float16 and bfloat16 are summed in float32.
        embeddings: a row per class (K, D).

    Returns:
        (B, K, h, w) of the wider of both types, at least float32.
    """
    dtype = torch.promote_types(torch.promote_types(features.dtype, embeddings.dtype), torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        places = features.to(dtype).flatten(2)  # (B, D, h * w)
        scores: Tensor = (embeddings.to(dtype) @ places).unflatten(2, features.shape[2:])
        return scores


def calibrate(scores: Tensor, seen: Tensor, gamma: float, on: str = "probabilities") -> Tensor:
    """Scores with a handicap on seen classes: calibrated stacking (Chao et al. 2016), as in SPNet.

    `probabilities`: softmax(scores)_k - gamma [k seen]; `logits`: scores_k - gamma [k seen]. Gamma 0 changes no argmax;
    from 1 on (probabilities) no seen class wins.

    Args:
        scores: logits (B, K, h, w).
        seen: bool (K,).
        gamma: the handicap, in units of what it is taken from.
        on: `probabilities` or `logits`.

    Raises:
        ValueError: another `on`.
    """
    if on not in get_args(GammaOn):
        raise ValueError(f"on={on}: expected probabilities or logits")
    values = scores.softmax(1) if on == "probabilities" else scores
    return values - gamma * seen.to(values)[:, None, None]


def contest(scores: Tensor, seen: Tensor, unseen: Tensor, on: str = "probabilities") -> tuple[Tensor, Tensor, Tensor]:
    """The best seen and the best unseen class of each pixel, and by how much the seen one leads.

    The argmax of `calibrate` is the unseen one where its lead is below gamma, so that one pass serves every gamma.

    Args:
        scores: logits (B, K, H, W).
        seen: indices of the seen classes, int64 (S,).
        unseen: of the unseen ones (U,); classes in neither do not compete, nor count in probabilities.
        on: what leads: `probabilities` or `logits`.

    Returns:
        Two maps of class indices int64 (B, H, W), and the lead (B, H, W).

    Raises:
        ValueError: another `on`.
    """
    if on not in get_args(GammaOn):
        raise ValueError(f"on={on}: expected probabilities or logits")
    rivals = [scores[:, seen], scores[:, unseen]]
    (first, best_seen), (second, best_unseen) = (part.max(1) for part in rivals)  # (B, H, W)
    if on == "probabilities":
        total = torch.logaddexp(*(part.logsumexp(1) for part in rivals))
        first, second = (first - total).exp(), (second - total).exp()
    return seen[best_seen], unseen[best_unseen], first - second
