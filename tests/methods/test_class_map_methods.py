"""CAM, Puzzle-CAM and SEAM against their formulas in float64; seeds against one image and one pass at a time."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from dummy_data import picture
from hydra import compose, initialize_config_module
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader

from segladder.errors import ConfigError
from segladder.methods.image_level.base import ClassMapMethod, rescaled
from segladder.methods.image_level.cam import CAM
from segladder.methods.image_level.puzzle_cam import PuzzleCAM
from segladder.methods.image_level.seam import SEAM
from segladder.nets.backbone import FeatureExtractor
from segladder.nets.tiny import TinyBackbone

TAGS = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0]])  # (B, C)
METHODS = [CAM, PuzzleCAM, SEAM]


class Pyramid(FeatureExtractor):
    """A backbone whose levels are the image at full, half and quarter size."""

    channels, strides, mean, std = [3, 3, 3], [1, 2, 4], (0, 0, 0), (1, 1, 1)

    def forward(self, images):
        return [images, *(F.avg_pool2d(images, factor, ceil_mode=True) for factor in (2, 4))]


def built(kind: type[CAM], backbone: FeatureExtractor | None = None, **changes) -> CAM:
    optimizer = {"name": "sgd", "lr": 0.1, "weight_decay": 1e-4, "momentum": 0.9}
    common = {
        "name": "cam",
        "supervision": "image_level",
        "trains": True,
        "optimizer": optimizer,
        "schedule": {"name": "constant"},
        "background_score": 0.3,
        "output_stride": None,
    }
    torch.manual_seed(0)
    return kind(**{"backbone": backbone or Pyramid(), "num_classes": 5, **common, **changes})


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pixels(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def trained_tiny(kind: type[CAM], **changes) -> CAM:
    """On a small network in evaluation mode whose statistics fit its input."""
    method = built(kind, TinyBackbone(4), **changes)
    with torch.no_grad():
        for _ in range(20):
            method.backbone(method.normalize(pixels(4, 3, 64, 96)))
    return method.eval()


def slow_maps(method: CAM, images: torch.Tensor) -> torch.Tensor:
    """Class maps of `Pyramid` in float64: weighted sums over the channels of the image at quarter size."""
    weights = method.classifier.weight.detach().double()[:, :, 0, 0]
    return torch.einsum("kc,bchw->bkhw", weights, F.avg_pool2d(images.double(), 4, ceil_mode=True))


def slow_soft_margin(maps: torch.Tensor, tags: torch.Tensor) -> float:
    terms = []
    for image_maps, image_tags in zip(maps, tags, strict=True):
        for class_map, tag in zip(image_maps, image_tags, strict=True):
            probability = 1 / (1 + torch.exp(-class_map.mean()))
            terms.append(-torch.log(probability if tag else 1 - probability))
    return float(sum(terms) / len(terms))


def slow_unit_range(maps: torch.Tensor) -> torch.Tensor:
    rows = []
    for row in maps.clamp_min(0).flatten(0, 1):
        rows.append((row - row.min() - 1e-5).clamp_min(0) / (row.max() - row.min() + 1e-5))
    return torch.stack(rows).view_as(maps)


def strongest_with_background(cams: torch.Tensor) -> torch.Tensor:
    """Written place by place: the background's rest, and the best class alone."""
    result = torch.zeros(len(cams), 1 + cams.shape[1], *cams.shape[2:], dtype=cams.dtype)
    for b, i, j in torch.cartesian_prod(*map(torch.arange, (len(cams), *cams.shape[2:]))):
        best = int(cams[b, :, i, j].argmax())
        result[b, 0, i, j] = 1 - cams[b, best, i, j]
        result[b, 1 + best, i, j] = cams[b, best, i, j]
    return result


def resized(maps: torch.Tensor, size) -> torch.Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def test_cam_learns_tags_from_averaged_maps():
    method, images = built(CAM), draw(3, 3, 16, 24)
    expected = slow_soft_margin(slow_maps(method, images), TAGS)
    assert method.loss({"image": images, "tags": TAGS})["loss"].item() == pytest.approx(expected, rel=1e-5)


