"""Mask layers of Mask R-CNN and Mask^X R-CNN: the transfer is its formula, and boxes alone teach no mask."""

import pytest
import torch
from small_methods import configuration
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

from segladder.errors import ConfigError
from segladder.nets.regions import MASK_PIXELS, TransferredMasks, pyramid_levels
from segladder.runs import build

CLASSES, WIDTH, BOX_WIDTH = 4, 3, 5


def layers(**switches):
    torch.manual_seed(0)
    masks = TransferredMasks(WIDTH, BOX_WIDTH, fusion_width=7, **switches)
    detector = FastRCNNPredictor(BOX_WIDTH, CLASSES)
    return masks, detector, torch.randn(2, WIDTH, MASK_PIXELS, MASK_PIXELS)


def test_the_mask_layer_of_a_class_is_a_function_of_its_box_weights():
    masks, detector, features = layers(transfer=True, fusion=False)
    logits = masks(features, detector)
    enlarged = masks.enlarge(features).relu()
    for k in range(CLASSES):
        box = torch.cat([detector.cls_score.weight[k], detector.bbox_pred.weight[4 * k : 4 * k + 4].flatten()])
        first, leaky, second = masks.transfer
        weights = second(leaky(first(box)))  # (C,)
        expected = sum(weights[c] * enlarged[:, c] for c in range(WIDTH)) + masks.bias
        torch.testing.assert_close(logits[:, k], expected)


def test_no_gradient_of_masks_reaches_the_box_head():
    masks, detector, features = layers(transfer=True, fusion=True)
    masks(features, detector).sum().backward()
    assert all(p.grad is None for p in detector.parameters())
    assert all(p.grad is not None and p.grad.any() for p in masks.parameters())


def test_the_class_agnostic_baseline_has_one_mask_for_all_classes():
    masks, detector, features = layers(transfer=False, fusion=False)
    logits = masks(features, detector)
    assert torch.equal(logits, logits[:, :1].expand_as(logits)) and masks.transfer is None


def test_fusion_adds_one_mask_to_that_of_each_class():
    masks, detector, features = layers(transfer=True, fusion=True)
    fused = masks(features, detector)
    added, masks.perceptron = masks.perceptron(features), None
    difference = fused - masks(features, detector)
    torch.testing.assert_close(difference, added.view(2, 1, 28, 28).expand_as(difference))


def test_boxes_alone_teach_no_mask():
    """Masks of objects that are not outlined may hold anything."""
    method = build.method(configuration("mask_x_rcnn"), num_classes=CLASSES).train()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    boxes, classes = torch.tensor([[4.0, 4, 30, 30], [30, 30, 60, 60]]), torch.tensor([1, 2])

    def losses(*outlined, value):
        masks = torch.zeros(2, 64, 64, dtype=torch.bool)
        masks[0, 6:28, 6:28], masks[1] = True, value
        known = {"boxes": boxes, "classes": classes, "masks": masks, "outlined": torch.tensor(outlined)}
        torch.manual_seed(0)
        return method.loss({"image": method.normalize(images), "objects": [known]})

    same = [losses(True, False, value=value)["loss"].item() for value in (False, True)]
    assert same[0] == same[1]
    other = [losses(True, True, value=value)["mask"].item() for value in (False, True)]
    assert other[0] != other[1]
    assert losses(False, False, value=True)["mask"].item() == 0


def test_a_batch_without_objects_says_so():
    method = build.method(configuration("mask_rcnn"), num_classes=CLASSES)
    with pytest.raises(ConfigError, match="method=mask_rcnn learns from single objects, and this protocol shows none"):
        method.loss({"image": torch.zeros(1, 3, 64, 64)})


def test_masks_are_pasted_where_their_boxes_lie():
    method = build.method(configuration("mask_rcnn"), num_classes=CLASSES).eval()
    boxes, whole = torch.tensor([[8.0, 16, 24, 48]]), torch.ones(1, 1, 28, 28)
    method.network.forward = lambda images: [(boxes, torch.tensor([2]), torch.tensor([0.75]), whole)]
    pixels = torch.zeros(1, 3, 64, 32, dtype=torch.uint8)
    (found,) = method.objects(pixels, (128, 64))  # label size is twice the input's
    rows, columns = torch.nonzero(found.masks[0], as_tuple=True)
    place = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert all(abs(int(a) - b) <= 1 for a, b in zip(place, (16, 32, 48, 96), strict=True))
    probabilities = method.predict(pixels).exp()[0]
    assert probabilities[:, 30, 15].tolist() == pytest.approx([0.25, 0, 0.75, 0], abs=1e-5)
    assert probabilities[:, 2, 2].tolist() == pytest.approx([1, 0, 0, 0], abs=1e-5)


def test_a_pyramid_needs_two_strides():
    assert pyramid_levels([2, 4, 8, 16]) == [1, 2, 3] and pyramid_levels([4, 8, 16, 16]) == [0, 1, 3]
    with pytest.raises(ConfigError, match="expected two or more from 4 on"):
        pyramid_levels([16, 16, 16, 16])
