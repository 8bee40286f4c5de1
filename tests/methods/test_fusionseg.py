"""FusionSeg: its two fusions by hand, what each stage takes and freezes, the tests of boxes, the chain from boxes."""

import json

import numpy as np
import pytest
import torch
from dummy_data import write_videos, write_voc
from omegaconf import OmegaConf
from small_methods import configuration

import segladder
from segladder.data.labels.kinds.boxes import Boxes
from segladder.data.sources.scene import Scene
from segladder.door.graph import write_graph
from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.methods.full.fusionseg import MaximumFusion, SumFusion
from segladder.runs import build
from segladder.stages import box_tests
from segladder.stages.box_tests import distance, overlap
from segladder.stages.pseudo_masks import PseudoMasks


def built(name, seed=0):
    return build.method(OmegaConf.merge(configuration(name), {"seed": seed}), num_classes=2)


def scores(seed):
    return torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(seed)) * 2


def redrawn(module):
    generator = torch.Generator().manual_seed(9)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return module


@torch.no_grad()
def test_the_papers_fusion_is_the_maximum_of_both_and_their_product():
    fusion, a, m = redrawn(MaximumFusion(2)), scores(1), scores(2)
    names = ("appearance", "motion", "appearance_of_both", "motion_of_both")
    (wa, ba), (wm, bm), (va, ca), (vm, cm) = (
        (fusion.get_submodule(name).weight[:, :, 0, 0].tolist(), fusion.get_submodule(name).bias.tolist())
        for name in names
    )

    def rectified(weight, bias, x, k):
        return max(0.0, bias[k] + sum(weight[k][j] * x[j] for j in range(2)))

    found = fusion(a, m)
    for b, y, x in np.ndindex(2, 4, 5):
        one, other = a[b, :, y, x].tolist(), m[b, :, y, x].tolist()
        for k in range(2):
            product = rectified(va, ca, one, k) * rectified(vm, cm, other, k)
            expected = max(rectified(wa, ba, one, k), rectified(wm, bm, other, k), product)
            assert found[b, k, y, x].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@torch.no_grad()
def test_untaught_the_product_is_that_of_scores_raised_by_a_tenth():
    fused = MaximumFusion(2)(torch.tensor([3.0, -2.0]).view(1, 2, 1, 1), torch.tensor([2.0, 0.5]).view(1, 2, 1, 1))
    assert fused.flatten().tolist() == pytest.approx([3.1 * 2.1, 0.5])


@torch.no_grad()
def test_the_codes_fusion_has_the_layers_of_its_models():
    fusion = SumFusion(2)
    shapes = {name: tuple(p.shape) for name, p in fusion.named_parameters() if p.ndim > 1}
    assert shapes == {  # conv1, conva, convm, conv2 of joint_davis_val/deploy.prototxt
        "both.weight": (4, 4, 3, 3),
        "appearance.weight": (4, 2, 3, 3),
        "motion.weight": (4, 2, 3, 3),
        "score.weight": (2, 4, 3, 3),
    }
    a, m = scores(1), scores(2)
    conv = torch.nn.functional.conv2d
    hidden = torch.zeros(2, 4, 4, 5)
    for layer, x in ((fusion.both, torch.cat([a, m], 1)), (fusion.appearance, a), (fusion.motion, m)):
        hidden += conv(x, layer.weight, layer.bias, padding=1).clamp(min=0)
    torch.testing.assert_close(fusion(a, m), conv(hidden, fusion.score.weight, fusion.score.bias, padding=1))


def test_stages_carry_what_they_were_taught_and_keep_it():
    appearance, motion, joint = (
        built(f"fusionseg{name}", seed) for seed, name in enumerate(("_appearance", "_motion", ""))
    )
    motion.inherit(appearance)
    joint.inherit(motion)
    for name, weight in appearance.network.state_dict().items():
        assert torch.equal(joint.appearance.state_dict()[name], weight)
    for name, weight in motion.motion.state_dict().items():
        assert torch.equal(joint.motion.state_dict()[name], weight)
    assert {n.split(".")[0] for n, p in motion.named_parameters() if p.requires_grad} == {"motion"}
    assert {n.split(".")[0] for n, p in joint.named_parameters() if p.requires_grad} == {"fusion"}
    assert not any(module.training for module in joint.train().motion.modules())
    for child, parent in ((joint, appearance), (motion, joint)):
        with pytest.raises(ConfigError, match=f"parent: method={child.name} builds on fusionseg_"):
            child.inherit(parent)


