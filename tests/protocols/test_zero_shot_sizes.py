"""Zero-shot presets look at images, and score them, at the sizes of the official codes."""

import cv2
import numpy as np
import pytest
import torch
from dummy_data import picture, save_image, save_mask, write_list
from hydra import compose, initialize_config_module
from small_methods import configuration
from torch.nn.functional import avg_pool2d

from segladder.data.sources.voc import VOC, VOC_CLASSES
from segladder.errors import ConfigError
from segladder.methods.base import Method
from segladder.metrics.confusion import confusion_matrix
from segladder.protocols.episode_runner import InputSize
from segladder.protocols.zero_shot import ZeroShotProtocol
from segladder.runs import build

SIZES = {"wide": (40, 60), "tall": (75, 41), "square": (48, 48)}
HIDDEN = ("boat",)  # value 4
OFFICIAL = {
    "zero_shot_spnet": ("square", 513, "input"),
    "zero_shot_cagnet": ("square", 512, "features"),
    "zero_shot_zs3": ("short", 513, "input"),
}
FIELDS = {
    **{"name": "zero_shot", "dataset": "voc", "split": "val", "classes": VOC_CLASSES[1:6], "other_classes": "ignore"},
    **{"split_name": "custom", "unseen": HIDDEN, "folds": (), "fold": 0, "background": "seen"},
    **{"unseen_pixels": "ignore", "transductive": False, "gamma_on": "probabilities", "gammas": (0.2, 0.4)},
    **{"gamma_rule": "fixed", "gamma": 0.0, "seen_kept": 0.8, "gamma_images": 6, "absent": "skip", "bootstrap": 20},
}


class Coarse(Method):
    """Scores by brightness of places of 8 x 8 pixels, and remembers the sizes of what it was shown."""

    scores_features = True

    def __init__(self) -> None:
        nothing = {"optimizer": {}, "schedule": {}, "mean": (0, 0, 0), "std": (1, 1, 1)}
        super().__init__(name="coarse", supervision="zero_shot", trains=False, **nothing)
        self.seen = torch.tensor([True, True, True, True, False, True])
        self.shown = []

    def loss(self, batch):
        raise NotImplementedError

    def feature_scores(self, images):
        self.shown.append(tuple(images.shape[2:]))
        places = avg_pool2d(images.float().mean(1, keepdim=True), 8, ceil_mode=True)  # (B, 1, h, w)
        return -(places - 40 * torch.arange(6)[:, None, None]).abs() / 10

    def predict(self, images):
        return torch.nn.functional.interpolate(self.feature_scores(images), images.shape[2:], mode="bilinear")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    voc = tmp_path_factory.mktemp("data") / "VOC2012"
    for split in ("train", "val"):
        write_list(voc / "ImageSets" / "Segmentation" / f"{split}.txt", list(SIZES))
    for seed, (image_id, size) in enumerate(SIZES.items()):
        image, mask = picture(seed, size, values=(1, 4, 5))
        save_image(voc / "JPEGImages" / f"{image_id}.jpg", image)
        save_mask(voc / "SegmentationClass" / f"{image_id}.png", mask)
    return VOC(voc, classes=VOC_CLASSES[1:6], train_split="train")


@pytest.mark.parametrize("name", OFFICIAL)
def test_presets_have_the_official_sizes(name, tmp_path):
    with initialize_config_module("segladder.conf", version_base="1.3"):
        preset = build.protocol(compose("train", [f"protocol={name}", "data=voc", f"data.root={tmp_path}"]))
    assert (preset.fit, preset.input_side, preset.score_at) == OFFICIAL[name]


def test_the_short_side_is_resized_and_the_aspect_kept():
    size = InputSize("short", 513)
    assert size.inner((375, 500)) == (513, 684) and size.inner((500, 375)) == (684, 513)
    assert size.inner((334, 500)) == (513, 767)  # 767.96: the official code cuts it off
    image = size.image(np.zeros((20, 30, 3), np.uint8))
    assert image.shape == (513, 769, 3) and size.mask(np.ones((20, 30), np.uint8)).shape == (513, 769)


@pytest.mark.parametrize(
    ("fit", "side", "shown"),
    [("square", 32, {(32, 32)}), ("short", 20, {(20, 30), (36, 20), (20, 20)}), ("native", None, set(SIZES.values()))],
)
@pytest.mark.parametrize("score_at", ["native", "input", "features"])
def test_answers_are_compared_where_the_protocol_says(source, fit, side, shown, score_at):
    chosen, method = ZeroShotProtocol(**FIELDS, fit=fit, input_side=side, score_at=score_at), Coarse()
    result = chosen.score(method, source)
    assert set(method.shown) == shown
    expected = torch.zeros(6, 6, dtype=torch.int64)
    for image_id in SIZES:
        image, mask = source.pair(image_id)
        height, width = InputSize(fit, side).inner(mask.shape)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        pixels = torch.from_numpy(small).permute(2, 0, 1)[None]
        scores = method.feature_scores(pixels) if score_at == "features" else method.predict(pixels)
        if score_at == "native":
            scores = torch.nn.functional.interpolate(scores, mask.shape, mode="bilinear")
        else:
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
            mask = cv2.resize(mask, tuple(scores.shape[:1:-1]), interpolation=cv2.INTER_NEAREST)
        expected += confusion_matrix(scores.argmax(1)[0], torch.from_numpy(mask), 6)
    assert np.array_equal(result.counts.total(), expected.numpy())


def test_a_method_without_a_feature_map_is_refused(source):
    method = Coarse()
    method.scores_features = False
    with pytest.raises(ConfigError, match="score_at=features: method=coarse has no scores of its feature map"):
        ZeroShotProtocol(**FIELDS, fit="native", input_side=None, score_at="features").score(method, source)


@pytest.mark.parametrize(
    "name", ["spnet", "transductive", "seen_classifier", "attribute", "variational", "zs3net", "cagnet"]
)
def test_every_zero_shot_method_scores_its_feature_map(name):
    """At stride 4 here, and what it predicts is that, enlarged."""
    vectors = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    seen = torch.tensor([True, True, True, True, False])
    method = build.method(configuration(name), 5, embeddings=vectors, seen=seen).eval()
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scores, large = method.feature_scores(images).float(), method.predict(images)
    assert method.scores_features and scores.shape == (1, 5, 16, 24)
    expected = torch.nn.functional.interpolate(scores, (64, 96), mode="bilinear")
    torch.testing.assert_close(large, expected, atol=2e-3, rtol=1e-5)
