"""On CUDA a network answers in the plain memory format, whatever it is trained in; here the CPU plays the device."""

import json

import pytest
import torch
from small_methods import configuration, small_words
from torch import nn

from segladder.methods.base import evaluating
from segladder.nets import answering
from segladder.runs import build

TINY = [
    *("data.train_size=24", "data.val_size=10", "data.size=64", "loader.batch_size=4", "loader.workers=0"),
    *("trainer.steps=2", "trainer.progress=false", "trainer.panels=1", "logger=none", "protocol.bootstrap=20"),
    *("trainer.watch.every=1", "trainer.watch.pictures=1", "loader.held_out=0.3", "strategy.precision=32-true"),
]
EPISODES = ["data.train_size=160", "data.val_size=60", "protocol=strict", "protocol.min_object=none"]
CASES = {
    "fcn8s": ["protocol=semantic", "protocol.scales=[1,0.5]"],
    "sg_one": [*EPISODES, "protocol.episodes=6", "protocol.seeds=[0]", "protocol.beside=1"],
    "cam": ["protocol=cam_seeds", "protocol.scales=[1]"],
    "spnet": ["protocol=zero_shot"],
    "mask_rcnn": ["protocol=instance"],
}
QUICK = ("fcn8s",)


@pytest.fixture
def device(monkeypatch):
    """The CPU as a device on which networks answer in the plain format."""
    monkeypatch.setattr(answering, "wants_plain", lambda device: True)


@pytest.fixture
def seen(monkeypatch):
    """For each convolution that ran: whether its network was training, and the formats of its weights and input."""
    found = set()
    forward = nn.Conv2d.forward

    def watched(self, images):
        found.add((self.training, of(self.weight), of(images)))
        return forward(self, images)

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    return found


def of(tensor):
    """The format of a tensor, by the strides that cuDNN goes by; none where both are the same."""
    if tensor.shape[1] == 1 or (tensor.shape[2:] == (1, 1) and tensor.stride(1) == 1 == tensor.stride(3)):
        return "either"
    return "plain" if tensor.stride(3) == 1 and tensor.stride(1) == tensor.shape[2] * tensor.shape[3] else "last"


def built(name):
    return build.method(configuration(name), 6)


def strides(method):
    return {name: tensor.stride() for name, tensor in method.state_dict().items()}


@pytest.mark.parametrize("name", ["fcn8s", "deeplabv3plus", "sg_one", "puzzle_cam"])
def test_weights_are_plain_while_answering_and_afterwards_what_they_were_and_where(name, device):
    method = built(name).train()
    before, objects = strides(method), {key: id(each) for key, each in method.named_parameters()}
    values = {key: each.clone() for key, each in method.state_dict().items()}
    assert method.input_format == torch.channels_last
    with evaluating(method):
        plain = [each for each in method.state_dict().values() if each.ndim == 4]
        assert plain and all(each.stride() == answering.plain_strides(each) for each in plain)
        assert method.normalize(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).is_contiguous()
    assert strides(method) == before
    assert {key: id(each) for key, each in method.named_parameters()} == objects
    assert all(torch.equal(each, values[key]) for key, each in method.state_dict().items())


def test_an_error_or_inference_mode_brings_the_format_back_too(device):
    method = built("fcn8s").train()
    before = strides(method)
    with pytest.raises(KeyError), torch.inference_mode(), evaluating(method):
        raise KeyError
    assert strides(method) == before
    method.network(torch.zeros(1, 3, 32, 32)).sum().backward()  # weights still learn


def test_a_network_that_was_not_training_stays_plain(device):
    method = built("fcn8s").eval()
    with evaluating(method):
        after = strides(method)
    assert strides(method) == after
    assert method.input_format == torch.contiguous_format


def test_the_cpu_keeps_its_format_and_devices_do_not():
    assert answering.wants_plain(torch.device("cuda", 1)) and not answering.wants_plain(torch.device("cpu"))
    method = built("fcn8s").train()
    before = strides(method)
    with evaluating(method):
        assert strides(method) == before and method.input_format == torch.channels_last


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in CASES]
)
def test_a_run_trains_in_its_format_and_looks_scores_and_draws_in_the_plain_one(
    name, segladder, tmp_path, seen, monkeypatch
):
    words = ["train", *small_words(name), *TINY, *CASES[name]]
    assert segladder(*words, f"hydra.run.dir={tmp_path / 'cpu'}") == 0
    assert any(weights == "last" for training, weights, _ in seen if not training)
    seen.clear()
    monkeypatch.setattr(answering, "wants_plain", lambda device: True)
    assert segladder(*words, f"hydra.run.dir={tmp_path / 'device'}") == 0
    assert {training for training, *_ in seen} == {True, False}
    assert {weights for training, weights, _ in seen if training} <= {"last", "either"}
    assert {each for training, *both in seen if not training for each in both} <= {"plain", "either"}
    one, other = (torch.load(tmp_path / run / "weights.pt", weights_only=True) for run in ("cpu", "device"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    metrics = [json.loads((tmp_path / run / "record.json").read_text())["metrics"] for run in ("cpu", "device")]
    for key, score in metrics[0].items():
        assert metrics[1][key]["value"] == pytest.approx(score["value"], abs=2e-3, nan_ok=True), key