@torch.no_grad()
def test_each_stream_sees_its_own_picture_and_the_fusion_both():
    pixels = [torch.randint(0, 256, (1, 3, 32, 48), generator=torch.Generator().manual_seed(s)).byte() for s in (0, 1)]
    flows = [torch.rand(1, 2, 32, 48, generator=torch.Generator().manual_seed(s)) - 0.5 for s in (0, 1)]
    motion, joint = built("fusionseg_motion").eval(), built("fusionseg").eval()
    assert torch.equal(motion.predict(pixels[0], flows[0]), motion.predict(pixels[1], flows[0]))
    assert not torch.equal(motion.predict(pixels[0], flows[0]), motion.predict(pixels[0], flows[1]))
    assert not torch.equal(joint.predict(pixels[0], flows[0]), joint.predict(pixels[0], flows[1]))
    assert not torch.equal(joint.predict(pixels[0], flows[0]), joint.predict(pixels[1], flows[0]))


def test_the_stride_is_the_backbones():
    with pytest.raises(ConfigError, match=r"method.output_stride=8: the backbone's is 16"):
        build.method(OmegaConf.merge(configuration("fusionseg"), {"method": {"output_stride": 8}}), num_classes=2)


BOX = (slice(10, 30), slice(20, 60))  # 20 x 40


def test_a_box_and_the_box_around_its_answer_overlap():
    answer = np.zeros((64, 80), bool)
    assert overlap(answer, BOX) == 0
    answer[12, 20:50] = answer[12:27, 49] = True  # an L whose own box is 15 x 30
    answer[50:60] = True  # outside
    assert overlap(answer, BOX) == pytest.approx(15 * 30 / (20 * 40))


def test_motion_in_a_box_differs_from_that_around():
    flow = np.zeros((64, 80, 2), np.float32)
    assert distance(flow, [BOX]) == 0
    flow[BOX] = 1, 0  # red on white
    assert distance(flow, [BOX]) == pytest.approx(255 * 2**0.5, rel=1e-4)
    assert distance(flow, []) == distance(flow, [(slice(0, 64), slice(0, 80))]) == 0


class Film:
    """A source that knows how one image moves."""

    def __init__(self, flow):
        self.moves = flow

    def flow(self, image_id):
        return self.moves


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({}, True),
        ({"agreement": 0.5}, True),
        ({"agreement": 0.6}, False),
        ({"motion": 360}, True),
        ({"motion": 361}, False),
        ({"agreement": 0.6, "motion": 30}, False),
    ],
)
def test_an_answer_that_fails_a_test_teaches_nothing(settings, passes):
    mask = np.zeros((64, 80), np.uint8)
    mask[BOX] = 1
    flow = np.zeros((64, 80, 2), np.float32)
    flow[BOX] = 1, 0
    answer = np.zeros_like(mask)
    answer[12:27, 20:50] = 1
    found = box_tests.tested(answer, Scene("a", mask, lambda: mask), Film(flow), settings)
    assert np.array_equal(found, answer) if passes else (found == IGNORE).all()


@pytest.mark.parametrize("labels", [None, Boxes()])
def test_tests_ask_for_boxes(labels, tmp_path):
    settings = OmegaConf.create({"background": "constant", "agreement": 0.75, "motion": None})
    if labels is None:
        with pytest.raises(ConfigError, match=r"pseudo_masks.agreement: tests answers against boxes, but labels=none"):
            PseudoMasks(tmp_path, settings, ("a",))
    else:
        PseudoMasks(tmp_path, settings, ("a",), labels=labels)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    videos = write_videos(tmp_path_factory.mktemp("videos"))
    return [
        *("data=davis", f"data.root={videos}", "data.parts=2", "data.train_split=rest", "data.val_split=part"),
        *("protocol=davis2016_automatic", "protocol.bootstrap=20", "backbone.width=8", "loader.augment.crop=48"),
        *("loader.batch_size=2", "loader.workers=0", "trainer.steps=2", "trainer.panels=1", "trainer.progress=false"),
        *("logger=none", "fold=1"),
    ]


