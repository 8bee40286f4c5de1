"""The dense CRF: exact mean field against loops, the fast forms against the exact one, and the lattice against sums."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.ops import crf
from segladder.ops.permutohedral import lattice_filter


def picture(height: int, width: int, contrast: float, seed: int = 0):
    """A noisy picture of a disc and a square, uncertain class maps of it (3, H, W), and the truth (H, W)."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    truth = torch.zeros(height, width, dtype=torch.long)
    truth[(y - 0.4) ** 2 + (x - 0.3) ** 2 < 0.06] = 1
    truth[(y > 0.55) & (x > 0.5) & (x < 0.9)] = 2
    colours = 120 + contrast * torch.tensor([[-0.5, 0.5, -0.5], [1, -0.5, -0.5], [-0.5, -0.3, 1]])
    image = colours[truth] + 20 * torch.sin(8 * x + 5 * y)[..., None]
    image += 10 * torch.randn(height, width, 3, generator=generator)
    blurred = F.avg_pool2d(F.one_hot(truth, 3).permute(2, 0, 1).float()[None], 9, 1, 4, count_include_pad=False)
    clutter = F.interpolate(torch.randn(1, 3, height // 4, width // 4, generator=generator), (height, width))
    return image.clamp(0, 255).byte(), (1.5 * blurred + 0.9 * clutter)[0].softmax(0), truth


def slow_mean_field(image, probabilities, iterations, smooth, appearance):
    """One pair of pixels after the other; smooth (sxy, compat), appearance (sxy, srgb, compat)."""
    count, height, width = probabilities.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    kernels = torch.zeros(2, len(pixels), len(pixels), dtype=torch.float64)
    colours = image.tolist()
    for i, (y, x) in enumerate(pixels):
        for j, (v, u) in enumerate(pixels):
            place = (y - v) ** 2 + (x - u) ** 2
            colour = sum((a - b) ** 2 for a, b in zip(colours[y][x], colours[v][u], strict=True))
            kernels[0, i, j] = -place / (2 * smooth[0] ** 2)
            kernels[1, i, j] = -place / (2 * appearance[0] ** 2) - colour / (2 * appearance[1] ** 2)
    kernels = kernels.exp()
    sums = kernels.sum(2)
    kernels = kernels / (sums[:, :, None] * sums[:, None, :]).sqrt()
    logs = probabilities.double().clamp(1e-5, 1).log().reshape(count, -1)
    beliefs = logs.softmax(0)
    for _ in range(iterations):
        messages = smooth[1] * beliefs @ kernels[0] + appearance[2] * beliefs @ kernels[1]
        beliefs = (logs + messages).softmax(0)
    return beliefs.reshape(probabilities.shape).float()


def fit(image, labels, backend):
    """Labels (H, W) of three classes as the official codes refine them."""
    probabilities = crf.label_probabilities(labels, 3)
    return crf.dense_crf(image, probabilities, bilateral_sxy=50, bilateral_srgb=5, backend=backend)


def agreement(one, other):
    return float((one.argmax(0) == other.argmax(0)).float().mean())


@pytest.fixture(params=["torch", "pydensecrf"])
def fast_backend(request):
    if request.param == "pydensecrf":
        pytest.importorskip("pydensecrf")
    return request.param


def test_exact_mean_field_is_its_formula():
    image, probabilities, _ = picture(6, 7, contrast=30)
    probabilities[:, 0, 0] = torch.tensor([1.0, 0, 0])  # zeros count as 1e-5
    found = crf.dense_crf(image, probabilities, 3, 2, 1.5, 6, 20, 4, backend="exact")
    expected = slow_mean_field(image, probabilities, 3, (2, 1.5), (6, 20, 4))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("contrast", [10, 25, 60])  # hardly, barely and well above the noise
def test_fast_forms_choose_the_classes_of_the_exact_one(fast_backend, contrast):
    image, probabilities, _ = picture(48, 56, contrast)
    exact = crf.dense_crf(image, probabilities, backend="exact")
    fast = crf.dense_crf(image, probabilities, backend=fast_backend)
    assert agreement(fast, exact) >= 0.97
    assert (fast - exact).abs().mean() < 0.02


def test_fast_forms_agree_after_labels_too(fast_backend):
    image, _, truth = picture(48, 56, contrast=60)
    labels = torch.where(torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) < 0.5, truth, 255)
    exact = fit(image, labels, "exact")
    fast = fit(image, labels, fast_backend)
    assert agreement(fast, exact) >= 0.97 and (fast - exact).abs().mean() < 0.02


def test_maps_come_closer_to_the_objects(fast_backend):
    image, probabilities, truth = picture(48, 56, contrast=60)
    refined = crf.dense_crf(image, probabilities, backend=fast_backend)
    before, after = ((p.argmax(0) == truth).float().mean() for p in (probabilities, refined))
    assert before < 0.9 and after > 0.98


@pytest.mark.parametrize("backend", ["torch", "exact"])
def test_without_iterations_probabilities_come_back(backend):
    image, probabilities, _ = picture(8, 12, contrast=30)
    found = crf.dense_crf(image, probabilities, iterations=0, backend=backend)
    torch.testing.assert_close(found, probabilities, atol=1e-6, rtol=0)


@settings(max_examples=10)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 4), st.integers(0, 99))
def test_any_picture_gives_probabilities(height, width, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8)
    probabilities = torch.rand(classes, height, width, generator=generator).mul(9).softmax(0)
    found = crf.dense_crf(image, probabilities, iterations=2, backend="torch")
    assert found.min() >= 0
    torch.testing.assert_close(found.sum(0), torch.ones(height, width), atol=1e-5, rtol=0)


