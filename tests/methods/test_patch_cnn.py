"""The patch classifier: window after window and over the whole image at once."""

import pytest
import torch
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.methods.full.patch_cnn import PatchCNN, PatchNetwork, drawn_pixels
from segladder.nets.losses import CrossEntropy, GatedCRF, WeightedSum


def network(channels=(3, 4), kernels=(4, 3), top_kernel=2) -> PatchNetwork:
    torch.manual_seed(0)
    return PatchNetwork(5, channels, kernels, top_kernel, hidden_channels=6).double().eval()


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def slow_score(net: PatchNetwork, image: torch.Tensor, y: int, x: int) -> torch.Tensor:
    """Cut one window out of the image, pixel by pixel from its mirror image outside, and pool it with strides."""
    half = net.window // 2
    height, width = image.shape[-2:]

    def inside(place: int, length: int) -> int:
        place %= 2 * (length - 1)
        return min(place, 2 * (length - 1) - place)

    rows = [inside(y + d, height) for d in range(-half, half + 1)]
    columns = [inside(x + d, width) for d in range(-half, half + 1)]
    features = image[:, rows][:, :, columns][None]
    for stage in net.stages:
        features = F.max_pool2d(F.relu(F.conv2d(features, stage.weight, stage.bias)), 2)
    hidden = F.relu(features.flatten() @ net.top.weight.flatten(1).T + net.top.bias)
    return hidden @ net.score.weight.flatten(1).T + net.score.bias


FORMS = [((3, 4), (4, 3), 2), ((3,), (2,), 3), ((2, 3, 4), (4, 5, 4), 1), ((3, 2), (4, 1), 3)]


@pytest.mark.parametrize(("channels", "kernels", "top_kernel"), FORMS)
@torch.no_grad()
def test_the_convolutional_form_gives_the_scores_of_every_window(channels, kernels, top_kernel):
    """At the border too, at odd sizes, and where an image is smaller than the window."""
    net, images = network(channels, kernels, top_kernel), draw(2, 3, 7, 12)
    dense = net(images)
    torch.testing.assert_close(net.slide(images), dense)
    for y, x in ((0, 0), (3, 5), (6, 11)):
        torch.testing.assert_close(dense[1, :, y, x], slow_score(net, images[1], y, x))


@torch.no_grad()
def test_the_paper_s_window_is_95_pixels():
    net = PatchNetwork(2, (1, 1, 1, 1), (4, 5, 4, 4), 3, 1)
    assert net.window == 95
    assert net.classify(torch.randn(2, 3, 95, 95)).shape == (2, 2)


def method(**changes) -> PatchCNN:
    settings = {"channels": [3, 4], "kernels": [4, 3], "top_kernel": 2, "hidden_channels": 6, "pixels": 8}
    common = {"name": "patch_cnn", "supervision": "full", "trains": True, "optimizer": {}, "schedule": {}}
    scale = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "form": "convolutional", "balanced": True}
    torch.manual_seed(0)
    return PatchCNN(**{"num_classes": 5, "criterion": CrossEntropy(), **settings, **common, **scale, **changes})


@torch.no_grad()
def test_predictions_do_not_depend_on_the_form():
    images = torch.randint(0, 256, (2, 3, 9, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(method(form="sliding").predict(images), method().predict(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_training_scores_drawn_pixels_as_prediction_does():
    """All pixels of an image but two have no label: whatever is drawn is one of these."""
    model, images = method(balanced=False).double(), draw(2, 3, 9, 14)
    masks = torch.full((2, 9, 14), 255, dtype=torch.uint8)
    masks[0, 2, 13], masks[1, 8, 0] = 3, 1
    logits = model(images)
    expected = F.cross_entropy(torch.stack([logits[0, :, 2, 13], logits[1, :, 8, 0]]).float(), torch.tensor([3, 1]))
    torch.testing.assert_close(model.loss({"image": images, "mask": masks})["loss"], expected)


def test_a_batch_without_labels_costs_nothing():
    model = method()
    loss = model.loss({"image": draw(1, 3, 9, 14).float(), "mask": torch.full((1, 9, 14), 255)})["loss"]
    loss.backward()
    assert loss.item() == 0 and not any(p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(("balanced", "shares"), [(True, {0: 0.5, 4: 0.5}), (False, {0: 0.9, 4: 0.1})])
def test_classes_are_drawn_equally_often_or_as_they_are(balanced, shares):
    masks = torch.zeros(1, 1000, dtype=torch.long)
    masks[:, :90], masks[:, 100:200] = 4, 255
    torch.manual_seed(0)
    places = drawn_pixels(masks, 4000, balanced)
    found = masks.gather(1, places).flatten()
    assert {int(k): pytest.approx(float((found == k).float().mean()), abs=0.03) for k in found.unique()} == shares


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"kernels": [4]}, r"method.kernels: 1 values, method.channels has 2"),
        ({"kernels": [3, 3]}, r"method.kernels\[0\]=3: windows of 14 pixels have no centre"),
    ],
)
def test_windows_without_a_centre_are_refused(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        method(**changes)


def test_a_loss_that_compares_neighbours_is_refused_before_training():
    with pytest.raises(ConfigError, match="the Gated CRF loss compares neighbours"):
        method(criterion=WeightedSum([CrossEntropy(), GatedCRF([{"weight": 1.0, "xy": 6.0}])], [1.0, 0.1]))