@pytest.fixture(scope="module")
def chain(segladder, words, tmp_path_factory):
    """Three stages, the first of which has boxes."""
    runs = tmp_path_factory.mktemp("runs")
    boxes = ["method=fusionseg_appearance", "labels=boxes", f"hydra.run.dir={runs / 'appearance'}"]
    motion = ["method=fusionseg_motion", f"parent={runs / 'appearance'}", f"hydra.run.dir={runs / 'motion'}"]
    joint = ["method=fusionseg", f"parent={runs / 'motion'}", f"hydra.run.dir={runs / 'joint'}"]
    tests = ["pseudo_masks.agreement=0.75", "pseudo_masks.motion=30"]
    for own in (boxes, [*motion, *tests], joint):
        assert segladder("train", *words, *own) == 0
    return runs


def record(folder):
    return json.loads((folder / "record.json").read_text())


def test_a_chain_from_boxes_says_what_each_stage_has_seen(chain):
    appearance, motion, joint = (record(chain / name) for name in ("appearance", "motion", "joint"))
    kinds = [each["label_access"]["kind"] for each in (appearance, motion, joint)]
    assert kinds == ["boxes", "boxes", "masks"] and motion["label_access"]["labels"] == "pseudo-masks"
    assert motion["label_access"]["seen"] == {"object": ["boxes"]}
    assert joint["label_access"]["seen"] == {"object": ["boxes", "masks"]}
    assert joint["lineage"] == ["fusionseg_appearance", "fusionseg_motion"]
    assert (joint["fold"], joint["protocol"]["fields"]["folds"]) == (1, 2)
    assert {row["class"] for row in joint["per_class"]} == {"dog"}  # bear and swan are trained on
    assert len(list((chain / "joint" / "panels").glob("*.png"))) == 4


def test_from_masks_motion_learns_from_masks(segladder, words, tmp_path):
    for number, own in enumerate(
        (["method=fusionseg_appearance"], ["method=fusionseg_motion", f"parent={tmp_path}/0"])
    ):
        assert segladder("train", *words, *own, f"hydra.run.dir={tmp_path}/{number}") == 0
    assert record(tmp_path / "1")["label_access"]["labels"] == "masks"
    assert not (tmp_path / "0" / "pseudo_masks").exists()


def test_what_does_not_fit_ends_in_one_line(segladder, chain, words, tmp_path, capsys):
    single = write_videos(tmp_path, {"cow": 1, "dog": 9})
    motion = ["method=fusionseg_motion", f"parent={chain / 'appearance'}"]
    (tmp_path / "out").mkdir()
    for number, (command, own, line) in enumerate(
        (
            ("train", [*words, "method=fusionseg"], "method=fusionseg builds on another run: give parent=RUN"),
            (
                "train",
                [*words, *motion, f"data.root={single}"],
                "cow/00000.jpg: cow/00000 is the only frame of its video",
            ),
            ("train", [*words, *motion, "fold=0"], "bear/00000"),  # the parent has learnt from them
            ("train", [*words, *motion, "pseudo_masks.agreement=2"], "pseudo_masks.agreement=2: expected"),
            ("evaluate", [f"run={chain / 'joint'}", "protocol=semantic"], "protocol=semantic shows single images, but"),
            (
                "predict",
                [f"run={chain / 'joint'}", f"images={write_voc(tmp_path) / 'JPEGImages'}", f"out={tmp_path / 'out'}"],
                "method=fusionseg reads the optical flow of videos",
            ),
        )
    ):
        place = [f"hydra.run.dir={tmp_path / str(number)}"] if command == "train" else []
        assert segladder(command, *own, *place) in (1, 2)  # faults of data, of settings
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and line in error, error


def test_an_image_alone_is_refused_from_python_too(chain, tmp_path):
    model = segladder.load(chain / "joint", "cpu")
    for refused in (lambda: model.predict(np.zeros((48, 64, 3), np.uint8)), lambda: write_graph(model, tmp_path / "x")):
        with pytest.raises(ConfigError, match="method=fusionseg reads the optical flow of videos, images alone show"):
            refused()
