"""Random walks and CRFs over a parent's class scores, against dense float64 forms and on known pictures."""

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from small_methods import configuration
from torch import Tensor
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.methods.image_level.affinity_net import AffinityNet
from segladder.methods.image_level.base import Refinement
from segladder.methods.image_level.dense_crf import DenseCRF
from segladder.methods.image_level.irn import IRN
from segladder.nets.tiny import TinyBackbone
from segladder.ops.affinity import affinity_from_features
from segladder.ops.cam import background_power
from segladder.runs import build

CLASSES = 4
COMMON: dict[str, Any] = {
    "supervision": "image_level",
    "trains": True,
    "optimizer": {"name": "adamw", "lr": 1e-2, "weight_decay": 0.0},
    "schedule": {"name": "constant"},
}


def affinity_net(**changes: Any) -> AffinityNet:
    torch.manual_seed(0)
    settings = {"channels": [4, 6], "output_stride": 16, "stride": 4, "radius": 3, "alpha": 4, "beta": 2, "steps": 8}
    backbone = TinyBackbone(width=4)
    return AffinityNet(backbone, num_classes=CLASSES, name="affinity_net", **COMMON, **{**settings, **changes}).eval()


def irn(**changes: Any) -> IRN:
    torch.manual_seed(0)
    walk = {"radius": 4, "walk_radius": 3, "beta": 2, "steps": 8, "maximum": "image"}
    network = {"edge_channels": 4, "displacement_channels": 8, "output_stride": 16, "stride": 4}
    settings = {"train_backbone": True, "background_score": 0.25, **network, **walk, **changes}
    return IRN(TinyBackbone(width=4), num_classes=CLASSES, name="irn", **COMMON, **settings).eval()


def pixels(height: int, width: int) -> Tensor:
    drawn = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=drawn)