def slow_merged_maps(method: CAM, images: torch.Tensor, side: int) -> torch.Tensor:
    """Class maps tile by tile, put side by side."""
    height, width = (length // side for length in images.shape[-2:])
    rows = []
    for i in range(side):
        tiles = [
            images[..., i * height : (i + 1) * height, j * width : (j + 1) * width].contiguous() for j in range(side)
        ]
        rows.append(torch.cat([slow_maps(method, t) for t in tiles], 3))
    return torch.cat(rows, 2)


def slow_reconstruction(full: torch.Tensor, merged: torch.Tensor, reduce: str) -> float:
    by_class = (full - merged).abs().mean((2, 3))  # (B, C)
    if reduce == "selection":
        return float(torch.stack([row[tags > 0].mean() for row, tags in zip(by_class, TAGS, strict=True)]).mean())
    return float((by_class if reduce == "none" else by_class * TAGS).mean())


@pytest.mark.parametrize("reduce", ["masked", "none", "selection"])
@pytest.mark.parametrize(("side", "size"), [(2, (16, 24)), (2, (20, 12)), (3, (18, 30)), (4, (24, 40))])
def test_puzzle_cam_compares_the_image_with_its_tiles(side, size, reduce):
    """Tiles whose sides are no multiple of the stride make maps of more cells than the image's."""
    method = built(PuzzleCAM, pieces=side**2, reduce=reduce, alpha=3.0)
    images = draw(3, 3, *size)
    full, merged = slow_maps(method, images), slow_merged_maps(method, images, side)
    expected = {
        "classification": slow_soft_margin(full, TAGS),
        "tile_classification": slow_soft_margin(merged, TAGS),
        "reconstruction": slow_reconstruction(full, resized(merged, full.shape[-2:]), reduce),
    }
    found = {key: value.item() for key, value in method.loss({"image": images, "tags": TAGS}).items()}
    expected["loss"] = sum(expected.values()) + 2 * expected["reconstruction"]
    assert found == pytest.approx({**expected, "alpha": 3.0}, rel=1e-4, abs=1e-6)


def test_entropy_of_tiles_is_added_on_request():
    method, images = built(PuzzleCAM, entropy=True, alpha=0.0), draw(3, 3, 16, 16)
    entropies = []
    for i, j in ((0, 0), (0, 8), (8, 0), (8, 8)):
        for logits in slow_maps(method, images[..., i : i + 8, j : j + 8]).mean((2, 3)):
            entropies.append(-sum(p * torch.log(p + 1e-5) for p in torch.sigmoid(logits)))
    losses = method.loss({"image": images, "tags": TAGS})
    assert losses["entropy"].item() == pytest.approx(float(sum(entropies)) / 12, rel=1e-4)
    parts = losses["classification"] + losses["tile_classification"] + losses["entropy"]
    torch.testing.assert_close(losses["loss"], parts)


def reconstruction_gradient(detach: str | None) -> torch.Tensor:
    method = built(PuzzleCAM, detach=detach)
    method.loss({"image": draw(3, 3, 20, 12), "tags": TAGS})["reconstruction"].backward()
    return method.classifier.weight.grad


def test_detaching_leaves_the_other_side_s_gradient():
    """The two sides' gradients, each without the other, sum to the whole."""
    without_full, without_tiles = reconstruction_gradient("full"), reconstruction_gradient("tiles")
    torch.testing.assert_close(without_full + without_tiles, reconstruction_gradient(None))
    assert without_full.any() and without_tiles.any()


@pytest.mark.parametrize("reduce", ["masked", "none", "selection"])
def test_alpha_weighs_the_same_for_any_number_of_classes(reduce):
    """Tag losses and reconstruction are means over classes: twice the same classes are the same losses."""
    few, many = (built(PuzzleCAM, num_classes=1 + n, reduce=reduce, alpha=4.0) for n in (4, 8))
    with torch.no_grad():
        many.classifier.weight.copy_(few.classifier.weight.repeat(2, 1, 1, 1))
    images = draw(3, 3, 20, 12)
    once = few.loss({"image": images, "tags": TAGS})
    twice = many.loss({"image": images, "tags": TAGS.repeat(1, 2)})
    assert once["reconstruction"] > 0
    assert {k: v.item() for k, v in twice.items()} == pytest.approx({k: v.item() for k, v in once.items()}, rel=1e-5)


@pytest.mark.parametrize("data", ["shapes", "voc", "voc_animals"])
def test_alpha_is_the_papers_whatever_the_data(data):
    with initialize_config_module("segladder.conf", version_base="1.3"):
        assert compose("train", ["method=puzzle_cam", f"data={data}"]).method.alpha == 4
        stages = compose("train", ["experiment=weak_voc_animals"]).stages
    assert list(stages.puzzle_cam) == ["method=puzzle_cam"]  # six classes, and no other weight


class Alphas(pl.Callback):
    """The weight of the reconstruction in each step; saves a resume point in the middle."""

    def __init__(self, path, steps):
        self.path, self.middle, self.seen = path, steps // 2, []

    def on_train_batch_end(self, trainer, pl_module, *rest):
        self.seen.append(trainer.callback_metrics["train/alpha"].item())
        if trainer.global_step == self.middle:
            trainer.save_checkpoint(self.path)


def fitted(method: CAM, steps: int, path, resume: bool = False) -> list[float]:
    """Alpha in each step of one epoch."""
    alphas = Alphas(path, steps)
    batches = [{"image": pixels(3, 3, 8, 8), "tags": TAGS}] * steps
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[alphas], **quiet)
    trainer.fit(method, DataLoader(batches, batch_size=None), ckpt_path=path if resume else None)
    return alphas.seen


