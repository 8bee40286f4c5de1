"""Generative zero-shot methods: formulas against slow float64 references, and who may learn from what."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from small_methods import configuration
from torch import nn

from segladder.door.graph import write_graph
from segladder.door.model import Model
from segladder.errors import ConfigError
from segladder.methods.zero_shot import cagnet, zs3net
from segladder.methods.zero_shot.base import SemanticVectorMethod
from segladder.methods.zero_shot.cagnet import CaGNet
from segladder.methods.zero_shot.seen_classifier import SeenClassifier
from segladder.methods.zero_shot.variational import Variational
from segladder.methods.zero_shot.zs3net import ZS3Net
from segladder.nets.context import ContextModule
from segladder.nets.dense_features import DenseFeatures
from segladder.nets.generators import FeatureGenerator
from segladder.nets.tiny import TinyBackbone
from segladder.ops.gaussian import kl_to_standard_normal, reparametrized_sample
from segladder.ops.mmd import maximum_mean_discrepancy
from segladder.ops.regions import connected_regions, labels_at, region_graph

CLASSES, UNSEEN = 5, 4
SIGMAS = (2, 5, 10, 20, 40, 60)
SETTINGS = {
    ZS3Net: {
        "hidden_channels": 16,
        "noise_channels": 3,
        "dropout": 0.0,
        "sigmas": SIGMAS,
        "context": "none",
        "pixels_per_class": 20,
        "replaced": 0.5,
        "generated_weight": 1.0,
        "generator_share": 0.5,
    },
    CaGNet: {
        "hidden_channels": 16,
        "trunk_channels": 12,
        "synthetic": 40,
        "reconstruction_weight": 1.0,
        "adversarial_weight": 0.1,
        "kl_weight": 0.01,
        "synthetic_weight": 1.0,
        "generator_share": 0.5,
    },
    SeenClassifier: {},
    Variational: {"latent_channels": 6, "hidden_channels": 12, "beta": 0.5},
}
GENERATIVE = [ZS3Net, CaGNet]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def vectors(unseen_seed: int = 0) -> torch.Tensor:
    embeddings = draw(CLASSES, 6)
    embeddings[UNSEEN] = draw(6, seed=unseen_seed + 10)
    return embeddings


def made(kind: type, embeddings: torch.Tensor | None = None, seed: int = 0, **changes) -> SemanticVectorMethod:
    torch.manual_seed(seed)
    seen = torch.arange(CLASSES) != UNSEEN
    return kind(
        DenseFeatures(TinyBackbone(4), 8, 4, 8),
        embeddings=vectors() if embeddings is None else embeddings,
        **{"seen": seen, "num_classes": CLASSES, **SETTINGS[kind], **changes},
        name=kind.__name__.lower(),
        supervision="zero_shot",
        trains=True,
        optimizer={"name": "adamw", "lr": 0.01, "weight_decay": 0.0},
        schedule={"name": "constant"},
    ).train()


def batch() -> dict[str, torch.Tensor]:
    """Two images of 32 pixels, seen classes in quarters, an ignored band between them."""
    masks = torch.tensor([[0, 1], [2, 3]], dtype=torch.uint8).repeat_interleave(16, 0).repeat_interleave(16, 1)
    masks[14:18] = 255
    return {"image": draw(2, 3, 32, 32, seed=5), "mask": torch.stack([masks, masks.flip(1)])}


def losses(method: SemanticVectorMethod, seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return method.loss(batch())


def trained(method: SemanticVectorMethod, steps: int) -> SemanticVectorMethod:
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.03)
    for step in range(steps):
        optimizer.zero_grad()
        losses(method, seed=step)["loss"].backward()
        optimizer.step()
    return method


class TestGaussians:
    @settings(max_examples=20)
    @given(st.floats(-3, 3), st.floats(-3, 3))
    def test_kl_is_the_integral_of_the_log_ratio(self, mean, log_variance):
        normal = torch.distributions.Normal(
            torch.tensor(mean, dtype=torch.float64), torch.tensor(log_variance / 2, dtype=torch.float64).exp()
        )
        x = torch.linspace(-12, 12, 20001, dtype=torch.float64) * normal.scale + normal.loc
        standard = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
        integrand = normal.log_prob(x).exp() * (normal.log_prob(x) - standard.log_prob(x))
        expected = torch.trapezoid(integrand, x).item()
        parameters = (torch.tensor([[value]], dtype=torch.float64) for value in (mean, log_variance))
        assert kl_to_standard_normal(*parameters).item() == pytest.approx(expected, abs=1e-6)

    def test_kl_sums_channels_and_keeps_places(self):
        mean, log_variance = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
        kl = kl_to_standard_normal(mean, log_variance)
        m, v = mean[1, :, 2, 3].double(), log_variance[1, :, 2, 3].double()
        expected = sum(0.5 * (a * a + math.exp(b) - b - 1) for a, b in zip(m.tolist(), v.tolist(), strict=True))
        assert kl.shape == (2, 4, 5) and kl[1, 2, 3].item() == pytest.approx(expected, rel=1e-5)

    def test_samples_have_the_mean_and_the_variance(self):
        torch.manual_seed(0)
        samples = reparametrized_sample(torch.full((100_000,), 3.0), torch.full((100_000,), math.log(4.0)))
        assert samples.mean().item() == pytest.approx(3, abs=0.05) and samples.std().item() == pytest.approx(
            2, abs=0.05
        )


class TestRegions:
    @settings(max_examples=40)
    @given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
    def test_regions_are_those_of_scipy(self, height, width, seed):
        labels = torch.randint(0, 3, (2, height, width), generator=torch.Generator().manual_seed(seed))
        labels[labels == 2] = 255
        regions = connected_regions(labels)
        expected = torch.full_like(labels, -1)
        count = 0
        for image, numbers in zip(labels, expected, strict=True):
            for label in (0, 1):
                found, n = ndimage.label((image == label).numpy())
                found = torch.from_numpy(found).long()
                numbers[found > 0] = found[found > 0] - 1 + count
                count += n
        pairs = set(zip(regions.flatten().tolist(), expected.flatten().tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert {a for a, _ in pairs} - {-1} == set(range(count))

    def test_a_spiral_is_one_region(self):
        labels = torch.ones(1, 5, 5, dtype=torch.long)
        labels[0, 1, :4], labels[0, 3, 1:], labels[0, 2, 3] = 0, 0, 1
        regions = connected_regions(labels)
        assert regions.max() == 2 and len(regions[labels == 1].unique()) == 1

    def test_neighbours_are_normalised_as_in_a_graph_convolution(self):
        """0 | 1 | ignored | 2, and another image: a band of one place does not part neighbours, a picture does."""
        regions = torch.tensor([[[0, 1, 1, -1, 2]], [[3, 3, 3, 3, 3]]])
        linked = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
        degree = torch.diag(linked.sum(1) ** -0.5)
        torch.testing.assert_close(region_graph(regions), degree @ linked @ degree)

    def test_labels_are_the_nearest(self):
        masks = torch.tensor([[0, 0, 7, 7, 255, 255]] * 3, dtype=torch.uint8)[None]
        assert labels_at(masks, (1, 3)).tolist() == [[[0, 7, 255]]]


class TestZS3Net:
    def test_discrepancy_is_the_mean_over_classes(self):
        method, classes = made(ZS3Net), torch.tensor([1, 3, 1, 3, 3, 0])
        generated, real = draw(6, 8), draw(6, 8, seed=1)
        expected = [maximum_mean_discrepancy(generated[classes == k], real[classes == k], SIGMAS) for k in (0, 1, 3)]
        torch.testing.assert_close(method.discrepancy(generated, real, classes), sum(expected) / 3)

    def test_pixels_are_labelled_places_with_their_features(self):
        features, labels = draw(2, 8, 6, 6), torch.full((2, 6, 6), 255)
        labels[0, 2:, :3], labels[1, 0, 0] = 1, 3
        vectors, classes, propagation = made(ZS3Net, pixels_per_class=5).pixels(features, labels)
        assert propagation is None and classes.bincount().tolist() == [0, 5, 0, 1]
        torch.testing.assert_close(vectors[classes == 3], features[1, :, 0, 0][None])
        allowed = features[0, :, 2:, :3].flatten(1).T
        assert all((vector == allowed).all(1).any() for vector in vectors[classes == 1])
        assert len(vectors[classes == 1].unique(dim=0)) == 5

    def test_regions_have_the_mean_of_their_features(self):
        features, labels = draw(1, 8, 4, 6), torch.full((1, 4, 6), 255)
        labels[0, :, :2], labels[0, :2, 3:] = 2, 1
        vectors, classes, propagation = made(ZS3Net, context="graph").regions(features, labels)
        order = classes.argsort()
        means = torch.stack([features[0, :, :2, 3:].mean((1, 2)), features[0, :, :, :2].mean((1, 2))])
        torch.testing.assert_close(vectors[order], means)
        torch.testing.assert_close(propagation, torch.full((2, 2), 0.5))

    def test_a_graph_generator_is_two_graph_convolutions(self):
        generator = FeatureGenerator(4, 2, 7, 5, 0.5).eval().double()
        embeddings, codes = draw(3, 4).double(), draw(3, 2, seed=1).double()
        propagation = draw(3, 3, seed=2).double()
        inputs = torch.cat([embeddings, codes], 1)
        (w, b), (v, c) = ((layer.weight, layer.bias) for layer in (generator.first, generator.second))
        hidden = propagation @ (inputs @ w.T + b)
        expected = propagation @ (torch.where(hidden > 0, hidden, 0.2 * hidden) @ v.T + c)
        torch.testing.assert_close(generator(embeddings, codes, propagation), expected)
        torch.testing.assert_close(generator(embeddings, codes, torch.eye(3).double()), generator(embeddings, codes))

    def test_layouts_replace_objects_alone(self):
        method, classes = made(ZS3Net, replaced=1.0), torch.tensor([0, 1, 2, 3, 0])
        assert method.sampled_layout(classes).tolist() == [0, UNSEEN, UNSEEN, UNSEEN, 0]
        assert made(ZS3Net, replaced=0.0).sampled_layout(classes).tolist() == classes.tolist()

    @pytest.mark.parametrize("context", ["none", "graph"])
    def test_training_brings_generated_features_near_real_ones(self, context):
        method = made(ZS3Net, context=context)
        before = losses(method)["discrepancy"]
        assert losses(trained(method, 20))["discrepancy"] < 0.7 * before

    def test_the_classifier_of_the_parent_is_taken(self):
        parent = made(SeenClassifier)
        method = made(ZS3Net, seed=3)
        method.inherit(parent)
        features = draw(1, 8, 1, 1)
        torch.testing.assert_close(method.class_logits(features[..., 0, 0]), parent.classifier(features)[..., 0, 0])


class TestCaGNet:
    def test_codes_see_17_places_across(self):
        module = ContextModule(4).double()
        features = draw(1, 4, 25, 25).double().requires_grad_()
        module.scales[2](module.scales[1](module.scales[0](features)))[0, :, 12, 12].sum().backward()
        rows = features.grad.abs().sum((0, 1, 3)).nonzero()
        assert rows.min() == 12 - 8 and rows.max() == 12 + 8

    def test_codes_are_the_selected_scales_through_one_layer(self):
        module = ContextModule(4).double()
        features = draw(1, 4, 9, 9).double()
        first = module.scales[0](features).relu()
        second = module.scales[1](first).relu()
        third = module.scales[2](second).relu()
        logits = module.selector(torch.cat([first, second, third], 1))
        share = logits.exp() / logits.exp().sum(1, keepdim=True)
        weighted = torch.cat([context * share[:, s : s + 1] for s, context in enumerate((first, second, third))], 1)
        mean, log_variance = module(features)
        torch.testing.assert_close(torch.cat([mean, log_variance], 1), module.gaussian(weighted))

    def test_each_player_learns_from_its_own_loss(self):
        method = made(CaGNet)
        names = {"generator": "generator", "discriminator": "judge"}
        for loss, player in names.items():
            method.zero_grad()
            losses(method)[loss].backward()
            reached = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
            assert player in reached and not reached & (set(names.values()) - {player})

    def test_the_sum_is_weighted(self):
        method = made(CaGNet)
        parts = losses(method)
        weights = {"reconstruction": 1.0, "generator": 0.1, "discriminator": 0.1, "kl": 0.01}
        expected = parts["classification"] + parts["synthetic"] + sum(w * parts[key] for key, w in weights.items())
        torch.testing.assert_close(parts["loss"], expected)

    def test_training_reconstructs_features(self):
        method = made(CaGNet)
        before = losses(method)["reconstruction"]
        assert losses(trained(method, 20))["reconstruction"] < 0.7 * before


OFFICIAL = {"preset": "official"}


def number_of(classes: torch.Tensor) -> list[int]:
    return classes.bincount(minlength=CLASSES).tolist()


class TestOfficialZS3Net:
    """What the official code has besides the paper, written out."""

    def test_sizes_are_the_official_ones_and_the_record_says_so(self):
        method = made(ZS3Net, **OFFICIAL)
        assert method.generator.first.in_features == 6 + 300 and method.generator.first.out_features == 256
        assert method.resolved == {
            "hidden_channels": 256,
            "noise_channels": 300,
            "dropout": 0.5,
            "sigmas": [2, 5, 10, 20, 40, 80],
            "pixels_per_class": 128,
        }
        assert method.sigmas[-1] == 80 and method.generator.activation[1].p == 0.5
        assert made(ZS3Net).resolved["hidden_channels"] == 16

    @pytest.mark.parametrize("quirks", [{}, {"uniform_noise": True}])
    def test_noise_is_uniform_in_0_to_1_or_normal(self, quirks):
        method, seen = made(ZS3Net, quirks=quirks), []
        method.generator.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
        method.generate(torch.ones(2000, dtype=torch.long))
        (noise,) = seen
        assert bool(noise.min() >= 0 and noise.max() <= 1) == bool(quirks)
        assert noise.mean().item() == pytest.approx(0.5 if quirks else 0, abs=0.05)

    def test_the_classifier_starts_anew_between_0_and_1(self):
        method = made(ZS3Net, quirks={"new_classifier": True})
        before = method.classifier.weight.clone()
        method.inherit(made(SeenClassifier))
        assert torch.equal(method.classifier.weight, before)
        for parameter in method.classifier.parameters():
            assert parameter.min() >= 0 and parameter.max() <= 1

    def test_unseen_classes_weigh_a_hundred_seen_ones_in_one_mean(self):
        method, logits = made(ZS3Net, **OFFICIAL), draw(6, CLASSES).double()
        targets = torch.tensor([0, 1, UNSEEN, 3, 255, UNSEEN])
        total = weight = 0.0
        for row, target in zip(logits, targets.tolist(), strict=True):
            if target != 255:
                share = 100 if target == UNSEEN else 1
                total += share * -math.log(row.softmax(0)[target])
                weight += share
        assert method.weighted_loss(logits, targets).item() == pytest.approx(total / weight, rel=1e-5)
        assert method.weighted_loss(logits, torch.full((6,), 255)).item() == 0

    def test_the_weights_reach_the_loss_once_generated_features_do(self):
        part = losses(made(ZS3Net, **OFFICIAL))  # no trainer: every step is past the generator's
        plain = part["discrepancy"] + part["seen"] + part["generated"]
        assert part["loss"] != plain and part["loss"].isfinite()
        between = sorted([part["seen"].item(), part["generated"].item()])
        assert between[0] <= (part["loss"] - part["discrepancy"]).item() <= between[1]

    def test_the_generator_starts_xavier(self):
        generator = made(ZS3Net, quirks={"xavier_generator": True}).generator
        assert (generator.first.bias == 0.01).all() and (generator.second.bias == 0.01).all()
        bound = (6 / (generator.first.in_features + generator.first.out_features)) ** 0.5
        assert 0.8 * bound < generator.first.weight.abs().max() <= bound


class TestOfficialCaGNet:
    """What the official code has besides the paper, written out."""

    def test_the_generator_has_the_official_widths(self):
        method = made(CaGNet, **OFFICIAL)
        layers = [m for m in method.generator.modules() if isinstance(m, nn.Linear)]
        assert [layer.out_features for layer in layers] == [1024, 960, 864, 784, 720, 8]
        assert [m.p for m in method.generator.modules() if isinstance(m, nn.Dropout)] == [0.1, 0.1, 0.3, 0.5, 0.5]
        assert layers[0].in_features == 6 + 8
        assert method.judge.classifier.in_features == 1024

    def test_losses_have_the_official_weights(self):
        method = made(CaGNet, **OFFICIAL)
        weights = {"reconstruction": 50, "generator": 1, "discriminator": 1, "kl": 100, "synthetic": 0.125}
        assert method.weights == {"classification": 1.0, **weights}
        part = losses(method)
        expected = part["classification"] + sum(w * part[key] for key, w in weights.items())
        torch.testing.assert_close(part["loss"], expected)

    def test_the_selector_is_a_sigmoid(self):
        module = ContextModule(4, compete=False).double()
        features = draw(1, 4, 9, 9).double()
        contexts = [features]
        for scale in module.scales:
            contexts.append(scale(contexts[-1]).relu())
        scores = module.selector(torch.cat(contexts[1:], 1))
        share = 1 / (1 + (-scores.clamp_min(0)).exp())
        weighted = torch.cat([context * share[:, s : s + 1] for s, context in enumerate(contexts[1:])], 1)
        torch.testing.assert_close(torch.cat(module(features), 1), module.gaussian(weighted))
        assert not made(CaGNet, **OFFICIAL).context.compete and made(CaGNet).context.compete

    def test_generated_features_are_compared_by_the_discrepancy_of_each_class(self):
        method, classes = made(CaGNet, quirks={"discrepancy": True}), torch.tensor([1, 3, 1, 3, 3, 0])
        generated, real = draw(6, 8), draw(6, 8, seed=1)
        roots = []
        for k in (0, 1, 3):
            both = torch.cat([generated[classes == k], real[classes == k]]).double()
            n = len(both) // 2
            weights = torch.zeros(2 * n, 2).double()  # the official code's, as it sets them up
            weights[:n, 0] = weights[n:, 1] = 1 / n
            weights -= 1 / (2 * n)
            halves = (both[:, None] - both).square().sum(2) / 2
            roots.append(sum((weights @ weights.T * torch.exp(-halves / s)).sum() for s in SIGMAS).sqrt())
        found = method.reconstruction(generated, real, classes)
        assert found.item() == pytest.approx(float(sum(roots)) / 3, rel=1e-4)
        assert method.reconstruction(generated[:0], real[:0], classes[:0]) == 0

    def test_the_kl_is_a_mean_over_channels_and_labelled_places(self):
        method, mean, log_variance = made(CaGNet, quirks={"mean_kl": True}), draw(1, 8, 2, 2), draw(1, 8, 2, 2, seed=1)
        labelled = torch.tensor([[[True, False], [False, True]]])
        terms = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)
        expected = torch.cat([terms[0, :, 0, 0], terms[0, :, 1, 1]]).mean()
        torch.testing.assert_close(method.divergence(mean, log_variance, labelled), expected)

    def test_each_unseen_class_is_drawn_ten_times_as_often_as_each_seen_one(self):
        torch.manual_seed(0)
        drawn = number_of(made(CaGNet, **OFFICIAL).drawn_classes(28_000))
        assert drawn == pytest.approx([2000, 2000, 2000, 2000, 20_000], rel=0.1)
        halved = number_of(made(CaGNet).drawn_classes(28_000))
        assert sum(halved) == 40 and halved[UNSEEN] == 20

    def test_features_and_realness_are_between_0_and_1(self):
        method = made(CaGNet, **OFFICIAL)
        generated = method.generate(torch.tensor([1, UNSEEN]), draw(2, 8))
        assert generated.min() > 0 and generated.max() < 1
        pixels = method.pixel_features((draw(1, 3, 32, 32) * 50 + 128).clamp(0, 255))
        assert pixels.min() > 0 and pixels.max() < 1
        torch.testing.assert_close(method.distance(torch.tensor([0.0, 100.0]), 1), torch.tensor([0.5, 0.0]))

    def test_the_generator_s_losses_do_not_reach_the_context(self):
        for quirks, reached in (({"detached_codes": True}, False), ({}, True)):
            method = made(CaGNet, quirks=quirks)
            losses(method)["reconstruction"].backward()
            assert any(p.grad is not None for p in method.context.parameters()) == reached

    def test_the_trunk_is_rectified_and_dropped(self):
        trunk = made(CaGNet, **OFFICIAL).judge.trunk
        assert trunk[2].p == 0.5 and torch.equal(trunk[1](torch.tensor([-2.0, 3.0])), torch.tensor([0.0, 3.0]))


@pytest.mark.parametrize("kind", GENERATIVE)
def test_an_official_method_trains_and_predicts(kind):
    method = made(kind, **OFFICIAL)
    losses(method)["loss"].backward()
    reached = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.isfinite().all()}
    assert reached == {name for name, p in method.named_parameters() if p.requires_grad}
    scores = method.eval().predict(torch.zeros(1, 3, 32, 40))
    assert scores.shape == (1, CLASSES, 32, 40) and scores.isfinite().all()


@pytest.mark.parametrize("kind", GENERATIVE)
def test_labels_of_unseen_classes_teach_the_classifier(kind):
    """Pseudo-masks, or a few drawn masks, name an unseen class; no made-up feature does here."""
    made_up = {"generated_weight": 0.0} if kind is ZS3Net else {"synthetic_weight": 0.0}
    method, labelled = made(kind, few_labels=True, **made_up), batch()
    labelled["mask"][labelled["mask"] == 3] = UNSEEN
    colours = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 0], [0, 0, 2]])
    kept = labelled["mask"].where(labelled["mask"] != 255, 0)
    labelled["image"] = colours[kept.long()].movedim(-1, 1)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        method.loss(labelled)["loss"].backward()
        optimizer.step()
    raw = labelled["image"] * method.pixel_std + method.pixel_mean
    told = method.eval().predict(raw).argmax(1)[labelled["mask"] == UNSEEN]
    assert (told == UNSEEN).double().mean() > 0.8


@pytest.mark.long
@pytest.mark.parametrize("kind", GENERATIVE)
def test_a_generative_method_fits_into_a_graph(kind, tmp_path):
    """It has needed its parent to learn; its answers are its own."""
    pytest.importorskip("onnxscript")
    model = Model(made(kind).eval(), [f"class {k}" for k in range(CLASSES)])
    assert write_graph(model, tmp_path / "model.onnx") < 1e-3


@pytest.mark.parametrize("kind", GENERATIVE)
def test_unknown_quirks_are_named(kind):
    with pytest.raises(ConfigError, match=r"method\.quirks: no such switch loud; expected "):
        made(kind, quirks={"loud": True})


@pytest.mark.parametrize("name", ["zs3net", "cagnet"])
def test_yamls_name_every_quirk_of_the_preset_and_have_all_off(name):
    settings = configuration(name).method
    kind = {"zs3net": zs3net, "cagnet": cagnet}[name].Quirks
    assert dict(settings.quirks) == vars(kind()) and not any(settings.quirks.values())
    assert settings.preset == "default"


class TestVariational:
    def test_loss_is_cross_entropy_and_kl_written_out(self):
        method = made(Variational)
        part = losses(method)
        torch.manual_seed(1)
        features, masks = method.features(batch()["image"]), labels_at(batch()["mask"], (8, 8))
        mean, log_variance = method.gaussians(torch.arange(1, UNSEEN))
        samples = mean + torch.randn(2, 3, 6) * (log_variance / 2).exp()
        chances = method.mask_logits(features, samples).sigmoid().double().clamp(1e-9, 1 - 1e-9)
        terms = []
        for b, y, x in (masks != 255).nonzero().tolist():
            for c in range(3):
                chance = chances[b, c, y, x]
                terms.append(-(chance if masks[b, y, x] == c + 1 else 1 - chance).log())
        kl = kl_to_standard_normal(mean, log_variance).mean()
        torch.testing.assert_close(part["loss"].double(), torch.stack(terms).mean() + 0.5 * kl)

    def test_decoding_is_a_layer_on_feature_and_sample_side_by_side(self):
        method = made(Variational)
        features, samples = draw(2, 8, 3, 3), draw(2, 4, 6, seed=1)
        first = nn.Conv2d(8 + 6, 12, 1)
        first.weight.data = torch.cat([method.visual.weight, method.semantic.weight[..., None, None]], 1)
        first.bias.data = method.visual.bias.data
        tiled = samples[1, 2][:, None, None].expand(6, 3, 3)
        expected = method.decoder(first(torch.cat([features[1], tiled])[None]))[0, 0]
        torch.testing.assert_close(method.mask_logits(features, samples)[1, 2], expected)

    def test_prediction_uses_the_mean_and_gives_the_background_nothing(self):
        method = made(Variational).eval()
        pixels = (draw(1, 3, 32, 32) * 50 + 128).clamp(0, 255)
        scores = method.predict(pixels)
        assert torch.equal(scores, method.predict(pixels)) and not scores[:, 0].any() and scores[:, 1:].any()

    def test_unseen_vectors_do_not_reach_the_loss_but_the_scores(self):
        one, other = made(Variational, vectors(0)), made(Variational, vectors(1))
        assert losses(one)["loss"] == losses(other)["loss"]
        pixels = draw(1, 3, 32, 32)
        changed = (one.eval().predict(pixels) != other.eval().predict(pixels)).flatten(2).any(2)[0]
        assert changed.tolist() == [k == UNSEEN for k in range(CLASSES)]


@pytest.mark.parametrize("kind", GENERATIVE)
class TestGenerative:
    def test_the_visual_network_stays_as_it_is(self, kind):
        method = made(kind)
        before = {name: value.clone() for name, value in method.features.state_dict().items()}
        trained(method, 3)
        assert all(torch.equal(value, before[name]) for name, value in method.features.state_dict().items())
        assert not method.features.training and method.training

    def test_generated_features_teach_the_classifier_unseen_classes_and_not_the_generator(self, kind):
        method = made(kind)
        width = method.noise_channels if kind is ZS3Net else method.code_channels
        features = method.generator(vectors()[[UNSEEN] * 50], draw(50, width)).detach()
        before = method.class_logits(features).softmax(1)[:, UNSEEN]
        losses(method)["generated" if kind is ZS3Net else "synthetic"].backward()
        assert all(p.grad is None for p in method.generator.parameters())
        torch.optim.SGD(method.parameters(), lr=0.5).step()
        assert (method.class_logits(features).softmax(1)[:, UNSEEN] > before).all()

    def test_generated_features_wait_for_the_generator(self, kind):
        method = made(kind)
        method.generator_steps = 1  # the current step is 0
        method.zero_grad()
        losses(method)["loss"].backward()
        waiting = [p.grad.clone() for p in method.parameters() if p.requires_grad]
        other = made(kind, vectors(unseen_seed=1))
        other.generator_steps = 1
        losses(other)["loss"].backward()
        assert all(map(torch.equal, waiting, [p.grad for p in other.parameters() if p.requires_grad]))

    def test_unseen_vectors_steer_the_classifier(self, kind):
        one, other = made(kind, vectors(0)), made(kind, vectors(1))
        assert losses(one)["loss"] != losses(other)["loss"]

    def test_the_unlabelled_background_is_not_made_up(self, kind):
        method = made(kind, seen=torch.tensor([False, True, True, True, False]))
        assert method.unseen_classes.tolist() == [UNSEEN]

    def test_batches_without_labels_cost_nothing_on_pixels(self, kind):
        method, empty = made(kind), batch()
        empty["mask"] = torch.full_like(empty["mask"], 255)
        parts = method.loss(empty)
        parts["loss"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)
        assert parts["discrepancy" if kind is ZS3Net else "reconstruction"] == 0

    def test_a_parent_of_the_same_method_hands_on_everything_but_the_vectors(self, kind):
        parent, method = made(kind, vectors(1), seed=1), made(kind)
        method.inherit(parent)
        assert all(map(torch.equal, method.parameters(), parent.parameters()))
        assert torch.equal(method.embeddings, vectors(0))

    def test_a_parent_of_other_sizes_is_refused(self, kind):
        with pytest.raises(ConfigError, match="parent: its weights do not fit method="):
            made(kind).inherit(made(kind, hidden_channels=9))

    def test_no_unseen_class_is_refused(self, kind):
        with pytest.raises(ConfigError, match="every class is seen"):
            made(kind, seen=torch.ones(CLASSES, dtype=torch.bool))
