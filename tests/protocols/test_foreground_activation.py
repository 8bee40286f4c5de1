"""Over- and under-activation of the foreground classes alone, as Puzzle-CAM's evaluation prints them."""

import numpy as np
import pytest
import torch
from dummy_data import write_voc
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from test_cam_seeds import Bright

from segladder.data.sources.voc import VOC
from segladder.metrics.overlap import summary

NAMES = ("over_activation_foreground", "under_activation_foreground")


def protocol(name, *overrides):
    with initialize_config_module("segladder.conf", version_base="1.3"):
        words = [f"protocol={name}", "data=voc", "data.classes=[cat,dog]", "protocol.bootstrap=20", *overrides]
        return instantiate(compose("train", words).protocol)


def published(confusion: np.ndarray) -> tuple[float, float]:
    """FP / (T + P - TP) and FN / (T + P - TP), class by class from 1 on."""
    over, under = [], []
    for k in range(1, len(confusion)):
        hits, true, painted = confusion[k, k], confusion[k].sum(), confusion[:, k].sum()
        over.append((painted - hits) / (true + painted - hits))
        under.append((true - hits) / (true + painted - hits))
    return sum(over) / len(over), sum(under) / len(under)


def test_the_background_is_left_out_of_the_mean_and_not_of_the_unions():
    confusion = torch.tensor([[50, 6, 4], [5, 20, 0], [3, 2, 10]])
    values = summary(confusion)
    assert [values[name] for name in NAMES] == pytest.approx(published(confusion.numpy()))
    assert values["over_activation_foreground"] == pytest.approx((8 / 33 + 4 / 19) / 2)
    assert values["over_activation_foreground"] != pytest.approx(values["over_activation"])


def test_an_absent_class_is_skipped_or_counts_as_nothing():
    confusion = torch.tensor([[50, 10, 0], [5, 20, 0], [0, 0, 0]])
    assert summary(confusion)["over_activation_foreground"] == pytest.approx(10 / 35)
    assert summary(confusion, "zero")["over_activation_foreground"] == pytest.approx(10 / 35 / 2)


@pytest.mark.parametrize("name", ["semantic", "voc2012", "cam_seeds"])
def test_dense_protocols_declare_them_and_lower_is_better(name):
    declared = {score.name: score for score in protocol(name).scores}
    assert [declared[n].better for n in NAMES] == ["lower", "lower"]
    assert "over_activation" in declared and "under_activation" in declared


def test_seeds_have_them_at_the_fixed_and_at_the_best_threshold(tmp_path):
    source = VOC(write_voc(tmp_path), classes=("cat", "dog"), train_split="train")
    result = protocol("cam_seeds", "protocol.scales=[1.0]").score(Bright(), source)
    found = [result.metrics[name]["value"] for name in NAMES]
    assert found == pytest.approx(published(result.counts.total())) and 0 < found[0] < 1
    best = max(result.curve, key=lambda row: row["mIoU"])
    assert [result.metrics[f"{name}_oracle"]["value"] for name in NAMES] == [best[name] for name in NAMES]
