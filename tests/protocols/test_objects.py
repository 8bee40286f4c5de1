"""Protocols of single objects: who tells them apart is right, and a dense answer is split at its components."""

import shutil

import numpy as np
import pytest
import torch
from dummy_data import save_image, save_mask, write_list
from hypothesis import given, settings
from hypothesis import strategies as st

from segladder.data.sources.palette import voc_palette
from segladder.data.sources.voc import VOC
from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method, Objects
from segladder.metrics.bootstrap import estimate
from segladder.protocols.instance import InstanceProtocol
from segladder.protocols.objects import Found, components
from segladder.protocols.panoptic import PanopticProtocol

NAMES = ("background", "cat", "dog")
NOTHING = {"optimizer": {}, "schedule": {}, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SIDE = 32
FIELDS = {"dataset": "voc", "split": "val", "classes": None, "other_classes": "ignore", "stuff": (), "input_size": None}
FIELDS |= {"smallest": 0.001, "sure": 0.5, "bootstrap": 50}


def drawn(number):
    """Mask and objects of an image: two cats that touch, a dog elsewhere, void around; the last image holds a dog."""
    mask, objects = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    top = 2 + number
    mask[top + 14 : top + 26, 3:25] = objects[top + 14 : top + 26, 3:25] = 255
    mask[top + 15 : top + 25, 4:24], objects[top + 15 : top + 25, 4:24] = 2, 3
    if number < 3:
        mask[top : top + 10, 4:24], objects[top : top + 10, 4:14], objects[top : top + 10, 14:24] = 1, 1, 2
    return mask, objects


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    for number in range(4):
        mask, objects = drawn(number)
        picture = np.where(mask[..., None] == 255, 0, voc_palette()[mask])
        save_image(folder / "JPEGImages" / f"im{number}.jpg", picture)
        save_mask(folder / "SegmentationClass" / f"im{number}.png", mask)
        save_mask(folder / "SegmentationObject" / f"im{number}.png", objects)
    write_list(folder / "ImageSets/Segmentation/val.txt", [f"im{number}" for number in range(4)])
    write_list(folder / "ImageSets/Segmentation/train.txt", [f"im{number}" for number in range(4)])
    return folder


@pytest.fixture
def source(root):
    return VOC(root, all_classes=NAMES)


class Knowing(Method):
    """Answers with the masks of the data set: as classes, or as objects."""

    def __init__(self, source, tells, spoilt=False):
        super().__init__(name="knowing", supervision="full", trains=False, **NOTHING)
        self.source, self.tells_objects, self.spoilt = source, tells, spoilt

    def loss(self, batch):
        raise NotImplementedError

    def images_of(self, images):
        pixels = {i: torch.from_numpy(self.source.image(i)).permute(2, 0, 1) for i in self.source.split("val")}
        return [next(i for i, one in pixels.items() if torch.equal(one, image)) for image in images]

    def predict(self, images):
        masks = np.stack([np.where(self.source.mask(i) == 255, 0, self.source.mask(i)) for i in self.images_of(images)])
        return 20 * torch.nn.functional.one_hot(torch.from_numpy(masks).long(), 3).permute(0, 3, 1, 2).float()

    def objects(self, images, size):
        assert size == (SIDE, SIDE)
        found = []
        for image_id in self.images_of(images):
            held = self.source.instances(image_id)
            masks, classes = torch.from_numpy(held.masks), torch.from_numpy(held.classes.astype(np.int64))
            scores = torch.full((len(held),), 0.9)
            if self.spoilt:
                ghost = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
                ghost[:, :2, :2] = True
                masks, classes = torch.cat([masks, ghost]), torch.cat([classes, torch.tensor([2])])
                scores = torch.cat([scores, torch.tensor([0.95])])
            found.append(Objects(masks, classes, scores))
        return found


def instance(**changes):
    pytest.importorskip("pycocotools", reason="mask AP needs the extra `coco`")
    return InstanceProtocol(name="instance", areas=(150, 220), **(FIELDS | changes))


def panoptic(**changes):
    return PanopticProtocol(name="panoptic", **(FIELDS | changes))


def values(result):
    return {name: score["value"] for name, score in result.metrics.items()}


def test_objects_that_are_right_have_every_score(source):
    found = instance().score(Knowing(source, tells=True), source)
    assert values(found) == pytest.approx(
        {"AP": 1, "AP50": 1, "AP75": 1, "AP_small": 1, "AP_medium": 1, "AP_large": np.nan}, nan_ok=True
    )
    assert [(row["class"], row["AP"], row["objects"]) for row in found.per_class] == [("cat", 1, 6), ("dog", 1, 4)]
    assert values(panoptic().score(Knowing(source, tells=True), source)) == pytest.approx(
        dict.fromkeys(("PQ", "SQ", "RQ", "PQ_things", "PQ_stuff", "mIoU"), 1)
    )


def test_two_cats_that_touch_are_one_to_a_dense_answer(source):
    """Perfect pixels, so that what is lost is the telling apart: one of two cats is met at IoU 0.5, none above."""
    found = values(instance().score(Knowing(source, tells=False), source))
    assert found["AP50"] == pytest.approx((1 + 51 / 101) / 2)  # half of the cats, all dogs
    assert found["AP75"] == pytest.approx(1 / 2)
    quality = panoptic().score(Knowing(source, tells=False), source)
    rows = {row["class"]: row for row in quality.per_class}
    assert rows["cat"]["PQ"] == 0 and rows["dog"]["PQ"] == rows["background"]["PQ"] == 1  # 0.5 is not above 0.5
    assert values(quality)["mIoU"] == 1 and values(quality)["PQ"] == pytest.approx(2 / 3)


def test_components_of_a_dense_answer_stay_however_unsure_they_are(source):
    class Unsure(Knowing):
        def predict(self, images):
            return super().predict(images) / 40  # 0.45 for the class, 0.27 for both others

    sure, unsure = (panoptic().score(kind(source, tells=False), source) for kind in (Knowing, Unsure))
    assert values(unsure) == values(sure)


@pytest.mark.parametrize(("smallest", "found"), [(200.4 / SIDE**2, 1), (200.6 / SIDE**2, 0)])
def test_the_smallest_component_is_so_many_whole_pixels(source, smallest, found):
    """A dog has 200 of them."""
    rows = instance(smallest=smallest).score(Knowing(source, tells=False), source).per_class
    assert {row["class"]: row["AP"] for row in rows}["dog"] == found


def test_pixels_of_a_class_that_no_object_holds_are_void(root, tmp_path):
    """As a crowd's are: who paints them loses nothing, though the ghost comes before the cats of later images."""
    folder = shutil.copytree(root, tmp_path / "voc")
    mask, objects = drawn(0)
    mask[29:], objects[29:] = 1, 255
    save_mask(folder / "SegmentationClass/im0.png", mask)
    save_mask(folder / "SegmentationObject/im0.png", objects)
    source = VOC(folder, all_classes=NAMES)
    cats = instance().score(Knowing(source, tells=False), source).per_class[0]
    assert (cats["AP50"], cats["objects"]) == (pytest.approx(51 / 101), 6)


def test_invented_objects_cost_precision(source):
    found = instance().score(Knowing(source, tells=True, spoilt=True), source)
    assert found.per_class[0]["AP"] == 1
    assert found.per_class[1]["AP"] == pytest.approx(0.5)  # four ghosts before four dogs
    rows = panoptic().score(Knowing(source, tells=True, spoilt=True), source).per_class
    assert rows[2]["RQ"] == pytest.approx(4 / (4 + 4 / 2)) and rows[2]["SQ"] == 1


def test_stuff_is_no_object(source):
    found = instance(stuff=("dog",)).score(Knowing(source, tells=False), source)
    assert [row["class"] for row in found.per_class] == ["cat"]
    rows = panoptic(stuff=("dog",)).score(Knowing(source, tells=False), source).per_class
    assert [row["segments"] for row in rows] == [4, 6, 4]
    with pytest.raises(ConfigError, match="protocol panoptic: no class cow in use"):
        panoptic(stuff=("cow",)).score(Knowing(source, tells=False), source)


def test_intervals_follow_from_the_counts_kept(source, tmp_path):
    for protocol in (instance(), panoptic()):
        result = protocol.score(Knowing(source, tells=True, spoilt=True), source)
        for score in protocol.scores:
            again = estimate(result.counts, score.statistic, protocol.bootstrap)
            assert again == pytest.approx(tuple(result.metrics[score.name].values()), abs=1e-12, nan_ok=True)
        assert not protocol.check_result(result)


def test_panels_show_the_objects(source):
    protocol, method = panoptic(), Knowing(source, tells=True)
    result = protocol.score(method, source)
    picture = protocol.shown(method, source, result.counts.asked[0], result)
    true, found = picture.beside["true objects"], picture.beside["found objects"]
    assert np.array_equal(true, found) and list(picture.beside) == ["true objects", "found objects"]
    assert len({tuple(true[5, 8]), tuple(true[5, 20]), tuple(true[20, 8])}) == 3
    assert np.array_equal(picture.prediction == 1, picture.truth == 1)


def test_an_image_whose_objects_nobody_knows_is_named(root, tmp_path):
    folder = shutil.copytree(root, tmp_path / "voc")
    (folder / "SegmentationObject/im2.png").unlink()
    source = VOC(folder, all_classes=NAMES)
    with pytest.raises(DataError, match="voc: nothing tells the objects of im2 apart, and protocol=panoptic"):
        panoptic().score(Knowing(source, tells=False), source)
    with pytest.raises(DataError, match="voc: nothing tells the objects of im2 apart, and protocol=panoptic"):
        panoptic().check_items(source)


def test_sizes_that_are_no_range_are_refused():
    with pytest.raises(ConfigError, match=r"protocol.areas=\[9, 4\]"):
        InstanceProtocol(name="instance", areas=(9, 4), **FIELDS)


def test_what_lies_on_void_is_left_out():
    masks, void = np.zeros((3, 4, 4), bool), np.zeros((4, 4), bool)
    masks[0, :2], masks[1, 1:4], masks[2, 0] = True, True, True  # half, a third and all on void
    void[0], void[3] = True, True
    found = Found(masks, np.array([1, 2, 1]), np.ones(3, np.float32), np.zeros((4, 4), np.uint8)).without(void)
    assert found.classes.tolist() == [1, 2] and found.masks.sum((1, 2)).tolist() == [4, 8]


def test_the_surest_object_has_the_pixel():
    masks = np.zeros((4, 4, 4), bool)
    masks[0, :3], masks[1, 2:], masks[2, :2, :2], masks[3, 3] = True, True, True, True
    found = Found(masks, np.array([1, 2, 1, 2]), np.array([0.9, 0.8, 0.95, 0.3]), np.zeros((4, 4), np.uint8))
    classes, numbers = found.painted(sure=0.5)
    assert numbers.tolist() == [[3, 3, 1, 1], [3, 3, 1, 1], [1] * 4, [2] * 4]
    assert classes[3].tolist() == [2] * 4 and (classes[:3] == 1).all()
    assert found.painted(sure=0.5, least_left=0.6)[1][3].tolist() == [0] * 4  # the last row is half of object 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_components_cover_what_is_large_enough_once(seed, least):
    scores = np.random.default_rng(seed).random((3, 7, 9))
    probabilities = scores / scores.sum(0)
    found = components(probabilities, stuff=[0], least=least)
    classes = probabilities.argmax(0)
    assert found.masks.sum(0).max(initial=0) <= 1 and not found.rest.any()
    for mask, k, sure in zip(found.masks, found.classes, found.scores, strict=True):
        assert mask.sum() >= least and (classes[mask] == k).all() and k > 0
        assert sure == pytest.approx(probabilities[k][mask].mean())
    if least == 1:
        assert np.array_equal(found.masks.any(0), classes > 0)