def labels(height: int, width: int) -> Tensor:
    """Masks of classes 0 to 2 with unknown places."""
    mask = torch.randint(0, 3, (2, height // 4 + 1, width // 4 + 1), generator=torch.Generator().manual_seed(2))
    mask[:, 0, 1] = 255
    return mask.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :height, :width].to(torch.uint8)


def class_scores(height: int, width: int) -> Tensor:
    """Scores (2, C, height, width) of which the second class' are 0: it is absent."""
    scores = torch.rand(2, CLASSES - 1, height, width, generator=torch.Generator().manual_seed(3))
    scores[:, 1] = 0
    return scores


TAGS = torch.tensor([[1.0, 0.0, 1.0]] * 2)


def pairs(height: int, width: int, radius: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """All pairs of places closer than the radius, each once."""
    places = [(y, x) for y in range(height) for x in range(width)]
    return [
        (a, b)
        for i, a in enumerate(places)
        for b in places[i + 1 :]
        if (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 < radius**2
    ]


def straight_way(a: tuple[int, int], b: tuple[int, int]) -> list[tuple[int, int]]:
    """Places of the bounding box of two places closer than 1 to the line through both."""
    (ay, ax), (by, bx) = a, b
    length = ((by - ay) ** 2 + (bx - ax) ** 2) ** 0.5
    rows, columns = (range(min(one), max(one) + 1) for one in ((ay, by), (ax, bx)))
    away = {(y, x): abs((by - ay) * (x - ax) - (bx - ax) * (y - ay)) / length for y in rows for x in columns}
    return [place for place, distance in away.items() if distance < 1]


def feature_affinity(features: Tensor, a: tuple[int, int], b: tuple[int, int]) -> Tensor:
    return (-(features[:, a[0], a[1]] - features[:, b[0], b[1]]).abs().mean()).exp()


def edge_affinity(edge: Tensor, a: tuple[int, int], b: tuple[int, int]) -> Tensor:
    return 1 - torch.stack([edge[place] for place in straight_way(a, b)]).max()


def slow_affinity_loss(affinities: dict, maps: Tensor) -> float:
    """Background / 4 + foreground / 4 + negative / 2 over the pairs {(image, a, b): affinity} of a batch."""
    losses: dict[str, list[float]] = {"background": [], "foreground": [], "negative": []}
    for (image, a, b), affinity in affinities.items():
        one, other = int(maps[image][a]), int(maps[image][b])
        if 255 in (one, other):
            continue
        kind = "negative" if one != other else "foreground" if one else "background"
        losses[kind].append(-float((1 - affinity if kind == "negative" else affinity).add(1e-5).log()))
    means = {kind: sum(values) / max(1, len(values)) for kind, values in losses.items()}
    return means["background"] / 4 + means["foreground"] / 4 + means["negative"] / 2


def dense_walk(scores: Tensor, affinities: dict, beta: float, steps: int) -> Tensor:
    """scores T^steps with the whole matrix T in float64."""
    height, width = scores.shape[-2:]
    matrix = torch.eye(height * width, dtype=torch.float64)
    for ((ay, ax), (by, bx)), affinity in affinities.items():
        one, other = ay * width + ax, by * width + bx
        matrix[one, other] = matrix[other, one] = affinity**beta
    transitions = matrix / matrix.sum(0)
    return (scores.double().flatten(1) @ torch.linalg.matrix_power(transitions, steps)).view_as(scores)


def affinity_features(method: AffinityNet, images: Tensor, size: tuple[int, int]) -> Tensor:
    return method.head(method.backbone(method.normalize(images)), size).detach().double()


@pytest.mark.parametrize("size", [(24, 28), (21, 30), (5, 7)])
def test_affinity_net_learns_the_papers_loss(size):
    method, images, mask = affinity_net(), pixels(*size), labels(*size)
    grid = -(-size[0] // 4), -(-size[1] // 4)
    features = affinity_features(method, images, grid)
    affinities = {(i, a, b): feature_affinity(features[i], a, b) for i in (0, 1) for a, b in pairs(*grid, 3)}
    rows, columns = (((torch.arange(n) + 0.5) * length / n).long() for n, length in zip(grid, size, strict=True))
    expected = slow_affinity_loss(affinities, mask[:, rows][:, :, columns])
    found = method.loss({"image": method.normalize(images), "mask": mask})["loss"]
    assert found.item() == pytest.approx(expected, abs=1e-4)


def test_affinity_net_walks_as_the_dense_form_does():
    method, images, scores = affinity_net(), pixels(21, 30), class_scores(12, 16)
    features = affinity_features(method, images, (6, 8))
    found = method.refine(images, scores, TAGS)
    for i in range(2):
        background = (1 - scores[i].max(0).values) ** 4
        evidence = F.avg_pool2d(torch.cat([background[None], scores[i]]), 2)
        affinities = {(a, b): feature_affinity(features[i], a, b) for a, b in pairs(6, 8, 3)}
        expected = dense_walk(evidence, affinities, beta=2, steps=8)
        torch.testing.assert_close(found[i].double(), expected, atol=1e-5, rtol=0)
        assert not found[i, 2].any()


def test_affinity_net_takes_the_background_its_parent_scores():
    method, images, scores = affinity_net(), pixels(24, 32), class_scores(12, 16)
    known = torch.cat([background_power(scores, 4)[:, None], scores], 1)
    torch.testing.assert_close(method.refine(images, known, TAGS), method.refine(images, scores, TAGS))


def mirrored_edges(method: IRN, images: Tensor) -> Tensor:
    def logits(batch: Tensor) -> Tensor:
        features = method.backbone(method.normalize(batch))
        return method.edge(features, (images.shape[-2] // 4, images.shape[-1] // 4)).detach().double()

    return ((logits(images) + logits(images.flip(-1)).flip(-1)) / 2).sigmoid()


def test_irn_learns_the_papers_losses():
    method, images, mask = irn(), pixels(24, 28), labels(24, 28)
    features = method.backbone(method.normalize(images))
    edges = method.edge(features, (6, 7)).detach().double().sigmoid()
    field = method.displacement(features, (6, 7)).detach().double()
    small = mask[:, 2::4, 2::4]
    affinities = {(i, a, b): edge_affinity(edges[i], a, b) for i in (0, 1) for a, b in pairs(6, 7, 4)}
    pointing, still = [], []
    for i, a, b in affinities:
        if small[i][a] == small[i][b] != 255:
            difference = field[i, :, a[0], a[1]] - field[i, :, b[0], b[1]]
            away = torch.tensor([b[0] - a[0], b[1] - a[1]])
            chosen, wanted = (pointing, away) if small[i][a] else (still, torch.zeros(2))
            chosen.append((difference - wanted).abs().mean().item())
    found = method.loss({"image": method.normalize(images), "mask": mask})
    displacement = (sum(pointing) / len(pointing) + sum(still) / len(still)) / 2
    assert found["affinity"].item() == pytest.approx(slow_affinity_loss(affinities, small), abs=1e-4)
    assert found["displacement"].item() == pytest.approx(displacement, abs=1e-4)
    assert found["loss"].item() == pytest.approx((found["affinity"] + found["displacement"]).item())


@pytest.mark.parametrize("maximum", ["image", "class"])
def test_irn_walks_as_the_dense_form_does(maximum):
    method, images, scores = irn(maximum=maximum), pixels(24, 32), class_scores(6, 8)
    edges = mirrored_edges(method, images)
    found = method.refine(images, scores, TAGS)
    for i in range(2):
        affinities = {(a, b): edge_affinity(edges[i], a, b) for a, b in pairs(6, 8, 3)}
        walked = dense_walk(scores[i] * (1 - edges[i]), affinities, beta=2, steps=8)
        greatest = walked.max() if maximum == "image" else walked.amax((1, 2), keepdim=True).clamp_min(1e-9)
        torch.testing.assert_close(found[i].double(), walked / greatest, atol=2e-5, rtol=0)
        assert not found[i, 1].any()


def test_irn_leaves_out_the_background_its_parent_scores():
    method, images, scores = irn(), pixels(24, 32), class_scores(12, 16)
    known = torch.cat([torch.full_like(scores[:, :1], 0.9), scores], 1)
    assert torch.equal(method.refine(images, known, TAGS), method.refine(images, scores, TAGS))


def test_each_loss_of_irn_reaches_its_branch_and_a_frozen_backbone_stays():
    method = irn(train_backbone=False).train()
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    losses = method.loss({"image": method.normalize(pixels(24, 28)), "mask": labels(24, 28)})
    edge = torch.autograd.grad(losses["affinity"], list(method.edge.parameters()), retain_graph=True)
    field = torch.autograd.grad(losses["displacement"], list(method.displacement.parameters()), retain_graph=True)
    assert all(gradient.any() for gradient in (*edge, *field))
    losses["loss"].backward()
    assert all(parameter.grad is None for parameter in method.backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())


def test_a_frozen_backbone_is_built_in_evaluation_mode():
    """Lightning leaves a network in the mode that it was built in."""
    config = OmegaConf.merge(configuration("irn"), {"method": {"train_backbone": False}})
    method = build.method(config, num_classes=CLASSES)
    assert method.training and not any(module.training for module in method.backbone.modules())


@pytest.mark.parametrize("make", [affinity_net, irn])
def test_labels_that_know_nothing_teach_nothing(make):
    method = make()
    mask = torch.full((2, 24, 28), 255, dtype=torch.uint8)
    assert method.loss({"image": method.normalize(pixels(24, 28)), "mask": mask})["loss"].item() == 0


@pytest.mark.parametrize("make", [affinity_net, irn])
def test_no_class_gives_no_score(make):
    method = make()
    refined = method.refine(pixels(24, 32), torch.zeros(2, CLASSES - 1, 6, 8), torch.zeros(2, CLASSES - 1))
    assert refined.isfinite().all() and not refined[:, -(CLASSES - 1) :].any()


def halves() -> tuple[Tensor, Tensor]:
    """Images (2, 3, 40, 40) dark on the left and bright on the right, with a little noise; masks with class 1 there."""
    mask = (torch.arange(40) >= 20).expand(2, 40, 40)
    noise = torch.randint(0, 20, (2, 3, 40, 40), generator=torch.Generator().manual_seed(4))
    return (60 + 130 * mask[:, None] + noise).to(torch.uint8), mask.to(torch.uint8)


def bump() -> Tensor:
    """Scores (2, C, 10, 10) of class 1, highest in the right half and spilling into the left."""
    rows, columns = torch.meshgrid(torch.arange(10) - 4, torch.arange(10) - 7, indexing="ij")
    scores = torch.zeros(2, CLASSES - 1, 10, 10)
    scores[:, 0] = (-(rows**2 + columns**2) / (2 * 2**2)).exp()
    return scores


def test_a_wall_of_edges_holds_the_walk_back(monkeypatch):
    method = irn(beta=10, steps=256)
    edges = torch.zeros(2, 10, 10)
    edges[:, :, 5] = 1
    monkeypatch.setattr(method, "edges", lambda images: edges)
    scores = bump()
    scores[:, :, :, :5] = 0
    refined = method.refine(halves()[0], scores, TAGS)[:, 0]
    assert refined[:, :, 6:].min() > 0.99 and refined[:, :, :6].max() < 1e-5


def test_distant_features_hold_the_walk_back(monkeypatch):
    method = affinity_net(alpha=16, beta=8, steps=256)
    features = 5.0 * (torch.arange(10) >= 5).float().expand(2, 4, 10, 10)
    monkeypatch.setattr(method, "affinities", lambda images: affinity_from_features(features, 3))
    refined = method.refine(halves()[0], bump(), TAGS)
    left, right = refined[..., :5], refined[..., 5:]
    assert (left.argmax(1) == 0).all() and (right.argmax(1) == 1).all()
    for half in (left, right):
        torch.testing.assert_close(half, half.mean((2, 3), keepdim=True).expand_as(half), atol=1e-2, rtol=0)


def learn(method: Refinement, images: Tensor, mask: Tensor) -> Refinement:
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    method.train()
    for _ in range(40):
        optimizer.zero_grad()
        method.loss({"image": method.normalize(images), "mask": mask})["loss"].backward()
        optimizer.step()
    return method.eval()


def test_affinity_net_learns_to_fill_the_object_up_to_its_border():
    images, mask = halves()
    method = learn(affinity_net(channels=[8, 8, 8], alpha=16, beta=8, steps=256), images, mask)
    answer = method.refine(images, bump(), TAGS).argmax(1)
    assert (answer == mask[:, 2::4, 2::4]).float().mean() > 0.9


def test_irn_learns_to_fill_the_object_up_to_its_border():
    images, mask = halves()
    method = learn(irn(beta=10, steps=32), images, mask)
    scores = bump()
    scores[:, :, :, :5] = 0
    refined = method.refine(images, scores, TAGS)[:, 0]
    assert refined[:, :, 6:].min() > 0.9 and refined[:, :, :4].max() < 0.4


def crf(**changes: Any) -> DenseCRF:
    appearance = {"bilateral_sxy": 20, "bilateral_srgb": 13, "bilateral_compat": 10}
    smoothness = {"gaussian_sxy": 1, "gaussian_compat": 3}
    background = {"background_score": 0.35, "background_power": None, "certainty": None}
    settings = {"iterations": 10, "backend": "exact", **appearance, **smoothness, **background, **changes}
    return DenseCRF(num_classes=CLASSES, name="dense_crf", **{**COMMON, "trains": False}, **settings)


@pytest.mark.parametrize("backend", ["exact", "torch"])
def test_crf_snaps_to_the_edge_of_a_colour(backend):
    images, mask = halves()
    rough = 0.6 * F.avg_pool2d(F.pad(mask[:, None].float(), (0, 8), value=1)[..., 8:], 4)  # starts 8 pixels too early
    scores = F.pad(rough, (0, 0, 0, 0, 0, CLASSES - 2))
    answer = crf(backend=backend).refine(images, scores, TAGS).argmax(1)
    before = crf(backend=backend, iterations=0).refine(images, scores, TAGS).argmax(1)
    assert (before == mask).float().mean() < 0.85
    assert (answer == mask).float().mean() > 0.98


@pytest.mark.parametrize("power", [None, 4])
def test_crf_starts_from_scores_over_their_sum(power):
    """No iteration gives back the probabilities; the second class is absent."""
    images, scores = pixels(12, 16), class_scores(12, 16)
    background = torch.full((2, 1, 12, 16), 0.35) if power is None else (1 - scores.amax(1, keepdim=True)) ** power
    evidence = torch.cat([background, scores], 1)
    found = crf(iterations=0, background_power=power).refine(images, scores, TAGS)
    torch.testing.assert_close(found, evidence / evidence.sum(1, keepdim=True), atol=1e-4, rtol=0)
    assert not found[:, 2].any()


def test_crf_may_start_from_labels_of_one_certainty():
    images, scores = pixels(12, 16), class_scores(12, 16)
    tags = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    found = crf(iterations=0, certainty=0.7).refine(images, scores, tags)
    best = torch.cat([torch.full_like(scores[:, :1], 0.35), scores], 1)[0].argmax(0)
    expected = torch.stack([torch.where(best == k, 0.7, 0.1) for k in range(CLASSES)])
    assert len(best.unique()) == CLASSES - 1  # one has no score
    torch.testing.assert_close(found[0], expected)
    assert (found[1, 0] == 1).all() and not found[1, 1:].any()  # an image without tags


def test_crf_takes_the_background_its_parent_scores_with_or_without_tags():
    images, scores = pixels(12, 16), class_scores(12, 16)
    known = torch.cat([torch.full_like(scores[:, :1], 0.35), scores], 1)
    expected = crf().refine(images, scores, TAGS)
    assert torch.equal(crf(background_score=0.9).refine(images, known, TAGS), expected)
    method = crf()
    method.parent = lambda *asked: known
    torch.testing.assert_close(method.predict(images), expected)


def test_crf_without_a_class_is_background():
    refined = crf().refine(pixels(12, 16), torch.zeros(2, CLASSES - 1, 3, 4), torch.zeros(2, CLASSES - 1))
    assert (refined[:, 0] == 1).all() and not refined[:, 1:].any()


def test_settings_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match=r"method\.channels: 5 levels, but the backbone has 4"):
        affinity_net(channels=[1, 2, 3, 4, 5])
    with pytest.raises(ConfigError, match=r"method\.output_stride=8: expected the backbone's, which is 16"):
        affinity_net(output_stride=8)
    with pytest.raises(ConfigError, match="backend=fast: expected auto"):
        crf(backend="fast")
    with pytest.raises(ConfigError, match=r"method\.trains=true: method=dense_crf has nothing to learn"):
        crf().loss({})
