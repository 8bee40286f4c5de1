"""Imprinting: the weights of new classes by hand, and what was learnt stays."""

import numpy as np
import pytest
import torch
from torch import nn

from segladder.errors import ConfigError
from segladder.methods.full.imprinted import Imprinted
from segladder.nets.dense_features import DenseFeatures
from segladder.nets.losses import CrossEntropy
from segladder.nets.tiny import TinyBackbone

SETTINGS = {"name": "imprinted", "supervision": "full", "trains": False, "optimizer": {}, "schedule": {}}


class Colours(nn.Module):
    """Features are the colours themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TinyBackbone(width=4)
        self.channels = 3

    def forward(self, images):
        return images


def method():
    torch.manual_seed(0)
    made = Imprinted(Colours(), 4, CrossEntropy(), 10.0, **SETTINGS)
    made.pixel_mean.zero_()
    made.pixel_std.fill_(1)
    made.learnt[:2] = True
    return made


def pairs():
    random = np.random.default_rng(0)
    masks = [np.full((8, 6), value, np.uint8) for value in (2, 2, 1)]
    masks[0][:4], masks[1][:2], masks[1][-1] = 0, 3, 255
    return [(random.integers(0, 255, (8, 6, 3), dtype=np.uint8), mask) for mask in masks]


def unit(vector):
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def test_a_new_class_has_the_mean_direction_of_its_pixels_image_by_image():
    made = method()
    before = made.cosines.weights.detach().clone()
    made.study((), pairs())
    after = made.cosines.weights.detach().numpy()
    of_images = [unit(unit(image.astype(float))[mask == 2].mean(0)) for image, mask in pairs()[:2]]
    np.testing.assert_allclose(after[2], unit(np.mean(of_images, axis=0)), atol=1e-5)
    image, mask = pairs()[1]
    np.testing.assert_allclose(after[3], unit(unit(image.astype(float))[mask == 3].mean(0)), atol=1e-5)
    np.testing.assert_array_equal(after[:2], before[:2])
    assert made.learnt.all()


def test_scores_are_scaled_cosines():
    made = method()
    image = torch.rand(1, 3, 5, 7) * 255
    vectors, weights = unit(image[0].permute(1, 2, 0).numpy()), unit(made.cosines.weights.detach().numpy())
    np.testing.assert_allclose(made.predict(image)[0].detach().permute(1, 2, 0), 10 * vectors @ weights.T, atol=1e-4)


def test_nothing_new_is_an_error():
    made = method()
    with pytest.raises(ConfigError, match="no labelled image shows a class that start=RUN has not met"):
        made.study((), pairs()[2:])


def test_training_notes_which_classes_it_has_met():
    made = method()
    made.learnt.zero_()
    mask = torch.tensor([[[0, 3], [255, 3]]], dtype=torch.uint8)
    made.loss({"image": torch.rand(1, 3, 2, 2), "mask": mask})
    assert made.learnt.tolist() == [True, False, False, True]


def test_classes_that_another_process_meets_are_met(monkeypatch):
    made = method()
    made.learnt.zero_()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda votes, how: votes[2:3].fill_(1))
    made.loss({"image": torch.rand(1, 3, 2, 2), "mask": torch.zeros(1, 2, 2, dtype=torch.uint8)})
    assert made.learnt.tolist() == [True, False, True, False]


def test_validation_meets_no_class():
    made = method().eval()
    made.loss({"image": torch.rand(1, 3, 2, 2), "mask": torch.full((1, 2, 2), 3, dtype=torch.uint8)})
    assert made.learnt.tolist() == [True, True, False, False]


def test_the_network_takes_any_backbone():
    features = DenseFeatures(TinyBackbone(width=4), 8, 4, None)
    assert Imprinted(features, 3, CrossEntropy(), 10.0, **SETTINGS).predict(torch.rand(2, 3, 33, 40)).shape == (
        *(2, 3, 33, 40),
    )
