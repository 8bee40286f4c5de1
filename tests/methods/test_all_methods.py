"""Every method of conf/method keeps the promises all methods make; a new yaml is tested without a new test."""

import math
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from small_methods import configuration

from segladder.configuration import choices
from segladder.errors import ConfigError
from segladder.methods.base import Method, evaluating
from segladder.methods.few_shot.base import FewShotMethod
from segladder.methods.image_level.base import LaterStage
from segladder.runs import build

METHODS = choices("method")
CLASSES = 5
SHOTS = 2
HEIGHT, WIDTH = 65, 97


def built(name: str, seed: int = 0) -> Method:
    config = OmegaConf.merge(configuration(name), {"seed": seed})
    known = {}
    if config.method.supervision == "zero_shot":
        vectors = torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(7))
        known = {"embeddings": vectors, "seen": torch.tensor([True, True, True, True, False])}
    method = build.method(config, num_classes=CLASSES, **known)
    if isinstance(method, LaterStage):
        method.parent = BrightParent()
    return method


class BrightParent:
    """What a parent might give: each class lights where the image is bright in one channel; and a network."""

    def __init__(self) -> None:
        self.method = built("cam").eval()

    def __call__(self, ids: Any, images: torch.Tensor, tags: Any, scales: Any, flip: bool) -> torch.Tensor:
        bright = images.float()[:, [0, 1, 2, 0]] / 255  # (B, C, H, W)
        scores = torch.nn.functional.avg_pool2d(bright, 4, ceil_mode=True)
        present = torch.tensor([1.0, 0.0, 1.0, 0.0]) if tags is None else tags
        return scores * present.view(-1, CLASSES - 1, 1, 1)


