"""The fully connected CRF that fits class maps to the image's colours (Kraehenbuehl and Koltun 2011).

Mean field: Q <- softmax(log p + sum over kernels of compat * K' Q), K'_ij = k_ij / sqrt(n_i n_j), n_i = sum_j k_ij,
with k a Gaussian of place (smoothness) and one of place and colour (appearance). A pixel's message includes its own, as
in the authors' code. Three backends differ in how they compute K' Q:

`pydensecrf` is the authors' C++ code (the `crf` extra); `torch` filters on the permutohedral lattice as it does, on any
device; `exact` sums over all pairs of pixels, for small images. The lattice is an approximation: single probabilities
can be far from the exact ones, the best class seldom differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.ops.densecrf import Problem, solve_each
from segladder.ops.permutohedral import lattice_filter

Backend = Literal["auto", "pydensecrf", "torch", "exact"]
EXACT_PIXELS = 10_000  # the matrix of all pairs takes 400 MB in float32, twice while it is made
LEAST_PROBABILITY = 1e-5  # pydensecrf's

Message = Callable[[Tensor], Tensor]


class _Kernels(NamedTuple):
    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float


def backend_name(backend: str = "auto") -> str:
    """The backend that runs: `auto` takes pydensecrf where it is installed, else torch.

    Raises:
        ConfigError: an unknown backend, or pydensecrf where it is not installed.
    """
    if backend == "auto":
        return "pydensecrf" if find_spec("pydensecrf") else "torch"
    if backend not in get_args(Backend):
        raise ConfigError(f"backend={backend}: expected {', '.join(get_args(Backend))}")
    if backend == "pydensecrf" and not find_spec("pydensecrf"):
        raise ConfigError("backend=pydensecrf: not installed; pip install 'segladder[crf]', or choose backend=torch")
    return backend


def dense_crf(
    image: Tensor,
    probabilities: Tensor,
    iterations: int = 10,
    gaussian_sxy: float = 3,
    gaussian_compat: float = 3,
    bilateral_sxy: float = 80,
    bilateral_srgb: float = 13,
    bilateral_compat: float = 10,
    backend: str = "auto",
) -> Tensor:
    """Class probabilities after mean-field inference, with the parameters IRNet and Puzzle-CAM use as defaults.

    Args:
        image: uint8 (H, W, 3).
        probabilities: (K, H, W), sum 1 over K; below 1e-5 they count as that.
        iterations: of mean field; 0 gives the probabilities back.
        gaussian_sxy: standard deviation of place in the smoothness kernel, in pixels.
        gaussian_compat: its weight.
        bilateral_sxy: standard deviation of place in the appearance kernel, in pixels.
        bilateral_srgb: its standard deviation of colour, in 0..255.
        bilateral_compat: its weight.
        backend: `auto`, `pydensecrf`, `torch` or `exact`; see `backend_name`.

    Returns:
        (K, H, W) float32 on the device of `probabilities`.

    Raises:
        ConfigError: a backend that is unknown, not installed, or exact for more than 10,000 pixels.
        ValueError: image and probabilities of different size.
    """
    kernels = _Kernels(gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat)
    return _solved([image], [probabilities], iterations, kernels, backend)[0]


def dense_crf_each(
    images: Sequence[Tensor],
    probabilities: Sequence[Tensor],
    iterations: int = 10,
    gaussian_sxy: float = 3,
    gaussian_compat: float = 3,
    bilateral_sxy: float = 80,
    bilateral_srgb: float = 13,
    bilateral_compat: float = 10,
    backend: str = "auto",
) -> list[Tensor]:
    """`dense_crf` of several images, with pydensecrf in a pool of processes, one a core.

    Args:
        images: uint8 (H, W, 3) each.
        probabilities: (K, H, W) of each image; sizes and K may differ.
        iterations: as in `dense_crf`, like all that follow.
        gaussian_sxy: standard deviation of place, smoothness.
        gaussian_compat: weight, smoothness.
        bilateral_sxy: standard deviation of place, appearance.
        bilateral_srgb: standard deviation of colour, appearance.
        bilateral_compat: weight, appearance.
        backend: `auto`, `pydensecrf`, `torch` or `exact`.

    Returns:
        (K, H, W) float32 for each image, on the device of its probabilities.

    Raises:
        ConfigError, ValueError: as `dense_crf`.
    """
    kernels = _Kernels(gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat)
    return _solved(images, probabilities, iterations, kernels, backend)


def label_probabilities(labels: Tensor, num_classes: int, certainty: float = 0.7) -> Tensor:
    """Probabilities that hard labels stand for; after `dense_crf` their argmax are the refined labels.

    Args:
        labels: class ids (H, W) below `num_classes`, 255 where every class is as likely.
        num_classes: K, at least 2.
        certainty: probability of a label; the other classes share the rest. Official codes: .7.

    Returns:
        (K, H, W) float32.
    """
    classes = torch.arange(num_classes, device=labels.device)[:, None, None]
    probabilities = torch.where(labels == classes, certainty, (1 - certainty) / (num_classes - 1))  # (K, H, W)
    return probabilities.where(labels != IGNORE, 1 / num_classes)


def _solved(
    images: Sequence[Tensor], probabilities: Sequence[Tensor], iterations: int, kernels: _Kernels, backend: str
) -> list[Tensor]:
    for image, given in zip(images, probabilities, strict=True):
        if image.shape != (*given.shape[1:], 3):
            size = tuple(given.shape[1:])
            raise ValueError(f"image: expected (H, W, 3) of the probabilities' size {size}, got {tuple(image.shape)}")
    chosen = backend_name(backend)
    unaries = [-given.detach().float().clamp(LEAST_PROBABILITY, 1).log() for given in probabilities]  # (K, H, W) each
    if chosen == "pydensecrf":
        problems = [
            Problem(image.cpu().numpy(), unary.cpu().numpy(), iterations, *kernels)
            for image, unary in zip(images, unaries, strict=True)
        ]
        found = map(torch.from_numpy, solve_each(problems))
        return [beliefs.to(unary.device) for beliefs, unary in zip(found, unaries, strict=True)]
    if not unaries:
        return []
    make = _exact_message if chosen == "exact" else _lattice_message
    with torch.autocast(unaries[0].device.type, enabled=False):
        return [
            _mean_field(unary.flatten(1).T, make(image.to(unary.device), kernels), iterations).T.reshape(unary.shape)
            for image, unary in zip(images, unaries, strict=True)
        ]


def _mean_field(unary: Tensor, message: Message, iterations: int) -> Tensor:
    """Probabilities (N, K) from energies (N, K)."""
    beliefs = (-unary).softmax(1)
    for _ in range(iterations):
        beliefs = (message(beliefs) - unary).softmax(1)
    return beliefs


def _weighted_features(image: Tensor, kernels: _Kernels) -> list[tuple[Tensor, float]]:
    """For each kernel the pixels' features (N, d) in standard deviations, and its weight."""
    axes = (torch.arange(n, dtype=torch.float32, device=image.device) for n in image.shape[:2])
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)  # (N, 2)
    colours = image.flatten(0, 1).float() / kernels.bilateral_srgb  # (N, 3)
    appearance = torch.cat([places / kernels.bilateral_sxy, colours], 1)
    return [(places / kernels.gaussian_sxy, kernels.gaussian_compat), (appearance, kernels.bilateral_compat)]


def _lattice_message(image: Tensor, kernels: _Kernels) -> Message:
    filters = []
    for features, compat in _weighted_features(image, kernels):
        smooth = lattice_filter(features)
        scale = smooth(features.new_ones(len(features), 1)).rsqrt()  # (N, 1)
        filters.append((smooth, scale, compat))

    def message(beliefs: Tensor) -> Tensor:
        return torch.stack([compat * scale * smooth(scale * beliefs) for smooth, scale, compat in filters]).sum(0)

    return message


def _exact_message(image: Tensor, kernels: _Kernels) -> Message:
    height, width = image.shape[:2]
    pixels = height * width
    if pixels > EXACT_PIXELS:
        raise ConfigError(
            f"backend=exact: {height} x {width} pixels, expected at most {EXACT_PIXELS} in all; choose backend=torch"
        )
    total = torch.zeros(pixels, pixels, device=image.device)
    for features, compat in _weighted_features(image, kernels):
        kernel = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square_().div_(-2).exp_()
        scale = kernel.sum(1).rsqrt()
        total += kernel.mul_(compat * scale).mul_(scale[:, None])
    return lambda beliefs: total @ beliefs