def test_alpha_rises_over_the_ramp(tmp_path):
    method = built(PuzzleCAM, alpha=4.0, ramp=0.5)
    assert fitted(method, 8, tmp_path / "last.ckpt") == pytest.approx([0, 1, 2, 3, 4, 4, 4, 4])


@pytest.mark.filterwarnings("ignore:You're resuming")
def test_a_resumed_run_goes_on_up_the_ramp(tmp_path):
    whole, rest = (
        fitted(built(PuzzleCAM, alpha=4.0, ramp=1.0), 8, tmp_path / "last.ckpt", resume) for resume in (False, True)
    )
    assert rest == whole[4:] == pytest.approx([2.0, 2.5, 3.0, 3.5])


def test_without_a_ramp_alpha_is_whole_from_the_first_step(tmp_path):
    assert fitted(built(PuzzleCAM, alpha=2.0, ramp=0.0), 2, tmp_path / "last.ckpt") == [2.0, 2.0]


def slow_refined(method: SEAM, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """The pixel correlation module of `Pyramid` in float64, image by image and place by place."""
    reductions = [layer.weight.detach().double()[:, :, 0, 0] for layer in method.correlation.reductions]
    embedding = method.correlation.embedding.weight.detach().double()[:, :, 0, 0]
    levels = [images.double(), F.avg_pool2d(images.double(), 2, ceil_mode=True)]
    size = levels[1].shape[-2:]
    reduced = [torch.einsum("dc,bchw->bdhw", w, x).clamp_min(0) for w, x in zip(reductions, levels, strict=True)]
    looks = torch.cat([resized(x, size) for x in (levels[0], *reduced)], 1)
    features = torch.einsum("dc,bchw->bdhw", embedding, looks).flatten(2)
    positive = maps.clamp_min(0)
    cams = (positive - 1e-5).clamp_min(0) / (positive.amax((2, 3), keepdim=True) + 1e-5)
    evidence = resized(strongest_with_background(cams), size).flatten(2)
    result = torch.zeros_like(evidence)
    for image, (vectors, values) in enumerate(zip(features, evidence, strict=True)):
        vectors = vectors / (vectors.norm(dim=0) + 1e-5)
        for place in range(values.shape[1]):
            alike = torch.stack([(vectors[:, place] @ other).clamp_min(0) for other in vectors.T])
            result[image, :, place] = (values * alike).sum(1) / (alike.sum() + 1e-5)
    return result.unflatten(2, size)


def slow_hardest(differences: torch.Tensor, share: float) -> float:
    kept = [sorted(x.flatten().tolist(), reverse=True)[: int(share * x.numel())] for x in differences]
    return sum(map(sum, kept)) / sum(map(len, kept))


def slow_min_pooling(refined: torch.Tensor) -> float:
    present = refined[:, 1:] * TAGS[:, :, None, None]
    best = [sorted(x.amax(0).flatten().tolist()) for x in present]
    kept = [places[: len(places) // 4] for places in best]
    return sum(map(sum, kept)) / sum(map(len, kept))


def slow_seam_losses(method: SEAM, images: torch.Tensor) -> dict[str, float]:
    present = TAGS.double()[:, :, None, None]
    kept = torch.cat([torch.ones(3, 1, 1, 1), present], 1)
    size = [round(length * 0.5) for length in images.shape[-2:]]
    views = images.double(), resized(images.double(), size)
    maps = [slow_maps(method, view) for view in views]
    refined = [slow_refined(method, view, m) for view, m in zip(views, maps, strict=True)]
    first, second = (slow_unit_range(resized(m, size)) * present for m in maps)
    fine = [slow_unit_range(resized(r, size)) * kept for r in refined]
    losses = {
        "classification": sum(slow_soft_margin(m, TAGS) for m in maps) / 2,
        "min_pooling": sum(slow_min_pooling(r) for r in refined) / 2,
        "equivariance": float((first - second).abs().mean()),
        "cross": slow_hardest((strongest_with_background(second) - fine[0]).abs(), 0.2)
        + slow_hardest((strongest_with_background(first) - fine[1]).abs(), 0.2),
    }
    return {"loss": sum(losses.values()), **losses}


@pytest.mark.parametrize("size", [(16, 24), (18, 13)])
def test_seam_is_its_four_terms(size):
    method = built(SEAM, view_scale=0.5, correlation_channels=(4, 6), dropout=0.0)
    images = draw(3, 3, *size)
    found = {key: value.item() for key, value in method.loss({"image": images, "tags": TAGS}).items()}
    assert found == pytest.approx(slow_seam_losses(method, images), rel=1e-4)


def test_cross_regularisation_teaches_the_correlation_module_alone():
    method = built(SEAM, view_scale=0.5, correlation_channels=(4, 6), dropout=0.0)
    method.loss({"image": draw(3, 3, 16, 24), "tags": TAGS})["cross"].backward()
    assert method.classifier.weight.grad is None
    assert all(parameter.grad.any() for parameter in method.correlation.parameters())


def test_seam_s_seeds_are_made_of_refined_maps():
    method, images = trained_tiny(SEAM, correlation_channels=(4, 6)), pixels(2, 3, 33, 47)
    with torch.no_grad():
        maps, refined = method.raw_and_refined(method.normalize(images))
        assert torch.equal(method.score_maps(method.normalize(images)), refined[:, 1:])
        assert torch.equal(method.class_maps(method.normalize(images)), maps)


def slow_class_scores(method: ClassMapMethod, images, tags, scales) -> torch.Tensor:
    """One image, one scale and one direction a pass; maps brought to the grid of stride 4 and summed."""
    scores = []
    for image, present in zip(images.float(), tags, strict=True):
        grid = [-(-length // 4) for length in image.shape[-2:]]
        total = torch.zeros(len(present), *grid)
        for scale in scales:
            size = tuple(round(length * scale) for length in image.shape[-2:])
            scaled = image[None] if scale == 1 else rescaled(image[None], size)
            for mirror in (False, True):
                view = scaled.flip(-1) if mirror else scaled
                maps = method.score_maps(method.normalize(view)).clamp_min(0)
                total += resized(maps.flip(-1) if mirror else maps, grid)[0]
        lowest = [m.min() if isinstance(method, SEAM) else 0 for m in total]  # SEAM's official code alone subtracts it
        scaled = [
            (m - low - 1e-5).clamp_min(0) / (m.max() - low + 1e-5) * p
            for m, low, p in zip(total, lowest, present, strict=True)
        ]
        scores.append(torch.stack(scaled))
    return torch.stack(scores)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.5, 2])
def test_views_are_resized_as_by_the_official_codes(scale):
    image, _ = picture(3, (45, 61))
    size = round(45 * scale), round(61 * scale)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
    (found,) = rescaled(torch.from_numpy(image).permute(2, 0, 1)[None], size).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(found, found.round()) and found.min() >= 0 and found.max() <= 255
    far = np.abs(found - expected)  # PIL also rounds between rows and columns
    assert far.mean() < 0.3 and np.quantile(far, 0.99) <= 1


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("size", [(32, 48), (45, 61)])
@torch.no_grad()
def test_class_scores_are_those_of_one_image_and_one_pass(kind, size):
    method, images, scales = trained_tiny(kind), pixels(3, 3, *size), (0.5, 1.0, 1.5)
    found = method.class_scores(("a", "b", "c"), images, TAGS, scales, True)
    torch.testing.assert_close(found, slow_class_scores(method, images, TAGS, scales), atol=1e-4, rtol=0)
    assert (found.amax((2, 3)) > 0.99).sum() >= 3


@torch.no_grad()
def test_seam_s_seeds_begin_at_zero_where_a_map_is_least():
    """The PCM averages maps over alike places, so that a refined map is nowhere 0; CAM's maps are."""
    method, images = trained_tiny(SEAM, correlation_channels=(4, 6)), pixels(2, 3, 64, 96)
    tags = torch.ones(2, 4)
    refined = method.score_maps(method.normalize(images)).relu()  # (B, C, h, w)
    scores = method.class_scores((), images, tags, (1.0,), False)
    shown = refined.amax((2, 3)) > 1e-3
    assert shown.any() and (refined.amin((2, 3))[shown] > 1e-3).any()
    assert (scores.amin((2, 3))[shown] == 0).all() and (scores.amax((2, 3))[shown] > 0.99).all()


@pytest.mark.parametrize("kind", METHODS)
@torch.no_grad()
def test_classes_that_tags_leave_out_score_nothing(kind):
    scores = trained_tiny(kind).class_scores((), pixels(3, 3, 45, 61), TAGS, (1.0,), False)
    assert not scores[TAGS == 0].any()
    assert scores.min() >= 0 and scores.max() <= 1


@pytest.mark.parametrize("kind", METHODS)
@torch.no_grad()
def test_a_mirrored_image_has_mirrored_scores(kind):
    method, images = trained_tiny(kind), pixels(3, 3, 45, 61)
    upright = method.class_scores((), images, TAGS, (1.0, 0.5), True)
    mirrored = method.class_scores((), images.flip(-1), TAGS, (1.0, 0.5), True)
    torch.testing.assert_close(mirrored.flip(-1), upright, atol=1e-4, rtol=0)


@torch.no_grad()
def test_without_tags_the_network_says_which_classes_there_are():
    method, images = trained_tiny(CAM), pixels(3, 3, 45, 61)
    answer = method.tag_logits(method.normalize(images)) > 0
    assert answer.any() and not answer.all()
    expected = method.class_scores((), images, answer.float(), (1.0,), False)
    assert torch.equal(method.class_scores((), images, None, (1.0,), False), expected)


def test_official_preset_keeps_the_codes_optimiser():
    """Momentum is the decay's value; new layers 10x, biases 2x and without decay, norms as weights."""
    method = built(SEAM, TinyBackbone(4), preset="official", correlation_channels=(4, 6))
    assert method.optimizer_settings["momentum"] == 1e-4
    named = {id(p): name for name, p in method.named_parameters()}
    for group in method.parameter_groups():
        for name in (named[id(p)] for p in group["params"]):
            is_bias = name.endswith("bias")
            rate = 0.1 * (1 if name.startswith("backbone.") else 10) * (2 if is_bias else 1)
            assert (group["lr"], group["weight_decay"]) == pytest.approx((rate, 0 if is_bias else 1e-4)), name


ADAMW = {"name": "adamw", "lr": 0.1, "weight_decay": 1e-4}


@pytest.mark.parametrize(
    ("kind", "changes", "complaint"),
    [
        (CAM, {"output_stride": 8}, r"method.output_stride=8: .* which is 4"),
        (CAM, {"quirks": {"momentum": True}}, r"no such switch momentum; expected decay_is_momentum, layer_rates"),
        (CAM, {"preset": "official", "optimizer": ADAMW}, r"method.optimizer.name=adamw: .* expects sgd"),
        (PuzzleCAM, {"pieces": 6}, r"method.pieces=6: expected a square"),
        (PuzzleCAM, {"pieces": 1}, r"method.pieces=1: expected a square"),
    ],
)
def test_refused_settings_are_named(kind, changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        built(kind, **changes)


def test_seam_needs_three_levels():
    backbone = Pyramid()
    backbone.channels, backbone.strides = [3, 3], [2, 4]
    with pytest.raises(ConfigError, match="seam compares three levels, this one has 2"):
        built(SEAM, backbone)