def test_labels_become_their_certainty_and_unknown_ones_none():
    labels = torch.tensor([[0, 2, 255]], dtype=torch.uint8)
    found = crf.label_probabilities(labels, 3, certainty=0.7)
    expected = torch.tensor([[0.7, 0.15, 1 / 3], [0.15, 0.15, 1 / 3], [0.15, 0.7, 1 / 3]])
    torch.testing.assert_close(found[:, 0], expected)


def test_unknown_labels_take_the_class_of_their_colour():
    image, _, truth = picture(32, 40, contrast=60)
    labels = truth.clone()
    labels[:, ::2] = 255
    refined = fit(image, labels, "exact").argmax(0)
    assert (refined == truth).float().mean() > 0.95


@pytest.mark.parametrize("backend", ["torch", "pydensecrf"])
def test_several_images_of_any_size_are_each_what_one_is(backend, monkeypatch):
    if backend == "pydensecrf":
        pytest.importorskip("pydensecrf")
        monkeypatch.setenv("OMP_NUM_THREADS", "2")  # a pool, also where there is one core for each test
    images, probabilities, _ = zip(
        *(picture(24, width, 40, seed) for seed, width in enumerate((20, 24, 28))), strict=True
    )
    found = crf.dense_crf_each(images, probabilities, iterations=3, backend=backend)
    for image, before, after in zip(images, probabilities, found, strict=True):
        torch.testing.assert_close(after, crf.dense_crf(image, before, iterations=3, backend=backend), atol=0, rtol=0)
    assert crf.dense_crf_each([], [], backend=backend) == []


def test_auto_names_the_backend_that_runs(monkeypatch):
    monkeypatch.setattr(crf, "find_spec", lambda name: None)
    assert crf.backend_name() == "torch"
    with pytest.raises(ConfigError, match=r"backend=pydensecrf: not installed.*segladder\[crf\]"):
        crf.backend_name("pydensecrf")
    monkeypatch.setattr(crf, "find_spec", lambda name: object())
    assert crf.backend_name() == crf.backend_name("pydensecrf") == "pydensecrf"


def test_what_cannot_run_is_refused():
    with pytest.raises(ConfigError, match="backend=cpp: expected auto, pydensecrf, torch, exact"):
        crf.backend_name("cpp")
    with pytest.raises(ConfigError, match="backend=exact: 101 x 100 pixels, expected at most 10000"):
        crf.dense_crf(torch.zeros(101, 100, 3).byte(), torch.full((2, 101, 100), 0.5), backend="exact")
    with pytest.raises(ValueError, match=r"image: expected.*\(4, 5\), got \(5, 4, 3\)"):
        crf.dense_crf(torch.zeros(5, 4, 3).byte(), torch.full((2, 4, 5), 0.5), backend="torch")


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_the_lattice_approximates_the_gaussian(dimensions):
    """Divided by its sums as in the CRF, on points strewn along a line of five standard deviations."""
    generator = torch.Generator().manual_seed(dimensions)
    along = 5 * torch.rand(300, 1, dtype=torch.float64, generator=generator)
    points = along / dimensions**0.5 + 0.1 * torch.randn(300, dimensions, dtype=torch.float64, generator=generator)
    found = lattice_filter(points)(torch.eye(300, dtype=torch.float64))
    expected = (-torch.cdist(points, points).square() / 2).exp()
    found, expected = (k / (k.sum(1, keepdim=True) * k.sum(1)).sqrt() for k in (found, expected))
    assert (found - expected).abs().sum() < 0.1 * expected.sum()


def test_points_far_apart_keep_their_values():
    points = torch.tensor([[0.0, 0.0], [0.0, 0.0], [90.0, -40.0]])
    smooth = lattice_filter(points)
    found = smooth(torch.tensor([[1.0], [3.0], [7.0]])) / smooth(torch.ones(3, 1))
    torch.testing.assert_close(found, torch.tensor([[2.0], [2.0], [7.0]]))


def test_points_too_far_apart_to_number_are_refused():
    with pytest.raises(ValueError, match="too many to number"):
        lattice_filter(torch.tensor([[0.0] * 5, [1e6] * 5]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_torch_gives_the_same_on_cuda():
    image, probabilities, _ = picture(32, 40, contrast=30)
    found = crf.dense_crf(image, probabilities.cuda(), backend="torch")
    torch.testing.assert_close(found.cpu(), crf.dense_crf(image, probabilities, backend="torch"), atol=1e-3, rtol=0)