def draw(*shape: int, seed: int = 0, high: int = 256) -> torch.Tensor:
    return torch.randint(0, high, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def images(count: int = 2) -> torch.Tensor:
    return draw(count, 3, HEIGHT, WIDTH)


def flow() -> torch.Tensor:
    """How the pixels of the images move."""
    return draw(2, 2, HEIGHT, WIDTH, seed=3).float() / 180 - 0.7


def scores(method: Method, pixels: torch.Tensor) -> torch.Tensor:
    """Scores of images, for few-shot methods with two supports each."""
    if method.reads_flow:
        return method.predict(pixels, flow()[: len(pixels)])
    if not isinstance(method, FewShotMethod):
        return method.predict(pixels)
    masks = torch.zeros(2, SHOTS, HEIGHT, WIDTH)
    masks[0, :, :40, 30:], masks[1, :, 20:, :50] = 1, 1
    supports = draw(2, SHOTS, 3, HEIGHT, WIDTH, seed=1)
    return method.predict(pixels, supports[: len(pixels)], masks[: len(pixels)])


def training_batch(method: Method) -> dict[str, Any]:
    """What the method's supervision lets it see, images normalised as `loss` expects them."""
    if isinstance(method, FewShotMethod):
        masks = draw(2, 1 + SHOTS, 5, 7, seed=2, high=3).repeat_interleave(13, 2).repeat_interleave(14, 3)[..., :WIDTH]
        masks[masks == 2] = 255
        supports = draw(2, SHOTS, 3, HEIGHT, WIDTH, seed=1)
        episode = {"image": images(), "mask": masks[:, 0], "support_image": supports, "support_mask": masks[:, 1:]}
        episode |= {"support_inside": torch.ones(2, SHOTS, HEIGHT, WIDTH, dtype=torch.bool)}
        return method.normalized(episode)
    batch: dict[str, Any] = {"image": method.normalize(images()), "id": ["a", "b"]}
    if method.reads_flow:
        batch["flow"] = flow()
    if method.reads_objects:
        masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
        masks[0, 10:40, 10:40], masks[1, 20:60, 50:90] = True, True
        boxes = torch.tensor([[10.0, 10, 40, 40], [50, 20, 90, 60]])
        known = {"classes": torch.tensor([1, 3]), "outlined": torch.tensor([True, False])}
        return {**batch, "objects": [{"boxes": boxes, "masks": masks, **known}] * 2}
    if method.supervision == "image_level" and not isinstance(method, LaterStage):
        return {**batch, "tags": torch.eye(CLASSES - 1)[:2]}
    mask = torch.arange(CLASSES, dtype=torch.uint8).repeat_interleave(20)[:WIDTH].expand(2, HEIGHT, WIDTH).clone()
    mask[:, :4] = 255
    if method.supervision == "zero_shot":
        mask[mask == CLASSES - 1] = 255
    return {**batch, "mask": mask, "inside": torch.ones(2, HEIGHT, WIDTH, dtype=torch.bool)}


@pytest.mark.parametrize("name", METHODS)
def test_name_is_that_of_the_file(name):
    assert configuration(name).method.name == name


@pytest.mark.parametrize("name", METHODS)
def test_training_reaches_every_parameter_with_finite_gradients(name):
    method = built(name).train()
    if not method.trains:
        pytest.skip("does not train")
    trainable = {n: p for n, p in method.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trainable.values(), lr=0.01)
    reached = set()
    for _ in range(2):  # layers that start at zero let gradients through from the second step on
        optimizer.zero_grad()
        losses = method.loss(training_batch(method))
        assert all(math.isfinite(value.item()) for value in losses.values())
        losses["loss"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trainable.values())
        reached |= {n for n, p in trainable.items() if p.grad.any()}
        optimizer.step()
    assert reached == set(trainable)


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_trains_as_float32_does(name):
    method = built(name).train()
    if not method.trains:
        pytest.skip("does not train")
    torch.manual_seed(0)
    plain = method.loss(training_batch(method))["loss"].item()
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.loss(training_batch(method))["loss"]
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
    assert loss.item() == pytest.approx(plain, rel=0.1)


@pytest.mark.parametrize("name", METHODS)
def test_weights_in_bfloat16_train_or_are_refused(name):
    """As `strategy.precision=bf16-true` has them: weights, whatever is no whole number, and what is made on the way."""
    method = built(name).train().to(torch.bfloat16)
    if not method.trains:
        pytest.skip("does not train")
    whole = training_batch(method)
    batch = {k: v.bfloat16() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in whole.items()}
    torch.set_default_dtype(torch.bfloat16)
    try:
        if method.reads_objects:
            with pytest.raises(ConfigError, match=r"^strategy\.precision: method=.* choose bf16-mixed or 32-true"):
                method.loss(batch)
            return
        method.loss(batch)["loss"].backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_every_trainable_parameter_is_optimised_once(name):
    method = built(name)
    grouped = [id(p) for group in method.parameter_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", METHODS)
def test_scores_cover_images_of_odd_size_and_do_not_depend_on_the_batch(name):
    method = built(name).eval()
    with torch.no_grad():
        together = scores(method, images())
        alone = scores(method, images()[:1])
    classes = 2 if isinstance(method, FewShotMethod) else CLASSES
    assert together.shape == (2, classes, HEIGHT, WIDTH) and together.dtype == torch.float32
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_scores_in_bfloat16_are_float32_and_close(name):
    method = built(name).eval()
    with torch.no_grad():
        expected = scores(method, images())
        method.answers_in = "bf16-mixed"
        with evaluating(method):
            found = scores(method, images())
    assert found.dtype == torch.float32 and found.isfinite().all()
    assert ((found - expected).abs().mean() / expected.std().clamp_min(1e-3)) < 0.3  # tags may turn over


@pytest.mark.parametrize("name", METHODS)
def test_saved_weights_restore_the_scores(name, tmp_path):
    method, other = built(name).eval(), built(name, seed=1).eval()
    torch.save(method.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True), strict=True)
    with torch.no_grad():
        assert torch.equal(scores(other, images()), scores(method, images()))


@pytest.mark.parametrize("name", METHODS)
def test_compiling_in_place_keeps_the_names_of_weights(name):
    method = built(name)
    before = list(method.state_dict())
    method.compile()
    assert list(method.state_dict()) == before


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_draws_the_same_weights(name):
    first, second, other = (list(built(name, seed).state_dict().values()) for seed in (0, 0, 1))
    assert all(map(torch.equal, first, second))
    assert not first or not all(map(torch.equal, first, other))
