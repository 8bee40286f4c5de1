"""In which arithmetic a run trains and answers: `strategy.precision`, `strategy.tf32`, `precision` of answers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.plugins.precision import Precision
from small_methods import configuration

from segladder.methods.base import evaluating
from segladder.methods.full.base import DenseMethod
from segladder.nets.answering import float32_products
from segladder.nets.bfloat16 import CpuBfloat16, has_bfloat16
from segladder.runs import build
from segladder.runs.class_scores import StoredScores
from segladder.runs.composition import composed
from segladder.runs.loading import trained_method

TINY = [
    *("data.train_size=24", "data.val_size=10", "data.size=64", "backbone.width=8", "loader.workers=0"),
    *("trainer.steps=3", "trainer.progress=false", "trainer.panels=0", "logger=none", "protocol.bootstrap=20"),
]


@pytest.fixture(scope="module")
def train(segladder):
    def train(folder, *words):
        assert segladder("train", *TINY, *words, f"hydra.run.dir={folder}") == 0
        return json.loads((folder / "record.json").read_text())

    return train


@pytest.fixture(scope="module")
def cam(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cam") / "run"
    train(folder, "method=cam", "protocol=cam_seeds", "protocol.scales=[1]")
    return folder


def allowed():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["auto", "32-true", "16-mixed"])
def test_auto_is_the_quick_precision_that_is_there(precision, monkeypatch):
    config = composed([f"strategy.precision={precision}"])
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(build, "has_bfloat16", lambda accelerator, native=native: native)
        assert build.precision(config) == (expected if precision == "auto" else precision)


def test_a_processor_says_whether_it_has_bfloat16():
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "avx" not in flags:
        pytest.skip("no list of this processor's instructions here")
    assert has_bfloat16("cpu") == ("avx512_bf16" in flags)


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 2, 8), (5, 1, 8), (3, 1, 8), (3, 2, 1), (5, 2, 4)])
def test_depthwise_convolutions_whose_gradients_are_slow_in_bfloat16_learn_in_float32(kernel, stride, groups):
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=groups)
    features = torch.randn(2, 8, 12, 12, requires_grad=True)
    expected = convolution(features)
    expected.square().mean().backward()
    exact, convolution.weight.grad = convolution.weight.grad, None
    with CpuBfloat16().forward_context():
        found = convolution(features.bfloat16())
        with torch.no_grad():
            assert convolution(features).dtype == torch.bfloat16  # answers take no gradients
    found.float().square().mean().backward()
    in_float32 = groups == 8 and (kernel, stride) != (3, 1)
    assert found.dtype == (torch.float32 if in_float32 else torch.bfloat16)
    torch.testing.assert_close(convolution.weight.grad, exact, atol=5e-3, rtol=5e-2)


def test_a_cpu_trains_in_bfloat16_of_that_kind(tmp_path):
    for precision, kind in (("bf16-mixed", CpuBfloat16), ("32-true", Precision)):
        config = composed([f"strategy.precision={precision}", "logger=none"])
        trainer = build.trainer(config, tmp_path, [], [])
        assert type(trainer.precision_plugin) is kind and trainer.precision == precision


@pytest.mark.parametrize("before", [(False, True), (False, False), (True, True)])
def test_tf32_is_as_asked_within_the_block_and_as_it_was_afterwards(before):
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    found = allowed()
    try:
        products.allow_tf32, convolutions.allow_tf32 = before
        for asked, named in ((True, "high"), (False, "highest")):
            with pytest.raises(KeyError), float32_products(asked):
                assert allowed() == (asked, asked)
                assert torch.get_float32_matmul_precision() == named  # Lightning asks so
                raise KeyError
            assert allowed() == before
        with float32_products(None):
            assert allowed() == before
    finally:
        products.allow_tf32, convolutions.allow_tf32 = found


def test_tf32_can_be_set_where_somebody_has_set_it_by_the_newer_names():
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("torch < 2.9 has one way")
    found = allowed()
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        with float32_products(False):
            assert allowed() == (False, False)
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = found


@pytest.mark.parametrize("tf32", [True, False])
def test_a_run_trains_and_answers_with_the_tf32_of_its_strategy_and_says_so(tf32, train, tmp_path, monkeypatch):
    seen = set()
    forward = DenseMethod.forward

    def watched(self, images):
        seen.add((self.training, *allowed()))
        return forward(self, images)

    monkeypatch.setattr(DenseMethod, "forward", watched)
    before = allowed()
    record = train(tmp_path / "run", f"strategy.tf32={tf32}")
    assert seen == {(True, tf32, tf32), (False, tf32, tf32)} and allowed() == before
    assert record["config"]["strategy"]["tf32"] is tf32
    seen.clear()
    method = trained_method(tmp_path / "run")
    with evaluating(method):
        method.predict(torch.zeros(1, 3, 32, 32))
    assert seen == {(False, tf32, tf32)}


def test_strategies_of_devices_choose_speed_and_those_of_the_cpu_exactness():
    for name, tf32, deterministic in (("cpu", False, "warn"), ("ddp_cpu", False, "warn"), ("gpu", True, False)):
        strategy = composed([f"strategy={name}"]).strategy
        assert (strategy.tf32, strategy.deterministic) == (tf32, deterministic)
    for name in ("ddp", "fsdp"):
        strategy = composed([f"strategy={name}"]).strategy
        assert (strategy.tf32, strategy.deterministic) == (True, False)


@pytest.mark.long
def test_a_compiled_network_answers_without_compiling_each_size():
    compiled = []

    def backend(graph, inputs):
        compiled.append([tuple(each.shape) for each in inputs if isinstance(each, torch.Tensor)])
        return graph.forward

    method = build.method(configuration("fcn8s"), 6)
    torch.nn.Module.compile(method, backend=backend)
    method.compiled = True
    with torch.no_grad():
        expected = method.eval().predict(torch.zeros(1, 3, 40, 40))
        assert compiled
        compiled.clear()
        with evaluating(method):
            for side in (40, 33, 47, 64):
                method.predict(torch.zeros(1, 3, side, side))
            found = method.predict(torch.zeros(1, 3, 40, 40))
    assert not compiled
    torch.testing.assert_close(found, expected)


def test_whoever_compiles_is_told_that_it_takes_a_while(train, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(DenseMethod, "compile", lambda self: None)
    train(tmp_path / "run", "strategy.compile=true", "trainer.steps=1")
    assert "strategy.compile=true: the first step compiles the network" in capsys.readouterr().out


def test_answers_in_bfloat16_are_scores_of_their_own(train, segladder, tmp_path):
    record = train(tmp_path / "run", "method=fcn8s", "protocol=semantic")
    words = ["evaluate", f"run={tmp_path / 'run'}", "progress=false", "panels=0"]
    assert segladder(*words) == 0 and segladder(*words, "precision=bf16-mixed") == 0
    found = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("run/evaluations/*/record.json")}
    name = f"semantic-{record['protocol']['hash']}"
    exact, quick = found[name], found[f"{name}-bf16-mixed"]
    assert exact["metrics"] == record["metrics"] and "precision" not in exact["protocol"]
    assert quick["protocol"]["precision"] == "bf16-mixed" and quick["id"].endswith("-bf16-mixed")
    assert quick["protocol"]["hash"] == record["protocol"]["hash"]
    assert quick["metrics"]["mIoU"]["value"] == pytest.approx(record["metrics"]["mIoU"]["value"], abs=0.02)


def test_the_table_tells_answers_of_two_precisions_apart(train, segladder, tmp_path, capsys):
    train(tmp_path / "runs" / "run")
    for precision in ("32-true", "bf16-mixed"):
        words = [f"run={tmp_path / 'runs' / 'run'}", f"precision={precision}", "progress=false", "panels=0"]
        assert segladder("evaluate", *words) == 0
    capsys.readouterr()
    assert segladder("leaderboard", f"runs={tmp_path / 'runs'}", "format=markdown") == 0
    assert "precision=bf16-mixed" in capsys.readouterr().out


def test_a_run_trained_in_bfloat16_alone_is_scored_as_whoever_scores_it_again(train, segladder, tmp_path):
    record = train(tmp_path / "run", "method=fcn8s", "strategy.precision=bf16-true")
    assert segladder("evaluate", f"run={tmp_path / 'run'}", "progress=false", "panels=0") == 0
    (again,) = (json.loads(path.read_text()) for path in tmp_path.glob("run/evaluations/*/record.json"))
    assert again["metrics"] == record["metrics"]


def test_a_fused_optimiser_clips(train, tmp_path):
    words = ["strategy.fused=true", "strategy.precision=bf16-mixed", "trainer.clip=1"]
    assert train(tmp_path / "run", "method=fcn8s", *words)["status"] == "finished"


def test_loading_a_run_draws_no_random_numbers(cam):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained_method(cam)
    assert torch.equal(torch.rand(3), expected)


def test_predictions_are_made_in_the_precision_asked_for(train, segladder, tmp_path):
    train(tmp_path / "run", "method=fcn8s")
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(images / "noise.png")
    found = []
    for precision in ("32-true", "bf16-mixed"):
        out = tmp_path / precision
        words = [f"run={tmp_path / 'run'}", f"images={images}", f"out={out}", "probabilities=true", "progress=false"]
        assert segladder("predict", *words, f"precision={precision}") == 0
        found.append(torch.from_numpy(np.load(next(out.glob("probabilities/*.npy")))).float())
    assert not torch.equal(*found)
    torch.testing.assert_close(*found, atol=0.05, rtol=0)


def test_class_scores_that_are_kept_are_in_float32_whoever_asks(cam, tmp_path):
    image, tags = torch.randint(0, 256, (1, 3, 48, 48), dtype=torch.uint8), torch.ones(1, 20)
    scores = StoredScores(cam, trained_method)
    expected = scores((), image, tags, (1.0,), False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scores((), image, tags, (1.0,), False), expected)
