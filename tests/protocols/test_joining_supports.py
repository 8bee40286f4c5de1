"""How K supports become one answer: unequal images, and the ways that a method calls its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dummy_data import picture, save_image, save_mask, write_list
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import OmegaConf
from small_methods import configuration

from segladder.configuration import choices
from segladder.data.sources.items import Items
from segladder.data.sources.voc import VOC, VOC_CLASSES
from segladder.data.training.episodes import draw
from segladder.errors import ConfigError
from segladder.methods.few_shot.base import PREDICTION_AGGREGATES, STATE_AGGREGATES, FewShotMethod
from segladder.protocols.episode_runner import EpisodeRunner, InputSize, aggregated
from segladder.protocols.episodic import EpisodicProtocol
from segladder.protocols.feature_store import of_one_shape
from segladder.runs import build

pytestmark = pytest.mark.long

CLASSES = VOC_CLASSES[1:5]
FOLDS = [CLASSES[:2], CLASSES[2:]]
FEW_SHOT = [name for name in choices("method") if configuration(name).method.supervision == "few_shot"]
SIZES = [(64, 80), (48, 64), (80, 48)]
AGGREGATES = (*STATE_AGGREGATES, *PREDICTION_AGGREGATES)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> VOC:
    """Twelve images of two classes each, in three sizes."""
    voc = tmp_path_factory.mktemp("uneven") / "VOC2012"
    ids = [f"im{n:02d}" for n in range(12)]
    for n, image_id in enumerate(ids):
        image, mask = picture(n, SIZES[n % 3], values=(1 + n % 2, 3 + n % 2))
        save_image(voc / "JPEGImages" / f"{image_id}.jpg", image)
        save_mask(voc / "SegmentationClass" / f"{image_id}.png", mask)
    for split in ("train", "val"):
        write_list(voc / "ImageSets" / "Segmentation" / f"{split}.txt", ids)
    return VOC(voc, classes=CLASSES, folds=FOLDS)


def built(name: str) -> FewShotMethod:
    return build.method(OmegaConf.merge(configuration(name), {"seed": 0}), num_classes=len(CLASSES) + 1).eval()


def protocol(name: str, *overrides: str) -> EpisodicProtocol:
    folds = "data.folds=[" + ",".join(f"[{','.join(fold)}]" for fold in FOLDS) + "]"
    with initialize_config_module("segladder.conf", version_base="1.3"):
        return instantiate(compose("train", ["data=voc", f"protocol={name}", folds, *overrides]).protocol)


SHORT = (
    "protocol.min_object=none",
    "protocol.episodes=12",
    "protocol.seeds=[0]",
    "protocol.shots=2",
    "protocol.beside=0",
)


@pytest.mark.parametrize("name", FEW_SHOT)
@pytest.mark.parametrize("kind", ["strict", "hard"])
def test_supports_of_unequal_sizes_answer_as_one_by_one(uneven, name, kind):
    asked = protocol(kind, *SHORT, "protocol.bootstrap=5")
    method = built(name)
    together, alone = (asked.score(method, uneven, batch_size=size) for size in (8, 1))
    assert together.items == alone.items and len(together.counts) == 12
    difference = np.abs(together.counts.total() - alone.counts.total()).sum()
    assert difference <= 1e-3 * together.counts.total().sum()  # rounding at the threshold


def test_states_of_unequal_shapes_need_passes_of_their_own(uneven):
    episodes = draw(Items.read(uneven, uneven.split("val"), "none"), [1, 2], 1, 12, 0)
    runner = EpisodeRunner(built("nearest_neighbour"), uneven, InputSize("native", None), "mean", 12)
    with torch.inference_mode():
        runner.encode([i for e in episodes for i in (e.query, *e.supports)])
        states = [runner._state(e)[0] for e in episodes]
    groups = of_one_shape(states)
    assert len(groups) > 1 and sorted(place for group in groups for place in group) == list(range(12))
    for group in groups:
        assert len({tuple(part.shape for part in states[place]) for place in group}) == 1


@pytest.mark.parametrize("name", FEW_SHOT)
def test_every_way_that_a_method_calls_its_own_gives_answers(uneven, name):
    method = built(name)
    assert method.joins and set(method.joins) <= set(AGGREGATES)
    episodes = draw(Items.read(uneven, uneven.split("val"), "none"), [1, 2], 2, 4, 0)
    for aggregate in method.joins:
        runner = EpisodeRunner(method, uneven, InputSize("native", None), aggregate, 4)
        with torch.inference_mode():
            answers = list(runner.answers(episodes))
        assert len(answers) == 4 and all(np.isfinite(answer.probability).all() for answer in answers)


def test_a_way_that_is_not_the_methods_is_refused_before_training():
    asked, method = protocol("strict", "protocol.aggregate=area_mean"), built("nearest_neighbour")
    with pytest.raises(
        ConfigError, match=r"aggregate=area_mean of protocol=strict: method=nearest_neighbour.*mean, vote"
    ):
        asked.check_built(method)
    asked.check_built(built("prototype"))
    protocol("strict").check_built(method)


def test_area_changes_nothing_for_nearest_neighbours_and_something_for_prototypes(uneven):
    """Why `area_mean` is refused: it would be `mean` under another name."""
    episodes = draw(Items.read(uneven, uneven.split("val"), "none"), [1, 2], 2, 6, 0)
    decoded = {}
    for name in ("nearest_neighbour", "prototype"):
        method = built(name)
        runner = EpisodeRunner(method, uneven, InputSize("native", None), "mean", 1)
        with torch.inference_mode():
            runner.encode([i for e in episodes for i in (e.query, *e.supports)])
            for weights in ([[0.5, 0.5]], [[0.9, 0.1]]):
                for e in episodes:
                    states = [runner._support_state(i, e.class_index) for i in e.supports]
                    features = tuple(f[None] for f in runner.features.get(e.query))
                    state = method.combine(states, torch.tensor(weights))
                    decoded.setdefault((name, weights[0][0]), []).append(method.decode(features, state, (8, 8)))
    for equal, unequal in zip(decoded["nearest_neighbour", 0.5], decoded["nearest_neighbour", 0.9], strict=True):
        torch.testing.assert_close(equal, unequal)
    pairs = zip(decoded["prototype", 0.5], decoded["prototype", 0.9], strict=True)
    assert any((equal - unequal).abs().max() > 1e-3 for equal, unequal in pairs)


def test_the_papers_way_stands_first():
    assert built("oslsm").joins[0] == "or"
    assert {built(name).joins[0] for name in FEW_SHOT if name != "oslsm"} == {"mean"}


def test_a_mean_of_oslsms_classifiers_is_the_mean_of_their_logits(uneven):
    method = built("oslsm")
    episodes = draw(Items.read(uneven, uneven.split("val"), "none"), [1, 2], 3, 6, 0)
    answers = {}
    for aggregate in ("mean", "logit_mean"):
        runner = EpisodeRunner(method, uneven, InputSize("native", None), aggregate, 6)
        with torch.inference_mode():
            answers[aggregate] = [answer.probability for answer in runner.answers(episodes)]
    for one, other in zip(answers["mean"], answers["logit_mean"], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_relative_votes_against_the_most_of_the_image(shots):
    """HSNet: votes over the image's largest number of votes, at least one; half of that or more is the class."""
    random = np.random.default_rng(shots)
    for highest in (0.4, 0.6, 1.0):  # nobody votes, few agree, all may
        maps = (random.random((shots, 6, 7)) * highest).astype(np.float32)
        prediction, _ = aggregated(maps, "relative_vote")
        votes = [[sum(maps[k, y, x] > 0.5 for k in range(shots)) for x in range(7)] for y in range(6)]
        most = max(1, max(map(max, votes)))
        assert prediction.tolist() == [[v / most >= 0.5 for v in row] for row in votes]


def test_one_vote_of_five_decides_where_no_pixel_has_more_than_two():
    maps = np.full((5, 1, 3), 0.1, np.float32)
    maps[0, 0, 0] = maps[0, 0, 1] = maps[1, 0, 1] = 0.9  # votes 1, 2, 0
    assert aggregated(maps, "relative_vote")[0].tolist() == [[True, True, False]]
    assert aggregated(maps, "vote")[0].tolist() == [[False, False, False]]
