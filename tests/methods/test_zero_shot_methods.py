"""Methods that name unseen classes by their semantic vectors: formulas, and what may not reach the weights."""

import math

import pytest
import torch
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.methods.zero_shot.attribute import AttributeNetwork, attribute_table, region_means
from segladder.methods.zero_shot.seen_classifier import SeenClassifier
from segladder.methods.zero_shot.spnet import SPNet
from segladder.methods.zero_shot.transductive import Transductive
from segladder.nets.dense_features import DenseFeatures
from segladder.nets.tiny import TinyBackbone

SEEN = torch.tensor([True, True, False, True, False])  # the background is labelled
WITHOUT_BACKGROUND = torch.tensor([False, True, False, True, False])
TABLE = torch.tensor([[0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]]) * 0.5**0.5
COMMON = {"name": "method", "supervision": "zero_shot", "trains": True, "optimizer": {}, "schedule": {}}
INDUCTIVE = (SeenClassifier, SPNet, AttributeNetwork)


def made(kind, seen=SEEN, embeddings=TABLE, **options):
    """A small method whose weights are always the same."""
    torch.manual_seed(0)
    features = DenseFeatures(TinyBackbone(width=4), 8, 4, 8)
    return kind(features=features, num_classes=len(seen), embeddings=embeddings, seen=seen, **options, **COMMON)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def batch(labels=(0, 1, 3, 255)):
    """Two images whose pixels have random labels in squares of eight."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.tensor(labels, dtype=torch.uint8)[torch.randint(len(labels), (2, 4, 4), generator=generator)]
    masks = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    images = torch.randn(2, 3, 32, 32, generator=generator)
    return {"image": images, "mask": masks, "inside": torch.ones(2, 32, 32, dtype=torch.bool)}


def gradients(method, **changes):
    method.zero_grad()
    losses = method.loss(batch(**changes))
    losses["loss"].backward()
    return losses["loss"].item(), {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("classes", [SEEN, WITHOUT_BACKGROUND, torch.ones(5, dtype=torch.bool)])
def test_cross_entropy_is_a_softmax_over_some_classes_alone(classes):
    logits, masks = draw(2, 5, 6, 7), batch(labels=(0, 1, 2, 3, 4, 255))["mask"][:, ::6, :28:4]
    terms = []
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(6), torch.arange(7)).tolist():
        label = int(masks[b, i, j])
        if label != 255 and classes[label]:
            total = sum(math.exp(logits[b, k, i, j]) for k in range(5) if classes[k])
            terms.append(-math.log(math.exp(logits[b, label, i, j]) / total))
    loss = made(SPNet).cross_entropy_among(classes, logits, masks)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


@pytest.mark.parametrize("kind", [*INDUCTIVE, Transductive])
def test_images_without_labels_send_back_finite_gradients(kind):
    loss, found = gradients(made(kind), labels=(255,))
    assert math.isfinite(loss) and all(g.isfinite().all() for g in found.values())
    assert (loss == 0) == (kind is not Transductive)


@pytest.mark.parametrize("kind", INDUCTIVE)
@pytest.mark.parametrize("seen", [SEEN, WITHOUT_BACKGROUND])
def test_vectors_of_unseen_classes_do_not_touch_inductive_training(kind, seen):
    scrambled = torch.where(seen[:, None], TABLE, torch.rand(5, 4))
    loss, found = gradients(made(kind, seen))
    other_loss, other = gradients(made(kind, seen, scrambled))
    assert loss == other_loss and all(torch.equal(found[name], other[name]) for name in found)


@pytest.mark.parametrize("kind", [SPNet, Transductive, AttributeNetwork])
def test_vectors_of_seen_classes_do_matter(kind):
    scrambled = torch.where(SEEN[:, None], torch.rand(5, 4), TABLE)
    assert gradients(made(kind))[0] != gradients(made(kind, embeddings=scrambled))[0]


def test_rows_of_unseen_classes_neither_learn_nor_win():
    method = made(SeenClassifier)
    _, found = gradients(method)
    learns = found["classifier.weight"].flatten(1).any(1)
    assert torch.equal(learns, SEEN) and torch.equal(found["classifier.bias"] != 0, SEEN)
    with torch.no_grad():
        method.classifier.bias[~SEEN] = 1000
        scores = method.eval().predict(torch.zeros(1, 3, 20, 24))
    assert set(scores.argmax(1).unique().tolist()) <= {0, 1, 3}
    assert (scores.softmax(1)[:, ~SEEN] == 0).all() and scores.isfinite().all()


@pytest.mark.parametrize("cosine", [False, True])
def test_spnet_compares_projected_features_with_the_vectors(cosine):
    method = made(SPNet, cosine=cosine, scale=10.0).eval()
    images = batch()["image"]
    places = method.projection(method.features(images))
    for b, i, j in ((0, 0, 0), (1, 3, 5)):
        place = places[b, :, i, j].double()
        expected = 10 * TABLE.double() @ (place / place.norm() if cosine else place)
        torch.testing.assert_close(method(images)[b, :, i, j].double(), expected, atol=1e-4, rtol=1e-4)


def test_masks_of_unseen_classes_count_where_all_compete():
    labels = (1, 2, 4)
    assert gradients(made(SPNet, softmax_over="seen"), labels=(2, 4))[0] == 0
    method = made(SPNet, WITHOUT_BACKGROUND, softmax_over="all")
    logits = F.interpolate(method(batch()["image"]), (32, 32), mode="bilinear")[:, 1:]  # never the background
    expected = F.cross_entropy(logits, batch(labels=labels)["mask"].long() - 1)
    assert gradients(method, labels=labels)[0] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("kind", [SPNet, Transductive])
@pytest.mark.parametrize("seen", [SEEN, WITHOUT_BACKGROUND])
def test_with_few_labels_all_classes_compete(kind, seen):
    few, all_compete = (made(kind, seen, **option) for option in ({"few_labels": True}, {"softmax_over": "all"}))
    losses = [gradients(method, labels=(1, 2, 3, 4, 255))[0] for method in (few, all_compete, made(kind, seen))]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(few.seen, seen)  # no unseen class counts as learnt


def test_few_labels_are_refused_where_they_would_be_ignored():
    with pytest.raises(ConfigError, match="pool: method=method does not learn from masks of unseen classes"):
        made(SeenClassifier, few_labels=True)


@pytest.mark.parametrize("seen", [SEEN, WITHOUT_BACKGROUND])
def test_seen_bias_is_what_the_softmax_gives_to_seen_classes(seen):
    method, logits = made(Transductive, seen), 20 * draw(2, 5, 6, 7)
    pixels = draw(2, 6, 7, seed=1) > 0
    candidates = range(0 if seen[0] else 1, 5)
    terms = []
    for b, i, j in pixels.nonzero().tolist():
        total = sum(math.exp(logits[b, k, i, j]) for k in candidates)
        terms.append(-math.log(sum(math.exp(logits[b, k, i, j]) for k in (2, 4)) / total))
    assert method.seen_bias(logits, pixels).item() == pytest.approx(sum(terms) / len(terms), rel=1e-9)
    assert method.seen_bias(logits, torch.zeros_like(pixels)) == 0
    assert method.seen_bias(1e4 * logits, pixels).isfinite()


def test_transductive_loss_weighs_pixels_without_and_with_labels():
    method, items = made(Transductive, target_weight=0.04, source_weight=0.16), batch()
    logits = F.interpolate(method(items["image"]), (32, 32), mode="bilinear")
    without, labelled = (method.seen_bias(logits, p) for p in (items["mask"] == 255, items["mask"] != 255))
    source = method.cross_entropy_among(SEEN, logits, items["mask"])
    expected = source + 0.04 * without + 0.16 * labelled
    assert method.loss(items)["loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_transductive_takes_nothing_from_padding():
    """What augmentation filled up is 255 and no pixel of an image: it has no say in the loss."""
    method, items = made(Transductive, target_weight=1.0), batch()
    inside = items["inside"].clone()
    inside[:, 24:] = False
    items["mask"][:, 24:] = 255
    cut = method.loss({**items, "inside": inside})
    logits = F.interpolate(method(items["image"]), (32, 32), mode="bilinear")
    target = method.seen_bias(logits[:, :, :24], items["mask"][:, :24] == 255)
    assert cut["target"].item() == pytest.approx(target.item(), rel=1e-5)
    assert cut["target"] != method.loss(items)["target"]
    assert method.loss({**items, "inside": torch.zeros_like(inside)})["target"] == 0


def test_batches_that_do_not_mark_padding_have_none():
    method, items = made(Transductive, target_weight=1.0), batch()
    expected = method.loss(items)
    del items["inside"]
    assert torch.equal(method.loss(items)["loss"], expected["loss"])


def test_transductive_training_makes_unseen_classes_likelier():
    method = made(Transductive, target_weight=1.0, cosine=True, scale=10.0)
    optimizer = torch.optim.Adam(method.parameters(), 1e-2)
    biases = []
    for _ in range(6):
        losses = method.loss(batch())
        optimizer.zero_grad(), losses["loss"].backward(), optimizer.step()
        biases.append(losses["target"].item())
    assert biases[-1] < 0.8 * biases[0]


def test_transductive_needs_unseen_classes():
    with pytest.raises(ConfigError, match="every class is seen"):
        made(Transductive, torch.ones(5, dtype=torch.bool))


def test_a_second_stage_starts_from_its_parents_network():
    parent, child = made(SPNet), made(Transductive)
    with torch.no_grad():
        for parameter in parent.parameters():
            parameter.add_(0.1)
    child.inherit(parent)
    theirs = dict(parent.named_parameters())
    assert all(torch.equal(p, theirs[name]) for name, p in child.named_parameters())
    child = made(SPNet)
    before = child.projection.weight.clone()
    child.inherit(made(SeenClassifier))
    assert torch.equal(child.projection.weight, before)
    with pytest.raises(ConfigError, match="vectors have 4 dimensions, those of this run 3"):
        made(SPNet, embeddings=TABLE[:, :3]).inherit(parent)


def test_spnet_names_new_combinations_of_seen_attributes():
    """Eight colours, each with or without red, green and blue; the three with one of them were never labelled."""
    holds = torch.cartesian_prod(*[torch.arange(2)] * 3)  # (8, 3)
    vectors = F.pad(torch.cat([holds, 1 - holds], 1), (0, 0, 1, 0)) / 3**0.5  # no background row
    seen = torch.tensor([False, *(holds.sum(1) != 1)])
    known, unknown = seen.nonzero()[:, 0], (~seen[1:]).nonzero()[:, 0] + 1
    method = made(SPNet, seen, vectors, cosine=True, scale=10.0)
    generator = torch.Generator().manual_seed(2)

    def images(labels):
        """Noisy images of one colour each."""
        colours = 2.0 * holds[labels - 1] - 1
        return colours[..., None, None] + 0.2 * torch.randn(len(labels), 3, 16, 16, generator=generator)

    optimizer = torch.optim.Adam(method.parameters(), 1e-2)
    for _ in range(25):
        labels = known[torch.randint(len(known), (12,), generator=generator)]
        loss = method.loss({"image": images(labels), "mask": labels[:, None, None].expand(-1, 16, 16)})["loss"]
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    with torch.no_grad():
        logits = method.eval()(images(unknown))[:, unknown]  # (3, 3, 4, 4)
    right = logits.argmax(1) == torch.arange(3)[:, None, None]
    assert right.double().mean() > 0.6  # by chance a third


def test_attributes_are_zeros_and_ones_whatever_the_normalisation():
    expected = (TABLE > 0).float()
    for scale in (1.0, 0.3):
        torch.testing.assert_close(attribute_table(TABLE * scale), expected)
    assert torch.equal(attribute_table(torch.tensor([[-1.0, 0.0, 3.0]])), torch.tensor([[0.0, 0.25, 1.0]]))


def test_means_of_regions_leave_other_places_alone():
    values, regions = draw(2, 3, 4, 5), torch.randint(-1, 3, (2, 4, 5), generator=torch.Generator().manual_seed(0))
    regions[1][regions[1] >= 0] += 3
    means = region_means(values, regions)
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(5)).tolist():
        same = regions[b] == regions[b, i, j]
        expected = values[b, :, i, j] if regions[b, i, j] < 0 else values[b][:, same].mean(1)
        torch.testing.assert_close(means[b, :, i, j], expected)
    assert torch.equal(region_means(values, torch.full_like(regions, -1)), values)


def test_attribute_losses_are_binary_cross_entropies_of_pixels_and_objects():
    method, items = made(AttributeNetwork, attribute_weight=0.5).eval(), batch()
    losses = method.loss(items)
    features, masks = method.features(items["image"]), items["mask"].long()
    large = F.interpolate(features, (32, 32), mode="bilinear").double()
    logits = F.interpolate(method.mask_branch(features), (32, 32), mode="bilinear")[:, 0].double()
    labelled = masks != 255
    chance = logits.sigmoid().where(masks > 0, 1 - logits.sigmoid())
    assert losses["foreground"].item() == pytest.approx(-chance[labelled].log().mean().item(), rel=1e-4)
    weight, bias = method.attribute_head.weight[:, :, 0, 0].double(), method.attribute_head.bias.double()
    terms = []
    for b in range(2):
        for k in set(masks[b].unique().tolist()) - {0, 255}:
            chance = (weight @ large[b][:, masks[b] == k].mean(1) + bias).sigmoid()
            terms.append(-torch.where(TABLE[k] > 0, chance, 1 - chance).log().mean())
    assert losses["attributes"].item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-4)
    expected = losses["foreground"] + 0.5 * losses["attributes"]
    assert losses["loss"].item() == pytest.approx(expected.item())


def test_nearest_by_probability_ranks_by_the_likelihood_of_a_rows_attributes():
    method, logits = made(AttributeNetwork, nearest="probability"), draw(1, 4, 3, 3)
    chance, table = logits.sigmoid(), (TABLE[1:] > 0).double()[:, :, None, None]
    likelihood = (table * chance.log() + (1 - table) * (1 - chance).log()).sum(1)  # (K - 1, 3, 3)
    difference = method.object_scores(logits)[0] - likelihood
    torch.testing.assert_close(difference, difference[:1].expand(4, -1, -1))


def test_each_connected_region_is_painted_with_one_class():
    """Two bars under one mask: each gets one class, both as one get one, places may differ."""
    bars = torch.full((2, 1, 8, 8), -5.0)
    bars[:, :, 1:3], bars[:, :, 5:7] = 5.0, 5.0
    upper, lower, between = slice(6, 10), slice(22, 26), slice(14, 18)  # rows of the image that no border blends
    found = {}
    for regions in ("connected", "image", "place"):
        method = made(AttributeNetwork, regions=regions).eval()
        method.mask_branch = Answer(bars)
        with torch.no_grad():
            method.attribute_head.weight.mul_(30)
            scores = method.predict(batch()["image"])
        assert (scores[:, :, upper].argmax(1) > 0).all() and (scores[:, :, lower].argmax(1) > 0).all()
        assert (scores[:, :, between].argmax(1) == 0).all()
        found[regions] = scores[:, 1:].argmax(1)
    for b in range(2):
        assert len(found["connected"][b, upper].unique()) == len(found["connected"][b, lower].unique()) == 1
        assert len(torch.cat([found["image"][b, upper], found["image"][b, lower]]).unique()) == 1
    assert any(len(found["place"][b, upper].unique()) > 1 for b in range(2))
    assert torch.equal(found["connected"][:, between], found["place"][:, between])


class Answer(torch.nn.Module):
    """The same map whatever the features."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, features):
        return self.answer


def test_without_labels_of_the_background_each_place_answers_for_itself():
    """The binary branch has seen nothing but objects then: one region would cover all images."""
    results = []
    for regions in ("connected", "place"):
        method = made(AttributeNetwork, WITHOUT_BACKGROUND, regions=regions).eval()
        with torch.no_grad():
            method.mask_branch.bias.fill_(10)
            results.append(method.predict(batch()["image"]))
    assert torch.equal(*results)
